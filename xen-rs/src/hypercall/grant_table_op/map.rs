//! `GNTTABOP_map_grant_ref`: another domain's page into the caller's page tables.

use alloc::sync::Arc;

use logic::{
    grant::{Access, Mapped, Purpose, Refusal, Via},
    page::{Frame, Kind, Locked, Mapping, MappingBits, Slot},
};
use machine::mem::{frame_table::frames, heap, pv_pte};
use xen_abi::{
    grant_table::{
        self as abi, GNTMAP_APPLICATION_MAP, GNTMAP_CONTAINS_PTE, GNTMAP_DEVICE_MAP, GNTMAP_GUEST_AVAIL0,
        GNTMAP_HOST_MAP, GNTMAP_READONLY,
    },
    ids::{DomId, Mfn},
};

use super::Peer;
use crate::{
    cpu::Context,
    domain::Domain,
    grant::granted_frame,
    memory::{self, Mm},
};

/// One mapping.
pub(super) fn map_grant_ref(cx: &mut Context<'_>, arg: &mut abi::GnttabMapGrantRef) {
    let result = map(cx, arg);
    arg.status = logic::grant::status(&result);
}

fn map(cx: &mut Context<'_>, arg: &mut abi::GnttabMapGrantRef) -> Result<(), Refusal> {
    let via = Via { host: arg.flags & GNTMAP_HOST_MAP != 0, device: arg.flags & GNTMAP_DEVICE_MAP != 0 };
    if !via.any() {
        return Err(Refusal::BadGntref);
    }
    let granter = Peer::find(cx, arg.dom).ok_or(Refusal::BadDomain)?;
    let access = if arg.flags & GNTMAP_READONLY == 0 { Access::Write } else { Access::Read };
    let handle = loop {
        let reserved = cx.domain.grants.maptrack.lock(&mut cx.held).0.reserve();
        match reserved {
            Ok(handle) => break handle,
            Err(_) => make_handles(cx)?,
        }
    };
    let mapped = pin_and_map(cx, arg, &granter, access, via);
    let (mut track, _held) = cx.domain.grants.maptrack.lock(&mut cx.held);
    match mapped {
        Ok(mapped) => {
            arg.dev_bus_addr = mapped.frame.0 << 12;
            arg.handle = track.commit(handle, mapped);
            Ok(())
        }
        Err(refusal) => {
            track.cancel(handle);
            Err(refusal)
        }
    }
}

/// More handles, unless the hypervisor's memory is low: it must not run dry by what guests ask for.
#[cold]
fn make_handles(cx: &mut Context<'_>) -> Result<(), Refusal> {
    memory::feed_heap(&mut cx.held);
    if heap::is_low() {
        return Err(Refusal::NoSpace);
    }
    cx.domain.grants.maptrack.lock(&mut cx.held).0.grow()
}

fn pin_and_map(
    cx: &mut Context<'_>,
    arg: &abi::GnttabMapGrantRef,
    granter: &Arc<Domain>,
    access: Access,
    via: Via,
) -> Result<Mapped, Refusal> {
    let caller = cx.domain.id;
    let (pinned, table) = {
        let (mut table, _held) = granter.grants.table.lock(&mut cx.held);
        let pinned = table.pin(arg.ref_, caller, access, via, Purpose::Map, |gfn| granted_frame(granter, gfn))?;
        (pinned, table.id())
    };
    let by_entry = arg.flags & GNTMAP_CONTAINS_PTE != 0;
    let mut mm = memory::mmu_with(cx.held.again(), cx.domain, granter, &mut cx.state.paging.deferred);
    let result = enter(&mut mm, arg, pinned.frame, granter.id, caller, access, via);
    if result.is_err() {
        // What is passed on is never mapped.
        let _ = granter.grants.table.lock(&mut cx.held).0.unpin(arg.ref_, access, via);
    }
    result?;
    Ok(Mapped { granter: granter.id, table, gref: arg.ref_, frame: pinned.frame, access, via, by_entry })
}

/// Takes the references and writes the entry.
fn enter(
    mm: &mut Mm<'_>,
    arg: &abi::GnttabMapGrantRef,
    frame: Mfn,
    owner: DomId,
    caller: DomId,
    access: Access,
    via: Via,
) -> Result<(), Refusal> {
    let writable = access == Access::Write;
    let device = if via.device { Some(hold(mm, frame, owner, writable, caller)?) } else { None };
    if via.host
        && let Err(refusal) = enter_host(mm, arg, frame, owner, writable, caller)
    {
        if let Some(mapping) = device {
            mm.drop_mapping(mapping);
        }
        return Err(refusal);
    }
    if let Some(mapping) = device {
        mm.leave_mapping(mapping);
    }
    Ok(())
}

fn hold(mm: &mut Mm<'_>, frame: Mfn, owner: DomId, writable: bool, mapper: DomId) -> Result<Mapping<'static>, Refusal> {
    // Not to be had: the page is a table, or no longer its granter's.
    mm.hold_mapping(frame, owner, writable, mapper).map_err(|_| Refusal::GeneralError)
}

fn enter_host(
    mm: &mut Mm<'_>,
    arg: &abi::GnttabMapGrantRef,
    frame: Mfn,
    owner: DomId,
    writable: bool,
    caller: DomId,
) -> Result<(), Refusal> {
    let mapping = hold(mm, frame, owner, writable, caller)?;
    let bits = MappingBits {
        user: arg.flags & GNTMAP_APPLICATION_MAP != 0,
        available: (arg.flags >> GNTMAP_GUEST_AVAIL0 & 7) as u8,
    };
    let place = Place::find(arg.host_addr, arg.flags & GNTMAP_CONTAINS_PTE != 0);
    let refused = match place.and_then(|place| place.lock(mm, caller).map(|locked| (place, locked))) {
        Ok((place, locked)) => match mm.place_mapping(&locked, place.slot, mapping, bits, caller) {
            Ok(()) => return Ok(()),
            Err(mapping) => (mapping, Refusal::GeneralError),
        },
        Err(refusal) => (mapping, refusal),
    };
    let (mapping, refusal) = refused;
    mm.drop_mapping(mapping);
    Err(refusal)
}

/// Where the entry of a mapping is.
#[derive(Clone, Copy)]
pub(super) struct Place {
    table: Frame<'static>,
    pub(super) slot: Slot,
}

impl Place {
    /// The entry at a machine address, or the one that translates a virtual address now.
    pub(super) fn find(address: u64, by_entry: bool) -> Result<Self, Refusal> {
        if by_entry {
            if !address.is_multiple_of(8) {
                return Err(Refusal::GeneralError);
            }
            let table = frames().ram(Mfn(address >> 12)).ok_or(Refusal::GeneralError)?;
            return Ok(Self { table, slot: Slot::of_address(address) });
        }
        let (table, slot, _) = pv_pte::walk(address).ok_or(Refusal::GeneralError)?;
        Ok(Self { table, slot })
    }

    /// Locks the table, if it is a last-level one of `owner`.
    pub(super) fn lock(self, mm: &mut Mm<'_>, owner: DomId) -> Result<Locked<'static>, Refusal> {
        mm.lock_table(self.table, owner).filter(|locked| locked.table().kind() == Kind::L1).ok_or(Refusal::GeneralError)
    }
}

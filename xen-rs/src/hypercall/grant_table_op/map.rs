//! `GNTTABOP_map_grant_ref`: another domain's page into the caller's page tables.

use alloc::sync::Arc;
use core::mem::offset_of;

use logic::{
    grant::{Access, Mapped, Purpose, Refusal, Table, Via},
    lock::{Held, rank},
    page::{Frame, Locked, Mapping, MappingBits, Slot},
};
use machine::mem::{frame_table::frames, heap, pv_pte, shared::SharedPage};
use xen_abi::{
    errno::Errno,
    grant_table::{
        self as abi, GNTMAP_APPLICATION_MAP, GNTMAP_CONTAINS_PTE, GNTMAP_DEVICE_MAP, GNTMAP_GUEST_AVAIL0,
        GNTMAP_HOST_MAP, GNTMAP_READONLY,
    },
    ids::{DomId, GrantHandle, GrantRef, Mfn},
};

use super::{answer, peer};
use crate::{
    cpu::Context,
    domain::Domain,
    grant::granted_frame,
    guest,
    memory::{self, Mm},
};

/// One mapping.
#[inline(never)]
pub(super) fn map_grant_ref(cx: &mut Context<'_>, va: u64) -> Result<(), Errno> {
    const STATUS: usize = offset_of!(abi::GnttabMapGrantRef, status);
    let arg: abi::GnttabMapGrantRef = guest::read(va)?;
    let result = map(cx, &arg);
    if let Ok((handle, frame)) = &result {
        guest::write(va.wrapping_add(offset_of!(abi::GnttabMapGrantRef, handle) as u64), handle)?;
        guest::write(va.wrapping_add(offset_of!(abi::GnttabMapGrantRef, dev_bus_addr) as u64), &(frame.0 << 12))?;
    }
    answer(va, STATUS, &result)
}

/// The handle, and the page. (A PVH domain has no page tables of ours: no entry of its is found, and the mapping is refused.)
#[inline(always)]
fn map(cx: &mut Context<'_>, arg: &abi::GnttabMapGrantRef) -> Result<(GrantHandle, Mfn), Refusal> {
    let via = Via::new(arg.flags & GNTMAP_HOST_MAP != 0, arg.flags & GNTMAP_DEVICE_MAP != 0);
    if !via.any() {
        return Err(Refusal::BadGntref);
    }
    let mut other = None;
    let granter = peer(cx, arg.dom, &mut other).ok_or(Refusal::BadDomain)?;
    let access = if arg.flags & GNTMAP_READONLY == 0 { Access::Write } else { Access::Read };
    let handle = loop {
        let reserved = cx.domain.grants.maptrack.lock(&mut cx.held).0.reserve();
        match reserved {
            Ok(handle) => break handle,
            Err(_) => make_handles(cx)?,
        }
    };
    let mapped = pin_and_map(cx, arg, granter, access, via);
    let (mut track, _held) = cx.domain.grants.maptrack.lock(&mut cx.held);
    match mapped {
        Ok(mapped) => Ok((track.commit(handle, mapped), mapped.frame)),
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

#[inline(always)]
fn pin_and_map(
    cx: &mut Context<'_>,
    arg: &abi::GnttabMapGrantRef,
    granter: &Arc<Domain>,
    access: Access,
    via: Via,
) -> Result<Mapped, Refusal> {
    let caller = cx.domain.id;
    let (frame, table) = {
        let (mut table, mut held) = granter.grants.table.lock(&mut cx.held);
        let pinned = if via == Via::HOST {
            table.pin_at_once(arg.ref_, caller, access, |gfn| granted_frame(granter, gfn, &mut held).ok())
        } else {
            None
        };
        let frame = match pinned {
            Some(mfn) => mfn,
            None => pin_slowly((&mut table, &mut held), granter, arg.ref_, caller, access, via)?,
        };
        (frame, table.id())
    };
    let by_entry = arg.flags & GNTMAP_CONTAINS_PTE != 0;
    let mut mm = memory::mmu_with(cx.held.again(), cx.domain, granter, &mut cx.state.paging.deferred);
    if let Err(refusal) = enter(&mut mm, arg, frame, granter.id, caller, access, via) {
        // What is passed on is never mapped.
        let _ = granter.grants.table.lock(&mut cx.held).0.unpin(arg.ref_, access, via);
        return Err(refusal);
    }
    Ok(Mapped { granter: granter.id, table, gref: arg.ref_, frame, access, via, by_entry })
}

#[cold]
fn pin_slowly(
    (table, held): (&mut Table<SharedPage>, &mut Held<'_, { rank::GRANT }>),
    granter: &Domain,
    gref: GrantRef,
    caller: DomId,
    access: Access,
    via: Via,
) -> Result<Mfn, Refusal> {
    let pinned = table.pin(gref, caller, access, via, Purpose::Map, |gfn| granted_frame(granter, gfn, held))?;
    Ok(pinned.frame)
}

/// Takes the references and writes the entry.
#[inline(always)]
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
    let device = if via.device() { Some(hold(mm, frame, owner, writable, caller)?) } else { None };
    if via.host()
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

#[inline(always)]
fn hold(mm: &mut Mm<'_>, frame: Mfn, owner: DomId, writable: bool, mapper: DomId) -> Result<Mapping<'static>, Refusal> {
    // Not to be had: the page is a table, or no longer its granter's.
    mm.hold_mapping(frame, owner, writable, mapper).map_err(|_| Refusal::GeneralError)
}

#[inline(always)]
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
    #[inline(always)]
    pub(super) fn lock(self, mm: &mut Mm<'_>, owner: DomId) -> Result<Locked<'static>, Refusal> {
        mm.lock_data_table(self.table, owner).ok_or(Refusal::GeneralError)
    }
}

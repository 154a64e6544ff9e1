//! `GNTTABOP_map_grant_ref`: another domain's page into the caller's page tables.

use alloc::sync::Arc;
use core::mem::offset_of;

use logic::{
    grant::{Access, Mapped, Purpose, Refusal, Table, Via},
    guest::InOut,
    lock::{Held, rank},
    page::{Brief, Frame, Locked, Mapping, MappingBits, Slot},
};
use machine::mem::{frame_table::frames, guest_words::Whole, heap, pv_pte, shared::SharedPage};
use xen_abi::{
    errno::Errno,
    grant_table::{
        self as abi, GNTMAP_APPLICATION_MAP, GNTMAP_CONTAINS_PTE, GNTMAP_DEVICE_MAP, GNTMAP_GUEST_AVAIL0,
        GNTMAP_HOST_MAP, GNTMAP_READONLY,
    },
    ids::{DomId, GrantHandle, GrantRef, Mfn},
};

use super::{By, in_container, peer};
use crate::{
    domain::Domain,
    grant::granted_frame,
    guest::Handle,
    memory::{self, Mm},
};

/// One mapping.
#[inline(never)]
pub(super) fn map_grant_ref(by: &mut By<'_>, arg: Handle<abi::GnttabMapGrantRef, InOut>) -> Result<(), Errno> {
    const STATUS: u64 = offset_of!(abi::GnttabMapGrantRef, status) as u64;
    const { assert!(offset_of!(abi::GnttabMapGrantRef, handle) == 20 && STATUS == 18) };
    let (whole, answer) = Whole::<abi::GnttabMapGrantRef, 32>::new(arg.into_address()).ok_or(Errno::EFAULT)?;
    let arg = whole.read()?;
    match map(by, &arg) {
        // The granting domain's number is written with them, as by Xen.
        Ok((handle, frame)) => {
            answer.write_words::<16, 24>(u64::from(arg.dom.0) | u64::from(handle.0) << 32, frame.0 << 12)
        }
        Err(refusal) => answer.write_half::<STATUS>(logic::grant::status(&Err::<(), _>(refusal)).cast_unsigned()),
    }
}

/// The handle, and the page.
#[inline(always)]
fn map(by: &mut By<'_>, arg: &abi::GnttabMapGrantRef) -> Result<(GrantHandle, Mfn), Refusal> {
    let via = Via::new(arg.flags & GNTMAP_HOST_MAP != 0, arg.flags & GNTMAP_DEVICE_MAP != 0);
    if !via.any() {
        return Err(Refusal::BadGntref);
    }
    let mut other = None;
    let granter = peer(by.domain, arg.dom, &mut other, &mut by.held).ok_or(Refusal::BadDomain)?;
    let access = if arg.flags & GNTMAP_READONLY == 0 { Access::Write } else { Access::Read };
    let handle = loop {
        let reserved = by.domain.grants.maptrack.lock(&mut by.held).0.reserve();
        match reserved {
            Ok(handle) => break handle,
            Err(_) => make_handles(by)?,
        }
    };
    let mapped = pin_and_map(by, arg, granter, access, via);
    let (mut track, _held) = by.domain.grants.maptrack.lock(&mut by.held);
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
fn make_handles(by: &mut By<'_>) -> Result<(), Refusal> {
    memory::feed_heap(&mut by.held);
    if heap::is_low() {
        return Err(Refusal::NoSpace);
    }
    by.domain.grants.maptrack.lock(&mut by.held).0.grow()
}

#[inline(always)]
fn pin_and_map(
    by: &mut By<'_>,
    arg: &abi::GnttabMapGrantRef,
    granter: &Arc<Domain>,
    access: Access,
    via: Via,
) -> Result<Mapped, Refusal> {
    let caller = by.domain.id;
    // A reference on what is pinned at once, and one that turned out to be of no use.
    let (mut page, mut useless) = (None, None);
    let (pinned, table) = {
        let (mut table, mut held) = granter.grants.table.lock(&mut by.held);
        let at_once = if via == Via::HOST {
            table.pin_at_once(arg.ref_, caller, access, |gfn| {
                let found = page.insert(frames().hold(Mfn(gfn.0))?);
                found.is_of(granter.frames_by_number).then_some(found.frame().mfn())
            })
        } else {
            None
        };
        let pinned = match at_once {
            Some(mfn) => Ok(mfn),
            None => {
                useless = page.take();
                pin_slowly((&mut table, &mut held), granter, arg.ref_, caller, access, via)
            }
        };
        (pinned, table.id())
    };
    let by_entry = arg.flags & GNTMAP_CONTAINS_PTE != 0;
    let mut mm = memory::mmu_with(by.held.again(), by.domain, granter, by.deferred);
    if let Some(useless) = useless {
        mm.end_brief(useless);
    }
    let frame = pinned?;
    if let Err(refusal) = enter(&mut mm, arg, (frame, page), granter.id, caller, access, via)
        && let Err(refusal) = in_container::enter(by, (arg.host_addr, frame), granter.id, (access, via), refusal)
    {
        // What is passed on is never mapped.
        let _ = granter.grants.table.lock(&mut by.held).0.unpin(arg.ref_, access, via);
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

/// Takes the references and writes the entry. A page that is held already is to be mapped for a CPU alone.
#[inline(always)]
fn enter(
    mm: &mut Mm<'_>,
    arg: &abi::GnttabMapGrantRef,
    (frame, page): (Mfn, Option<Brief<'static>>),
    owner: DomId,
    caller: DomId,
    access: Access,
    via: Via,
) -> Result<(), Refusal> {
    let writable = access == Access::Write;
    let device = if via.device() { Some(hold(mm, frame, owner, writable, caller)?) } else { None };
    if via.host()
        && let Err(refusal) = enter_host(mm, arg, (frame, page), owner, writable, caller)
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
pub(super) fn hold(
    mm: &mut Mm<'_>,
    frame: Mfn,
    owner: DomId,
    writable: bool,
    mapper: DomId,
) -> Result<Mapping<'static>, Refusal> {
    // Not to be had: the page is a table, or no longer its granter's.
    mm.hold_mapping(frame, owner, writable, mapper).map_err(|_| Refusal::GeneralError)
}

#[inline(always)]
fn enter_host(
    mm: &mut Mm<'_>,
    arg: &abi::GnttabMapGrantRef,
    (frame, page): (Mfn, Option<Brief<'static>>),
    owner: DomId,
    writable: bool,
    caller: DomId,
) -> Result<(), Refusal> {
    let mapping = match page {
        Some(page) => mm.mapping_of(page, owner, writable, caller).map_err(|_| Refusal::GeneralError)?,
        None => hold(mm, frame, owner, writable, caller)?,
    };
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
    #[inline(always)]
    pub(super) fn find(address: u64, by_entry: bool) -> Result<Self, Refusal> {
        if by_entry {
            if !address.is_multiple_of(8) {
                return Err(Refusal::GeneralError);
            }
            let table = frames().ram(Mfn(address >> 12)).ok_or(Refusal::GeneralError)?;
            return Ok(Self { table, slot: Slot::of_address(address) });
        }
        let (table, slot) = pv_pte::walk_to_table(address).ok_or(Refusal::GeneralError)?;
        Ok(Self { table, slot })
    }

    /// Locks the table, if it is a last-level one of `owner`.
    #[inline(always)]
    pub(super) fn lock(self, mm: &mut Mm<'_>, owner: DomId) -> Result<Locked<'static>, Refusal> {
        mm.lock_data_table(self.table, owner).ok_or(Refusal::GeneralError)
    }
}

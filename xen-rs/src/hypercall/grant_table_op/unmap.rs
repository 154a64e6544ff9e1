//! `GNTTABOP_unmap_grant_ref` and `GNTTABOP_unmap_and_replace`.
//!
//! A batch at a time: first the entries of all go, then one flush, then the grants are free. The types see to the order
//! (`GrantMapping`, `Detached`, `Freed`).

use core::mem::offset_of;

use arrayvec::ArrayVec;
use logic::{
    field,
    grant::{Access, Detached, Flushed, GrantMapping, Refusal, Unmap, Via},
    guest::{Field, InOut},
    hypercall::Outcome,
    page::Entry,
};
use machine::mem::{guest_words::Whole, tlb};
use xen_abi::{errno::Errno, grant_table as abi, ids::GrantHandle};
use zerocopy::FromBytes;

use super::{By, answer, in_container, map::Place, peer};
use crate::{
    cpu::Context,
    guest::{Handle, Series},
    memory,
};

/// Mappings that share one flush: Xen's number.
const BATCH: usize = 32;
/// Batches of one round: what waits for this CPU comes in between.
const BATCHES: u32 = 4;

/// What both operations ask for.
pub(super) struct Request {
    handle: GrantHandle,
    pub(super) host_address: u64,
    /// Of a page whose entry takes the place of the mapping's; 0: nothing does.
    pub(super) new_address: u64,
    bus_address: u64,
}

/// An operation that unmaps.
pub(super) trait Operation: FromBytes + zerocopy::IntoBytes + Sized {
    /// Where its answer goes.
    fn status() -> Field<Self, i16>;
    /// What it asks for.
    fn request(&self) -> Request;
}

impl Operation for abi::GnttabUnmapGrantRef {
    fn status() -> Field<Self, i16> {
        field!(abi::GnttabUnmapGrantRef, status)
    }

    fn request(&self) -> Request {
        Request { handle: self.handle, host_address: self.host_addr, new_address: 0, bus_address: self.dev_bus_addr }
    }
}

impl Operation for abi::GnttabUnmapAndReplace {
    fn status() -> Field<Self, i16> {
        field!(abi::GnttabUnmapAndReplace, status)
    }

    fn request(&self) -> Request {
        Request { handle: self.handle, host_address: self.host_addr, new_address: self.new_addr, bus_address: 0 }
    }
}

/// The hypercall's part for either operation.
pub(super) fn batches<T: Operation>(cx: &mut Context<'_>, count: u32) -> Outcome {
    let mut left = count;
    let va = cx.args()[1];
    if count == 0 {
        return super::nothing(va);
    }
    let mut all = Series::<T, InOut>::new(va);
    for _ in 0..BATCHES {
        if left == 0 {
            break;
        }
        let mut gone = ArrayVec::<Detached, BATCH>::new();
        let mut fault = None;
        for _ in 0..BATCH.min(left as usize) {
            let result = all.step().read().and_then(|(arg, to)| {
                let result = detach(&mut By::of(cx), &arg.request());
                let answered = answer(to, T::status(), &result);
                gone.extend(result.ok().flatten());
                answered
            });
            if let Err(errno) = result {
                fault = Some(errno);
                break;
            }
            left -= 1;
        }
        release(cx, &mut gone);
        if let Some(errno) = fault {
            return Outcome::Fail(errno);
        }
    }
    if left == 0 {
        return Outcome::OK;
    }
    cx.set_arg(1, all.address());
    cx.set_arg(2, left.into());
    Outcome::Again
}

/// A hypercall for one mapping.
#[inline(never)]
pub(super) fn only_one(by: &mut By<'_>, arg: Handle<abi::GnttabUnmapGrantRef, InOut>) -> Result<(), Errno> {
    const STATUS: u64 = offset_of!(abi::GnttabUnmapGrantRef, status) as u64;
    let (whole, answer) = Whole::<abi::GnttabUnmapGrantRef, 24>::new(arg.into_address()).ok_or(Errno::EFAULT)?;
    let arg = whole.read()?;
    let result = detach(by, &arg.request());
    let status = logic::grant::status(&result);
    if let Ok(Some(detached)) = result {
        let flushed = tlb::flush_domain(by.domain.id);
        free(by, detached, &flushed);
    }
    answer.write_half::<STATUS>(status.cast_unsigned())
}

/// Takes the entry away. Nothing to do is fine, too.
#[inline(always)]
fn detach(by: &mut By<'_>, request: &Request) -> Result<Option<Detached>, Refusal> {
    let via = Via::new(request.host_address != 0, request.bus_address != 0);
    let unmap = Unmap { handle: request.handle, via };
    let Some(mapping) = by.domain.grants.maptrack.lock(&mut by.held).0.claim(unmap)? else { return Ok(None) };
    let result = take_entry(by, request, &mapping);
    let (mut track, _held) = by.domain.grants.maptrack.lock(&mut by.held);
    match result {
        Ok(()) => Ok(Some(track.detach(mapping))),
        Err(refusal) => {
            track.unclaim(mapping);
            Err(refusal)
        }
    }
}

#[inline(always)]
fn take_entry(by: &mut By<'_>, request: &Request, mapping: &GrantMapping) -> Result<(), Refusal> {
    if request.bus_address != 0 && request.bus_address != mapping.frame().0 << 12 {
        return Err(Refusal::GeneralError);
    }
    if !mapping.via().host() {
        return Ok(());
    }
    let caller = by.domain.id;
    let mut mm = memory::mmu(by.held.again(), by.domain, by.deferred);
    let with = match request.new_address {
        0 => Entry::default(),
        // Taking an entry from elsewhere is for mappings by address only.
        _ if mapping.by_entry() => return Err(Refusal::GeneralError),
        new_address => {
            let source = Place::find(new_address, false)?;
            let locked = source.lock(&mut mm, caller)?;
            mm.steal_entry(&locked, source.slot).ok_or(Refusal::GeneralError)?
        }
    };
    let place = Place::find(request.host_address, mapping.by_entry());
    let removed = place.and_then(|place| {
        let locked = place.lock(&mut mm, caller)?;
        let writable = mapping.access() == Access::Write;
        if mm.remove_mapping(&locked, place.slot, mapping.frame(), writable, with) {
            Ok(())
        } else {
            Err(Refusal::GeneralError)
        }
    });
    let Err(refusal) = removed else { return Ok(()) };
    mm.drop_entry(with, caller);
    in_container::remove(by, request, mapping, refusal)
}

/// Flushes, then ends the uses of the grants.
fn release(cx: &mut Context<'_>, gone: &mut ArrayVec<Detached, BATCH>) {
    if gone.is_empty() {
        return;
    }
    let flushed = tlb::flush_domain(cx.domain.id);
    for detached in gone.drain(..) {
        free(&mut By::of(cx), detached, &flushed);
    }
}

/// Ends the use of a grant.
#[inline(always)]
fn free(by: &mut By<'_>, detached: Detached, flushed: &Flushed) {
    let mut other = None;
    // Its pages are referenced, so it is there, dying perhaps.
    let Some(granter) = peer(by.domain, detached.granter(), &mut other, &mut by.held) else { return };
    let freed = granter.grants.table.lock(&mut by.held).0.release(detached, flushed);
    memory::mmu_with(by.held.again(), by.domain, granter, by.deferred).put_freed(freed);
}

//! Giving memory to domains and taking it: `increase_reservation`, `decrease_reservation`, `populate_physmap`.

use alloc::{sync::Arc, vec::Vec};

use logic::{
    access::{Allowed, MemoryOp as Op},
    frames::Zone,
    guest::{In, InOut, Out},
    hvm::p2m,
    hypercall::Outcome,
    lock::Held,
    memory_op::{Direction, Extents, Step},
};
use machine::mem::{frame_table::frames, pv_pte};
use xen_abi::{
    errno::Errno,
    ids::{Gfn, Mfn},
    memory::*,
};

use super::{address_bits, zone};
use crate::{
    cpu::Context,
    domain::Domain,
    guest::{Caller, Handle},
    hvm::PvhDomain,
    memory,
};

/// Whether one extent was done.
enum Extent {
    Done,
    /// Not yet.
    Later,
    Stop,
}

/// The three operations. Whatever goes wrong, the answer is how many extents were done (as in Xen).
pub fn reservation(cx: &mut Context<'_>, op: Allowed<Op>, command: u32, first: u64, argument: u64) -> Outcome {
    let Ok(wanted) = Handle::<MemoryReservation, In>::new(argument).read() else { return Outcome::Done(first) };
    let direction = match op.op() {
        Op::DecreaseReservation => Direction::Decrease,
        Op::PopulatePhysmap => Direction::Populate,
        _ => Direction::Increase,
    };
    let Some(mut extents) = Extents::new::<Caller>(&wanted, first, direction) else { return Outcome::Done(first) };
    let Ok(domain) = cx.target(&op, wanted.domid) else { return Outcome::Done(first) };
    let Ok(zone) = zone(address_bits(wanted.mem_flags)) else { return Outcome::Done(first) };
    if direction == Direction::Decrease && !memory::finish_deferred(cx) {
        return Outcome::Again;
    }
    let order = extents.order();
    loop {
        // A pinned tree that was given back leaves work, which comes first.
        let at = match extents.next(!cx.state.paging.deferred.is_empty()) {
            Step::Extent(at) => at,
            Step::Later => break,
            Step::Finished => return Outcome::Done(extents.done()),
        };
        let extent = match (direction, at) {
            (Direction::Increase, at) => increase(&domain, at.map(Handle::new), order, zone, &mut cx.held),
            (Direction::Decrease, Some(at)) => give_back(cx, &domain, Handle::new(at), order),
            (Direction::Populate, Some(at)) => populate(&domain, Handle::new(at), order, zone, &mut cx.held),
            (_, None) => Extent::Stop,
        };
        match extent {
            Extent::Done => extents.complete(),
            Extent::Later => break,
            Extent::Stop => return Outcome::Done(extents.done()),
        }
    }
    cx.set_arg(0, extents.continuation(command));
    Outcome::Again
}

/// Frames for one extent.
fn take(domain: &Arc<Domain>, order: u8, zone: Zone, held: &mut Held<'_, 0>) -> Result<Mfn, Extent> {
    domain.memory.populate(domain, order, zone, held).map_err(|errno| match errno {
        Errno::ERESTART => Extent::Later,
        _ => Extent::Stop,
    })
}

fn populate(domain: &Arc<Domain>, at: Handle<u64, InOut>, order: u8, zone: Zone, held: &mut Held<'_, 0>) -> Extent {
    let Ok((pfn, told)) = at.read() else { return Extent::Stop };
    let zone = match (domain.pvh(), zone) {
        (Some(pvh), Zone::Any) => pvh.physmap.place(domain, Gfn(pfn), order, held),
        _ => zone,
    };
    let first = match take(domain, order, zone, held) {
        Ok(first) => first,
        Err(extent) => return extent,
    };
    if let Some(pvh) = domain.pvh() {
        return enter(domain, pvh, (Gfn(pfn), first, order), held);
    }
    name(first, order, pfn);
    if told.write(&first.0).is_err() { Extent::Stop } else { Extent::Done }
}

/// Enters an extent in the physical map of a PVH domain, which is not told the frame.
#[cold]
fn enter(domain: &Arc<Domain>, pvh: &PvhDomain, (gfn, first, order): (Gfn, Mfn, u8), held: &mut Held<'_, 0>) -> Extent {
    let how = (p2m::Access::ALL, p2m::Use::Ram);
    if pvh.physmap.enter(domain, (gfn, first, order), domain.id, how, held).is_ok() {
        return Extent::Done;
    }
    let mut deferred = Vec::new();
    let mut mm = memory::mmu(held.again(), domain, &mut deferred);
    for i in 0..1u64 << order {
        let _ = mm.give_back(Mfn(first.0 + i), domain.id);
    }
    Extent::Stop
}

/// Enters an extent in the machine-to-phys table.
pub(super) fn name(first: Mfn, order: u8, pfn: u64) {
    for i in 0..1u64 << order {
        if let Some(f) = frames().ram(Mfn(first.0 + i)) {
            pv_pte::set_m2p(f, pfn.wrapping_add(i));
        }
    }
}

fn increase(
    domain: &Arc<Domain>,
    at: Option<Handle<u64, Out>>,
    order: u8,
    zone: Zone,
    held: &mut Held<'_, 0>,
) -> Extent {
    // A guest that has numbers of its own is not told the frame.
    let at = at.filter(|_| domain.pvh().is_none());
    match (take(domain, order, zone, held), at) {
        (Err(extent), _) => extent,
        (Ok(first), Some(at)) => at.write(&first.0).map_or(Extent::Stop, |()| Extent::Done),
        (Ok(_), None) => Extent::Done,
    }
}

fn give_back(cx: &mut Context<'_>, domain: &Arc<Domain>, at: Handle<u64, In>, order: u8) -> Extent {
    let Ok(first) = at.read() else { return Extent::Stop };
    if let Some(pvh) = domain.pvh() {
        // A hole ends the call, as in Xen.
        let whole = pvh.physmap.give_back(domain, Gfn(first), order, &mut cx.held) == Ok(1 << order);
        return if whole { Extent::Done } else { Extent::Stop };
    }
    let mut mm = memory::mmu_with(cx.held.again(), cx.domain, domain, &mut cx.state.paging.deferred);
    for mfn in first..first.saturating_add(1 << order) {
        if mm.give_back(Mfn(mfn), domain.id).is_err() {
            return Extent::Stop;
        }
    }
    Extent::Done
}

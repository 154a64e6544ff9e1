//! `HYPERVISOR_grant_table_op`: grants of both versions (`grant_table.h`).
//!
//! The pages are granted and tracked by `logic::grant`, their page-table entries written by `logic::page::mapping`; this
//! file brings the two together, operation by operation. No lock is held while page references are taken or given up.

mod cache_flush;
mod copy;
mod in_container;
mod map;
mod transfer;
mod unmap;

use alloc::{sync::Arc, vec::Vec};

use logic::{
    access::{Allowed, GrantTableOp as Op, NoTarget},
    field,
    grant::{Refusal, Version},
    guest::{Field, InOut, Out},
    hypercall::{Budget, Outcome},
    lock::Held,
    page::Deferred,
    regs::GuestRegs,
};
use machine::arch::x86_64::interrupts;
use machine::mem::shared::SharedPage;
use xen_abi::{
    errno::Errno,
    grant_table as abi,
    ids::{DomId, Mfn},
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{
    cpu::{Context, Running, Target},
    domain::{self, Domain},
    guest::{Handle, Series, is_guest_range},
};

/// The operation proper; the rest of the argument belongs to continuations of operations that have none here.
const COMMAND: u32 = 0xfff;
/// The most frames that fit in one answer of `setup_table`.
const SETUP_FRAMES: u32 = 1024;

/// The hypercall: rdi is the operation, rsi points to an array of its structures, rdx is how many.
#[allow(clippy::cast_possible_truncation, reason = "both are unsigned int in the ABI")]
pub fn grant_table_op(cx: &mut Context<'_>) -> Outcome {
    let [command, va, count, ..] = cx.args();
    let (command, count) = (command as u32, count as u32);
    if i32::try_from(count).is_err() || (command & !COMMAND != 0 && command & COMMAND != abi::GNTTABOP_CACHE_FLUSH) {
        return Outcome::Fail(Errno::EINVAL);
    }
    let op = match cx.permit::<Op>(command & COMMAND) {
        Ok(op) => op,
        Err(errno) => return Outcome::Fail(errno),
    };
    match op.op() {
        Op::Map => each(cx, count, |cx, arg| map::map_grant_ref(&mut By::of(cx), arg)),
        Op::Unmap => unmap::batches::<abi::GnttabUnmapGrantRef>(cx, count),
        Op::UnmapAndReplace => unmap::batches::<abi::GnttabUnmapAndReplace>(cx, count),
        Op::Copy => each(cx, count, copy::copy),
        Op::Swap => each(cx, count, swap),
        Op::Transfer => each(cx, count, transfer::transfer),
        Op::CacheFlush => cache_flush::cache_flush(cx, command & !COMMAND, count),
        Op::SetupTable => one(cx, op, (va, count), setup_table),
        Op::QuerySize => one(cx, op, (va, count), query_size),
        Op::GetStatusFrames => one(cx, op, (va, count), get_status_frames),
        Op::SetVersion => set_version(cx, Handle::new(va)).into(),
        Op::GetVersion => get_version(cx, op, Handle::new(va)).into(),
    }
}

/// A call for one operation of the usual kinds, which anyone may ask for. `None`: it takes more, and nothing has been done.
#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "both are unsigned int in the ABI")]
pub fn at_once(running: &mut Running, regs: &GuestRegs, held: Held<'_, 0>) -> Option<u64> {
    if regs.rdx as u32 != 1 {
        return None;
    }
    let va = regs.rsi;
    let result = match regs.rdi as u32 {
        abi::GNTTABOP_COPY => return copy::only_one(running, Handle::new(va), held),
        abi::GNTTABOP_MAP_GRANT_REF => map::map_grant_ref(&mut By::running(running, held), Handle::new(va)),
        abi::GNTTABOP_UNMAP_GRANT_REF => unmap::only_one(&mut By::running(running, held), Handle::new(va)),
        _ => return None,
    };
    match result {
        Ok(()) => Some(0),
        Err(errno) => Some(errno.as_ret()),
    }
}

/// Carries out an operation for each structure `T` of an array, until something waits for this CPU or the slice is over.
/// `op` takes one, and answers there.
#[inline(always)]
fn each<T>(
    cx: &mut Context<'_>,
    count: u32,
    op: fn(&mut Context<'_>, Handle<T, InOut>) -> Result<(), Errno>,
) -> Outcome {
    let mut budget = Budget::units(Budget::ROUND);
    let va = cx.args()[1];
    if count == 0 {
        return nothing(va);
    }
    let mut all = Series::new(va);
    for done in 0..count {
        if done != 0 && (!budget.spend(16) || interrupts::any()) {
            cx.set_arg(1, all.address());
            cx.set_arg(2, (count - done).into());
            return Outcome::Again;
        }
        if let Err(errno) = op(cx, all.step()) {
            return Outcome::Fail(errno);
        }
    }
    Outcome::OK
}

/// Writes what became of an operation to the status of its structure.
#[inline(always)]
fn answer<A, T>(to: Handle<A, Out>, status: Field<A, i16>, result: &Result<T, Refusal>) -> Result<(), Errno> {
    to.part(status).write(&logic::grant::status(result))
}

/// No operations: where they would be is looked at all the same, as in Xen.
fn nothing(va: u64) -> Outcome {
    if is_guest_range(va, 1) { Outcome::OK } else { Outcome::Fail(Errno::EFAULT) }
}

/// Carries out an operation that takes exactly one structure.
fn one<T: FromBytes + IntoBytes + Immutable>(
    cx: &mut Context<'_>,
    op: Allowed<Op>,
    (va, count): (u64, u32),
    carry_out: fn(&mut Context<'_>, &Allowed<Op>, &mut T) -> Result<(), Errno>,
) -> Outcome {
    if count != 1 {
        return Outcome::Fail(Errno::EINVAL);
    }
    Handle::<T, InOut>::new(va)
        .read()
        .and_then(|(mut arg, answer)| {
            carry_out(cx, &op, &mut arg)?;
            answer.write(&arg)
        })
        .into()
}

/// The domain of a number: the caller's own needs no reference of its own, another's is kept in `other`.
#[inline(always)]
fn peer<'a>(
    caller: &'a Arc<Domain>,
    id: DomId,
    other: &'a mut Option<Arc<Domain>>,
    held: &mut Held<'_, 0>,
) -> Option<&'a Arc<Domain>> {
    if id == caller.id {
        return Some(caller);
    }
    Some(other.insert(domain::find(id, held)?))
}

/// What the operations on single grants need of a context.
struct By<'a> {
    domain: &'a Arc<Domain>,
    deferred: &'a mut Vec<Deferred>,
    held: Held<'a, 0>,
}

impl<'a> By<'a> {
    #[inline(always)]
    fn of(cx: &'a mut Context<'_>) -> Self {
        By { domain: cx.domain, deferred: &mut cx.state.paging.deferred, held: cx.held.again() }
    }

    #[inline(always)]
    fn running(running: &'a mut Running, held: Held<'a, 0>) -> Self {
        By { domain: &running.domain, deferred: &mut running.state.paging.deferred, held }
    }
}

/// The domain that an operation names, if the caller may act on it.
fn target(cx: &mut Context<'_>, op: &Allowed<Op>, id: DomId) -> Result<Target, Refusal> {
    cx.target(op, id).map_err(|why| match why {
        NoTarget::Unknown => Refusal::BadDomain,
        NoTarget::Forbidden => Refusal::PermissionDenied,
    })
}

/// What a domain calls a frame of its grant table: where that has numbers of its own and the frame has none, all ones.
fn number(domain: &Domain, mfn: Mfn, held: &mut Held<'_, 0>) -> u64 {
    domain.pvh().map_or(mfn.0, |pvh| pvh.physmap.place_of(mfn, held).map_or(u64::MAX, |gfn| gfn.0))
}

fn setup_table(cx: &mut Context<'_>, op: &Allowed<Op>, arg: &mut abi::GnttabSetupTable) -> Result<(), Errno> {
    if !is_guest_range(arg.frame_list, 1) {
        return Err(Errno::EFAULT);
    }
    let result = target(cx, op, arg.dom).and_then(|domain| {
        if arg.nr_frames > SETUP_FRAMES {
            return Err(Refusal::GeneralError);
        }
        domain.grants.grow(&domain, arg.nr_frames, Version::One, &mut cx.held)?;
        for (index, told) in (0..arg.nr_frames).zip(Series::<u64, Out>::new(arg.frame_list)) {
            let mfn = domain.grants.table.lock(&mut cx.held).0.frame(index).map(SharedPage::mfn);
            let frame = number(&domain, mfn.ok_or(Refusal::GeneralError)?, &mut cx.held);
            told.write(&frame).map_err(|_| Refusal::BadVirtAddr)?;
        }
        Ok(())
    });
    arg.status = logic::grant::status(&result);
    Ok(())
}

fn query_size(cx: &mut Context<'_>, op: &Allowed<Op>, arg: &mut abi::GnttabQuerySize) -> Result<(), Errno> {
    let result = target(cx, op, arg.dom).map(|domain| {
        let (table, _held) = domain.grants.table.lock(&mut cx.held);
        (arg.nr_frames, arg.max_nr_frames) = (table.frames(), table.max_frames());
    });
    arg.status = logic::grant::status(&result);
    Ok(())
}

/// Version 2 has status frames; version 1 has none.
fn get_status_frames(
    cx: &mut Context<'_>,
    op: &Allowed<Op>,
    arg: &mut abi::GnttabGetStatusFrames,
) -> Result<(), Errno> {
    if !is_guest_range(arg.frame_list, 1) {
        return Err(Errno::EFAULT);
    }
    let result = target(cx, op, arg.dom).and_then(|domain| {
        if arg.nr_frames > domain.grants.table.lock(&mut cx.held).0.status_frames() {
            return Err(Refusal::GeneralError);
        }
        for (index, told) in (0..arg.nr_frames).zip(Series::<u64, Out>::new(arg.frame_list)) {
            let mfn = domain.grants.table.lock(&mut cx.held).0.status_frame(index).map(SharedPage::mfn);
            let frame = number(&domain, mfn.ok_or(Refusal::GeneralError)?, &mut cx.held);
            told.write(&frame).map_err(|_| Refusal::BadVirtAddr)?;
        }
        Ok(())
    });
    arg.status = logic::grant::status(&result);
    Ok(())
}

fn set_version(cx: &mut Context<'_>, arg: Handle<abi::GnttabSetVersion, InOut>) -> Result<(), Errno> {
    let (arg, answer) = arg.read()?;
    let result = cx.domain.grants.set_version(cx.domain, arg.version, &mut cx.held);
    let version = cx.domain.grants.table.lock(&mut cx.held).0.version() as u32;
    answer.write(&abi::GnttabSetVersion { version })?;
    result
}

fn get_version(cx: &mut Context<'_>, op: Allowed<Op>, arg: Handle<abi::GnttabGetVersion, InOut>) -> Result<(), Errno> {
    let (mut arg, answer) = arg.read()?;
    let domain = cx.target(&op, arg.dom)?;
    arg.version = domain.grants.table.lock(&mut cx.held).0.version() as u32;
    answer.write(&arg)
}

fn swap(cx: &mut Context<'_>, arg: Handle<abi::GnttabSwapGrantRef, InOut>) -> Result<(), Errno> {
    let (arg, to) = arg.read()?;
    let result = cx.domain.grants.table.lock(&mut cx.held).0.swap(arg.ref_a, arg.ref_b);
    answer(to, field!(abi::GnttabSwapGrantRef, status), &result)
}

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
use core::mem::offset_of;

use logic::{
    access::{Allowed, GrantTableOp as Op, NoTarget},
    grant::{Refusal, Version},
    hypercall::{Budget, Outcome},
    lock::Held,
    page::Deferred,
    regs::GuestRegs,
};
use machine::arch::x86_64::interrupts;
use machine::mem::{guest_copy, shared::SharedPage};
use xen_abi::{errno::Errno, grant_table as abi, ids::DomId};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{
    cpu::{Context, Running, Target},
    domain::{self, Domain},
    guest,
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
        Op::Map => each::<abi::GnttabMapGrantRef>(cx, count, |cx, va| map::map_grant_ref(&mut By::of(cx), va)),
        Op::Unmap => unmap::batches::<abi::GnttabUnmapGrantRef>(cx, count),
        Op::UnmapAndReplace => unmap::batches::<abi::GnttabUnmapAndReplace>(cx, count),
        Op::Copy => each::<abi::GnttabCopy>(cx, count, copy::copy),
        Op::Swap => each::<abi::GnttabSwapGrantRef>(cx, count, swap),
        Op::Transfer => each::<abi::GnttabTransfer>(cx, count, transfer::transfer),
        Op::CacheFlush => cache_flush::cache_flush(cx, command & !COMMAND, count),
        Op::SetupTable => one(cx, op, va, count, setup_table),
        Op::QuerySize => one(cx, op, va, count, query_size),
        Op::GetStatusFrames => one(cx, op, va, count, get_status_frames),
        Op::SetVersion => set_version(cx, va).into(),
        Op::GetVersion => get_version(cx, op, va).into(),
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
        abi::GNTTABOP_COPY => return copy::only_one(running, va, held),
        abi::GNTTABOP_MAP_GRANT_REF => map::map_grant_ref(&mut By::running(running, held), va),
        abi::GNTTABOP_UNMAP_GRANT_REF => unmap::only_one(&mut By::running(running, held), va),
        _ => return None,
    };
    match result {
        Ok(()) => Some(0),
        Err(errno) => Some(errno.as_ret()),
    }
}

/// Carries out an operation for each structure `T` of an array, until something waits for this CPU or the slice is over.
/// `op` takes the address of one, and answers there.
#[inline(always)]
fn each<T>(cx: &mut Context<'_>, count: u32, op: fn(&mut Context<'_>, u64) -> Result<(), Errno>) -> Outcome {
    let mut budget = Budget::units(Budget::ROUND);
    let mut va = cx.args()[1];
    if count == 0 {
        return nothing(va);
    }
    for done in 0..count {
        if done != 0 && (!budget.spend(16) || interrupts::any()) {
            cx.set_arg(1, va);
            cx.set_arg(2, (count - done).into());
            return Outcome::Again;
        }
        if let Err(errno) = op(cx, va) {
            return Outcome::Fail(errno);
        }
        va = va.wrapping_add(size_of::<T>() as u64);
    }
    Outcome::OK
}

/// Writes what became of an operation to the `status` of its structure at `va`.
#[inline(always)]
fn answer<T>(va: u64, offset: usize, result: &Result<T, Refusal>) -> Result<(), Errno> {
    guest::write(va.wrapping_add(offset as u64), &logic::grant::status(result))
}

/// No operations: where they would be is looked at all the same, as in Xen.
fn nothing(va: u64) -> Outcome {
    if guest_copy::is_guest_range(va, 1) { Outcome::OK } else { Outcome::Fail(Errno::EFAULT) }
}

/// Carries out an operation that takes exactly one structure.
fn one<T: FromBytes + IntoBytes + Immutable>(
    cx: &mut Context<'_>,
    op: Allowed<Op>,
    va: u64,
    count: u32,
    carry_out: fn(&mut Context<'_>, &Allowed<Op>, &mut T) -> Result<(), Errno>,
) -> Outcome {
    if count != 1 {
        return Outcome::Fail(Errno::EINVAL);
    }
    guest::read::<T>(va)
        .and_then(|mut arg| {
            carry_out(cx, &op, &mut arg)?;
            guest::write(va, &arg)
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

fn setup_table(cx: &mut Context<'_>, op: &Allowed<Op>, arg: &mut abi::GnttabSetupTable) -> Result<(), Errno> {
    if !guest_copy::is_guest_range(arg.frame_list, 1) {
        return Err(Errno::EFAULT);
    }
    let result = target(cx, op, arg.dom).and_then(|domain| {
        if arg.nr_frames > SETUP_FRAMES {
            return Err(Refusal::GeneralError);
        }
        domain.grants.grow(&domain, arg.nr_frames, Version::One, &mut cx.held)?;
        for index in 0..arg.nr_frames {
            let mfn = domain.grants.table.lock(&mut cx.held).0.frame(index).map(SharedPage::mfn);
            let mfn = mfn.ok_or(Refusal::GeneralError)?;
            guest::element::<u64>(arg.frame_list, index.into())
                .and_then(|va| guest::write(va, &mfn.0))
                .map_err(|_| Refusal::BadVirtAddr)?;
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
    if !guest_copy::is_guest_range(arg.frame_list, 1) {
        return Err(Errno::EFAULT);
    }
    let result = target(cx, op, arg.dom).and_then(|domain| {
        if arg.nr_frames > domain.grants.table.lock(&mut cx.held).0.status_frames() {
            return Err(Refusal::GeneralError);
        }
        for index in 0..arg.nr_frames {
            let mfn = domain.grants.table.lock(&mut cx.held).0.status_frame(index).map(SharedPage::mfn);
            let mfn = mfn.ok_or(Refusal::GeneralError)?;
            guest::element::<u64>(arg.frame_list, index.into())
                .and_then(|va| guest::write(va, &mfn.0))
                .map_err(|_| Refusal::BadVirtAddr)?;
        }
        Ok(())
    });
    arg.status = logic::grant::status(&result);
    Ok(())
}

fn set_version(cx: &mut Context<'_>, va: u64) -> Result<(), Errno> {
    let arg: abi::GnttabSetVersion = guest::read(va)?;
    let result = cx.domain.grants.set_version(cx.domain, arg.version, &mut cx.held);
    let version = cx.domain.grants.table.lock(&mut cx.held).0.version() as u32;
    guest::write(va, &abi::GnttabSetVersion { version })?;
    result
}

fn get_version(cx: &mut Context<'_>, op: Allowed<Op>, va: u64) -> Result<(), Errno> {
    let mut arg: abi::GnttabGetVersion = guest::read(va)?;
    let domain = cx.target(&op, arg.dom)?;
    arg.version = domain.grants.table.lock(&mut cx.held).0.version() as u32;
    guest::write(va, &arg)
}

fn swap(cx: &mut Context<'_>, va: u64) -> Result<(), Errno> {
    let arg: abi::GnttabSwapGrantRef = guest::read(va)?;
    let result = cx.domain.grants.table.lock(&mut cx.held).0.swap(arg.ref_a, arg.ref_b);
    answer(va, offset_of!(abi::GnttabSwapGrantRef, status), &result)
}

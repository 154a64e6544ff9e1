//! `HYPERVISOR_multicall`: several calls in one.

use core::mem::offset_of;

use logic::hypercall::Outcome;
use machine::arch::x86_64::interrupts;
use machine::mem::guest_copy;
use machine::mem::guest_words::Piece;
use xen_abi::{
    errno::Errno,
    hypercall::{HYPERVISOR_IRET, HYPERVISOR_MULTICALL, HYPERVISOR_XEN_VERSION},
    multicall::MulticallEntry,
};

use super::xen_version;
use crate::{cpu::Context, guest};

/// Calls between two looks at what waits for this CPU.
const LOOK: u32 = 8;
/// Calls of one round. No interrupt is taken meanwhile, so the looks alone would let a long batch keep the CPU.
const ROUND: u32 = 32;
/// Bytes of one.
const SIZE: u64 = size_of::<MulticallEntry>() as u64;
const OP: u64 = offset_of!(MulticallEntry, op) as u64;
const RESULT: u64 = offset_of!(MulticallEntry, result) as u64;
const ARGS: u64 = offset_of!(MulticallEntry, args) as u64;

/// How a call ended without a result to write.
enum End {
    /// The guest has to make it again.
    Again,
    /// It is made, and the vCPU has to wait before the next one.
    Wait,
    /// None is made after it.
    Last(Outcome),
}

impl From<Errno> for End {
    fn from(errno: Errno) -> Self {
        End::Last(Outcome::Fail(errno))
    }
}

/// The hypercall: rdi points to an array of calls, rsi is how many.
#[allow(clippy::cast_possible_truncation, reason = "the count is an unsigned int of the ABI")]
pub fn multicall(cx: &mut Context<'_>) -> Outcome {
    let [va, count, ..] = cx.args();
    // Where there is a call its own address is looked at.
    if count as u32 == 0 && !guest_copy::is_guest_range(va, 1) {
        return Errno::EFAULT.into();
    }
    let mut caller = None;
    let (left, va, end) = round(cx, &mut caller, va, count as u32);
    if let Some(caller) = caller {
        cx.set_args(caller);
    }
    match end {
        End::Last(outcome) => outcome,
        End::Again | End::Wait => {
            cx.set_args([va, left.into()]);
            Outcome::Again
        }
    }
}

/// Makes the first of `left` calls at `va`. Once one takes the place of the `caller`'s arguments, they are kept there. Which
/// calls are left, and why.
#[inline(always)]
fn round(cx: &mut Context<'_>, caller: &mut Option<[u64; 6]>, mut va: u64, mut left: u32) -> (u32, u64, End) {
    let mut end = left.saturating_sub(ROUND);
    loop {
        // Up to the next look, or the end.
        let look = left.saturating_sub(LOOK).max(end);
        while left != look {
            let made = one(cx, caller, va);
            match made {
                Ok(()) => {}
                Err(End::Wait) if left == 1 => return (0, va, End::Last(Outcome::OK)),
                Err(End::Wait) => return (left - 1, va.wrapping_add(SIZE), End::Again),
                Err(end) => return (left, va, end),
            }
            va = va.wrapping_add(SIZE);
            left -= 1;
        }
        if left == 0 {
            return (0, va, End::Last(Outcome::OK));
        }
        if interrupts::any() || !cx.vcpu.seat.ready.is_runnable() {
            end = left;
        }
        if left == end {
            return (left, va, End::Again);
        }
    }
}

/// Makes the call at `va`. What cannot be read may become readable by the call before it.
#[inline(always)]
fn one(cx: &mut Context<'_>, caller: &mut Option<[u64; 6]>, va: u64) -> Result<(), End> {
    const XEN_VERSION: u64 = HYPERVISOR_XEN_VERSION as u64;
    let entry = Piece::<SIZE>::new(va).ok_or(Errno::EFAULT)?;
    let result = match entry.words_at_once::<OP, ARGS>() {
        Some((XEN_VERSION, command)) if let Some(version) = xen_version::at_once(command) => version,
        _ => general(cx, caller, va)?,
    };
    Ok(entry.write_word::<RESULT>(result)?)
}

/// Makes a call with its arguments where its handler looks for them.
#[inline(never)]
fn general(cx: &mut Context<'_>, caller: &mut Option<[u64; 6]>, va: u64) -> Result<u64, End> {
    let entry: MulticallEntry = guest::read(va)?;
    caller.get_or_insert(cx.args());
    cx.set_args(entry.args);
    let outcome = match entry.op {
        // A call in a call would be a way to nest without end: Xen answers like this.
        op if op == u64::from(HYPERVISOR_MULTICALL) => Outcome::Fail(Errno::EINVAL),
        op => super::dispatch(cx, op),
    };
    let result = match outcome {
        Outcome::Done(value) => value,
        Outcome::Fail(errno) => errno.as_ret(),
        Outcome::Again => {
            // The rest of this call is made first when the guest comes back.
            guest::write(va.wrapping_add(ARGS), &cx.args())?;
            return Err(End::Again);
        }
    };
    if entry.op == u64::from(HYPERVISOR_IRET) {
        // The guest goes on elsewhere, and may be in user mode, whose root is loaded then: what follows would be made without a
        // kernel's rights, and could give up the very table that the CPU uses. As in Xen the rest is not made.
        let _ = guest::write(va.wrapping_add(RESULT), &result);
        return Err(End::Last(Outcome::Done(result)));
    }
    if !cx.vcpu.seat.ready.is_runnable() {
        guest::write(va.wrapping_add(RESULT), &result)?;
        return Err(End::Wait);
    }
    Ok(result)
}

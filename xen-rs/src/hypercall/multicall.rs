//! `HYPERVISOR_multicall`: several calls in one.

use core::mem::offset_of;

use arrayvec::ArrayVec;
use logic::hypercall::Outcome;
use machine::{arch::x86_64::interrupts, mem::guest_copy};
use xen_abi::{errno::Errno, hypercall::HYPERVISOR_MULTICALL, multicall::MulticallEntry};

use crate::{cpu::Context, guest};

/// Calls read at a time, between two looks at what waits for this CPU.
const CHUNK: usize = 8;
/// Chunks of one round. No interrupt is taken meanwhile, so the looks alone would let a long batch keep the CPU.
const CHUNKS: u32 = 4;
/// Bytes of one.
const SIZE: u64 = size_of::<MulticallEntry>() as u64;

/// How one call ended.
enum Call {
    /// On to the next.
    Done,
    /// The guest has to make it again.
    Again,
    /// None is made after it.
    Last(Outcome),
}

/// How a round ended.
enum End {
    /// So many calls are left to make, from that address on.
    Left(u32, u64),
    /// The whole has ended.
    Whole(Outcome),
}

/// The hypercall: rdi points to an array of calls, rsi is how many.
#[allow(clippy::cast_possible_truncation, reason = "the count is an unsigned int of the ABI")]
pub fn multicall(cx: &mut Context<'_>) -> Outcome {
    let caller = cx.args();
    let [va, count, ..] = caller;
    let outcome = match batch(cx, va, count as u32) {
        End::Whole(outcome) => outcome,
        End::Left(0, _) => Outcome::OK,
        End::Left(left, va) => {
            cx.set_args([va, left.into(), caller[2], caller[3], caller[4], caller[5]]);
            return Outcome::Again;
        }
    };
    cx.set_args(caller);
    outcome
}

/// Makes the first of `left` calls at `va`, with their arguments where the handlers look for them.
fn batch(cx: &mut Context<'_>, mut va: u64, mut left: u32) -> End {
    let mut chunk = ArrayVec::<MulticallEntry, CHUNK>::new();
    for _ in 0..CHUNKS {
        if left == 0 {
            break;
        }
        // What of a chunk cannot be read may become readable by one of its calls.
        guest_copy::read_some(&mut chunk, va, left);
        if chunk.is_empty() {
            return End::Whole(Outcome::Fail(Errno::EFAULT));
        }
        for entry in &chunk {
            match one(cx, va, entry) {
                Call::Done => {}
                Call::Again => return End::Left(left, va),
                Call::Last(outcome) => return End::Whole(outcome),
            }
            va = va.wrapping_add(SIZE);
            left -= 1;
        }
        if left != 0 && (interrupts::any() || !cx.vcpu.seat.ready.is_runnable()) {
            break;
        }
    }
    End::Left(left, va)
}

/// Makes the call at `va`.
#[inline(always)]
fn one(cx: &mut Context<'_>, va: u64, entry: &MulticallEntry) -> Call {
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
            let kept = guest::write(va.wrapping_add(offset_of!(MulticallEntry, args) as u64), &cx.args());
            return kept.map_or_else(|errno| Call::Last(Outcome::Fail(errno)), |()| Call::Again);
        }
    };
    let written = guest::write(va.wrapping_add(offset_of!(MulticallEntry, result) as u64), &result);
    if !cx.state.pv.in_kernel {
        // `iret` has gone to user mode, whose root is loaded now: what follows would be made without a kernel's rights, and
        // could give up the very table that the CPU uses. As in Xen the rest is not made.
        return Call::Last(Outcome::Done(result));
    }
    match written {
        Ok(()) => Call::Done,
        Err(errno) => Call::Last(Outcome::Fail(errno)),
    }
}

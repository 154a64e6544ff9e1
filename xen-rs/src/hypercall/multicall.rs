//! `HYPERVISOR_multicall`: several calls in one.

use core::mem::offset_of;

use logic::hypercall::Outcome;
use machine::{arch::x86_64::interrupts, mem::guest_copy};
use xen_abi::{errno::Errno, hypercall::HYPERVISOR_MULTICALL, multicall::MulticallEntry};
use zerocopy::{FromZeros, IntoBytes};

use crate::{cpu::Context, guest};

/// Calls read at a time, between two looks at what waits for this CPU.
const CHUNK: usize = 4;
/// Chunks of one round. No interrupt is taken meanwhile, so the looks alone would let a long batch keep the CPU.
const CHUNKS: u32 = 8;
/// Bytes of one.
const SIZE: u64 = size_of::<MulticallEntry>() as u64;

/// How a call ended.
enum End {
    /// On to the next.
    Next,
    /// The whole has ended, or has to come back.
    Whole(Outcome),
}

/// The hypercall: rdi points to an array of calls, rsi is how many.
#[allow(clippy::cast_possible_truncation, reason = "the count is an unsigned int of the ABI")]
pub fn multicall(cx: &mut Context<'_>) -> Outcome {
    let [mut va, count, ..] = cx.args;
    let mut left = count as u32;
    let caller = cx.args;
    let mut chunk = [MulticallEntry::new_zeroed(); CHUNK];
    for _ in 0..CHUNKS {
        if left == 0 {
            return Outcome::OK;
        }
        // A chunk that cannot be read as a whole may become readable by one of its calls.
        if left as usize >= CHUNK && guest_copy::copy_in(va, chunk.as_mut_bytes()).is_ok() {
            for entry in &chunk {
                if let End::Whole(outcome) = one(cx, &caller, va, entry, left) {
                    return outcome;
                }
                va = va.wrapping_add(SIZE);
                left -= 1;
            }
        } else {
            let entry = match guest::read(va) {
                Ok(entry) => entry,
                Err(errno) => return Outcome::Fail(errno),
            };
            if let End::Whole(outcome) = one(cx, &caller, va, &entry, left) {
                return outcome;
            }
            va = va.wrapping_add(SIZE);
            left -= 1;
        }
        if left != 0 && (interrupts::any() || !cx.vcpu.seat.ready.is_runnable()) {
            break;
        }
    }
    if left == 0 { Outcome::OK } else { come_back(cx, &caller, va, left) }
}

/// Makes the call at `va`, the first of `left`.
#[inline(always)]
fn one(cx: &mut Context<'_>, caller: &[u64; 6], va: u64, entry: &MulticallEntry, left: u32) -> End {
    cx.args = entry.args;
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
            let kept = guest::write(va.wrapping_add(offset_of!(MulticallEntry, args) as u64), &cx.args);
            let again = come_back(cx, caller, va, left);
            return End::Whole(kept.map_or_else(Outcome::Fail, |()| again));
        }
    };
    let written = guest::write(va.wrapping_add(offset_of!(MulticallEntry, result) as u64), &result);
    if !cx.state.pv.in_kernel {
        // `iret` has gone to user mode, whose root is loaded now: what follows would be made without a kernel's rights, and
        // could give up the very table that the CPU uses. As in Xen the rest is not made.
        return End::Whole(Outcome::Done(result));
    }
    match written {
        Ok(()) => End::Next,
        Err(errno) => End::Whole(Outcome::Fail(errno)),
    }
}

/// Goes on with the call at `va` when the guest makes the multicall again.
fn come_back(cx: &mut Context<'_>, caller: &[u64; 6], va: u64, left: u32) -> Outcome {
    cx.args = *caller;
    (cx.args[0], cx.args[1]) = (va, left.into());
    Outcome::Again
}

//! `HYPERVISOR_multicall`: several calls in one.

use core::mem::offset_of;

use logic::hypercall::Outcome;
use machine::arch::x86_64::interrupts;
use xen_abi::{errno::Errno, hypercall::HYPERVISOR_MULTICALL, multicall::MulticallEntry};

use crate::{cpu::Context, guest};

/// Calls made before an interrupt that waits is served.
const ROUND: u32 = 32;

/// The hypercall: rdi points to an array of calls, rsi is how many.
#[allow(clippy::cast_possible_truncation, reason = "the count is an unsigned int of the ABI")]
pub fn multicall(cx: &mut Context<'_>) -> Outcome {
    let [mut va, count, ..] = cx.args;
    let mut left = count as u32;
    let arguments = cx.args;
    for _ in 0..ROUND {
        if left == 0 {
            return Outcome::OK;
        }
        let entry: MulticallEntry = match guest::read(va) {
            Ok(entry) => entry,
            Err(errno) => return Outcome::Fail(errno),
        };
        cx.args = entry.args;
        // A call in a call would be a way to nest without end: Xen answers like this.
        let outcome = match entry.op {
            op if op == u64::from(HYPERVISOR_MULTICALL) => Outcome::Fail(Errno::EINVAL),
            op => super::dispatch(cx, op),
        };
        let result = match outcome {
            Outcome::Done(value) => value,
            Outcome::Fail(errno) => errno.as_ret(),
            Outcome::Again => {
                // The rest of this call is made first when the guest comes back.
                let rest = MulticallEntry { args: cx.args, ..entry };
                let kept = guest::write(va, &rest);
                cx.args = [va, left.into(), arguments[2], arguments[3], arguments[4], arguments[5]];
                return kept.map_or_else(Outcome::Fail, |()| Outcome::Again);
            }
        };
        if let Err(errno) = guest::write(va.wrapping_add(offset_of!(MulticallEntry, result) as u64), &result) {
            return Outcome::Fail(errno);
        }
        va = va.wrapping_add(size_of::<MulticallEntry>() as u64);
        left -= 1;
        if interrupts::any() || !cx.vcpu.seat.ready.is_runnable() {
            break;
        }
    }
    if left == 0 {
        return Outcome::OK;
    }
    cx.args = [va, left.into(), arguments[2], arguments[3], arguments[4], arguments[5]];
    Outcome::Again
}

//! `HYPERVISOR_set_timer_op`: the vCPU's one-shot timer.

use logic::hypercall::Outcome;
use xen_abi::errno::Errno;

use crate::cpu::Context;

/// The hypercall.
pub fn set_timer_op(_cx: &mut Context<'_>) -> Outcome {
    Outcome::Fail(Errno::ENOSYS)
}

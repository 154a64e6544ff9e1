//! `HYPERVISOR_physdev_op`: I/O privileges and interrupts.

use logic::hypercall::Outcome;
use xen_abi::errno::Errno;

use crate::cpu::Context;

/// The hypercall.
pub fn physdev_op(_cx: &mut Context<'_>) -> Outcome {
    Outcome::Fail(Errno::ENOSYS)
}

//! `HYPERVISOR_iret`: returns from an exception or event.

use logic::hypercall::Outcome;
use xen_abi::errno::Errno;

use crate::cpu::Context;

/// The hypercall.
pub fn iret(_cx: &mut Context<'_>) -> Outcome {
    Outcome::Fail(Errno::ENOSYS)
}

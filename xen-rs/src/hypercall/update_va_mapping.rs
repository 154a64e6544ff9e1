//! `HYPERVISOR_update_va_mapping`: changes the L1 entry of an address.

use logic::hypercall::Outcome;
use xen_abi::errno::Errno;

use crate::cpu::Context;

/// The hypercall.
pub fn update_va_mapping(_cx: &mut Context<'_>) -> Outcome {
    Outcome::Fail(Errno::ENOSYS)
}

/// `HYPERVISOR_update_va_mapping_otherdomain`.
pub fn other_domain(_cx: &mut Context<'_>) -> Outcome {
    Outcome::Fail(Errno::ENOSYS)
}

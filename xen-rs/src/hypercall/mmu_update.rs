//! `HYPERVISOR_mmu_update`: changes page-table entries and the M2P.

use logic::hypercall::Outcome;
use xen_abi::errno::Errno;

use crate::cpu::Context;

/// The hypercall.
pub fn mmu_update(_cx: &mut Context<'_>) -> Outcome {
    Outcome::Fail(Errno::ENOSYS)
}

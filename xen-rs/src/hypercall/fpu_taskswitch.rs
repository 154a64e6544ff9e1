//! `HYPERVISOR_fpu_taskswitch`: sets or clears CR0.TS for the guest.

use logic::hypercall::Outcome;
use xen_abi::errno::Errno;

use crate::cpu::Context;

/// The hypercall.
pub fn fpu_taskswitch(_cx: &mut Context<'_>) -> Outcome {
    Outcome::Fail(Errno::ENOSYS)
}

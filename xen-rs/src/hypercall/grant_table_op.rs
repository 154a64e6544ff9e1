//! `HYPERVISOR_grant_table_op`: shares pages between domains.

use logic::hypercall::Outcome;
use xen_abi::errno::Errno;

use crate::cpu::Context;

/// The hypercall.
pub fn grant_table_op(_cx: &mut Context<'_>) -> Outcome {
    Outcome::Fail(Errno::ENOSYS)
}

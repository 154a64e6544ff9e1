//! `sched_op`: giving up the CPU and ending the domain.

use super::{check, raw};
use xen_abi::errno::Errno;
use xen_abi::hypercall::HYPERVISOR_SCHED_OP;

/// `SCHEDOP_shutdown` (sched.h).
const SCHEDOP_SHUTDOWN: u32 = 2;

/// Ends the domain for `reason` (`SHUTDOWN_*`). Returns only when refused.
///
/// # Errors
/// Those of the hypercall.
pub fn shutdown(reason: u32) -> Result<(), Errno> {
    // SAFETY: the argument is a struct of one u32 that outlives the call.
    check(unsafe { raw(HYPERVISOR_SCHED_OP.into(), [SCHEDOP_SHUTDOWN.into(), (&raw const reason) as u64]) }).map(drop)
}

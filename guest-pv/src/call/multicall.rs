//! `multicall`: several hypercalls in one.
//!
//! Unsafe: a hypercall is told the address of an array of calls.

use super::{check, raw};
use xen_abi::errno::Errno;
use xen_abi::hypercall::HYPERVISOR_MULTICALL;
use xen_abi::multicall::MulticallEntry;

/// Runs the calls in order; each leaves its result in its entry.
///
/// # Safety
/// As for [`raw`], for each entry.
///
/// # Errors
/// Those of the hypercall itself.
pub unsafe fn multicall(calls: &mut [MulticallEntry]) -> Result<(), Errno> {
    // SAFETY: passed on to the caller.
    check(unsafe { raw(HYPERVISOR_MULTICALL.into(), [calls.as_mut_ptr() as u64, calls.len() as u64]) }).map(drop)
}

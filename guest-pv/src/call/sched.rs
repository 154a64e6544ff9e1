//! `sched_op`: giving up the CPU and ending the domain (public `sched.h`).
//!
//! Unsafe: a hypercall is told the address of a structure.

use super::{check, command, raw};
use xen_abi::errno::Errno;
use xen_abi::hypercall::HYPERVISOR_SCHED_OP;
use xen_abi::ids::{DomId, Port};
use xen_abi::sched::{
    SCHEDOP_BLOCK, SCHEDOP_POLL, SCHEDOP_REMOTE_SHUTDOWN, SCHEDOP_SHUTDOWN, SCHEDOP_YIELD, SchedPoll,
    SchedRemoteShutdown, SchedShutdown,
};

/// Lets others run.
///
/// # Errors
/// Those of the hypercall.
pub fn yield_cpu() -> Result<(), Errno> {
    // SAFETY: no memory is involved.
    check(unsafe { raw(HYPERVISOR_SCHED_OP.into(), [SCHEDOP_YIELD.into(), 0]) }).map(drop)
}

/// Unmasks event upcalls and sleeps until one is to be delivered.
///
/// # Errors
/// Those of the hypercall.
pub fn block() -> Result<(), Errno> {
    // SAFETY: no memory is involved; the upcall on return runs the registered callback.
    check(unsafe { raw(HYPERVISOR_SCHED_OP.into(), [SCHEDOP_BLOCK.into(), 0]) }).map(drop)
}

/// Sleeps until one of `ports` is pending (masked or not) or the system time `timeout` (ns; 0 means never) has come.
///
/// # Errors
/// Those of the hypercall.
pub fn poll(ports: &[Port], timeout: u64) -> Result<(), Errno> {
    let nr_ports = u32::try_from(ports.len()).map_err(|_| Errno::EINVAL)?;
    let mut poll = SchedPoll { ports: ports.as_ptr() as u64, nr_ports, _pad: 0, timeout };
    // SAFETY: the hypervisor only reads the struct and the ports.
    unsafe { command(HYPERVISOR_SCHED_OP, SCHEDOP_POLL, &mut poll) }.map(drop)
}

/// Ends the domain for `reason` (`SHUTDOWN_*`). Returns only when refused.
///
/// # Errors
/// Those of the hypercall.
pub fn shutdown(reason: u32) -> Result<(), Errno> {
    // SAFETY: the hypervisor only reads the struct.
    unsafe { command(HYPERVISOR_SCHED_OP, SCHEDOP_SHUTDOWN, &mut SchedShutdown { reason }) }.map(drop)
}

/// Declares another domain shut down.
///
/// # Errors
/// Those of the hypercall.
pub fn remote_shutdown(domain_id: DomId, reason: u32) -> Result<(), Errno> {
    let mut op = SchedRemoteShutdown { domain_id, _pad: 0, reason };
    // SAFETY: the hypervisor only reads the struct.
    unsafe { command(HYPERVISOR_SCHED_OP, SCHEDOP_REMOTE_SHUTDOWN, &mut op) }.map(drop)
}

//! `vcpu_op` and `set_timer_op` (public `vcpu.h`).
//!
//! Unsafe: a hypercall is told addresses, of some of which the hypervisor makes use for good.

use super::{check, raw};
use xen_abi::arch_x86::VcpuGuestContext;
use xen_abi::errno::Errno;
use xen_abi::hvm::VcpuHvmContext;
use xen_abi::hypercall::{HYPERVISOR_SET_TIMER_OP, HYPERVISOR_VCPU_OP};
use xen_abi::ids::VcpuId;
use xen_abi::vcpu::{
    VCPUOP_DOWN, VCPUOP_GET_RUNSTATE_INFO, VCPUOP_INITIALISE, VCPUOP_IS_UP, VCPUOP_SEND_NMI,
    VCPUOP_SET_SINGLESHOT_TIMER, VCPUOP_STOP_PERIODIC_TIMER, VCPUOP_STOP_SINGLESHOT_TIMER, VCPUOP_UP, VcpuRunstateInfo,
    VcpuSetSingleshotTimer,
};

/// The call `vcpu_op(command, vcpu, argument pointer)`.
///
/// # Safety
/// As for [`raw`]: several commands register memory that the hypervisor writes to from then on.
///
/// # Errors
/// Those of the hypercall.
pub unsafe fn op(command: u32, vcpu: VcpuId, argument: u64) -> Result<u64, Errno> {
    // SAFETY: passed on to the caller.
    check(unsafe { raw(HYPERVISOR_VCPU_OP.into(), [command.into(), vcpu.0.into(), argument]) })
}

/// Stops the periodic timer that every vCPU starts with.
///
/// # Errors
/// Those of the hypercall.
pub fn stop_periodic_timer(vcpu: VcpuId) -> Result<(), Errno> {
    // SAFETY: no memory is involved.
    unsafe { op(VCPUOP_STOP_PERIODIC_TIMER, vcpu, 0) }.map(drop)
}

/// Raises `VIRQ_TIMER` at system time `timeout_abs_ns`.
///
/// # Errors
/// Those of the hypercall; `ETIME` for a time gone by when `flags` has `VCPU_SSHOTTMR_FUTURE`.
pub fn set_singleshot_timer(vcpu: VcpuId, timeout_abs_ns: u64, flags: u32) -> Result<(), Errno> {
    let arg = VcpuSetSingleshotTimer { timeout_abs_ns, flags, _pad: 0 };
    // SAFETY: the hypervisor only reads the struct.
    unsafe { op(VCPUOP_SET_SINGLESHOT_TIMER, vcpu, (&raw const arg) as u64) }.map(drop)
}

/// Disarms the one-shot timer.
///
/// # Errors
/// Those of the hypercall.
pub fn stop_singleshot_timer(vcpu: VcpuId) -> Result<(), Errno> {
    // SAFETY: no memory is involved.
    unsafe { op(VCPUOP_STOP_SINGLESHOT_TIMER, vcpu, 0) }.map(drop)
}

/// Is the vCPU running or able to?
///
/// # Errors
/// Those of the hypercall.
pub fn is_up(vcpu: VcpuId) -> Result<bool, Errno> {
    // SAFETY: no memory is involved.
    unsafe { op(VCPUOP_IS_UP, vcpu, 0) }.map(|up| up != 0)
}

/// Gives a vCPU that has never run its first state.
///
/// # Safety
/// The state is one that can run along with the vCPUs that do already.
///
/// # Errors
/// Those of the hypercall; `EEXIST` when it has a state.
pub unsafe fn initialise(vcpu: VcpuId, context: &mut VcpuGuestContext) -> Result<(), Errno> {
    // SAFETY: the hypervisor only reads the struct; the contract is above.
    unsafe { op(VCPUOP_INITIALISE, vcpu, (&raw mut *context) as u64) }.map(drop)
}

/// [`initialise`] in a hardware container.
///
/// # Safety
/// As for [`initialise`].
///
/// # Errors
/// As for [`initialise`].
pub unsafe fn initialise_pvh(vcpu: VcpuId, context: &mut VcpuHvmContext) -> Result<(), Errno> {
    // SAFETY: the hypervisor only reads the struct; the contract is above.
    unsafe { op(VCPUOP_INITIALISE, vcpu, (&raw mut *context) as u64) }.map(drop)
}

/// Lets a vCPU run.
///
/// # Errors
/// Those of the hypercall; `EINVAL` when it has no state.
pub fn up(vcpu: VcpuId) -> Result<(), Errno> {
    // SAFETY: it goes on where it stopped.
    unsafe { op(VCPUOP_UP, vcpu, 0) }.map(drop)
}

/// Has a vCPU take an NMI.
///
/// # Errors
/// `ENOENT` when there is no such vCPU.
pub fn send_nmi(vcpu: VcpuId) -> Result<(), Errno> {
    // SAFETY: no memory is involved.
    unsafe { op(VCPUOP_SEND_NMI, vcpu, 0) }.map(drop)
}

/// Stops a vCPU; its own call returns when it is brought up again.
///
/// # Errors
/// Those of the hypercall.
pub fn down(vcpu: VcpuId) -> Result<(), Errno> {
    // SAFETY: no memory is involved.
    unsafe { op(VCPUOP_DOWN, vcpu, 0) }.map(drop)
}

/// How a vCPU has spent its time.
///
/// # Errors
/// Those of the hypercall.
pub fn runstate(vcpu: VcpuId) -> Result<VcpuRunstateInfo, Errno> {
    let mut info = VcpuRunstateInfo::default();
    // SAFETY: the hypervisor fills the struct.
    unsafe { op(VCPUOP_GET_RUNSTATE_INFO, vcpu, (&raw mut info) as u64) }?;
    Ok(info)
}

/// The old one-shot timer: raises `VIRQ_TIMER` at system time `timeout_abs_ns`; 0 disarms.
///
/// # Errors
/// Those of the hypercall.
pub fn set_timer(timeout_abs_ns: u64) -> Result<(), Errno> {
    // SAFETY: no memory is involved.
    check(unsafe { raw(HYPERVISOR_SET_TIMER_OP.into(), [timeout_abs_ns]) }).map(drop)
}

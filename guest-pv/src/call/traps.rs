//! The small calls that set up a virtual CPU: trap table, stacks, descriptors, segment bases, assists, debug registers.
//!
//! Unsafe: these calls decide what a trap runs, and on which stack.

use super::{check, raw};
use xen_abi::errno::Errno;
use xen_abi::hypercall::{
    HYPERVISOR_FPU_TASKSWITCH, HYPERVISOR_GET_DEBUGREG, HYPERVISOR_SET_DEBUGREG, HYPERVISOR_SET_GDT,
    HYPERVISOR_SET_SEGMENT_BASE, HYPERVISOR_SET_TRAP_TABLE, HYPERVISOR_STACK_SWITCH, HYPERVISOR_UPDATE_DESCRIPTOR,
    HYPERVISOR_VM_ASSIST,
};
use xen_abi::trap::TrapInfo;

/// Sets the entries of the trap table that `table` lists; its last entry has address 0.
///
/// # Safety
/// The handlers understand the frames pushed for their vectors.
///
/// # Errors
/// `EINVAL` when the terminating entry is missing, else those of the hypercall.
pub unsafe fn set_trap_table(table: &[TrapInfo]) -> Result<(), Errno> {
    if table.last().is_none_or(|last| last.address != 0) {
        return Err(Errno::EINVAL);
    }
    // SAFETY: the hypervisor reads up to the terminating entry.
    check(unsafe { raw(HYPERVISOR_SET_TRAP_TABLE.into(), [table.as_ptr() as u64]) }).map(drop)
}

/// Sets the kernel stack that is loaded on entry from user mode.
///
/// # Safety
/// The stack is free for that use.
///
/// # Errors
/// Those of the hypercall.
pub unsafe fn stack_switch(ss: u16, sp: u64) -> Result<(), Errno> {
    // SAFETY: by the contract above.
    check(unsafe { raw(HYPERVISOR_STACK_SWITCH.into(), [ss.into(), sp]) }).map(drop)
}

/// Loads a GDT of `entries` descriptors from the given machine frames.
///
/// # Safety
/// The selectors in use stay valid.
///
/// # Errors
/// Those of the hypercall.
pub unsafe fn set_gdt(frames: &[u64], entries: u32) -> Result<(), Errno> {
    // SAFETY: by the contract above; the hypervisor reads as many frames as `entries` needs, at most 14.
    check(unsafe { raw(HYPERVISOR_SET_GDT.into(), [frames.as_ptr() as u64, entries.into()]) }).map(drop)
}

/// Writes the descriptor at machine address `at`.
///
/// # Safety
/// When the descriptor is in use, code must be able to go on with the new one.
///
/// # Errors
/// Those of the hypercall.
pub unsafe fn update_descriptor(at: u64, descriptor: u64) -> Result<(), Errno> {
    // SAFETY: by the contract above.
    check(unsafe { raw(HYPERVISOR_UPDATE_DESCRIPTOR.into(), [at, descriptor]) }).map(drop)
}

/// Sets (`true`) or clears CR0.TS.
///
/// # Errors
/// Those of the hypercall.
pub fn fpu_taskswitch(set: bool) -> Result<(), Errno> {
    // SAFETY: no memory is involved, and this kernel does not use the FPU.
    check(unsafe { raw(HYPERVISOR_FPU_TASKSWITCH.into(), [u64::from(set)]) }).map(drop)
}

/// Sets a segment base (`SEGBASE_*`).
///
/// # Safety
/// Nothing may rely on the old base.
///
/// # Errors
/// Those of the hypercall.
pub unsafe fn set_segment_base(which: u32, base: u64) -> Result<(), Errno> {
    // SAFETY: by the contract above.
    check(unsafe { raw(HYPERVISOR_SET_SEGMENT_BASE.into(), [which.into(), base]) }).map(drop)
}

/// Enables or disables (`VMASST_CMD_*`) an assist (`VMASST_TYPE_*`).
///
/// # Errors
/// Those of the hypercall.
pub fn vm_assist(command: u32, assist: u32) -> Result<(), Errno> {
    // SAFETY: the assists change how faults are emulated, not memory.
    check(unsafe { raw(HYPERVISOR_VM_ASSIST.into(), [command.into(), assist.into()]) }).map(drop)
}

/// Writes a debug register.
///
/// # Errors
/// Those of the hypercall.
pub fn set_debugreg(register: u32, value: u64) -> Result<(), Errno> {
    // SAFETY: a breakpoint is a trap, which the trap table handles.
    check(unsafe { raw(HYPERVISOR_SET_DEBUGREG.into(), [register.into(), value]) }).map(drop)
}

/// Reads a debug register; an error of the call is indistinguishable from a value.
pub fn get_debugreg(register: u32) -> u64 {
    // SAFETY: nothing is written.
    unsafe { raw(HYPERVISOR_GET_DEBUGREG.into(), [register.into()]) }
}

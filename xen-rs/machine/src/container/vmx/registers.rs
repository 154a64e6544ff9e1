//! Registers of the CPU that an entry and an exit leave as they are: the guest's while its container is loaded.
//!
//! Unsafe: they are read and written.

use core::arch::asm;

use crate::arch::x86_64::cpu;

/// What a register that holds an address can hold.
pub(super) const fn canonical(value: u64) -> u64 {
    (value.cast_signed() << 16 >> 16).cast_unsigned()
}

/// Writes one of the registers of system calls.
///
/// # Safety
/// One of [`CALL_REGISTERS`](super::CALL_REGISTERS), while a container is loaded.
pub(super) unsafe fn write_call_register(number: u32, value: u64) {
    // SAFETY: the caller's promise; canonical, so that it does not fault.
    unsafe { cpu::wrmsr(number, canonical(value)) };
}

/// DR6.
pub(super) fn debug_status() -> u64 {
    let value;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, dr6", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Sets DR6.
pub(super) fn set_debug_status(value: u64) {
    // SAFETY: it says what happened, it decides nothing; the upper half is zero.
    unsafe { asm!("mov dr6, {}", in(reg) value & 0xffff_ffff, options(nomem, nostack, preserves_flags)) };
}

/// CR2.
#[inline(always)]
pub(super) fn cr2() -> u64 {
    let value;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr2", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Sets CR2.
#[inline(always)]
pub(super) fn set_cr2(value: u64) {
    // SAFETY: the register says where the last page fault was; nothing here relies on it.
    unsafe { asm!("mov cr2, {}", in(reg) value, options(nomem, nostack, preserves_flags)) };
}

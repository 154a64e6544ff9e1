//! I/O ports.
//!
//! Unsafe: the instructions.

use core::arch::asm;

/// Writes 32 bits.
///
/// # Safety
/// The device at the port does what it is told.
pub(crate) unsafe fn out32(port: u16, value: u32) {
    // SAFETY: by the contract above.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, preserves_flags)) };
}

/// Writes 16 bits.
///
/// # Safety
/// See [`out32`].
pub(crate) unsafe fn out16(port: u16, value: u16) {
    // SAFETY: by the contract above.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nostack, preserves_flags)) };
}

/// Reads 32 bits.
///
/// # Safety
/// See [`out32`]: reading may have effects.
pub(crate) unsafe fn in32(port: u16) -> u32 {
    let value;
    // SAFETY: by the contract above.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nostack, preserves_flags)) };
    value
}

//! The two 8259 interrupt controllers of a PC: moved away from the exception vectors and masked for good.
//!
//! Unsafe: I/O instructions.

use super::port::outb;

/// Where their sixteen vectors go: only spurious ones can still arrive.
pub const BASE: u8 = 0x20;

/// Remaps and masks both.
pub(crate) fn disable() {
    // SAFETY: initialisation words of the 8259 (data sheet): edge, cascade, vector base, wiring, 8086 mode, mask.
    unsafe {
        for (port, base, wiring) in [(0x20, BASE, 4), (0xa0, BASE + 8, 2)] {
            outb(port, 0x11);
            outb(port + 1, base);
            outb(port + 1, wiring);
            outb(port + 1, 0x01);
            outb(port + 1, 0xff);
        }
    }
}

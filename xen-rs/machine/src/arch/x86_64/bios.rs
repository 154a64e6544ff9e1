//! What a BIOS has left in its data area, read at boot.

use core::sync::atomic::{AtomicU8, Ordering};
use logic::boot::loader::Physical;

/// Where a BIOS keeps the state of the shift keys, which is what its call 0x16, AH=2 answers.
const SHIFT_FLAGS: u64 = 0x417;

static KEYBOARD: AtomicU8 = AtomicU8::new(0);

/// Reads it.
pub(super) fn init(memory: impl Physical) {
    KEYBOARD.store(memory.byte(SHIFT_FLAGS), Ordering::Relaxed);
}

/// The shift keys as they were at boot.
#[must_use]
pub fn keyboard_shift_flags() -> u8 {
    KEYBOARD.load(Ordering::Relaxed)
}

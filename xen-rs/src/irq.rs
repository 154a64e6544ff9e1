//! Device interrupts: the console's own, and those of the devices that dom0 drives.

use logic::lock::Held;

/// Vector of the console's UART.
pub const UART: u8 = 0x30;

/// A device interrupt was taken by this CPU.
pub fn interrupt(vector: u8, held: &mut Held<'_, 0>) {
    if vector == UART {
        crate::console::receive(held);
    }
}

//! A serial port of the machine (a 16550A) that the control domain drives itself: by its interrupt and its FIFOs.
//!
//! Each access to a port costs a trap into the hypervisor, so bytes move by string instructions, as many at once as the
//! chip says there are. Registers and bits: the data sheet of the PC16550D, sections 8.0 to 8.7.
//!
//! Unsafe: I/O instructions.

use crate::call::physdev;
use crate::events;
use alloc::vec::Vec;
use core::arch::asm;
use xen_abi::errno::Errno;
use xen_abi::ids::Port;

/// The PC's second serial port and its line.
pub const COM2: (u16, u32) = (0x2f8, 3);

/// What each FIFO holds.
const FIFO: usize = 16;
/// Bytes in the receiver's FIFO at which it interrupts.
const TRIGGER: usize = 14;

// Offsets of the registers.
const DATA: u16 = 0;
const INTERRUPT_ENABLE: u16 = 1;
/// Reading.
const INTERRUPT_ID: u16 = 2;
/// Writing.
const FIFO_CONTROL: u16 = 2;
const LINE_CONTROL: u16 = 3;
const MODEM_CONTROL: u16 = 4;
const LINE_STATUS: u16 = 5;
const MODEM_STATUS: u16 = 6;
const SCRATCH: u16 = 7;

/// Interrupt when there is input.
const RECEIVED: u8 = 1;
/// Interrupt when the transmitter is empty.
const SENT: u8 = 2;
/// There is input.
const LSR_READY: u8 = 1;
/// The transmitter's FIFO is empty.
const LSR_EMPTY: u8 = 0x20;

/// A serial port.
#[derive(Debug)]
pub struct Uart {
    base: u16,
    pirq: u32,
    needs_end: bool,
    port: Port,
    /// The transmitter is filled and will interrupt.
    sending: bool,
}

impl Uart {
    /// Takes a serial port into service at 115200 baud. `None` when there is no such chip, or when it is not this
    /// domain's.
    ///
    /// # Errors
    /// Its interrupt cannot be had.
    pub fn open((base, line): (u16, u32)) -> Result<Option<Self>, Errno> {
        physdev::allow_ports()?;
        // A byte that no bus answers with by itself, twice.
        for byte in [0x5a, 0xa5] {
            out_byte(base + SCRATCH, byte);
            if in_byte(base + SCRATCH) != byte {
                return Ok(None);
            }
        }
        let pirq = physdev::map_line(line)?;
        let needs_end = physdev::needs_end(pirq)?;
        let port = events::bind_pirq(pirq)?;
        out_byte(base + INTERRUPT_ENABLE, 0);
        out_byte(base + LINE_CONTROL, 0x83); // 8n1, and the divisor in place of data
        out_byte(base + DATA, 1);
        out_byte(base + INTERRUPT_ENABLE, 0);
        out_byte(base + LINE_CONTROL, 0x03);
        out_byte(base + FIFO_CONTROL, 0xc7); // FIFOs on and emptied, trigger at 14
        out_byte(base + MODEM_CONTROL, 0x0b); // ready, and the interrupt reaches the bus
        let uart = Self { base, pirq, needs_end, port, sending: false };
        // What an earlier owner left to be seen.
        for register in [LINE_STATUS, DATA, INTERRUPT_ID, MODEM_STATUS] {
            in_byte(base + register);
        }
        uart.enable(RECEIVED);
        Ok(Some(uart))
    }

    /// The event channel of its interrupt.
    pub fn port(&self) -> Port {
        self.port
    }

    fn enable(&self, interrupts: u8) {
        out_byte(self.base + INTERRUPT_ENABLE, interrupts);
    }

    /// Serves its interrupt: takes all input, and gives the transmitter what `next` has. The line is an edge, so this goes
    /// on until the chip has nothing more to say.
    pub fn serve(&mut self, received: &mut Vec<u8>, mut next: impl FnMut(&mut [u8]) -> usize) {
        if self.needs_end {
            // Only a pirq that is not ours cannot be ended.
            let _ = physdev::end(self.pirq);
        }
        // Bochs's chip forgets that the transmitter is empty when it is asked while it has something to say that goes before.
        let mut forgets = false;
        loop {
            let reason = in_byte(self.base + INTERRUPT_ID);
            forgets |= reason & 0x0f != 0x02 && reason & 1 == 0;
            match reason & 0x0f {
                // As many as the trigger says, or more.
                0x04 => self.take(TRIGGER, received),
                // Fewer, and no more came for a while.
                0x0c => {
                    while in_byte(self.base + LINE_STATUS) & LSR_READY != 0 {
                        self.take(1, received);
                    }
                }
                0x02 => self.fill(&mut next),
                0x06 => drop(in_byte(self.base + LINE_STATUS)),
                0x00 => drop(in_byte(self.base + MODEM_STATUS)),
                _ => break,
            }
        }
        if forgets && self.sending && in_byte(self.base + LINE_STATUS) & LSR_EMPTY != 0 {
            self.fill(&mut next);
        }
    }

    /// Begins to send what `next` has, unless that goes on already.
    pub fn send(&mut self, mut next: impl FnMut(&mut [u8]) -> usize) {
        if !self.sending && in_byte(self.base + LINE_STATUS) & LSR_EMPTY != 0 {
            self.fill(&mut next);
        }
    }

    /// Fills the empty transmitter. It interrupts when it is empty again, unless there was nothing to fill it with.
    fn fill(&mut self, next: &mut impl FnMut(&mut [u8]) -> usize) {
        let mut bytes = [0; FIFO];
        let count = next(&mut bytes).min(FIFO);
        out_bytes(self.base + DATA, &bytes[..count]);
        if self.sending != (count > 0) {
            self.sending = count > 0;
            self.enable(if self.sending { RECEIVED | SENT } else { RECEIVED });
        }
    }

    fn take(&self, count: usize, received: &mut Vec<u8>) {
        let mut bytes = [0; TRIGGER];
        let bytes = &mut bytes[..count];
        in_bytes(self.base + DATA, bytes);
        received.extend_from_slice(bytes);
    }
}

fn in_byte(port: u16) -> u8 {
    let byte;
    // SAFETY: a register of a serial port of ours; it does not touch memory.
    unsafe { asm!("in al, dx", in("dx") port, out("al") byte, options(nomem, nostack, preserves_flags)) };
    byte
}

fn out_byte(port: u16, byte: u8) {
    // SAFETY: as above.
    unsafe { asm!("out dx, al", in("dx") port, in("al") byte, options(nomem, nostack, preserves_flags)) };
}

fn in_bytes(port: u16, bytes: &mut [u8]) {
    // SAFETY: as above; it writes as many bytes as there are.
    unsafe {
        asm!("rep insb", in("dx") port, inout("rdi") bytes.as_mut_ptr() => _, inout("rcx") bytes.len() => _,
            options(nostack, preserves_flags));
    }
}

fn out_bytes(port: u16, bytes: &[u8]) {
    // SAFETY: as above; it reads as many bytes as there are.
    unsafe {
        asm!("rep outsb", in("dx") port, inout("rsi") bytes.as_ptr() => _, inout("rcx") bytes.len() => _,
            options(nostack, preserves_flags, readonly));
    }
}

//! The interrupt command register: what it says is sent to whom (SDM vol. 3A, 11.6.1).

use super::address::Target;
use super::{Apic, ERROR_SENT_ILLEGAL_VECTOR, Effect, FIRST_VECTOR};

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// An interrupt.
    Fixed(u8),
    /// A non-maskable interrupt.
    Nmi,
    /// Stop, and wait.
    Init,
    /// Begin in real mode at this page.
    Startup(u8),
}

/// An interrupt between processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipi {
    /// Whom it is for.
    pub to: Target,
    /// What it is.
    pub message: Message,
    /// One of those it reaches is enough (lowest priority).
    pub first_only: bool,
}

/// Bits of the register that a write to the x2APIC's may have.
pub const X2APIC_BITS: u64 = 0xffff_ffff_000c_cfff;
/// The register shows the interrupt as sent at once.
const BUSY: u64 = 1 << 12;

impl Apic {
    /// A write to the low half, or to the x2APIC's whole register, which begins to send.
    pub(super) fn send(&mut self, command: u64) -> Effect {
        const LOGICAL: u64 = 1 << 11;
        const ASSERT: u64 = 1 << 14;
        const LEVEL: u64 = 1 << 15;
        self.command = command & !BUSY;
        let vector = u8::try_from(command & 0xff).unwrap_or(0);
        let (mut first_only, illegal) = (false, vector < FIRST_VECTOR);
        let message = match command >> 8 & 7 {
            0 | 1 if illegal => {
                self.error(ERROR_SENT_ILLEGAL_VECTOR);
                return Effect::None;
            }
            0 => Message::Fixed(vector),
            1 => {
                first_only = true;
                Message::Fixed(vector)
            }
            4 => Message::Nmi,
            // INIT de-assert only ever set arbitration numbers that no APIC has any more.
            5 if command & LEVEL != 0 && command & ASSERT == 0 => return Effect::None,
            5 => Message::Init,
            6 => Message::Startup(vector),
            // SMI, and what is reserved.
            _ => return Effect::None,
        };
        let destination = if self.is_x2apic() { command >> 32 } else { command >> 56 };
        let destination = u32::try_from(destination).unwrap_or(0);
        let to = match command >> 18 & 3 {
            1 => Target::Myself,
            2 => Target::All,
            3 => Target::Others,
            _ if command & LOGICAL != 0 => Target::Logical(destination),
            _ => Target::Physical(destination),
        };
        // With a shorthand that includes the sender, only interrupts are legal (SDM vol. 3A, table 11-3).
        if matches!(to, Target::Myself | Target::All) && !matches!(message, Message::Fixed(_)) {
            return Effect::None;
        }
        self.send_to(Ipi { to, message, first_only })
    }

    /// What it sends to itself arrives at once.
    pub(super) fn send_to(&mut self, ipi: Ipi) -> Effect {
        if let (Target::Myself, Message::Fixed(vector)) = (ipi.to, ipi.message) {
            self.accept(vector);
            return Effect::None;
        }
        Effect::Send(ipi)
    }
}

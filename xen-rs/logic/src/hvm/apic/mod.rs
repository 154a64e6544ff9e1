//! The local APIC of a PVH domain's vCPU (SDM vol. 3A, chapter 11; APM vol. 2, chapter 16): its registers as memory (xAPIC)
//! and as MSRs (x2APIC), priorities, its timer, and interrupts between processors. What a guest sees of it (version, six
//! entries of the local vector table, a bus of 100 MHz) is what it sees on Xen 4.17.
//!
//! An [`Apic`] belongs to the CPU that runs its vCPU. Others reach it by its [`Inbox`]. It has no clock of its own: time
//! comes in by [`Clock`].

mod address;
mod hardware;
mod icr;
mod inbox;
mod msr;
mod registers;
mod timer;
mod vectors;

#[cfg(test)]
mod tests;

pub use address::Target;
pub use hardware::{Interrupts, MIRRORED, would_deliver};
pub use icr::{Ipi, Message};
pub use inbox::{Inbox, Signals, Start};
pub use vectors::Vectors;

use crate::time::Nanos;
use hardware::Service;
use registers::Lvt;
use timer::Timer;

/// Where an APIC's page is after reset.
pub const DEFAULT_BASE: u64 = 0xfee0_0000;
/// The register file's size.
pub const PAGE: u64 = 0x1000;

/// The time, as a vCPU's timer needs it.
pub trait Clock {
    /// Now.
    fn now(&self) -> Nanos;
    /// When the guest's TSC reaches `ticks`; a moment that has passed is any moment not after now.
    fn when_tsc_is(&self, ticks: u64) -> Nanos;
}

/// What a write asks of the one who has the APIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Effect {
    /// Nothing.
    None,
    /// Deliver this to the domain's other vCPUs: to each whose inbox is reached by `ipi.to`, and to this one likewise. For
    /// [`Message::Fixed`] with `first_only`, to one of them.
    Send(Ipi),
    /// [`Apic::deadline`] may be another.
    Timer,
}

/// Which vCPU it is: the first one starts, others wait for INIT and SIPI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The boot processor.
    First,
    /// Any other.
    Other,
}

/// IA32_APIC_BASE.
const BASE_BSP: u64 = 1 << 8;
const BASE_X2APIC: u64 = 1 << 10;
const BASE_ENABLED: u64 = 1 << 11;

/// Error status (SDM vol. 3A, 11.5.3).
const ERROR_SENT_ILLEGAL_VECTOR: u32 = 1 << 5;
const ERROR_GOT_ILLEGAL_VECTOR: u32 = 1 << 6;

/// Vectors below this are exceptions.
const FIRST_VECTOR: u8 = 16;
/// Spurious-interrupt register: the software's switch.
const SPURIOUS_ENABLED: u32 = 1 << 8;
const SPURIOUS_AFTER_RESET: u32 = 0xff;

/// A local APIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Apic {
    id: u32,
    base: u64,
    service: Service,
    task_priority: u8,
    logical: u32,
    format: u32,
    spurious: u32,
    command: u64,
    table: [u32; Lvt::COUNT],
    /// What has come: it waits here to be served, or to be handed on to the hardware that serves.
    requested: Vectors,
    level: Vectors,
    errors: u32,
    shown_errors: u32,
    timer: Timer,
}

impl Apic {
    /// One after reset. Its number in Xen is twice the vCPU's.
    #[must_use]
    pub fn new(id: u32, role: Role) -> Self {
        let bsp = if role == Role::First { BASE_BSP } else { 0 };
        Self {
            id,
            base: DEFAULT_BASE | BASE_ENABLED | bsp,
            service: Service::default(),
            task_priority: 0,
            logical: 0,
            format: u32::MAX,
            spurious: SPURIOUS_AFTER_RESET,
            command: 0,
            table: [Lvt::MASKED; Lvt::COUNT],
            requested: Vectors::default(),
            level: Vectors::default(),
            errors: 0,
            shown_errors: 0,
            timer: Timer::default(),
        }
    }

    /// What INIT leaves: all as after reset but the number, the base and the mode.
    pub fn init(&mut self) {
        let (id, base) = (self.id, self.base);
        *self = Self { base, ..Self::new(id, Role::Other) };
    }

    /// Its number.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// IA32_APIC_BASE.
    #[must_use]
    pub const fn base_msr(&self) -> u64 {
        self.base
    }

    /// Whether IA32_APIC_BASE switches it on; without that CPUID tells of none (SDM vol. 3A, 10.4.3).
    #[inline(always)]
    #[must_use]
    pub const fn is_switched_on(&self) -> bool {
        self.base & BASE_ENABLED != 0
    }

    /// Whether it is switched on and its registers are memory.
    #[must_use]
    pub const fn is_memory(&self) -> bool {
        self.base & (BASE_ENABLED | BASE_X2APIC) == BASE_ENABLED
    }

    /// Whether its registers are MSRs.
    #[must_use]
    pub const fn is_x2apic(&self) -> bool {
        self.base & (BASE_ENABLED | BASE_X2APIC) == BASE_ENABLED | BASE_X2APIC
    }

    /// Whether interrupts reach it: the hardware's switch and the software's.
    #[must_use]
    pub const fn is_enabled(&self) -> bool {
        self.is_switched_on() && self.spurious & SPURIOUS_ENABLED != 0
    }

    /// Where in its page a guest-physical address lies, if it is memory and has it there.
    #[must_use]
    pub const fn offset_of(&self, address: u64) -> Option<u32> {
        let page = self.base & !(PAGE - 1);
        if self.is_memory() && address & !(PAGE - 1) == page { Some((address & (PAGE - 1)) as u32) } else { None }
    }

    /// Takes what others have sent: vectors it keeps, for the rest see [`Signals`].
    pub fn take(&mut self, inbox: &Inbox) -> Signals {
        let enabled = self.is_enabled();
        inbox.drain(|vector| {
            if enabled {
                self.request(vector);
            }
        })
    }

    /// An edge-triggered interrupt, of its own timer or of the hypervisor's (event channels). Dropped while it is off.
    pub fn accept(&mut self, vector: u8) {
        if self.is_enabled() {
            self.request(vector);
        }
    }

    fn request(&mut self, vector: u8) {
        if vector < FIRST_VECTOR {
            self.error(ERROR_GOT_ILLEGAL_VECTOR);
        } else {
            self.requested.set(vector);
        }
    }

    /// An error of the APIC's, with the interrupt that the guest asked for.
    fn error(&mut self, error: u32) {
        self.errors |= error;
        let entry = self.table[Lvt::Error as usize];
        let vector = Lvt::vector(entry);
        // An illegal vector in the error entry would be the next error, and so on.
        if entry & Lvt::MASKED == 0 && vector >= FIRST_VECTOR && self.is_enabled() {
            self.requested.set(vector);
        }
    }

    /// When the timer goes off next.
    #[must_use]
    pub fn deadline(&self) -> Option<Nanos> {
        self.timer.deadline()
    }

    /// To be called when [`Apic::deadline`] has passed; nothing happens before that.
    pub fn expire(&mut self, now: Nanos) {
        if self.timer.expire(now) {
            let entry = self.table[Lvt::Timer as usize];
            if entry & Lvt::MASKED == 0 {
                self.accept(Lvt::vector(entry));
            }
        }
    }

    /// How it is to be reached, for [`Inbox::set_address`]: to be said whenever a write may have changed it.
    #[must_use]
    pub fn address(&self) -> address::Address {
        address::Address {
            enabled: self.is_enabled(),
            there: self.is_switched_on(),
            x2apic: self.is_x2apic(),
            flat: self.format >> 28 == 0xf,
            logical: if self.is_x2apic() { address::logical_of(self.id) } else { self.logical },
        }
    }
}

//! The registers by their offset in the page (SDM vol. 3A, table 11-1).

use super::timer::Mode;
use super::{Apic, Clock, Effect, SPURIOUS_ENABLED};

/// Offsets.
#[allow(missing_docs, reason = "the manual names them")]
pub mod offset {
    pub const ID: u32 = 0x20;
    pub const VERSION: u32 = 0x30;
    pub const TASK_PRIORITY: u32 = 0x80;
    pub const PROCESSOR_PRIORITY: u32 = 0xa0;
    pub const EOI: u32 = 0xb0;
    pub const LOGICAL: u32 = 0xd0;
    pub const FORMAT: u32 = 0xe0;
    pub const SPURIOUS: u32 = 0xf0;
    pub const IN_SERVICE: u32 = 0x100;
    pub const LEVEL: u32 = 0x180;
    pub const REQUESTED: u32 = 0x200;
    pub const ERRORS: u32 = 0x280;
    pub const COMMAND_LOW: u32 = 0x300;
    pub const COMMAND_HIGH: u32 = 0x310;
    pub const TABLE_TIMER: u32 = 0x320;
    pub const TABLE_ERROR: u32 = 0x370;
    pub const INITIAL_COUNT: u32 = 0x380;
    pub const CURRENT_COUNT: u32 = 0x390;
    pub const DIVIDE: u32 = 0x3e0;
}

/// Xen's: an integrated APIC with six entries in the local vector table, which cannot keep an EOI from being broadcast.
const VERSION: u32 = 0x0005_0014;
/// Vector, the software's switch, the focus check. An EOI's broadcast cannot be suppressed.
pub const SPURIOUS_BITS: u32 = 0x3ff;

/// The entries of the local vector table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lvt {
    /// The timer.
    Timer,
    /// The thermal sensor.
    Thermal,
    /// Performance counters.
    Counters,
    /// The pin LINT0.
    Pin0,
    /// The pin LINT1.
    Pin1,
    /// The APIC's own errors.
    Error,
}

impl Lvt {
    pub const COUNT: usize = 6;
    /// An entry that delivers nothing, as after reset.
    pub const MASKED: u32 = 1 << 16;
    const ALL: [Self; Self::COUNT] = [Self::Timer, Self::Thermal, Self::Counters, Self::Pin0, Self::Pin1, Self::Error];

    /// The entry at an offset.
    pub fn at(offset: u32) -> Option<Self> {
        let index = offset.checked_sub(offset::TABLE_TIMER)? >> 4;
        Self::ALL.get(usize::try_from(index).ok()?).copied().filter(|_| offset <= offset::TABLE_ERROR)
    }

    pub const fn vector(entry: u32) -> u8 {
        (entry & 0xff) as u8
    }

    /// The bits that can be written.
    pub const fn bits(self) -> u32 {
        const COMMON: u32 = Lvt::MASKED | 0xff;
        const DELIVERY_MODE: u32 = 7 << 8;
        const POLARITY_AND_TRIGGER: u32 = 1 << 13 | 1 << 15;
        match self {
            Self::Timer => COMMON | 3 << 17,
            Self::Thermal | Self::Counters => COMMON | DELIVERY_MODE,
            Self::Pin0 | Self::Pin1 => COMMON | DELIVERY_MODE | POLARITY_AND_TRIGGER,
            Self::Error => COMMON,
        }
    }
}

impl Apic {
    /// A register's value, by its offset in the page. What lies between registers reads as 0, and is no error, as on Xen.
    pub fn read(&self, offset: u32, clock: &impl Clock) -> u32 {
        self.register(offset, clock).unwrap_or(0)
    }

    /// A register's value, if there is one at the offset.
    pub(super) fn register(&self, at: u32, clock: &impl Clock) -> Option<u32> {
        let word = |first: u32| (at - first) >> 4;
        if at & 0xf != 0 {
            return None;
        }
        Some(match at {
            offset::ID if self.is_x2apic() => self.id(),
            offset::ID => self.id() << 24,
            offset::VERSION => VERSION,
            // The hardware that serves the guest answers what only it knows, and these reads do not come here.
            offset::TASK_PRIORITY | offset::PROCESSOR_PRIORITY | offset::IN_SERVICE..offset::LEVEL
                if self.is_served_by_hardware() =>
            {
                return None;
            }
            offset::TASK_PRIORITY => self.task_priority().into(),
            offset::PROCESSOR_PRIORITY => self.processor_priority().into(),
            // Written only.
            offset::EOI => 0,
            offset::LOGICAL => self.address().logical,
            offset::FORMAT => self.format,
            offset::SPURIOUS => self.spurious,
            offset::IN_SERVICE..offset::LEVEL => self.in_service().word(word(offset::IN_SERVICE)),
            offset::LEVEL..offset::REQUESTED => self.level.word(word(offset::LEVEL)),
            offset::REQUESTED..offset::ERRORS => self.requested.word(word(offset::REQUESTED)),
            offset::ERRORS => self.shown_errors,
            offset::COMMAND_LOW => (self.command & 0xffff_ffff) as u32,
            offset::COMMAND_HIGH => (self.command >> 32) as u32,
            offset::INITIAL_COUNT => self.timer.initial(),
            offset::CURRENT_COUNT => self.timer.current(clock.now()),
            offset::DIVIDE => self.timer.divide(),
            _ => self.table.get(Lvt::at(at)? as usize).copied()?,
        })
    }

    /// Writes a register by its offset in the page. Registers that are only read, and what lies between, take no write.
    pub fn write(&mut self, at: u32, value: u32, clock: &impl Clock) -> Effect {
        match at {
            _ if at & 0xf != 0 => {}
            offset::TASK_PRIORITY => self.set_task_priority((value & 0xff) as u8),
            offset::EOI => self.end(),
            offset::LOGICAL => self.logical = value & 0xff00_0000,
            offset::FORMAT => self.format = value | 0x0fff_ffff,
            offset::SPURIOUS => self.write_spurious(value),
            offset::ERRORS => {
                self.shown_errors = self.errors;
                self.errors = 0;
            }
            offset::COMMAND_LOW => return self.send(self.command & !0xffff_ffff | u64::from(value)),
            offset::COMMAND_HIGH => {
                self.command = self.command & 0xffff_ffff | u64::from(value & 0xff00_0000) << 32;
            }
            offset::INITIAL_COUNT => {
                self.timer.set_initial(value, clock);
                return Effect::Timer;
            }
            offset::DIVIDE => {
                self.timer.set_divide(value, clock);
                return Effect::Timer;
            }
            // The number is the hardware's, as in processors of today.
            offset::ID | offset::VERSION | offset::PROCESSOR_PRIORITY | offset::CURRENT_COUNT => {}
            offset::IN_SERVICE..offset::ERRORS => {}
            _ => {
                if let Some(which) = Lvt::at(at) {
                    return self.write_table(which, value);
                }
            }
        }
        Effect::None
    }

    fn write_spurious(&mut self, value: u32) {
        self.spurious = value & SPURIOUS_BITS;
        if self.spurious & SPURIOUS_ENABLED == 0 {
            // While it is off all of the table is masked (SDM vol. 3A, 11.4.7.2).
            for entry in &mut self.table {
                *entry |= Lvt::MASKED;
            }
        }
    }

    fn write_table(&mut self, which: Lvt, value: u32) -> Effect {
        let off = if self.spurious & SPURIOUS_ENABLED == 0 { Lvt::MASKED } else { 0 };
        let value = value & which.bits() | off;
        if let Some(entry) = self.table.get_mut(which as usize) {
            *entry = value;
        }
        if which == Lvt::Timer {
            self.timer.set_mode(Mode::of(value));
            return Effect::Timer;
        }
        Effect::None
    }
}

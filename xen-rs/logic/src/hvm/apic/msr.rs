//! The registers as MSRs (SDM vol. 3A, 11.12), IA32_APIC_BASE and IA32_TSC_DEADLINE. `None`: #GP.

use super::icr::X2APIC_BITS;
use super::registers::{Lvt, SPURIOUS_BITS, offset};
use super::{
    Apic, BASE_BSP, BASE_ENABLED, BASE_X2APIC, Clock, ERROR_SENT_ILLEGAL_VECTOR, Effect, FIRST_VECTOR, PAGE, Role,
};

/// Numbers.
#[allow(missing_docs, reason = "the manual names them")]
pub mod index {
    pub const APIC_BASE: u32 = 0x1b;
    pub const TSC_DEADLINE: u32 = 0x6e0;
    /// The x2APIC's registers: the offset in the page divided by 16 above this.
    pub const X2APIC: u32 = 0x800;
    pub const X2APIC_LAST: u32 = 0x8ff;
}

/// The whole command register, and the register by which one interrupts oneself.
const COMMAND: u32 = offset::COMMAND_LOW;
const SELF: u32 = 0x3f0;

impl Apic {
    /// Whether an MSR is one of these.
    #[must_use]
    pub const fn has_msr(msr: u32) -> bool {
        matches!(msr, index::APIC_BASE | index::TSC_DEADLINE | index::X2APIC..=index::X2APIC_LAST)
    }

    /// An MSR's value.
    #[must_use]
    pub fn read_msr(&self, msr: u32, clock: &impl Clock) -> Option<u64> {
        match msr {
            index::APIC_BASE => return Some(self.base_msr()),
            index::TSC_DEADLINE => return Some(self.timer.tsc_deadline()),
            _ => {}
        }
        match self.x2apic_offset(msr)? {
            offset::EOI | offset::FORMAT | offset::COMMAND_HIGH | SELF => None,
            COMMAND => Some(self.command),
            at => self.register(at, clock).map(u64::from),
        }
    }

    /// Writes an MSR.
    pub fn write_msr(&mut self, msr: u32, value: u64, clock: &impl Clock) -> Option<Effect> {
        match msr {
            index::APIC_BASE => return self.write_base(value),
            index::TSC_DEADLINE => {
                self.timer.set_tsc_deadline(value, clock);
                return Some(Effect::Timer);
            }
            _ => {}
        }
        let at = self.x2apic_offset(msr)?;
        if at == COMMAND {
            return (value & !X2APIC_BITS == 0).then(|| self.send(value));
        }
        let value = u32::try_from(value).ok()?;
        let allowed = match at {
            offset::TASK_PRIORITY => 0xff,
            offset::EOI | offset::ERRORS => 0,
            offset::SPURIOUS => SPURIOUS_BITS,
            offset::INITIAL_COUNT => u32::MAX,
            offset::DIVIDE => 0b1011,
            SELF => 0xff,
            _ => Lvt::at(at)?.bits(),
        };
        if value & !allowed != 0 {
            return None;
        }
        if at == SELF {
            return Some(self.send_to_self((value & 0xff) as u8));
        }
        Some(self.write(at, value, clock))
    }

    /// The register that an MSR is, if it is in this mode.
    fn x2apic_offset(&self, msr: u32) -> Option<u32> {
        let inside = (index::X2APIC..=index::X2APIC_LAST).contains(&msr);
        (inside && self.is_x2apic()).then(|| (msr - index::X2APIC) << 4).filter(|at| u64::from(*at) < PAGE)
    }

    fn send_to_self(&mut self, vector: u8) -> Effect {
        if vector < FIRST_VECTOR {
            self.error(ERROR_SENT_ILLEGAL_VECTOR);
            return Effect::None;
        }
        self.accept(vector);
        Effect::None
    }

    /// IA32_APIC_BASE: the modes change one step at a time (SDM vol. 3A, figure 11-27), and which processor is the first one
    /// never does.
    fn write_base(&mut self, value: u64) -> Option<Effect> {
        const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
        if value & !(ADDRESS | BASE_ENABLED | BASE_X2APIC | BASE_BSP) != 0 || (value ^ self.base) & BASE_BSP != 0 {
            return None;
        }
        let (was, is) = (self.base & (BASE_ENABLED | BASE_X2APIC), value & (BASE_ENABLED | BASE_X2APIC));
        match (was, is) {
            (_, BASE_X2APIC) => return None,
            // Not straight from off to x2APIC, not from x2APIC back to memory.
            (0, is) if is & BASE_X2APIC != 0 => return None,
            (was, BASE_ENABLED) if was & BASE_X2APIC != 0 => return None,
            // Switched off, it forgets all.
            (was, 0) if was != 0 => *self = Self { base: value, ..Self::new(self.id, Role::Other) },
            _ => self.base = value,
        }
        Some(Effect::Timer)
    }
}

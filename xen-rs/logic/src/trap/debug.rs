//! The debug registers of a PV vCPU: which values a guest may load (SDM vol. 3B, 17.2).

use super::is_guest_address;

/// DR6 bits that always read as one.
pub const DR6_DEFAULT: u64 = 0xffff_0ff0;
/// DR7 as after reset: bit 10 reads as one.
pub const DR7_DEFAULT: u64 = 0x400;
/// The enable bits of the four breakpoints in DR7.
pub const DR7_ACTIVE: u64 = 0xff;
/// DR6.BS: single step.
pub const DR6_SINGLE_STEP: u64 = 1 << 14;

const DR6_ZERO: u64 = 1 << 12;
const DR7_ZERO: u64 = 0xd800;
const DR7_ONE: u64 = DR7_DEFAULT;
const DR7_GENERAL_DETECT: u64 = 1 << 13;
const CR4_DE: u64 = 1 << 3;

/// Why a value or register is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No such register (also DR4/DR5 while CR4.DE is set): #UD, or `-ENODEV`.
    NoRegister,
    /// A reserved bit: #GP, or `-EINVAL`.
    Reserved,
    /// Meaningful, but not for a guest: #GP, or `-EPERM`.
    NotAllowed,
}

/// The debug registers of a vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DebugRegisters {
    /// Breakpoint addresses.
    pub address: [u64; 4],
    /// Status.
    pub dr6: u64,
    /// Control, as the CPU holds it.
    pub dr7: u64,
    /// Enable bits of I/O breakpoints, which the CPU must not see: they are matched in emulation.
    pub io_enable: u64,
}

impl Default for DebugRegisters {
    fn default() -> Self {
        Self { address: [0; 4], dr6: DR6_DEFAULT, dr7: DR7_DEFAULT, io_enable: 0 }
    }
}

impl DebugRegisters {
    /// Whether any breakpoint is armed in the CPU, so that the registers must be loaded for this vCPU.
    #[must_use]
    pub const fn active(&self) -> bool {
        self.dr7 & DR7_ACTIVE != 0
    }

    /// Reads a register as the guest sees it.
    ///
    /// # Errors
    /// [`Refused::NoRegister`].
    pub fn read(&self, index: u64, guest_cr4: u64) -> Result<u64, Refused> {
        match index {
            0..=3 => self.address.get(slot(index)).copied().ok_or(Refused::NoRegister),
            4 | 5 if guest_cr4 & CR4_DE != 0 => Err(Refused::NoRegister),
            4 | 6 => Ok(self.dr6),
            5 | 7 => Ok(self.dr7 | self.io_enable),
            _ => Err(Refused::NoRegister),
        }
    }

    /// Which breakpoints an access to `bytes` ports from `port` on hits, as bits of DR6.
    #[must_use]
    pub fn io_hits(&self, port: u16, bytes: u16) -> u64 {
        let (first, end) = (u64::from(port), u64::from(port) + u64::from(bytes));
        let mut hits = 0;
        for (index, start) in (0..).zip(self.address) {
            let length = match self.dr7 >> (18 + 4 * index) & 3 {
                0 => 1,
                1 => 2,
                2 => 8,
                _ => 4,
            };
            let enabled = self.io_enable >> (2 * index) & 3 != 0;
            if enabled && start < end && start.saturating_add(length) > first {
                hits |= 1 << index;
            }
        }
        hits
    }

    /// Writes a register with the checks of a guest's write; the caller then loads the CPU's.
    ///
    /// # Errors
    /// See [`Refused`]; nothing has changed then.
    pub fn write(&mut self, index: u64, value: u64, guest_cr4: u64) -> Result<(), Refused> {
        match index {
            0..=3 => {
                // A breakpoint on our own code or data would be a denial of service.
                if !is_guest_address(value) {
                    return Err(Refused::NotAllowed);
                }
                if let Some(slot) = self.address.get_mut(slot(index)) {
                    *slot = value;
                }
                Ok(())
            }
            4 | 5 if guest_cr4 & CR4_DE != 0 => Err(Refused::NoRegister),
            4 | 6 => {
                if value >> 32 != 0 {
                    return Err(Refused::Reserved);
                }
                self.dr6 = value & !DR6_ZERO | DR6_DEFAULT;
                Ok(())
            }
            5 | 7 => self.write_control(value, guest_cr4),
            _ => Err(Refused::NoRegister),
        }
    }

    fn write_control(&mut self, value: u64, guest_cr4: u64) -> Result<(), Refused> {
        const IO: u64 = 2;
        if value >> 32 != 0 {
            return Err(Refused::Reserved);
        }
        let value = value & !DR7_ZERO | DR7_ONE;
        if value & DR7_GENERAL_DETECT != 0 {
            return Err(Refused::NotAllowed);
        }
        let mut io_enable = 0;
        if value & DR7_ACTIVE != 0 {
            for i in 0..4 {
                if value >> (16 + 4 * i) & 3 == IO {
                    if guest_cr4 & CR4_DE == 0 {
                        return Err(Refused::NotAllowed);
                    }
                    io_enable |= value & 3 << (2 * i);
                }
            }
        }
        self.io_enable = io_enable;
        self.dr7 = value & !io_enable;
        Ok(())
    }
}

/// The address register that a number means.
#[allow(clippy::cast_possible_truncation, reason = "two bits")]
const fn slot(index: u64) -> usize {
    (index & 3) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_ours_are_refused() {
        let mut dr = DebugRegisters::default();
        assert_eq!(dr.write(0, 0xffff_8300_0000_0000, 0), Err(Refused::NotAllowed));
        assert_eq!(dr.write(3, 0xffff_ffff_8100_0000, 0), Ok(()));
        assert_eq!(dr.read(3, 0), Ok(0xffff_ffff_8100_0000));
    }

    #[test]
    fn reserved_bits_read_as_the_cpu_has_them() {
        let mut dr = DebugRegisters::default();
        dr.write(6, 0, 0).unwrap();
        assert_eq!(dr.read(6, 0), Ok(DR6_DEFAULT));
        dr.write(7, 1 << 15 | 1, 0).unwrap();
        assert_eq!(dr.read(7, 0), Ok(0x401));
        assert!(dr.active());
        assert_eq!(dr.write(7, 1 << 13, 0), Err(Refused::NotAllowed));
        assert_eq!(dr.write(7, 1 << 32, 0), Err(Refused::Reserved));
    }

    #[test]
    fn four_and_five_are_aliases_without_de() {
        let dr = DebugRegisters::default();
        assert_eq!(dr.read(5, 0), Ok(DR7_DEFAULT));
        assert_eq!(dr.read(5, CR4_DE), Err(Refused::NoRegister));
        assert_eq!(dr.read(8, 0), Err(Refused::NoRegister));
    }

    #[test]
    fn io_breakpoints_stay_out_of_the_cpu() {
        let mut dr = DebugRegisters::default();
        let value = 1 | 2 << 16;
        assert_eq!(dr.write(7, value, 0), Err(Refused::NotAllowed));
        dr.write(7, value, CR4_DE).unwrap();
        assert!(!dr.active());
        assert_eq!(dr.read(7, CR4_DE), Ok(value | DR7_DEFAULT));
        dr.write(0, 0x80, CR4_DE).unwrap();
        assert_eq!((dr.io_hits(0x80, 1), dr.io_hits(0x81, 1), dr.io_hits(0x7e, 4)), (1, 0, 1));
        // Two bytes by register 3.
        dr.write(7, 1 << 6 | 6 << 28, CR4_DE).unwrap();
        dr.write(3, 0x3f8, CR4_DE).unwrap();
        assert_eq!((dr.io_hits(0x3f9, 1), dr.io_hits(0x3fa, 1), dr.io_hits(0x80, 1)), (8, 0, 0));
    }
}

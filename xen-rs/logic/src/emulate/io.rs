//! Port I/O of PV guests: which ports reach the hardware and which are answered here.

use super::decode::Width;
use crate::regs::GuestRegs;

/// CONFIG_ADDRESS of PCI: a register of the domain, never touched directly.
pub const PCI_ADDRESS: u16 = 0xcf8;
/// CONFIG_DATA of PCI, four ports.
pub const PCI_DATA: u16 = 0xcfc;
/// The index and data ports of the real-time clock.
pub const RTC_INDEX: u16 = 0x70;
/// See [`RTC_INDEX`].
pub const RTC_DATA: u16 = 0x71;

/// Where an access to a port goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The hardware: the domain owns all ports of the access.
    Hardware,
    /// The domain's own PCI CONFIG_ADDRESS (32-bit accesses).
    PciAddress,
    /// PCI CONFIG_DATA at the byte offset.
    PciData(u8),
    /// The domain's own RTC index.
    RtcIndex,
    /// The RTC register of that index.
    RtcData,
    /// The domain's own timer channel.
    Timer,
    /// Nobody: reads are all ones, writes vanish.
    Nowhere,
}

/// Decides where an access goes; `owned` says whether the domain was given every port of it.
#[must_use]
pub fn route(port: u16, width: Width, owned: bool) -> Target {
    if port == PCI_ADDRESS && width == Width::Dword {
        return Target::PciAddress;
    }
    match port {
        RTC_INDEX => Target::RtcIndex,
        RTC_DATA if owned => Target::RtcData,
        RTC_DATA => Target::Nowhere,
        0x42 | 0x43 | 0x61 if width == Width::Byte => Target::Timer,
        _ if owned => Target::Hardware,
        p if p & !3 == PCI_DATA =>
        {
            #[allow(clippy::cast_possible_truncation, reason = "two bits")]
            Target::PciData((p & 3) as u8)
        }
        _ => Target::Nowhere,
    }
}

/// What a read of ports that nobody answers returns.
#[must_use]
pub const fn all_ones(width: Width) -> u32 {
    match width {
        Width::Byte => 0xff,
        Width::Word => 0xffff,
        Width::Dword => u32::MAX,
    }
}

/// Puts the result of `in` into rax with the rules of partial registers.
pub const fn set_accumulator(regs: &mut GuestRegs, width: Width, value: u32) {
    regs.rax = match width {
        Width::Byte => regs.rax & !0xff | value as u64 & 0xff,
        Width::Word => regs.rax & !0xffff | value as u64 & 0xffff,
        Width::Dword => value as u64,
    };
}

/// The value that `out` writes.
#[must_use]
#[allow(clippy::cast_possible_truncation, reason = "the low half is meant")]
pub const fn accumulator(regs: &GuestRegs, width: Width) -> u32 {
    regs.rax as u32 & all_ones(width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes() {
        assert_eq!(route(0xcf8, Width::Dword, true), Target::PciAddress);
        assert_eq!(route(0xcf8, Width::Byte, true), Target::Hardware);
        assert_eq!(route(0xcfe, Width::Word, false), Target::PciData(2));
        assert_eq!(route(0x42, Width::Byte, false), Target::Timer);
        assert_eq!(route(0x3f8, Width::Byte, false), Target::Nowhere);
        assert_eq!(route(0x70, Width::Byte, true), Target::RtcIndex);
        assert_eq!(route(0x71, Width::Byte, true), Target::RtcData);
    }

    #[test]
    fn partial_registers() {
        let mut regs = GuestRegs { rax: u64::MAX, ..GuestRegs::default() };
        set_accumulator(&mut regs, Width::Byte, 0x12);
        assert_eq!(regs.rax, 0xffff_ffff_ffff_ff12);
        set_accumulator(&mut regs, Width::Word, 0x3456);
        assert_eq!(regs.rax, 0xffff_ffff_ffff_3456);
        assert_eq!(accumulator(&regs, Width::Word), 0x3456);
        set_accumulator(&mut regs, Width::Dword, 1);
        assert_eq!(regs.rax, 1);
    }
}

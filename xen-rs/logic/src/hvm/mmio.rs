//! Registers in memory, as a guest's instructions reach them: which part of a local APIC's register an access meets, and what a
//! step of a string leaves in the guest's registers. The instructions are decoded by [`crate::emulate::memory`].

use super::string;
use crate::emulate::memory::Elements;
use crate::regs::GuestRegs;

/// Bytes of a register.
const REGISTER: u32 = 4;
/// Registers begin at multiples of this.
const STRIDE: u32 = 16;
/// The last one: the timer's divider.
const LAST: u32 = 0x3e0;

/// A part of one of a local APIC's registers. They are to be accessed as a whole (SDM vol. 3A, 11.4.1), but some processors do
/// it byte by byte, and so does Xen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    register: u32,
    shift: u32,
    mask: u32,
}

impl Part {
    /// So many bytes at an offset in the page. `None`: they do not lie in one register. Such reads give 0, and such writes go
    /// nowhere.
    #[must_use]
    pub const fn new(offset: u32, bytes: u8) -> Option<Self> {
        let (register, within) = (offset / STRIDE * STRIDE, offset % STRIDE);
        let mask = match bytes {
            1 => 0xff,
            2 => 0xffff,
            4 => u32::MAX,
            _ => return None,
        };
        if within + bytes as u32 > REGISTER || register > LAST {
            return None;
        }
        Some(Self { register, shift: within * 8, mask })
    }

    /// The register's offset in the page.
    #[must_use]
    pub const fn register(&self) -> u32 {
        self.register
    }

    /// What is read where the register has this value.
    #[must_use]
    pub const fn of(&self, value: u32) -> u32 {
        value >> self.shift & self.mask
    }

    /// What is written to the register: around the part it stays as it is.
    #[must_use]
    pub const fn within(&self, old: u32, value: u32) -> u32 {
        let mask = self.mask << self.shift;
        old & !mask | value << self.shift & mask
    }

    /// Whether nothing of the register is around it.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.mask == u32::MAX
    }
}

/// The next element of a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element {
    /// What RSI says of it, as an offset in its segment.
    pub source: u64,
    /// What RDI says of it.
    pub destination: u64,
}

const fn along(elements: &Elements, bytes: u8, reads: bool) -> string::Access {
    string::Access { reads, repeated: elements.repeated, bytes, width: elements.address }
}

/// The next element. `None`: all are done.
#[must_use]
pub fn next_element(regs: &GuestRegs, elements: &Elements, bytes: u8) -> Option<Element> {
    let [source, destination] = [false, true].map(|reads| string::step(regs, along(elements, bytes, reads), 1));
    (destination.elements != 0).then_some(Element { source: source.first, destination: destination.first })
}

/// The registers behind that element. Whether it was the last.
pub fn advance(regs: &mut GuestRegs, elements: &Elements, bytes: u8) -> bool {
    let access = along(elements, bytes, elements.destination);
    let step = string::step(regs, access, 1);
    if elements.destination && elements.source.is_some() {
        let source = string::Access { repeated: false, ..along(elements, bytes, false) };
        string::advance(regs, source, &step);
    }
    string::advance(regs, access, &step);
    step.over
}

#[cfg(all(test, not(loom)))]
mod unit {
    use super::*;
    use crate::emulate::encoding::{AddressSize, Segment};
    use crate::regs::rflags;

    #[test]
    fn parts_of_a_register() {
        let whole = Part::new(0x380, 4).expect("a register");
        assert_eq!((whole.register(), whole.of(7), whole.within(9, 7), whole.is_whole()), (0x380, 7, 7, true));
        let byte = Part::new(0x383, 1).expect("its last byte");
        assert_eq!((byte.register(), byte.of(0x1234_5678), byte.is_whole()), (0x380, 0x12, false));
        assert_eq!(byte.within(0x1234_5678, 0x1ff), 0xff34_5678);
        let word = Part::new(0x81, 2).expect("in its middle");
        assert_eq!((word.of(0x1234_5678), word.within(0x1234_5678, 0xabcd)), (0x3456, 0x12ab_cd78));
    }

    #[test]
    fn nothing_else_is_one() {
        for (offset, bytes) in [(0x380, 8), (0x381, 4), (0x383, 2), (0x384, 1), (0x38f, 1), (0x3f0, 4), (0xfff, 1)] {
            assert_eq!(Part::new(offset, bytes), None, "{offset:x} {bytes}");
        }
        assert!(Part::new(0x3e3, 1).is_some() && Part::new(0, 4).is_some());
    }

    #[test]
    fn strings_go_element_by_element() {
        let moves =
            Elements { repeated: true, address: AddressSize::Double, source: Some(Segment::Ds), destination: true };
        let (rsi, rdi) = (0x7_0000_0010, 0xfee0_0380);
        let mut regs = GuestRegs { rsi, rdi, rcx: 2, ..GuestRegs::default() };
        assert_eq!(next_element(&regs, &moves, 4), Some(Element { source: 0x10, destination: rdi }));
        assert!(!advance(&mut regs, &moves, 4));
        assert_eq!((regs.rsi, regs.rdi, regs.rcx), (0x14, rdi + 4, 1));
        assert!(advance(&mut regs, &moves, 4));
        assert_eq!(next_element(&regs, &moves, 4), None);
        assert!(advance(&mut regs, &moves, 4));
        assert_eq!((regs.rsi, regs.rdi, regs.rcx), (0x18, rdi + 8, 0));
        // One that is loaded, downwards.
        let load = Elements { repeated: false, destination: false, ..moves };
        let mut regs = GuestRegs { rsi, rdi, rcx: 0, rflags: rflags::DF, ..GuestRegs::default() };
        assert!(next_element(&regs, &load, 2).is_some() && advance(&mut regs, &load, 2));
        assert_eq!((regs.rsi, regs.rdi, regs.rcx), (0xe, rdi, 0));
    }
}

//! Instructions that go from element to element of a string (APM vol. 3): what of them is done at a time, and what that leaves in the registers.

pub use crate::emulate::encoding::AddressSize as Width;
use crate::regs::{GuestRegs, rflags};

/// The instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// RDI goes along it, as for `ins`; else RSI, as for `outs`.
    pub reads: bool,
    /// With a `rep` prefix.
    pub repeated: bool,
    /// Bytes of an element: 1, 2, 4 or 8.
    pub bytes: u8,
    /// The width of its addresses.
    pub width: Width,
}

/// What is done of it at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The lowest offset in the segment.
    pub first: u64,
    /// How many elements follow each other there.
    pub elements: u64,
    /// Then it is over.
    pub over: bool,
}

/// The next step, of so many elements at most. It does not go over the end of the segment.
#[must_use]
pub fn step(regs: &GuestRegs, access: Access, most: u64) -> Step {
    let mask = access.width.mask();
    let index = mask & if access.reads { regs.rdi } else { regs.rsi };
    let (count, bytes) = (if access.repeated { regs.rcx & mask } else { 1 }, u64::from(access.bytes).max(1));
    let down = regs.rflags & rflags::DF != 0;
    let room = if down { index / bytes } else { (mask - index) / bytes };
    let elements = count.min(most).min(room.max(1));
    let behind = elements.saturating_sub(1).saturating_mul(bytes);
    let first = if down { index.wrapping_sub(behind) & mask } else { index };
    Step { first, elements, over: elements == count }
}

/// The registers after it.
pub fn advance(regs: &mut GuestRegs, access: Access, step: &Step) {
    let moved = step.elements.wrapping_mul(access.bytes.into());
    let moved = if regs.rflags & rflags::DF != 0 { moved.wrapping_neg() } else { moved };
    let index = if access.reads { &mut regs.rdi } else { &mut regs.rsi };
    *index = access.width.write(*index, index.wrapping_add(moved));
    if access.repeated {
        regs.rcx = access.width.write(regs.rcx, regs.rcx.wrapping_sub(step.elements));
    }
}

#[cfg(all(test, not(loom)))]
mod unit {
    use super::*;

    const INS: Access = Access { reads: true, repeated: true, bytes: 2, width: Width::Long };

    #[test]
    fn goes_up_in_steps() {
        let mut regs = GuestRegs { rdi: 0x1000, rcx: 5, ..GuestRegs::default() };
        let first = step(&regs, INS, 3);
        assert_eq!(first, Step { first: 0x1000, elements: 3, over: false });
        advance(&mut regs, INS, &first);
        assert_eq!((regs.rdi, regs.rcx), (0x1006, 2));
        let last = step(&regs, INS, 3);
        advance(&mut regs, INS, &last);
        assert_eq!((regs.rdi, regs.rcx, last.over), (0x100a, 0, true));
        assert_eq!(step(&regs, INS, 3), Step { first: 0x100a, elements: 0, over: true });
    }

    #[test]
    fn goes_down_and_stays_in_its_width() {
        let mut regs = GuestRegs { rdi: 0x1_0000_1000, rcx: 4, rflags: rflags::DF, ..GuestRegs::default() };
        let double = Access { width: Width::Double, ..INS };
        let all = step(&regs, double, 100);
        assert_eq!(all, Step { first: 0xffa, elements: 4, over: true });
        advance(&mut regs, double, &all);
        assert_eq!((regs.rdi, regs.rcx), (0xff8, 0));
        let word = Access { width: Width::Word, repeated: false, reads: false, bytes: 1 };
        let mut regs = GuestRegs { rsi: 0x7777_ffff, rcx: 9, ..GuestRegs::default() };
        let one = step(&regs, word, 100);
        advance(&mut regs, word, &one);
        assert_eq!((one.first, regs.rsi, regs.rcx), (0xffff, 0x7777_0000, 9));
    }

    #[test]
    fn nothing_wraps() {
        for (rdi, rcx, flags) in [(u64::MAX, u64::MAX, 0), (0, u64::MAX, rflags::DF), (1, 7, rflags::DF)] {
            let mut regs = GuestRegs { rdi, rcx, rflags: flags, ..GuestRegs::default() };
            let some = step(&regs, INS, u64::MAX);
            assert!(some.elements >= 1);
            advance(&mut regs, INS, &some);
        }
    }
}

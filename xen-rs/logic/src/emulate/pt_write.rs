//! Writes of a guest's kernel to its own page-table pages, which it sees read-only: decoded here, checked and carried
//! out as changes of one entry (`logic::page`).
//!
//! An aligned access of at most 8 bytes begins where it faulted. The instructions are those of [`super::memory`] that write.

use super::encoding::{AddressSize, Gpr, mask};
pub use super::memory::Effect;
use super::memory::{self, Instruction, Op};
use crate::regs::GuestRegs;

/// An instruction that writes 1, 2, 4 or 8 bytes of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    instruction: Instruction,
}

/// `mov %r64, displacement(%base)`, which nearly every write is.
#[inline]
fn decode_plain_store(code: &[u8], regs: &GuestRegs) -> Option<Write> {
    /// The byte that %rsp and %r12 need as a base, without an index.
    const ALONE: u8 = 0x24;
    const REX_X: u8 = 2;
    let [rex, 0x89, modrm, sib, ..] = *code else { return None };
    // REX.W with any register.
    if rex & 0xf8 != 0x48 {
        return None;
    }
    let further = modrm & 7 == 4;
    if further && (sib != ALONE || rex & REX_X != 0) {
        return None;
    }
    let length = u8::from(further)
        + match modrm >> 6 {
            0 if modrm & 7 != 5 => 3,
            1 => 4,
            2 => 7,
            _ => return None,
        };
    let operand = Gpr(modrm >> 3 & 7 | (rex & 4) << 1).read(regs);
    let instruction = Instruction { length, ..Instruction::new(Op::Move, operand, 8) };
    (code.len() >= usize::from(length)).then_some(Write { instruction })
}

/// Decodes an instruction of 64-bit code that writes to memory; `None` for every other, and for rare ones.
#[must_use]
#[inline]
pub fn decode(code: &[u8], regs: &GuestRegs) -> Option<Write> {
    decode_plain_store(code, regs).or_else(|| decode_any(code, regs))
}

fn decode_any(code: &[u8], regs: &GuestRegs) -> Option<Write> {
    let instruction = memory::decode(code, AddressSize::Long, regs).ok()?;
    (instruction.writes() && instruction.elements.is_none()).then_some(Write { instruction })
}

impl Write {
    /// Bytes of the instruction.
    #[must_use]
    pub const fn length(&self) -> u8 {
        self.instruction.length
    }

    /// Whether an access at this address lies in one entry, on its natural boundary.
    #[must_use]
    pub const fn is_aligned_at(&self, address: u64) -> bool {
        address & (self.instruction.bytes as u64 - 1) == 0
    }

    /// Whether it overwrites what is there, without a look at it.
    #[must_use]
    pub const fn is_store(&self) -> bool {
        matches!(self.instruction.op, Op::Move)
    }

    /// What the whole entry becomes, whatever it was, when nothing else happens.
    #[inline]
    #[must_use]
    pub const fn whole_entry(&self) -> Option<u64> {
        if self.instruction.bytes == 8 && self.is_store() { Some(self.instruction.operand) } else { None }
    }

    /// Carries the instruction out on an entry, of which it accesses the bytes from `address` on: the effect has the entry.
    #[must_use]
    pub fn apply(&self, entry: u64, address: u64, regs: &GuestRegs) -> Effect {
        let shift = 8 * (address & 7) as u32;
        let mask = mask(self.instruction.bytes);
        let effect = self.instruction.apply(entry >> shift, regs);
        let memory = effect.memory.map(|new| entry & !(mask << shift) | new << shift);
        Effect { memory, ..effect }
    }
}

#[cfg(test)]
mod tests {
    use super::super::arithmetic::{CF, SF, ZF};
    use super::*;

    fn regs() -> GuestRegs {
        GuestRegs { rax: 0x1111, rcx: 0x2222_3333_4444_5555, rbx: 5, rsi: 0x99, rflags: 0x202, ..GuestRegs::default() }
    }

    fn run(code: &[u8], entry: u64, address: u64) -> (Effect, u8) {
        let write = decode(code, &regs()).expect("decodes");
        (write.apply(entry, address, &regs()), write.length())
    }

    #[test]
    fn moves() {
        let (effect, length) = run(&[0x48, 0x89, 0x08], 7, 0);
        assert_eq!((effect.memory, length), (Some(0x2222_3333_4444_5555), 3));
        let (effect, length) = run(&[0x48, 0xc7, 0x44, 0x24, 0x08, 0xff, 0xff, 0xff, 0xff], 7, 8);
        assert_eq!((effect.memory, length), (Some(u64::MAX), 9));
        let (effect, length) = run(&[0x89, 0x0d, 0, 0, 0, 0], 0xaaaa_aaaa_bbbb_bbbb, 4);
        assert_eq!((effect.memory, length), (Some(0x4444_5555_bbbb_bbbb), 6));
        let (effect, _) = run(&[0xc6, 0x07, 0x12], 0x99_0000, 1);
        assert_eq!(effect.memory, Some(0x99_1200));
        assert_eq!(decode(&[0x48, 0x89, 0xc8], &regs()), None, "register to register");
        assert_eq!(decode(&[0x48, 0x8b, 0x08], &regs()), None, "a read");
        assert_eq!(decode(&[0x66; 15], &regs()), None);
        assert_eq!(decode(&[0x48, 0x89], &regs()), None, "cut off");
    }

    #[test]
    fn plain_stores_decode_the_same_either_way() {
        for rex in 0x48..=0x4f {
            for (modrm, sib) in (0..=0xbf).flat_map(|modrm| [1, 0x24, 0x25, 0x64].map(|sib| (modrm, sib))) {
                let code = [rex, 0x89, modrm, sib, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
                let any = decode_any(&code, &regs());
                assert_eq!(decode(&code, &regs()), any, "{rex:x} {modrm:x}");
                for length in 0..15 {
                    assert_eq!(decode(&code[..length], &regs()), decode_any(&code[..length], &regs()));
                }
            }
        }
    }

    #[test]
    fn exchanges() {
        let (effect, _) = run(&[0x48, 0x87, 0x08], 0x77, 0);
        assert_eq!(effect.memory, Some(0x2222_3333_4444_5555));
        assert_eq!(effect.register, Some((Gpr(1), 0x77)));
        let (effect, length) = run(&[0xf0, 0x48, 0x0f, 0xb1, 0x0f], 0x1111, 0);
        assert_eq!((effect.memory, length), (Some(0x2222_3333_4444_5555), 5));
        assert!(effect.rflags & ZF != 0 && effect.register.is_none());
        let (effect, _) = run(&[0xf0, 0x48, 0x0f, 0xb1, 0x0f], 0x1112, 0);
        assert_eq!((effect.memory, effect.register), (None, Some((Gpr(0), 0x1112))));
        assert_eq!(effect.rflags & (ZF | CF | SF), CF | SF);
        let (effect, _) = run(&[0x48, 0x0f, 0xc1, 0x1f], 10, 0);
        assert_eq!((effect.memory, effect.register), (Some(15), Some((Gpr(3), 10))));
    }

    #[test]
    fn bits_and_arithmetic() {
        let (effect, length) = run(&[0xf0, 0x48, 0x0f, 0xba, 0x37, 0x01], 3, 0);
        assert_eq!((effect.memory, effect.rflags & CF, length), (Some(1), CF, 6));
        let (effect, _) = run(&[0xf0, 0x48, 0x0f, 0xb3, 0x1f], 1 << 5 | 1, 0);
        assert_eq!((effect.memory, effect.rflags & CF), (Some(1), CF));
        let (effect, _) = run(&[0xf0, 0x80, 0x27, 0xfd], 3, 0);
        assert_eq!(effect.memory, Some(1));
        let (effect, length) = run(&[0x48, 0x81, 0x4f, 0x10, 0, 0, 0, 0x80], 1, 0);
        assert_eq!((effect.memory, length), (Some(0xffff_ffff_8000_0001), 8));
        assert!(effect.rflags & SF != 0);
        let (effect, _) = run(&[0x48, 0x29, 0x1f], 5, 0);
        assert_eq!((effect.memory, effect.rflags & (ZF | CF)), (Some(0), ZF));
        let (effect, _) = run(&[0x48, 0xff, 0x07], u64::MAX, 0);
        assert_eq!((effect.memory, effect.rflags & (ZF | CF)), (Some(0), ZF));
    }

    #[test]
    fn alignment() {
        let write = decode(&[0x48, 0x89, 0x08], &regs()).expect("decodes");
        assert!(write.is_aligned_at(0x10) && !write.is_aligned_at(0x14));
        assert_eq!(write.whole_entry(), Some(0x2222_3333_4444_5555));
    }
}

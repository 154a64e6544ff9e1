//! Writes of a guest's kernel to its own page-table pages, which it sees read-only: decoded here, checked and carried
//! out as changes of one entry (`logic::page`).
//!
//! The page fault says which address was written, so the memory operand is only skipped, not computed: an aligned access
//! of at most 8 bytes begins where it faulted. Instructions and flags: SDM vol. 2.

use super::decode::{Gpr, MAX_LENGTH};
use crate::regs::GuestRegs;

/// What an instruction does with its memory operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    /// Overwrites it with the operand.
    Move,
    /// Exchanges it with a register.
    Exchange(Gpr),
    /// Overwrites it if it equals the accumulator.
    CompareExchange,
    /// Adds, and puts the old value into a register.
    ExchangeAdd(Gpr),
    Add,
    Or,
    And,
    Sub,
    Xor,
    BitSet,
    BitReset,
    BitComplement,
    Increment,
    Decrement,
    Not,
}

/// An instruction that writes 1, 2, 4 or 8 bytes of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    op: Op,
    /// The other operand, at full width.
    operand: u64,
    /// Bytes of the memory operand.
    width: u8,
    /// Bytes of the instruction.
    pub length: u8,
}

/// What carrying an instruction out comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effect {
    /// The new value of the entry, or nothing when a comparison failed.
    pub entry: Option<u64>,
    /// A register that changes, with its value.
    pub register: Option<(Gpr, u64)>,
    /// The flags afterwards.
    pub rflags: u64,
}

const CF: u64 = 1 << 0;
const PF: u64 = 1 << 2;
const AF: u64 = 1 << 4;
const ZF: u64 = 1 << 6;
const SF: u64 = 1 << 7;
const OF: u64 = 1 << 11;
const ARITHMETIC: u64 = CF | PF | AF | ZF | SF | OF;

/// Reads an instruction byte by byte.
struct Cursor<'a> {
    code: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.code.get(self.at).filter(|_| self.at < MAX_LENGTH)?;
        self.at += 1;
        Some(byte)
    }

    /// An immediate of that many bytes, sign-extended.
    fn signed(&mut self, bytes: u8) -> Option<u64> {
        if bytes == 0 {
            return Some(0);
        }
        let mut value = 0u64;
        for i in 0..bytes {
            value |= u64::from(self.byte()?) << (8 * i);
        }
        let unused = 64 - 8 * u32::from(bytes);
        #[allow(clippy::cast_sign_loss, clippy::cast_possible_wrap, reason = "sign extension")]
        Some(((value << unused) as i64 >> unused) as u64)
    }
}

const fn mask(width: u8) -> u64 {
    if width >= 8 { u64::MAX } else { (1 << (8 * width)) - 1 }
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
    (code.len() >= usize::from(length)).then_some(Write { op: Op::Move, operand, width: 8, length })
}

/// Decodes an instruction of 64-bit code that writes to memory; `None` for every other, and for rare ones.
#[must_use]
#[inline]
pub fn decode(code: &[u8], regs: &GuestRegs) -> Option<Write> {
    decode_plain_store(code, regs).or_else(|| decode_any(code, regs))
}

fn decode_any(code: &[u8], regs: &GuestRegs) -> Option<Write> {
    let mut code = Cursor { code, at: 0 };
    let (mut rex, mut narrow) = (0u8, false);
    let mut opcode = loop {
        match code.byte()? {
            0x66 => narrow = true,
            // Segment overrides, address size, lock: nothing that matters once the address is known.
            0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0x67 | 0xf0 => {}
            byte @ 0x40..=0x4f => {
                rex = byte;
                break u16::from(code.byte()?);
            }
            byte => break u16::from(byte),
        }
    };
    if opcode == 0x0f {
        opcode = 0x0f00 | u16::from(code.byte()?);
    }
    let modrm = code.byte()?;
    if modrm >> 6 == 3 {
        return None;
    }
    skip_memory_operand(&mut code, modrm)?;
    let wide = if rex & 8 != 0 {
        8
    } else if narrow {
        2
    } else {
        4
    };
    let width = match opcode {
        0x0fab | 0x0fb3 | 0x0fbb | 0x0fba => wide,
        even if even & 1 == 0 => 1,
        _ => wide,
    };
    let immediate = width.min(4);
    let number = modrm >> 3 & 7 | (rex & 4) << 1;
    let register = Gpr(number);
    let value = read_register(register, width, rex, regs);
    let (op, operand) = match opcode {
        0x88 | 0x89 => (Op::Move, value),
        0xc6 | 0xc7 if number & 7 == 0 => (Op::Move, code.signed(immediate)?),
        0x86 | 0x87 => (Op::Exchange(high_byte(register, width, rex)?), value),
        0x0fb0 | 0x0fb1 => (Op::CompareExchange, value),
        0x0fc0 | 0x0fc1 => (Op::ExchangeAdd(high_byte(register, width, rex)?), value),
        0x00 | 0x01 => (Op::Add, value),
        0x08 | 0x09 => (Op::Or, value),
        0x20 | 0x21 => (Op::And, value),
        0x28 | 0x29 => (Op::Sub, value),
        0x30 | 0x31 => (Op::Xor, value),
        0x80 | 0x81 | 0x83 => {
            let op = match number & 7 {
                0 => Op::Add,
                1 => Op::Or,
                4 => Op::And,
                5 => Op::Sub,
                6 => Op::Xor,
                _ => return None,
            };
            (op, code.signed(if opcode == 0x81 { immediate } else { 1 })?)
        }
        0x0fab => (Op::BitSet, value),
        0x0fb3 => (Op::BitReset, value),
        0x0fbb => (Op::BitComplement, value),
        0x0fba => {
            let op = match number & 7 {
                5 => Op::BitSet,
                6 => Op::BitReset,
                7 => Op::BitComplement,
                _ => return None,
            };
            (op, u64::from(code.byte()?))
        }
        0xfe | 0xff if number & 7 == 0 => (Op::Increment, 1),
        0xfe | 0xff if number & 7 == 1 => (Op::Decrement, 1),
        0xf6 | 0xf7 if number & 7 == 2 => (Op::Not, 0),
        _ => return None,
    };
    Some(Write { op, operand, width, length: u8::try_from(code.at).ok()? })
}

/// Without REX, byte registers 4 to 7 are AH, CH, DH, BH: as destinations nobody uses them on page tables.
const fn high_byte(register: Gpr, width: u8, rex: u8) -> Option<Gpr> {
    if width == 1 && rex == 0 && register.0 >= 4 { None } else { Some(register) }
}

fn read_register(register: Gpr, width: u8, rex: u8, regs: &GuestRegs) -> u64 {
    if high_byte(register, width, rex).is_none() {
        return Gpr(register.0 & 3).read(regs) >> 8 & 0xff;
    }
    register.read(regs) & mask(width)
}

fn skip_memory_operand(code: &mut Cursor<'_>, modrm: u8) -> Option<()> {
    let (mode, rm) = (modrm >> 6, modrm & 7);
    let base = if rm == 4 { code.byte()? & 7 } else { rm };
    let displacement = match mode {
        0 if base == 5 => 4,
        0 => 0,
        1 => 1,
        _ => 4,
    };
    code.signed(displacement).map(drop)
}

impl Write {
    /// Whether an access at this address lies in one entry, on its natural boundary.
    #[must_use]
    pub const fn is_aligned_at(&self, address: u64) -> bool {
        address & (self.width as u64 - 1) == 0
    }

    /// Whether it overwrites what is there, without a look at it.
    #[must_use]
    pub const fn is_store(&self) -> bool {
        matches!(self.op, Op::Move)
    }

    /// What the whole entry becomes, whatever it was, when nothing else happens.
    #[inline]
    #[must_use]
    pub const fn whole_entry(&self) -> Option<u64> {
        if self.width == 8 && matches!(self.op, Op::Move) { Some(self.operand) } else { None }
    }

    /// Carries the instruction out on an entry, of which it accesses the bytes from `address` on.
    #[must_use]
    pub fn apply(&self, entry: u64, address: u64, regs: &GuestRegs) -> Effect {
        let shift = 8 * (address & 7) as u32;
        let mask = mask(self.width);
        let old = entry >> shift & mask;
        let operand = self.operand & mask;
        let mut effect = Effect { entry: None, register: None, rflags: regs.rflags };
        let new = match self.op {
            Op::Move => operand,
            Op::Exchange(register) => {
                effect.register = Some((register, self.merged(register, old, regs)));
                operand
            }
            Op::CompareExchange => {
                let accumulator = regs.rax & mask;
                effect.rflags = self.flags_of_sub(regs.rflags, accumulator, old);
                if accumulator != old {
                    effect.register = Some((Gpr(0), self.merged(Gpr(0), old, regs)));
                    return effect;
                }
                operand
            }
            Op::ExchangeAdd(register) => {
                effect.register = Some((register, self.merged(register, old, regs)));
                effect.rflags = self.flags_of_add(regs.rflags, old, operand);
                old.wrapping_add(operand)
            }
            Op::Add => {
                effect.rflags = self.flags_of_add(regs.rflags, old, operand);
                old.wrapping_add(operand)
            }
            Op::Sub => {
                effect.rflags = self.flags_of_sub(regs.rflags, old, operand);
                old.wrapping_sub(operand)
            }
            Op::Increment => {
                // The carry stays as it was.
                effect.rflags = self.flags_of_add(regs.rflags, old, 1) & !CF | regs.rflags & CF;
                old.wrapping_add(1)
            }
            Op::Decrement => {
                effect.rflags = self.flags_of_sub(regs.rflags, old, 1) & !CF | regs.rflags & CF;
                old.wrapping_sub(1)
            }
            Op::Or | Op::And | Op::Xor => {
                let new = match self.op {
                    Op::Or => old | operand,
                    Op::And => old & operand,
                    _ => old ^ operand,
                };
                effect.rflags = regs.rflags & !ARITHMETIC | self.flags_of_result(new);
                new
            }
            Op::Not => !old,
            Op::BitSet | Op::BitReset | Op::BitComplement => {
                let bit = 1 << (self.operand & (8 * u64::from(self.width) - 1));
                effect.rflags = regs.rflags & !CF | u64::from(old & bit != 0);
                match self.op {
                    Op::BitSet => old | bit,
                    Op::BitReset => old & !bit,
                    _ => old ^ bit,
                }
            }
        };
        effect.entry = Some(entry & !(mask << shift) | (new & mask) << shift);
        effect
    }

    /// A register after a write of this instruction's width: 32-bit writes clear the upper half.
    fn merged(&self, register: Gpr, value: u64, regs: &GuestRegs) -> u64 {
        match self.width {
            1 | 2 => register.read(regs) & !mask(self.width) | value,
            _ => value,
        }
    }

    fn flags_of_result(&self, result: u64) -> u64 {
        let result = result & mask(self.width);
        let sign = (result >> (8 * u32::from(self.width) - 1)) & 1;
        let [low, ..] = result.to_le_bytes();
        let even = u64::from(low.count_ones().is_multiple_of(2));
        (even * PF) | (u64::from(result == 0) * ZF) | (sign * SF)
    }

    fn flags_of_add(&self, before: u64, a: u64, b: u64) -> u64 {
        let mask = mask(self.width);
        let sum = a.wrapping_add(b) & mask;
        let sign = 8 * u32::from(self.width) - 1;
        let overflow = (a ^ sum) & (b ^ sum) & mask;
        (before & !ARITHMETIC)
            | self.flags_of_result(sum)
            | (u64::from(sum < a) * CF)
            | (u64::from((a ^ b ^ sum) & 0x10 != 0) * AF)
            | (((overflow >> sign) & 1) * OF)
    }

    fn flags_of_sub(&self, before: u64, a: u64, b: u64) -> u64 {
        let mask = mask(self.width);
        let difference = a.wrapping_sub(b) & mask;
        let sign = 8 * u32::from(self.width) - 1;
        let overflow = (a ^ b) & (a ^ difference) & mask;
        (before & !ARITHMETIC)
            | self.flags_of_result(difference)
            | (u64::from(a < b) * CF)
            | (u64::from((a ^ b ^ difference) & 0x10 != 0) * AF)
            | (((overflow >> sign) & 1) * OF)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regs() -> GuestRegs {
        GuestRegs { rax: 0x1111, rcx: 0x2222_3333_4444_5555, rbx: 5, rsi: 0x99, rflags: 0x202, ..GuestRegs::default() }
    }

    fn run(code: &[u8], entry: u64, address: u64) -> (Effect, u8) {
        let write = decode(code, &regs()).expect("decodes");
        (write.apply(entry, address, &regs()), write.length)
    }

    #[test]
    fn moves() {
        let (effect, length) = run(&[0x48, 0x89, 0x08], 7, 0);
        assert_eq!((effect.entry, length), (Some(0x2222_3333_4444_5555), 3));
        let (effect, length) = run(&[0x48, 0xc7, 0x44, 0x24, 0x08, 0xff, 0xff, 0xff, 0xff], 7, 8);
        assert_eq!((effect.entry, length), (Some(u64::MAX), 9));
        let (effect, length) = run(&[0x89, 0x0d, 0, 0, 0, 0], 0xaaaa_aaaa_bbbb_bbbb, 4);
        assert_eq!((effect.entry, length), (Some(0x4444_5555_bbbb_bbbb), 6));
        let (effect, _) = run(&[0xc6, 0x07, 0x12], 0x99_0000, 1);
        assert_eq!(effect.entry, Some(0x99_1200));
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
        assert_eq!(effect.entry, Some(0x2222_3333_4444_5555));
        assert_eq!(effect.register, Some((Gpr(1), 0x77)));
        let (effect, length) = run(&[0xf0, 0x48, 0x0f, 0xb1, 0x0f], 0x1111, 0);
        assert_eq!((effect.entry, length), (Some(0x2222_3333_4444_5555), 5));
        assert!(effect.rflags & ZF != 0 && effect.register.is_none());
        let (effect, _) = run(&[0xf0, 0x48, 0x0f, 0xb1, 0x0f], 0x1112, 0);
        assert_eq!((effect.entry, effect.register), (None, Some((Gpr(0), 0x1112))));
        assert_eq!(effect.rflags & (ZF | CF | SF), CF | SF);
        let (effect, _) = run(&[0x48, 0x0f, 0xc1, 0x1f], 10, 0);
        assert_eq!((effect.entry, effect.register), (Some(15), Some((Gpr(3), 10))));
    }

    #[test]
    fn bits_and_arithmetic() {
        let (effect, length) = run(&[0xf0, 0x48, 0x0f, 0xba, 0x37, 0x01], 3, 0);
        assert_eq!((effect.entry, effect.rflags & CF, length), (Some(1), CF, 6));
        let (effect, _) = run(&[0xf0, 0x48, 0x0f, 0xb3, 0x1f], 1 << 5 | 1, 0);
        assert_eq!((effect.entry, effect.rflags & CF), (Some(1), CF));
        let (effect, _) = run(&[0xf0, 0x80, 0x27, 0xfd], 3, 0);
        assert_eq!(effect.entry, Some(1));
        let (effect, length) = run(&[0x48, 0x81, 0x4f, 0x10, 0, 0, 0, 0x80], 1, 0);
        assert_eq!((effect.entry, length), (Some(0xffff_ffff_8000_0001), 8));
        assert!(effect.rflags & SF != 0);
        let (effect, _) = run(&[0x48, 0x29, 0x1f], 5, 0);
        assert_eq!((effect.entry, effect.rflags & (ZF | CF)), (Some(0), ZF));
        let (effect, _) = run(&[0x48, 0xff, 0x07], u64::MAX, 0);
        assert_eq!((effect.entry, effect.rflags & (ZF | CF)), (Some(0), ZF));
    }

    #[test]
    fn alignment() {
        let write = decode(&[0x48, 0x89, 0x08], &regs()).expect("decodes");
        assert!(write.is_aligned_at(0x10) && !write.is_aligned_at(0x14));
        assert_eq!(write.whole_entry(), Some(0x2222_3333_4444_5555));
    }
}

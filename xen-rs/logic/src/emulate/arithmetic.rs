//! What arithmetic on 1, 2, 4 or 8 bytes leaves in the flags (SDM vol. 1, 3.4.3; what the manual leaves undefined is clear, as
//! on processors of today).

use super::encoding::mask;

/// Carry.
pub const CF: u64 = 1 << 0;
/// Parity.
pub const PF: u64 = 1 << 2;
/// Carry between the low halves of the lowest byte.
pub const AF: u64 = 1 << 4;
/// Zero.
pub const ZF: u64 = 1 << 6;
/// Sign.
pub const SF: u64 = 1 << 7;
/// Overflow.
pub const OF: u64 = 1 << 11;
/// All of them.
pub const ARITHMETIC: u64 = CF | PF | AF | ZF | SF | OF;

/// The eight operations that have all forms, by their number in the opcode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the manuals name them")]
pub enum Arithmetic {
    Add,
    Or,
    Adc,
    Sbb,
    And,
    Sub,
    Xor,
    Compare,
}

impl Arithmetic {
    /// By three bits of the opcode or of ModRM.
    pub const fn by_number(number: u8) -> Self {
        match number & 7 {
            0 => Self::Add,
            1 => Self::Or,
            2 => Self::Adc,
            3 => Self::Sbb,
            4 => Self::And,
            5 => Self::Sub,
            6 => Self::Xor,
            _ => Self::Compare,
        }
    }

    /// The result, which nobody gets from a comparison, and the flags.
    pub fn apply(self, bytes: u8, a: u64, b: u64, flags: u64) -> (u64, u64) {
        match self {
            Self::Add => add(bytes, a, b, 0, flags),
            Self::Adc => add(bytes, a, b, flags & CF, flags),
            Self::Sub | Self::Compare => sub(bytes, a, b, 0, flags),
            Self::Sbb => sub(bytes, a, b, flags & CF, flags),
            Self::Or => logical(bytes, a | b, flags),
            Self::And => logical(bytes, a & b, flags),
            Self::Xor => logical(bytes, a ^ b, flags),
        }
    }
}

/// The result of a bitwise operation, and its flags.
pub fn logical(bytes: u8, result: u64, flags: u64) -> (u64, u64) {
    (result & mask(bytes), flags & !ARITHMETIC | of_result(bytes, result))
}

fn of_result(bytes: u8, result: u64) -> u64 {
    let result = result & mask(bytes);
    let sign = (result >> (8 * u32::from(bytes) - 1)) & 1;
    let [low, ..] = result.to_le_bytes();
    let even = u64::from(low.count_ones().is_multiple_of(2));
    (even * PF) | (u64::from(result == 0) * ZF) | (sign * SF)
}

/// The sum with a carry, and its flags.
pub fn add(bytes: u8, a: u64, b: u64, carry: u64, flags: u64) -> (u64, u64) {
    let mask = mask(bytes);
    let (a, b) = (a & mask, b & mask);
    let sum = a.wrapping_add(b).wrapping_add(carry) & mask;
    let carries = sum < a || carry != 0 && sum == a;
    (sum, flags_of(bytes, a, b, sum, (a ^ sum) & (b ^ sum), carries, flags))
}

/// The difference with a borrow, and its flags.
pub fn sub(bytes: u8, a: u64, b: u64, borrow: u64, flags: u64) -> (u64, u64) {
    let mask = mask(bytes);
    let (a, b) = (a & mask, b & mask);
    let difference = a.wrapping_sub(b).wrapping_sub(borrow) & mask;
    let borrows = a < b || borrow != 0 && a == b;
    (difference, flags_of(bytes, a, b, difference, (a ^ b) & (a ^ difference), borrows, flags))
}

fn flags_of(bytes: u8, a: u64, b: u64, result: u64, overflow: u64, carries: bool, before: u64) -> u64 {
    let sign = 8 * u32::from(bytes) - 1;
    (before & !ARITHMETIC)
        | of_result(bytes, result)
        | (u64::from(carries) * CF)
        | (u64::from((a ^ b ^ result) & 0x10 != 0) * AF)
        | (((overflow >> sign) & 1) * OF)
}

#[cfg(all(test, not(loom)))]
mod unit {
    use super::*;

    /// Bit by bit, as adders do it.
    fn slowly(a: u8, b: u8, carry: u8) -> (u64, u64) {
        let (mut sum, mut carries) = (0, [carry; 9]);
        for bit in 0..8 {
            let ones = (a >> bit & 1) + (b >> bit & 1) + carries[bit];
            sum |= (ones & 1) << bit;
            carries[bit + 1] = ones >> 1;
        }
        let flag = |is: bool, flag| if is { flag } else { 0 };
        let flags = flag(carries[8] != 0, CF)
            | flag(carries[8] != carries[7], OF)
            | flag(carries[4] != 0, AF)
            | flag(sum == 0, ZF)
            | flag(sum >> 7 != 0, SF)
            | flag((0..8).filter(|bit| sum >> bit & 1 != 0).count() % 2 == 0, PF);
        (sum.into(), flags)
    }

    #[test]
    fn bytes_as_adders_do_it() {
        for (a, b, carry) in (0..=255).flat_map(|a| (0..=255).flat_map(move |b| [(a, b, 0u8), (a, b, 1)])) {
            let [wide_a, wide_b, flag] = [a, b, carry].map(u64::from);
            assert_eq!(Arithmetic::Adc.apply(1, wide_a, wide_b, flag), slowly(a, b, carry));
            // A difference is the sum with the complement; what is carried is not borrowed.
            let (difference, flags) = slowly(a, !b, 1 - carry);
            assert_eq!(Arithmetic::Sbb.apply(1, wide_a, wide_b, flag), (difference, flags ^ CF ^ AF));
        }
        assert_eq!(Arithmetic::Add.apply(8, u64::MAX, 1, CF), (0, CF | PF | AF | ZF));
        assert_eq!(Arithmetic::Sub.apply(4, 0, 1, 0), (0xffff_ffff, CF | PF | AF | SF));
        assert_eq!(Arithmetic::Xor.apply(2, 0x1_8000, 0, ARITHMETIC | 0x202), (0x8000, 0x202 | PF | SF));
    }
}

//! Instructions that access memory once, and what they do to it and to the registers (SDM vol. 2): moves, arithmetic, bits,
//! exchanges, and a step of `stos`, `lods` and `movs`.
//!
//! The fault says which address was accessed, so the operand in memory is only passed over, not computed.

use super::arithmetic::{self, Arithmetic, CF, ZF};
use super::encoding::{
    AddressSize, Bytes, CodeSize, Gpr, Prefixes, Register, Segment, Undecoded, mask, sign_extended, skip_prefixes,
};
use crate::regs::GuestRegs;

/// What an instruction does with its bytes in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Overwrites them with the operand.
    Move,
    /// Combines them with the operand.
    Change(Arithmetic),
    /// Exchanges them with a register.
    Exchange(Register),
    /// Overwrites them if they equal the accumulator.
    CompareExchange,
    /// Adds, and puts the old value into a register.
    ExchangeAdd(Register),
    /// Looks at one bit, and may change it.
    Bit(Bit),
    /// Adds 1.
    Increment,
    /// Subtracts 1.
    Decrement,
    /// Turns each bit round.
    Not,
    /// Subtracts them from 0.
    Negate,
    /// Only looks which bits they have in common with the operand.
    Test,
    /// Loads so many bytes of a register with them.
    Load {
        /// The register.
        to: Register,
        /// Its bytes.
        bytes: u8,
        /// Whether they have a sign.
        signed: bool,
    },
    /// Combines a register with them.
    Combine(Arithmetic, Register),
    /// Copies them to or from other memory.
    Copy,
}

/// What is done to a bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the manuals name them")]
pub enum Bit {
    Test,
    Set,
    Reset,
    Complement,
}

/// An instruction that goes from element to element of a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elements {
    /// With a `rep` prefix.
    pub repeated: bool,
    /// The width of addresses and of the count.
    pub address: AddressSize,
    /// The segment of what RSI points to, if it does.
    pub source: Option<Segment>,
    /// RDI points to something, in ES.
    pub destination: bool,
}

/// An instruction that accesses 1, 2, 4 or 8 bytes of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What it does.
    pub op: Op,
    /// The other operand.
    pub(super) operand: u64,
    /// Bytes of the operand in memory.
    pub bytes: u8,
    /// Bytes of the instruction.
    pub length: u8,
    /// Its elements, if it has some.
    pub elements: Option<Elements>,
}

/// What carrying an instruction out comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effect {
    /// The new value in memory, if it is written.
    pub memory: Option<u64>,
    /// A register that changes, with its value.
    pub register: Option<(Gpr, u64)>,
    /// The flags afterwards.
    pub rflags: u64,
}

/// Decodes the instruction at the start of `code`.
///
/// # Errors
/// See [`Undecoded`].
pub fn decode(code: &[u8], size: AddressSize, regs: &GuestRegs) -> Result<Instruction, Undecoded> {
    let mut bytes = Bytes::new(code);
    let mut prefixes = Prefixes::default();
    let mode = if size == AddressSize::Long { CodeSize::Long } else { CodeSize::Compat };
    let opcode = match skip_prefixes(&mut bytes, mode, &mut prefixes)? {
        0x0f => 0x0f00 | u16::from(bytes.byte()?),
        opcode => opcode.into(),
    };
    let wide = prefixes.operand_bytes(size);
    let found = match opcode {
        0xa0..=0xa3 => with_address(&mut bytes, opcode, wide, prefixes.address(size), regs)?,
        0xa4 | 0xa5 | 0xaa..=0xad => string(opcode, wide, &prefixes, prefixes.address(size), regs),
        _ => with_modrm(&mut bytes, opcode, wide, &prefixes, size, regs)?,
    };
    if prefixes.lock && !found.may_be_locked() {
        return Err(Undecoded::Locked);
    }
    Ok(Instruction { length: bytes.length(), ..found })
}

/// Between the accumulator and an address that is part of the instruction.
fn with_address(
    bytes: &mut Bytes<'_>,
    opcode: u16,
    wide: u8,
    address: AddressSize,
    regs: &GuestRegs,
) -> Result<Instruction, Undecoded> {
    let width = if opcode & 1 == 0 { 1 } else { wide };
    bytes.signed(match address {
        AddressSize::Word => 2,
        AddressSize::Double => 4,
        AddressSize::Long => 8,
    })?;
    let to = Register::ACCUMULATOR;
    Ok(if opcode & 2 == 0 {
        Instruction::new(Op::Load { to, bytes: width, signed: false }, 0, width)
    } else {
        Instruction::new(Op::Move, to.read(width, regs), width)
    })
}

fn string(opcode: u16, wide: u8, prefixes: &Prefixes, address: AddressSize, regs: &GuestRegs) -> Instruction {
    let width = if opcode & 1 == 0 { 1 } else { wide };
    let to = Register::ACCUMULATOR;
    let (op, operand) = match opcode {
        0xaa | 0xab => (Op::Move, to.read(width, regs)),
        0xac | 0xad => (Op::Load { to, bytes: width, signed: false }, 0),
        _ => (Op::Copy, 0),
    };
    let elements = Elements {
        repeated: prefixes.repeat || prefixes.repeat_ne,
        address,
        source: (op != Op::Move).then(|| prefixes.segment.unwrap_or(Segment::Ds)),
        destination: !matches!(op, Op::Load { .. }),
    };
    Instruction { elements: Some(elements), ..Instruction::new(op, operand, width) }
}

fn with_modrm(
    bytes: &mut Bytes<'_>,
    opcode: u16,
    wide: u8,
    prefixes: &Prefixes,
    size: AddressSize,
    regs: &GuestRegs,
) -> Result<Instruction, Undecoded> {
    let modrm = bytes.byte()?;
    bytes.skip_memory(modrm, prefixes.address(size))?;
    let width = match opcode {
        0x0fba => wide,
        0x0fb7 | 0x0fbf => 2,
        0x63 => 4,
        even if even & 1 == 0 => 1,
        _ => wide,
    };
    let short = modrm >> 3 & 7;
    let number = short | (prefixes.rex & 4) << 1;
    let register = Register::new(number, width, prefixes.rex);
    let value = register.read(width, regs);
    let to = Register::new(number, wide, prefixes.rex);
    let constant = width.min(4);
    let [low, _] = opcode.to_le_bytes();
    let (op, operand) = match opcode {
        0x00..=0x3b if opcode & 4 == 0 => match Arithmetic::by_number(low >> 3) {
            which if opcode & 2 == 0 => (Op::Change(which), value),
            which => (Op::Combine(which, register), 0),
        },
        0x63 if size == AddressSize::Long => (Op::Load { to, bytes: wide, signed: true }, 0),
        0x80 | 0x81 | 0x83 => {
            let operand = bytes.signed(if opcode == 0x81 { constant } else { 1 })?;
            (Op::Change(Arithmetic::by_number(short)), operand)
        }
        0x84 | 0x85 => (Op::Test, value),
        0x86 | 0x87 => (Op::Exchange(register), value),
        0x88 | 0x89 => (Op::Move, value),
        0x8a | 0x8b => (Op::Load { to: register, bytes: width, signed: false }, 0),
        0xc6 | 0xc7 if short == 0 => (Op::Move, bytes.signed(constant)?),
        0xf6 | 0xf7 => match short {
            0 | 1 => (Op::Test, bytes.signed(constant)?),
            2 => (Op::Not, 0),
            3 => (Op::Negate, 0),
            _ => return Err(Undecoded::Foreign),
        },
        0xfe | 0xff if short == 0 => (Op::Increment, 0),
        0xfe | 0xff if short == 1 => (Op::Decrement, 0),
        0x0fb0 | 0x0fb1 => (Op::CompareExchange, value),
        0x0fc0 | 0x0fc1 => (Op::ExchangeAdd(register), value),
        0x0fb6 | 0x0fb7 => (Op::Load { to, bytes: wide, signed: false }, 0),
        0x0fbe | 0x0fbf => (Op::Load { to, bytes: wide, signed: true }, 0),
        0x0fa3 | 0x0fab | 0x0fb3 | 0x0fbb => (Op::Bit(Bit::by_number(low >> 3)), value),
        0x0fba if short >= 4 => (Op::Bit(Bit::by_number(short)), bytes.byte()?.into()),
        _ => return Err(Undecoded::Foreign),
    };
    Ok(Instruction::new(op, operand, width))
}

impl Bit {
    /// By two bits of the opcode or of ModRM.
    const fn by_number(number: u8) -> Self {
        match number & 3 {
            0 => Self::Test,
            1 => Self::Set,
            2 => Self::Reset,
            _ => Self::Complement,
        }
    }
}

impl Instruction {
    /// One whose length is not known yet.
    pub(super) const fn new(op: Op, operand: u64, bytes: u8) -> Self {
        Self { op, operand: operand & mask(bytes), bytes, length: 0, elements: None }
    }

    /// Whether what is in memory counts.
    #[must_use]
    pub const fn reads(&self) -> bool {
        !matches!(self.op, Op::Move)
    }

    /// Whether it writes to memory, or may.
    #[must_use]
    pub const fn writes(&self) -> bool {
        !matches!(
            self.op,
            Op::Load { .. } | Op::Combine(..) | Op::Test | Op::Change(Arithmetic::Compare) | Op::Bit(Bit::Test)
        )
    }

    const fn may_be_locked(&self) -> bool {
        self.reads() && self.writes() && !matches!(self.op, Op::Copy)
    }

    /// Carries it out, where `old` is in memory.
    #[must_use]
    pub fn apply(&self, old: u64, regs: &GuestRegs) -> Effect {
        let (bytes, operand, flags) = (self.bytes, self.operand, regs.rflags);
        let old = old & mask(bytes);
        let effect = Effect { memory: None, register: None, rflags: flags };
        let changed = |(value, rflags)| Effect { memory: Some(value), register: None, rflags };
        match self.op {
            Op::Move => changed((operand, flags)),
            Op::Copy => changed((old, flags)),
            Op::Not => changed((!old & mask(bytes), flags)),
            Op::Change(Arithmetic::Compare) => {
                Effect { rflags: Arithmetic::Compare.apply(bytes, old, operand, flags).1, ..effect }
            }
            Op::Change(which) => changed(which.apply(bytes, old, operand, flags)),
            Op::Negate => changed(arithmetic::sub(bytes, 0, old, 0, flags)),
            Op::Increment | Op::Decrement => {
                let one = if self.op == Op::Increment { arithmetic::add } else { arithmetic::sub };
                let (value, after) = one(bytes, old, 1, 0, flags);
                // The carry stays as it was.
                changed((value, after & !CF | flags & CF))
            }
            Op::Test => Effect { rflags: arithmetic::logical(bytes, old & operand, flags).1, ..effect },
            Op::Exchange(register) => {
                Effect { register: Some(register.after(bytes, old, regs)), ..changed((operand, flags)) }
            }
            Op::ExchangeAdd(register) => Effect {
                register: Some(register.after(bytes, old, regs)),
                ..changed(arithmetic::add(bytes, old, operand, 0, flags))
            },
            Op::CompareExchange => {
                let accumulator = Register::ACCUMULATOR;
                let (_, rflags) = arithmetic::sub(bytes, accumulator.read(bytes, regs), old, 0, flags);
                if rflags & ZF != 0 {
                    changed((operand, rflags))
                } else {
                    Effect { register: Some(accumulator.after(bytes, old, regs)), rflags, ..effect }
                }
            }
            Op::Bit(which) => {
                let bit = 1 << (operand & (8 * u64::from(bytes) - 1));
                let rflags = flags & !CF | u64::from(old & bit != 0);
                match which {
                    Bit::Test => Effect { rflags, ..effect },
                    Bit::Set => changed((old | bit, rflags)),
                    Bit::Reset => changed((old & !bit, rflags)),
                    Bit::Complement => changed((old ^ bit, rflags)),
                }
            }
            Op::Load { to, bytes: wide, signed } => {
                let value = if signed { sign_extended(old, bytes) } else { old };
                Effect { register: Some(to.after(wide, value, regs)), ..effect }
            }
            Op::Combine(which, register) => {
                let (value, rflags) = which.apply(bytes, register.read(bytes, regs), old, flags);
                let register = (which != Arithmetic::Compare).then(|| register.after(bytes, value, regs));
                Effect { register, rflags, ..effect }
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;

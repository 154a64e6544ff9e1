//! The instructions by which a kernel reaches registers in memory: `mov` between memory and a register, and of a constant to
//! memory (APM vol. 3). The address is known from the fault; what is wanted is the direction, the size, the register and the
//! length.

use crate::emulate::decode::Gpr;

/// What the instruction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A register is loaded from memory.
    Load(Gpr),
    /// A register is stored.
    Store(Gpr),
    /// A constant is stored.
    StoreConstant(u32),
}

/// A decoded instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// What it does.
    pub operation: Operation,
    /// 4 or 8 bytes.
    pub bytes: u8,
    /// Its own length.
    pub length: u8,
}

/// Decodes what 32-bit or 64-bit code does; `None`: something else, or not all of it is there.
#[must_use]
pub fn decode(code: &[u8], long_mode: bool) -> Option<Access> {
    const REX_W: u8 = 8;
    const REX_R: u8 = 4;
    let byte = |at: usize| code.get(at).copied();
    let mut at = 0;
    // Segment prefixes: the address is known.
    while matches!(byte(at)?, 0x2e | 0x36 | 0x3e | 0x26 | 0x64 | 0x65) {
        at += 1;
    }
    let mut rex = 0;
    if long_mode && matches!(byte(at)?, 0x40..=0x4f) {
        rex = byte(at)?;
        at += 1;
    }
    let opcode = byte(at)?;
    at += 1;
    let bytes = if rex & REX_W != 0 { 8 } else { 4 };
    // With an address in the instruction itself.
    if matches!(opcode, 0xa1 | 0xa3) {
        let length = at + if long_mode { 8 } else { 4 };
        let accumulator = Gpr(0);
        let operation = if opcode == 0xa1 { Operation::Load(accumulator) } else { Operation::Store(accumulator) };
        return (length <= code.len()).then_some(Access { operation, bytes, length: u8::try_from(length).ok()? });
    }
    let modrm = byte(at)?;
    at += 1;
    let (mode, register, base) = (modrm >> 6, modrm >> 3 & 7 | (rex & REX_R) << 1, modrm & 7);
    let mut displacement = match mode {
        0 if base == 5 => 4,
        0 => 0,
        1 => 1,
        2 => 4,
        _ => return None,
    };
    if base == 4 {
        let sib = byte(at)?;
        at += 1;
        if mode == 0 && sib & 7 == 5 {
            displacement = 4;
        }
    }
    at += displacement;
    let operation = match opcode {
        0x8b => Operation::Load(Gpr(register)),
        0x89 => Operation::Store(Gpr(register)),
        0xc7 if register & 7 == 0 => {
            let constant = code.get(at..at + 4)?.try_into().ok()?;
            at += 4;
            Operation::StoreConstant(u32::from_le_bytes(constant))
        }
        _ => return None,
    };
    (at <= code.len()).then_some(Access { operation, bytes, length: u8::try_from(at).ok()? })
}

#[cfg(all(test, not(loom)))]
mod unit {
    use super::*;

    #[test]
    fn forms_that_kernels_use() {
        let load = |register, length| Some(Access { operation: Operation::Load(Gpr(register)), bytes: 4, length });
        let store = |register, length| Some(Access { operation: Operation::Store(Gpr(register)), bytes: 4, length });
        // mov eax, [0xff5fc020]
        assert_eq!(decode(&[0x8b, 0x04, 0x25, 0x20, 0xc0, 0x5f, 0xff], true), load(0, 7));
        // mov [rdi - 0xa04000], esi
        assert_eq!(decode(&[0x89, 0xb7, 0, 0xc0, 0x5f, 0xff], true), store(6, 6));
        assert_eq!(decode(&[0x44, 0x89, 0x00], true), store(8, 3));
        assert_eq!(decode(&[0x8b, 0x44, 0x24, 0x10], true), load(0, 4));
        let constant = Operation::StoreConstant(0x0102_0304);
        let code = [0xc7, 0x05, 0, 0, 0, 0, 4, 3, 2, 1];
        assert_eq!(decode(&code, true), Some(Access { operation: constant, bytes: 4, length: 10 }));
        assert_eq!(decode(&code[..9], true), None);
    }

    #[test]
    fn everything_else_is_refused() {
        for code in [&[0x8bu8, 0xc0][..], &[0x01, 0x00], &[0x44, 0x89, 0x00], &[0x8b], &[], &[0xc7, 0x08, 0, 0, 0, 0]] {
            assert_eq!(decode(code, false), None, "{code:x?}");
        }
    }
}

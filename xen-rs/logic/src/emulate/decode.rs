//! Decodes the few instructions that are emulated for PV guests (SDM vol. 2; APM vol. 3). By hand: the set is small,
//! and each byte is looked at once.

use super::encoding::{Bytes, Prefixes, skip_prefixes};
pub use super::encoding::{CodeSize, Gpr, MAX_LENGTH, Segment, Undecoded};

/// `ud2; .ascii "xen"`: what follows is to be emulated even though the CPU would execute it.
pub const FORCED_EMULATION: [u8; 5] = [0x0f, 0x0b, b'x', b'e', b'n'];

/// Width of a port access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 1 byte.
    Byte,
    /// 2 bytes.
    Word,
    /// 4 bytes.
    Dword,
}

impl Width {
    /// Size in bytes.
    #[must_use]
    pub const fn bytes(self) -> u16 {
        match self {
            Self::Byte => 1,
            Self::Word => 2,
            Self::Dword => 4,
        }
    }
}

/// Where the port number of an I/O instruction comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// The immediate byte.
    Immediate(u8),
    /// DX.
    Dx,
}

/// A string I/O instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StringIo {
    /// Width of one element.
    pub width: Width,
    /// With a REP prefix.
    pub repeated: bool,
    /// Addresses and count are 32 bits wide.
    pub address32: bool,
    /// Segment of the memory operand (ES for `ins`).
    pub segment: Segment,
    /// The code it is part of: in 64-bit code segments have no limits.
    pub size: CodeSize,
}

/// An instruction that may be emulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `mov reg, crN`
    ReadCr {
        /// Control register.
        cr: u8,
        /// Destination.
        into: Gpr,
    },
    /// `mov crN, reg`
    WriteCr {
        /// Control register.
        cr: u8,
        /// Source.
        from: Gpr,
    },
    /// `mov reg, drN`
    ReadDr {
        /// Debug register.
        dr: u8,
        /// Destination.
        into: Gpr,
    },
    /// `mov drN, reg`
    WriteDr {
        /// Debug register.
        dr: u8,
        /// Source.
        from: Gpr,
    },
    /// `clts`
    Clts,
    /// `wbinvd` or `wbnoinvd`
    WriteBack,
    /// `rdmsr`
    Rdmsr,
    /// `wrmsr`
    Wrmsr,
    /// `cpuid`
    Cpuid,
    /// `rdtsc`
    Rdtsc,
    /// `rdtscp`
    Rdtscp,
    /// `xsetbv`
    Xsetbv,
    /// `in`
    In {
        /// Port.
        port: Port,
        /// Width.
        width: Width,
    },
    /// `out`
    Out {
        /// Port.
        port: Port,
        /// Width.
        width: Width,
    },
    /// `ins`
    Ins(StringIo),
    /// `outs`
    Outs(StringIo),
    /// `cli` or `sti`
    InterruptFlag,
}

impl Op {
    /// The ports that it uses, as first and number; `dx` is the guest's DX.
    #[must_use]
    pub const fn ports(self, dx: u16) -> Option<(u16, u16)> {
        match self {
            Self::In { port: Port::Immediate(port), width } | Self::Out { port: Port::Immediate(port), width } => {
                Some((port as u16, width.bytes()))
            }
            Self::In { width, .. }
            | Self::Out { width, .. }
            | Self::Ins(StringIo { width, .. })
            | Self::Outs(StringIo { width, .. }) => Some((dx, width.bytes())),
            _ => None,
        }
    }
}

/// A decoded instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What it does.
    pub op: Op,
    /// Its length in bytes.
    pub length: u8,
}

/// Decodes the instruction at the start of `code`.
///
/// # Errors
/// See [`Undecoded`].
#[inline(always)]
pub fn decode(code: &[u8], size: CodeSize) -> Result<Instruction, Undecoded> {
    let mut bytes = Bytes::new(code);
    let mut prefixes = Prefixes::default();
    let opcode = match code.first() {
        // Most have no prefixes.
        Some(0x0f) => bytes.byte()?,
        _ => skip_prefixes(&mut bytes, size, &mut prefixes)?,
    };
    let op = match opcode {
        0x0f => two_byte(&mut bytes, prefixes, size)?,
        0x6c..=0x6f => {
            let io = StringIo {
                width: width(opcode, prefixes),
                repeated: prefixes.repeat || prefixes.repeat_ne,
                address32: prefixes.address_size || size == CodeSize::Compat,
                segment: prefixes.segment.unwrap_or(Segment::Ds),
                size,
            };
            if size == CodeSize::Compat && prefixes.address_size {
                return Err(Undecoded::Foreign); // 16-bit addresses
            }
            if opcode & 2 == 0 { Op::Ins(StringIo { segment: Segment::Es, ..io }) } else { Op::Outs(io) }
        }
        0xe4 | 0xe5 => Op::In { port: Port::Immediate(bytes.byte()?), width: width(opcode, prefixes) },
        0xe6 | 0xe7 => Op::Out { port: Port::Immediate(bytes.byte()?), width: width(opcode, prefixes) },
        0xec | 0xed => Op::In { port: Port::Dx, width: width(opcode, prefixes) },
        0xee | 0xef => Op::Out { port: Port::Dx, width: width(opcode, prefixes) },
        0xfa | 0xfb => Op::InterruptFlag,
        _ => return Err(Undecoded::Foreign),
    };
    if prefixes.lock {
        return Err(Undecoded::Locked);
    }
    Ok(Instruction { op, length: bytes.length() })
}

/// Decodes `ud2; "xen"; cpuid`; returns the length of all of it.
#[must_use]
pub fn is_forced_cpuid(code: &[u8]) -> Option<u8> {
    const CPUID: [u8; 2] = [0x0f, 0xa2];
    let rest = code.strip_prefix(&FORCED_EMULATION)?;
    rest.starts_with(&CPUID).then_some(7)
}

/// [`is_forced_cpuid`] of the first seven of eight bytes.
#[inline(always)]
#[must_use]
pub const fn begins_with_forced_cpuid(code: u64) -> bool {
    const WANTED: u64 = u64::from_le_bytes([0x0f, 0x0b, b'x', b'e', b'n', 0x0f, 0xa2, 0]);
    code << 8 == WANTED << 8
}

#[inline(always)]
fn two_byte(bytes: &mut Bytes<'_>, prefixes: Prefixes, size: CodeSize) -> Result<Op, Undecoded> {
    Ok(match bytes.byte()? {
        0x01 => match bytes.byte()? {
            0xd1 if !prefixes.operand_size && !prefixes.repeat && !prefixes.repeat_ne => Op::Xsetbv,
            0xf9 => Op::Rdtscp,
            _ => return Err(Undecoded::Foreign),
        },
        0x06 => Op::Clts,
        0x09 => Op::WriteBack,
        opcode @ 0x20..=0x23 => {
            if size == CodeSize::Compat {
                return Err(Undecoded::Foreign);
            }
            // ModRM.mod is ignored: the operand is always a register.
            let modrm = bytes.byte()?;
            let special = modrm >> 3 & 7 | (prefixes.rex & 4) << 1;
            let gpr = Gpr(modrm & 7 | (prefixes.rex & 1) << 3);
            match opcode {
                0x20 => Op::ReadCr { cr: special, into: gpr },
                0x21 => Op::ReadDr { dr: special, into: gpr },
                0x22 => Op::WriteCr { cr: special, from: gpr },
                _ => Op::WriteDr { dr: special, from: gpr },
            }
        }
        0x30 => Op::Wrmsr,
        0x31 => Op::Rdtsc,
        0x32 => Op::Rdmsr,
        0xa2 => Op::Cpuid,
        _ => return Err(Undecoded::Foreign),
    })
}

const fn width(opcode: u8, prefixes: Prefixes) -> Width {
    if opcode & 1 == 0 {
        Width::Byte
    } else if prefixes.operand_size && prefixes.rex & 8 == 0 {
        Width::Word
    } else {
        Width::Dword
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long(code: &[u8]) -> Result<(Op, u8), Undecoded> {
        decode(code, CodeSize::Long).map(|i| (i.op, i.length))
    }

    #[test]
    fn control_and_debug_registers() {
        assert_eq!(long(&[0x0f, 0x20, 0xc0]), Ok((Op::ReadCr { cr: 0, into: Gpr(0) }, 3)));
        assert_eq!(long(&[0x41, 0x0f, 0x22, 0xd8]), Ok((Op::WriteCr { cr: 3, from: Gpr(8) }, 4)));
        assert_eq!(long(&[0x44, 0x0f, 0x20, 0xc1]), Ok((Op::ReadCr { cr: 8, into: Gpr(1) }, 4)));
        assert_eq!(long(&[0x0f, 0x23, 0xff]), Ok((Op::WriteDr { dr: 7, from: Gpr(7) }, 3)));
        assert_eq!(long(&[0x0f, 0x21, 0xf2]), Ok((Op::ReadDr { dr: 6, into: Gpr(2) }, 3)));
    }

    #[test]
    fn plain_two_byte_instructions() {
        for (code, op) in [
            (&[0x0f, 0x06][..], Op::Clts),
            (&[0x0f, 0x09], Op::WriteBack),
            (&[0x0f, 0x30], Op::Wrmsr),
            (&[0x0f, 0x31], Op::Rdtsc),
            (&[0x0f, 0x32], Op::Rdmsr),
            (&[0x0f, 0xa2], Op::Cpuid),
            (&[0x0f, 0x01, 0xd1], Op::Xsetbv),
            (&[0x0f, 0x01, 0xf9], Op::Rdtscp),
        ] {
            assert_eq!(long(code), Ok((op, u8::try_from(code.len()).unwrap())));
        }
    }

    #[test]
    fn ports() {
        let dx = Port::Dx;
        assert_eq!(long(&[0xee]), Ok((Op::Out { port: dx, width: Width::Byte }, 1)));
        assert_eq!(long(&[0xef]), Ok((Op::Out { port: dx, width: Width::Dword }, 1)));
        assert_eq!(long(&[0x66, 0xed]), Ok((Op::In { port: dx, width: Width::Word }, 2)));
        assert_eq!(long(&[0xe4, 0x61]), Ok((Op::In { port: Port::Immediate(0x61), width: Width::Byte }, 2)));
        assert_eq!(long(&[0xe6]), Err(Undecoded::Truncated));
    }

    #[test]
    fn string_ports() {
        let io = StringIo {
            width: Width::Word,
            repeated: true,
            address32: false,
            segment: Segment::Es,
            size: CodeSize::Long,
        };
        assert_eq!(long(&[0xf3, 0x66, 0x6d]), Ok((Op::Ins(io), 3)));
        let outs = StringIo { width: Width::Byte, repeated: false, segment: Segment::Gs, ..io };
        assert_eq!(long(&[0x65, 0x6e]), Ok((Op::Outs(outs), 2)));
        let compat = decode(&[0x6c], CodeSize::Compat).unwrap();
        let expected = StringIo { width: Width::Byte, repeated: false, address32: true, size: CodeSize::Compat, ..io };
        assert_eq!(compat.op, Op::Ins(expected));
    }

    #[test]
    fn others_are_foreign() {
        for code in [
            &[0xf4][..],         // hlt
            &[0x0f, 0x01, 0x38], // invlpg
            &[0x0f, 0x08],       // invd
            &[0x0f, 0x01, 0xf0], // lmsw
            &[0x90],
            &[0x48, 0x89, 0x07],
        ] {
            assert_eq!(long(code), Err(Undecoded::Foreign), "{code:x?}");
        }
        assert_eq!(long(&[0xf0, 0x0f, 0x20, 0xc0]), Err(Undecoded::Locked), "lock mov from cr0");
        assert_eq!(long(&[0xf0, 0xf4]), Err(Undecoded::Foreign), "lock hlt");
        assert_eq!(long(&[0x66; 20]), Err(Undecoded::Foreign), "longer than 15 bytes");
        assert_eq!(long(&[0x66; 4]), Err(Undecoded::Truncated));
        assert_eq!(long(&[]), Err(Undecoded::Truncated));
        assert_eq!(decode(&[0x0f, 0x20, 0xc0], CodeSize::Compat), Err(Undecoded::Foreign));
    }

    #[test]
    fn a_rex_prefix_counts_only_last() {
        assert_eq!(long(&[0x41, 0x66, 0x0f, 0x20, 0xc0]), Ok((Op::ReadCr { cr: 0, into: Gpr(0) }, 5)));
    }
    #[test]
    fn forced_cpuid() {
        assert_eq!(is_forced_cpuid(&[0x0f, 0x0b, 0x78, 0x65, 0x6e, 0x0f, 0xa2, 0x90]), Some(7));
        assert_eq!(is_forced_cpuid(&[0x0f, 0x0b, 0x78, 0x65, 0x6e, 0x0f, 0x31]), None);
        assert_eq!(is_forced_cpuid(&[0x0f, 0x0b]), None);
        assert!(begins_with_forced_cpuid(u64::from_le_bytes([0x0f, 0x0b, 0x78, 0x65, 0x6e, 0x0f, 0xa2, 0x90])));
        assert!(!begins_with_forced_cpuid(u64::from_le_bytes([0x0f, 0x0b, 0x78, 0x65, 0x6e, 0x0f, 0x31, 0x90])));
    }
}

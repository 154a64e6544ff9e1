//! What all instructions are made of: prefixes, registers by their number, operands in memory (SDM vol. 2, chapter 2; APM
//! vol. 3, chapter 1). Each decoder here reads its bytes by this.

use crate::regs::GuestRegs;

/// Longest instruction the architecture allows.
pub const MAX_LENGTH: usize = 15;

/// How the code segment of the guest decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeSize {
    /// 64-bit code.
    Long,
    /// 32-bit code of a compatibility-mode user program.
    Compat,
}

/// Number of a general register, 0-15 as in the ModRM and REX bits (rax rcx rdx rbx rsp rbp rsi rdi r8..).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gpr(pub u8);

impl Gpr {
    /// The register's value.
    #[must_use]
    pub const fn read(self, regs: &GuestRegs) -> u64 {
        match self.0 & 15 {
            0 => regs.rax,
            1 => regs.rcx,
            2 => regs.rdx,
            3 => regs.rbx,
            4 => regs.rsp,
            5 => regs.rbp,
            6 => regs.rsi,
            7 => regs.rdi,
            8 => regs.r8,
            9 => regs.r9,
            10 => regs.r10,
            11 => regs.r11,
            12 => regs.r12,
            13 => regs.r13,
            14 => regs.r14,
            _ => regs.r15,
        }
    }

    /// Replaces the register's value.
    pub const fn write(self, regs: &mut GuestRegs, value: u64) {
        *match self.0 & 15 {
            0 => &mut regs.rax,
            1 => &mut regs.rcx,
            2 => &mut regs.rdx,
            3 => &mut regs.rbx,
            4 => &mut regs.rsp,
            5 => &mut regs.rbp,
            6 => &mut regs.rsi,
            7 => &mut regs.rdi,
            8 => &mut regs.r8,
            9 => &mut regs.r9,
            10 => &mut regs.r10,
            11 => &mut regs.r11,
            12 => &mut regs.r12,
            13 => &mut regs.r13,
            14 => &mut regs.r14,
            _ => &mut regs.r15,
        } = value;
    }
}

/// A segment register, by its number in the instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the registers are named after themselves")]
pub enum Segment {
    Es,
    Cs,
    Ss,
    Ds,
    Fs,
    Gs,
}

/// Why there is nothing to emulate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undecoded {
    /// The copied bytes end inside the instruction.
    Truncated,
    /// Another instruction: its fault is the guest's.
    Foreign,
    /// One that would be emulated, with a lock prefix: #UD.
    Locked,
}

/// How wide addresses are, and the registers that hold them and count; what code does where no prefix says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressSize {
    /// 16 bits.
    Word,
    /// 32 bits.
    Double,
    /// 64 bits.
    Long,
}

impl AddressSize {
    /// The bits of an address.
    #[must_use]
    pub const fn mask(self) -> u64 {
        match self {
            AddressSize::Word => 0xffff,
            AddressSize::Double => 0xffff_ffff,
            AddressSize::Long => u64::MAX,
        }
    }

    /// What a register holds after such a part of it was written.
    #[must_use]
    pub const fn write(self, old: u64, new: u64) -> u64 {
        match self {
            AddressSize::Word => old & !0xffff | new & 0xffff,
            AddressSize::Double | AddressSize::Long => new & self.mask(),
        }
    }

    /// With the prefix 67.
    const fn other(self) -> Self {
        match self {
            AddressSize::Word | AddressSize::Long => AddressSize::Double,
            AddressSize::Double => AddressSize::Word,
        }
    }
}

/// A general register or the second byte of one, as an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register {
    gpr: Gpr,
    high: bool,
}

impl Register {
    /// The first of all.
    pub const ACCUMULATOR: Self = Self { gpr: Gpr(0), high: false };

    /// By its number, as an operand of so many bytes: without a REX prefix the byte registers 4 to 7 are AH, CH, DH, BH.
    #[must_use]
    pub const fn new(number: u8, bytes: u8, rex: u8) -> Self {
        if bytes == 1 && rex == 0 && number >= 4 {
            Self { gpr: Gpr(number & 3), high: true }
        } else {
            Self { gpr: Gpr(number), high: false }
        }
    }

    /// So many bytes of it.
    #[must_use]
    pub const fn read(self, bytes: u8, regs: &GuestRegs) -> u64 {
        let whole = self.gpr.read(regs);
        (if self.high { whole >> 8 } else { whole }) & mask(bytes)
    }

    /// The general register after so many bytes were written: 32 bits clear the upper half.
    #[must_use]
    pub const fn after(self, bytes: u8, value: u64, regs: &GuestRegs) -> (Gpr, u64) {
        let (whole, value) = (self.gpr.read(regs), value & mask(bytes));
        let whole = match bytes {
            1 if self.high => whole & !0xff00 | value << 8,
            1 | 2 => whole & !mask(bytes) | value,
            _ => value,
        };
        (self.gpr, whole)
    }
}

/// The bits of so many bytes.
#[must_use]
pub const fn mask(bytes: u8) -> u64 {
    if bytes >= 8 { u64::MAX } else { (1 << (8 * bytes)) - 1 }
}

/// A number of so many bytes, with its sign in all bits above them.
#[must_use]
#[allow(clippy::cast_sign_loss, clippy::cast_possible_wrap, reason = "sign extension")]
pub const fn sign_extended(value: u64, bytes: u8) -> u64 {
    let unused = 64 - 8 * if bytes >= 8 { 8 } else { bytes as u32 };
    if unused == 64 { 0 } else { ((value << unused) as i64 >> unused) as u64 }
}

/// What is known before the opcode.
#[allow(missing_docs, reason = "the manuals name them")]
#[derive(Clone, Copy, Default)]
pub struct Prefixes {
    pub operand_size: bool,
    pub address_size: bool,
    pub repeat: bool,
    pub repeat_ne: bool,
    pub lock: bool,
    pub segment: Option<Segment>,
    pub rex: u8,
}

impl Prefixes {
    /// Bytes of operands that are not single ones.
    #[must_use]
    pub const fn operand_bytes(&self, code: AddressSize) -> u8 {
        match (code, self.operand_size) {
            _ if self.rex & 8 != 0 => 8,
            (AddressSize::Word, false) | (AddressSize::Double | AddressSize::Long, true) => 2,
            _ => 4,
        }
    }

    /// The width of addresses.
    #[must_use]
    pub const fn address(&self, code: AddressSize) -> AddressSize {
        if self.address_size { code.other() } else { code }
    }
}

/// Reads an instruction byte by byte.
pub struct Bytes<'a> {
    all: &'a [u8],
    at: usize,
}

impl<'a> Bytes<'a> {
    /// From its first one on.
    #[inline(always)]
    #[must_use]
    pub const fn new(all: &'a [u8]) -> Self {
        Self { all, at: 0 }
    }

    /// The next one.
    ///
    /// # Errors
    /// There is none, or the instruction is too long to be one.
    #[inline(always)]
    pub fn byte(&mut self) -> Result<u8, Undecoded> {
        if self.at >= MAX_LENGTH {
            return Err(Undecoded::Foreign);
        }
        let byte = self.all.get(self.at).copied().ok_or(Undecoded::Truncated)?;
        self.at += 1;
        Ok(byte)
    }

    /// A constant of that many bytes, sign-extended.
    ///
    /// # Errors
    /// As for [`Bytes::byte`].
    pub fn signed(&mut self, bytes: u8) -> Result<u64, Undecoded> {
        let mut value = 0u64;
        for i in 0..bytes {
            value |= u64::from(self.byte()?) << (8 * i);
        }
        Ok(sign_extended(value, bytes))
    }

    /// Passes over an operand in memory.
    ///
    /// # Errors
    /// As for [`Bytes::byte`]; [`Undecoded::Foreign`]: it is a register.
    pub fn skip_memory(&mut self, modrm: u8, address: AddressSize) -> Result<(), Undecoded> {
        let (mode, base) = (modrm >> 6, modrm & 7);
        let displacement = match (address, mode) {
            (_, 3..) => return Err(Undecoded::Foreign),
            (AddressSize::Word, 0) if base != 6 => 0,
            (AddressSize::Word, 0 | 2) => 2,
            (AddressSize::Word, _) => 1,
            _ => {
                let base = if base == 4 { self.byte()? & 7 } else { base };
                match mode {
                    0 if base == 5 => 4,
                    0 => 0,
                    1 => 1,
                    _ => 4,
                }
            }
        };
        self.signed(displacement).map(drop)
    }

    /// How many bytes were read.
    #[inline(always)]
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "at most MAX_LENGTH")]
    pub const fn length(&self) -> u8 {
        self.at as u8
    }
}

/// The opcode behind the prefixes, which are `found`.
///
/// # Errors
/// As for [`Bytes::byte`].
#[inline(never)]
pub fn skip_prefixes(bytes: &mut Bytes<'_>, size: CodeSize, found: &mut Prefixes) -> Result<u8, Undecoded> {
    loop {
        let byte = bytes.byte()?;
        match byte {
            0x66 => found.operand_size = true,
            0x67 => found.address_size = true,
            0xf0 => found.lock = true,
            0xf2 => found.repeat_ne = true,
            0xf3 => found.repeat = true,
            0x26 | 0x2e | 0x36 | 0x3e if size == CodeSize::Long => {}
            0x26 => found.segment = Some(Segment::Es),
            0x2e => found.segment = Some(Segment::Cs),
            0x36 => found.segment = Some(Segment::Ss),
            0x3e => found.segment = Some(Segment::Ds),
            0x64 => found.segment = Some(Segment::Fs),
            0x65 => found.segment = Some(Segment::Gs),
            0x40..=0x4f if size == CodeSize::Long => {
                // A REX prefix counts only directly before the opcode.
                found.rex = byte;
                continue;
            }
            opcode => return Ok(opcode),
        }
        found.rex = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_by_number() {
        let mut regs = GuestRegs::default();
        for n in 0..16 {
            Gpr(n).write(&mut regs, u64::from(n) + 100);
        }
        for n in 0..16 {
            assert_eq!(Gpr(n).read(&regs), u64::from(n) + 100);
        }
        assert_eq!((regs.rcx, regs.rsp, regs.r15), (101, 104, 115));
    }

    #[test]
    fn parts_of_registers() {
        let regs = GuestRegs { rax: 0x1111_2222_3333_4455, rbx: 0x99, ..GuestRegs::default() };
        let ah = Register::new(4, 1, 0);
        assert_eq!((ah.read(1, &regs), ah.after(1, 0xabc, &regs)), (0x44, (Gpr(0), 0x1111_2222_3333_bc55)));
        assert_eq!(Register::new(4, 1, 0x40).after(1, 7, &regs), (Gpr(4), 7), "SPL");
        let rax = Register::ACCUMULATOR;
        assert_eq!(rax.after(2, 0x1_0001, &regs), (Gpr(0), 0x1111_2222_3333_0001));
        assert_eq!(rax.after(4, u64::MAX, &regs), (Gpr(0), 0xffff_ffff), "32 bits clear the upper half");
        assert_eq!((rax.read(2, &regs), rax.read(8, &regs)), (0x4455, regs.rax));
    }

    #[test]
    fn signs() {
        assert_eq!((sign_extended(0x80, 1), sign_extended(0x7f, 1)), (u64::MAX << 7, 0x7f));
        assert_eq!((sign_extended(0x8000_0000, 4), sign_extended(5, 8)), (u64::MAX << 31, 5));
        assert_eq!((sign_extended(0xff, 0), sign_extended(u64::MAX, 8)), (0, u64::MAX));
    }
}

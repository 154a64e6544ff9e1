//! How long an instruction is that left the container, on CPUs that do not say: of each kind of exit only one instruction
//! is possible, so the decoder looks for that one behind whatever prefixes there are (APM vol. 3, 1.2).

/// The longest instruction that the architecture allows.
pub const MAX_LENGTH: usize = 15;

/// Instructions whose length is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the manuals name them")]
pub enum Instruction {
    Cpuid,
    Hlt,
    Rdmsr,
    Wrmsr,
    Rdtsc,
    Rdtscp,
    /// `vmcall` or `vmmcall`.
    Hypercall,
    Xsetbv,
    /// `wbinvd` or `invd`.
    CacheFlush,
    Int1,
}

impl Instruction {
    /// The length where there is no prefix.
    #[inline(always)]
    #[must_use]
    pub const fn usual_length(self) -> usize {
        match self {
            Instruction::Hlt | Instruction::Int1 => 1,
            Instruction::Cpuid
            | Instruction::Rdmsr
            | Instruction::Wrmsr
            | Instruction::Rdtsc
            | Instruction::CacheFlush => 2,
            Instruction::Hypercall | Instruction::Xsetbv | Instruction::Rdtscp => 3,
        }
    }

    #[inline(always)]
    const fn begins(self, code: &[u8]) -> bool {
        match self {
            Instruction::Cpuid => matches!(code, [0x0f, 0xa2, ..]),
            Instruction::Hlt => matches!(code, [0xf4, ..]),
            Instruction::Int1 => matches!(code, [0xf1, ..]),
            Instruction::Rdmsr => matches!(code, [0x0f, 0x32, ..]),
            Instruction::Wrmsr => matches!(code, [0x0f, 0x30, ..]),
            Instruction::Rdtsc => matches!(code, [0x0f, 0x31, ..]),
            Instruction::Rdtscp => matches!(code, [0x0f, 0x01, 0xf9, ..]),
            Instruction::Hypercall => matches!(code, [0x0f, 0x01, 0xd9 | 0xc1, ..]),
            Instruction::Xsetbv => matches!(code, [0x0f, 0x01, 0xd1, ..]),
            Instruction::CacheFlush => matches!(code, [0x0f, 0x08 | 0x09, ..]),
        }
    }

    /// Its length where it begins the code and has no prefix.
    #[inline(always)]
    #[must_use]
    pub const fn length_at_once(self, code: [u8; 4]) -> Option<u64> {
        if self.begins(&code) { Some(self.usual_length() as u64) } else { None }
    }

    /// Its length at the beginning of `code`; `None`: something else is there (by now).
    #[inline]
    #[must_use]
    pub fn length(self, code: &[u8], long_mode: bool) -> Option<usize> {
        if self.begins(code) {
            return Some(self.usual_length());
        }
        let code = code.get(..code.len().min(MAX_LENGTH))?;
        let prefixes = code.iter().take_while(|byte| is_prefix(**byte, long_mode)).count();
        self.begins(code.get(prefixes..)?).then(|| prefixes + self.usual_length())
    }
}

/// Operand and address size, lock, repeat, segments; REX.
const fn is_prefix(byte: u8, long_mode: bool) -> bool {
    match byte {
        0x66 | 0x67 | 0xf0 | 0xf2 | 0xf3 | 0x2e | 0x36 | 0x3e | 0x26 | 0x64 | 0x65 => true,
        0x40..=0x4f => long_mode,
        _ => false,
    }
}

#[cfg(all(test, not(loom)))]
mod unit {
    use super::*;

    #[test]
    fn lengths() {
        assert_eq!(Instruction::Hlt.length(&[0xf4], true), Some(1));
        assert_eq!(Instruction::Int1.length(&[0x2e, 0xf1], true), Some(2));
        assert_eq!(Instruction::Hypercall.length(&[0x0f, 0x01, 0xd9, 0xc3], true), Some(3));
        assert_eq!(Instruction::Rdtsc.length(&[0x0f, 0x31], true), Some(2));
        assert_eq!(Instruction::Rdtscp.length(&[0x0f, 0x01, 0xf9], false), Some(3));
        assert_eq!(Instruction::Cpuid.length(&[0x66, 0x48, 0x0f, 0xa2], true), Some(4));
        assert_eq!(Instruction::Cpuid.length(&[0x48, 0x0f, 0xa2], false), None);
        assert_eq!(Instruction::Rdmsr.length(&[0x0f, 0x30], true), None);
        assert_eq!(Instruction::Hlt.length(&[], true), None);
        // The longest there is, and what is longer.
        let mut code = [0x66; 16];
        code[14] = 0xf4;
        assert_eq!(Instruction::Hlt.length(&code, true), Some(15));
        code[14] = 0x66;
        code[15] = 0xf4;
        assert_eq!(Instruction::Hlt.length(&code, true), None);
    }
}

//! Who may have an instruction emulated: the guest's virtual privilege level and I/O permissions.

use super::decode::Op;
use crate::trap::rflags;

/// The virtual privilege of a vCPU at the faulting instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Privilege {
    /// In its kernel (which is ring 1 to I/O permission checks, or ring 0 under
    /// `VMASST_TYPE_architectural_iopl`).
    pub in_kernel: bool,
    /// Virtual I/O privilege level, as RFLAGS bits.
    pub iopl: u64,
    /// `VMASST_TYPE_architectural_iopl` is on.
    pub architectural_iopl: bool,
    /// The guest set CR4.TSD.
    pub tsc_disabled: bool,
}

/// What becomes of a decoded instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Carry it out.
    Perform,
    /// Step over it: it has no effect here.
    Skip,
    /// Carry it out if the I/O permission bitmap allows `bytes` ports from `port`.
    AskBitmap {
        /// First port.
        port: u16,
        /// Number of ports.
        bytes: u16,
    },
    /// The guest gets its #GP back.
    Refuse,
}

impl Privilege {
    /// Whether the virtual IOPL reaches the virtual privilege level.
    #[must_use]
    pub const fn iopl_suffices(&self) -> bool {
        let level: u64 = match (self.in_kernel, self.architectural_iopl) {
            (true, true) => 0,
            (true, false) => 1,
            (false, _) => 3,
        };
        level <= (self.iopl & rflags::IOPL) >> 12
    }

    /// Judges an instruction that uses these ports ([`Op::ports`]).
    #[inline(always)]
    #[must_use]
    pub const fn judge(&self, op: Op, ports: Option<(u16, u16)>) -> Verdict {
        if let Some((port, bytes)) = ports {
            return if self.iopl_suffices() { Verdict::Perform } else { Verdict::AskBitmap { port, bytes } };
        }
        match op {
            // An interrupt flag that changes silently would be half a feature: `popf` cannot be caught.
            Op::InterruptFlag => {
                if self.iopl_suffices() {
                    Verdict::Skip
                } else {
                    Verdict::Refuse
                }
            }
            // Reaches us only by CPUID faulting or a forced prefix: user mode may ask as well.
            Op::Cpuid => Verdict::Perform,
            Op::Rdtsc | Op::Rdtscp => {
                if self.in_kernel || !self.tsc_disabled {
                    Verdict::Perform
                } else {
                    Verdict::Refuse
                }
            }
            _ => {
                if self.in_kernel {
                    Verdict::Perform
                } else {
                    Verdict::Refuse
                }
            }
        }
    }
}

/// Whether the two bytes of the I/O bitmap from `port / 8` on allow the access. Bytes that could not be read are all
/// ones.
#[must_use]
pub const fn bitmap_allows(bytes_from_bitmap: u16, port: u16, bytes: u16) -> bool {
    let mask = (1u16 << bytes) - 1;
    // At most 4 + 7 bits.
    bytes_from_bitmap & mask << (port & 7) == 0
}

#[cfg(test)]
mod tests {
    use super::super::decode::{Port, Width};
    use super::*;

    const KERNEL: Privilege = Privilege { in_kernel: true, iopl: 0, architectural_iopl: false, tsc_disabled: false };
    const USER: Privilege = Privilege { in_kernel: false, ..KERNEL };

    #[test]
    fn iopl() {
        assert!(!KERNEL.iopl_suffices());
        assert!(Privilege { iopl: 1 << 12, ..KERNEL }.iopl_suffices());
        assert!(Privilege { architectural_iopl: true, ..KERNEL }.iopl_suffices());
        assert!(!Privilege { iopl: 2 << 12, ..USER }.iopl_suffices());
        assert!(Privilege { iopl: 3 << 12, ..USER }.iopl_suffices());
    }

    #[test]
    fn user_mode_gets_its_fault_back() {
        assert_eq!(USER.judge(Op::Rdmsr, None), Verdict::Refuse);
        assert_eq!(USER.judge(Op::Clts, None), Verdict::Refuse);
        assert_eq!(USER.judge(Op::Cpuid, None), Verdict::Perform);
        assert_eq!(USER.judge(Op::Rdtsc, None), Verdict::Perform);
        assert_eq!(Privilege { tsc_disabled: true, ..USER }.judge(Op::Rdtsc, None), Verdict::Refuse);
        assert_eq!(KERNEL.judge(Op::Rdmsr, None), Verdict::Perform);
    }

    #[test]
    fn ports_ask_the_bitmap() {
        let op = Op::In { port: Port::Dx, width: Width::Word };
        assert_eq!(USER.judge(op, op.ports(0x3f8)), Verdict::AskBitmap { port: 0x3f8, bytes: 2 });
        assert_eq!(Privilege { iopl: 3 << 12, ..USER }.judge(op, op.ports(0x3f8)), Verdict::Perform);
        assert!(bitmap_allows(0b0000_0000, 0x3f8, 4));
        assert!(!bitmap_allows(0b0000_1000, 0x3f8, 4));
        assert!(bitmap_allows(0b0001_0000, 0x3f8, 4));
        assert!(!bitmap_allows(1 << 10, 0x3ff, 4));
        assert!(bitmap_allows(1 << 11, 0x3ff, 4));
    }

    #[test]
    fn interrupt_flag_is_never_changed() {
        assert_eq!(KERNEL.judge(Op::InterruptFlag, None), Verdict::Refuse);
        assert_eq!(Privilege { iopl: 1 << 12, ..KERNEL }.judge(Op::InterruptFlag, None), Verdict::Skip);
    }
}

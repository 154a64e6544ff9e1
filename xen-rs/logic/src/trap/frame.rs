//! The frame that takes a PV guest into one of its handlers: an exception, the event upcall, the failsafe callback,
//! an NMI, or a system call from its user mode.
//!
//! Layout, low to high: `rcx r11 [ds es fs gs] [error code] rip cs|mask<<32 rflags rsp ss`. The data selectors are
//! there for the failsafe callback only (Xen public header `callback.h`).
//!
//! Where the frame lies is not judged here: it is written like anything that goes to a guest, and a guest whose stack
//! does not take it is beyond help.

use super::{rflags, selector};
use crate::regs::{GuestRegs, TRAP_SYSCALL};

/// Words of a plain frame.
pub const PLAIN: usize = 7;
/// Words of a frame with an error code.
pub const WITH_ERROR: usize = 8;
/// Words of a failsafe frame.
pub const WITH_SELECTORS: usize = 11;

/// What of the vCPU's state decides the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted {
    /// The guest was in its kernel.
    pub in_kernel: bool,
    /// The stack that the guest registered with `stack_switch`.
    pub kernel_sp: u64,
    /// `evtchn_upcall_mask` before the entry.
    pub upcall_mask: bool,
    /// The virtual I/O privilege level (as RFLAGS bits) when `VMASST_TYPE_architectural_iopl` is on, else 0.
    pub iopl_shown: u64,
}

impl Interrupted {
    /// Where a frame of that many words goes; also the new stack pointer. Stacks are aligned to 16 bytes before it.
    #[inline]
    #[must_use]
    pub const fn place(&self, regs: &GuestRegs, words: usize) -> u64 {
        let stack = if self.in_kernel { regs.rsp } else { self.kernel_sp };
        (stack & !0xf).wrapping_sub(8 * words as u64)
    }

    /// The last four words: what a CPU would push behind rip.
    #[inline(always)]
    #[must_use]
    pub const fn last(&self, regs: &GuestRegs) -> [u64; 4] {
        let event_flag = if self.upcall_mask { 0 } else { rflags::IF };
        let flags = regs.rflags & !(rflags::IF | rflags::IOPL) | event_flag | self.iopl_shown & rflags::IOPL;
        // The kernel must not take itself for user mode: its selector shows privilege 0 in the frame.
        let cs = regs.cs & if self.in_kernel { 0xfffc } else { 0xffff };
        [cs | (self.upcall_mask as u64) << 32, flags, regs.rsp, regs.ss & 0xffff]
    }

    /// The frame of an event, a system call or an exception without error code.
    #[inline]
    #[must_use]
    pub const fn plain(&self, regs: &GuestRegs) -> [u64; PLAIN] {
        let [cs, flags, rsp, ss] = self.last(regs);
        [regs.rcx, regs.r11, regs.rip, cs, flags, rsp, ss]
    }

    /// The frame of an exception with an error code.
    #[inline]
    #[must_use]
    pub const fn with_error(&self, regs: &GuestRegs, code: u32) -> [u64; WITH_ERROR] {
        let [cs, flags, rsp, ss] = self.last(regs);
        [regs.rcx, regs.r11, code as u64, regs.rip, cs, flags, rsp, ss]
    }

    /// The frame of the failsafe callback, with DS, ES, FS and GS as they could not be loaded.
    #[must_use]
    pub const fn with_selectors(&self, regs: &GuestRegs, selectors: [u16; 4]) -> [u64; WITH_SELECTORS] {
        let [cs, flags, rsp, ss] = self.last(regs);
        let [ds, es, fs, gs] = selectors;
        [regs.rcx, regs.r11, ds as u64, es as u64, fs as u64, gs as u64, regs.rip, cs, flags, rsp, ss]
    }
}

/// Makes the interrupted registers those of the guest inside its handler.
///
/// The frame at `sp` holds rcx and r11, so the handler may be entered by SYSRET.
#[inline]
pub const fn enter(regs: &mut GuestRegs, handler: u64, sp: u64) {
    regs.rip = handler;
    regs.cs = selector::FLAT_CODE64;
    regs.rflags &= !(rflags::AC | rflags::VM | rflags::RF | rflags::NT | rflags::TF);
    regs.rsp = sp;
    regs.ss = selector::FLAT_DATA;
    regs.entry_vector = TRAP_SYSCALL;
}

/// The error code of a page fault as the guest must see it: the U bit tells the guest's own mode, since its kernel
/// and its user programs both run in ring 3.
#[must_use]
pub const fn page_fault_error_code(hardware: u32, in_kernel: bool) -> u32 {
    const USER: u32 = 1 << 2;
    if in_kernel { hardware & !USER } else { hardware | USER }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regs() -> GuestRegs {
        GuestRegs {
            rcx: 1,
            r11: 2,
            rip: 0xffff_ffff_8100_1234,
            cs: 0xe033,
            rflags: 0x10246 | rflags::TF,
            rsp: 0xffff_ffff_8280_3f58,
            ss: 0xe02b,
            rax: 77,
            ..GuestRegs::default()
        }
    }

    const KERNEL: Interrupted =
        Interrupted { in_kernel: true, kernel_sp: 0xffff_c900_0000_4000, upcall_mask: false, iopl_shown: 0 };
    const USER: Interrupted = Interrupted { in_kernel: false, ..KERNEL };

    #[test]
    fn an_exception_in_the_kernel() {
        assert_eq!(
            KERNEL.with_error(&regs(), 2),
            [1, 2, 2, 0xffff_ffff_8100_1234, 0xe030, 0x10346, 0xffff_ffff_8280_3f58, 0xe02b]
        );
        let sp = KERNEL.place(&regs(), WITH_ERROR);
        assert_eq!(sp, 0xffff_ffff_8280_3f50 - 64);
        let mut inside = regs();
        enter(&mut inside, 0xffff_ffff_81c0_0000, sp);
        assert_eq!((inside.rip, inside.rsp, inside.rax), (0xffff_ffff_81c0_0000, sp, 77));
        assert_eq!(inside.rflags, 0x246, "the live flags lose RF and TF");
    }

    #[test]
    fn an_event_in_user_mode_uses_the_registered_stack() {
        let user = GuestRegs { rsp: 0x7fff_ffff_e000, ..regs() };
        assert_eq!(USER.place(&user, PLAIN), 0xffff_c900_0000_4000 - 56);
        let frame = USER.plain(&user);
        assert_eq!(frame[3], 0xe033, "user mode shows privilege 3");
        assert_eq!(frame[5], 0x7fff_ffff_e000);
    }

    #[test]
    fn the_mask_is_saved_beside_the_selector_and_in_the_flags() {
        let masked = Interrupted { upcall_mask: true, iopl_shown: 1 << 12, ..KERNEL };
        let frame = masked.plain(&regs());
        assert_eq!(frame[3], 0xe030 | 1 << 32);
        assert_eq!(frame[4] & rflags::IF, 0);
        assert_eq!(frame[4] & rflags::IOPL, 1 << 12);
    }

    #[test]
    fn the_failsafe_frame_carries_selectors() {
        let frame = KERNEL.with_selectors(&regs(), [0x2b, 0x2c, 7, 0xf]);
        assert_eq!(frame[2..6], [0x2b, 0x2c, 7, 0xf]);
    }

    #[test]
    fn a_stack_at_zero_wraps_into_what_no_guest_has() {
        let wild = GuestRegs { rsp: 8, ..regs() };
        assert!(KERNEL.place(&wild, PLAIN) > 0xffff_ffff_ffff_0000);
    }

    #[test]
    fn the_user_bit_follows_the_guests_mode() {
        assert_eq!(page_fault_error_code(0b111, true), 0b011);
        assert_eq!(page_fault_error_code(0b011, false), 0b111);
    }
}

//! The `iret` hypercall: what a PV kernel puts on its stack to leave a handler (`struct iret_context` in Xen's public
//! header `arch-x86/xen-x86_64.h`), and what becomes of it.

use super::rflags;
use crate::regs::{GuestRegs, TRAP_SYSCALL};
use xen_abi::arch_x86::{IretContext, VGCF_IN_SYSCALL};

/// What the binary has to do beside loading the registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Return {
    /// To user mode: needs user page tables, then a switch of tables and GS bases.
    pub to_user: bool,
    /// The new `evtchn_upcall_mask`.
    pub upcall_mask: bool,
    /// The new virtual I/O privilege level; taken only under `VMASST_TYPE_architectural_iopl`.
    pub iopl: u64,
}

/// Decodes a frame's selector and flags. It cannot fail: whatever is in there ends as a ring 3 context, and what the CPU
/// then refuses to load is a fault of the guest's.
#[inline]
#[must_use]
pub const fn decode(cs: u64, rflags: u64) -> Return {
    Return { to_user: cs & 3 == 3, upcall_mask: rflags & rflags::IF == 0, iopl: rflags & rflags::IOPL }
}

/// The selector of ring 3 that is meant.
#[inline(always)]
#[must_use]
pub const fn selector(word: u64) -> u64 {
    word & 0xffff | 3
}

/// The flags that are meant, with those that are not a guest's.
#[inline(always)]
#[must_use]
pub const fn flags(word: u64) -> u64 {
    word & !(rflags::IOPL | rflags::VM) | rflags::IF
}

/// Loads the registers of a frame, rax included.
#[inline]
pub const fn load(regs: &mut GuestRegs, frame: &IretContext) {
    regs.rax = frame.rax;
    regs.rip = frame.rip;
    regs.cs = selector(frame.cs);
    regs.rflags = flags(frame.rflags);
    regs.rsp = frame.rsp;
    regs.ss = selector(frame.ss);
    if frame.flags & VGCF_IN_SYSCALL == 0 {
        regs.r11 = frame.r11;
        regs.rcx = frame.rcx;
        regs.entry_vector = 0;
    } else {
        // Leaving by SYSRET costs rcx and r11.
        regs.entry_vector = TRAP_SYSCALL;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> IretContext {
        IretContext {
            rax: 1,
            r11: 2,
            rcx: 3,
            flags: 0,
            rip: 0x40_0000,
            cs: 0xe033,
            rflags: 0x202,
            rsp: 0x7fff_0000,
            ss: 0xe02b,
        }
    }

    fn loaded(mut regs: GuestRegs, frame: &IretContext) -> GuestRegs {
        load(&mut regs, frame);
        regs
    }

    #[test]
    fn to_user_mode() {
        let back = decode(frame().cs, frame().rflags);
        assert!(back.to_user);
        assert!(!back.upcall_mask);
        let before = GuestRegs { r11: 9, rcx: 8, rbx: 5, entry_vector: TRAP_SYSCALL, ..GuestRegs::default() };
        let regs = loaded(before, &frame());
        assert_eq!(regs.entry_vector, 0, "not by SYSRET");
        assert_eq!((regs.rax, regs.r11, regs.rcx, regs.rbx), (1, 2, 3, 5));
        assert_eq!(regs.rip, 0x40_0000);
    }

    #[test]
    fn to_the_kernel_with_events_masked() {
        let kernel = IretContext { cs: 0xe030, ss: 0xe028, rflags: 0x3_3002, ..frame() };
        let back = decode(kernel.cs, kernel.rflags);
        assert!(!back.to_user);
        assert!(back.upcall_mask);
        assert_eq!(back.iopl, 0x3000);
        let regs = loaded(GuestRegs::default(), &kernel);
        assert_eq!((regs.cs, regs.ss), (0xe033, 0xe02b), "never above ring 3");
        assert_eq!(regs.rflags, 0x1_0202, "IF on, IOPL and VM off");
    }

    #[test]
    fn a_system_call_keeps_rcx_and_r11() {
        let fast = IretContext { flags: VGCF_IN_SYSCALL, ..frame() };
        let regs = loaded(GuestRegs { r11: 9, rcx: 8, ..GuestRegs::default() }, &fast);
        assert_eq!((regs.r11, regs.rcx), (9, 8));
        assert_eq!(regs.entry_vector, TRAP_SYSCALL);
    }

    #[test]
    fn nothing_in_a_frame_reaches_ring_0() {
        for cs in [0, 8, 0xe008, 0xffff_ffff_ffff_0000] {
            let regs = loaded(GuestRegs::default(), &IretContext { cs, ss: 0x10, ..frame() });
            assert_eq!(regs.cs & 3, 3);
            assert_eq!(regs.ss & 3, 3);
            assert_eq!(regs.cs >> 16, 0);
        }
    }
}

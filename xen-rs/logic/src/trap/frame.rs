//! The frame that takes a PV guest into one of its handlers: an exception, the event upcall, the failsafe callback,
//! an NMI, or a system call from its user mode.
//!
//! Layout, low to high: `rcx r11 [ds es fs gs] [error code] rip cs|mask<<32 rflags rsp ss`. The data selectors are
//! there for the failsafe callback only (Xen public header `callback.h`).

use super::{is_guest_address, rflags, selector};
use crate::regs::{GuestRegs, TRAP_SYSCALL};
use arrayvec::ArrayVec;

/// Most words a frame can have: the failsafe frame.
pub const MAX_WORDS: usize = 12;

/// What the frame carries beside the interrupted state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extra {
    /// Nothing: events, system calls, exceptions without error code.
    None,
    /// The error code of an exception.
    ErrorCode(u32),
    /// The data selectors that could not be loaded.
    Selectors {
        /// DS
        ds: u16,
        /// ES
        es: u16,
        /// FS
        fs: u16,
        /// GS
        gs: u16,
    },
}

/// The handler to be entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handler {
    /// Where it begins; 0 means that the guest has none.
    pub address: u64,
    /// Whether events are masked on entry.
    pub masks_events: bool,
}

/// What of the vCPU's state decides the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted {
    /// The guest was in its kernel.
    pub in_kernel: bool,
    /// The stack that the guest registered with `stack_switch`.
    pub kernel_sp: u64,
    /// `evtchn_upcall_mask` before the entry.
    pub upcall_mask: bool,
    /// The virtual I/O privilege level (as RFLAGS bits) when `VMASST_TYPE_architectural_iopl` is on.
    pub architectural_iopl: Option<u64>,
}

/// A frame ready to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Where the lowest word goes; also the new stack pointer.
    pub sp: u64,
    /// The words, lowest address first.
    pub words: ArrayVec<u64, MAX_WORDS>,
    /// The handler's first instruction.
    pub rip: u64,
    /// The page tables and GS bases must be switched to the kernel's before the words are written.
    pub switch_to_kernel: bool,
    /// `evtchn_upcall_mask` is to be set once the frame is written.
    pub mask_events: bool,
}

/// Why a frame cannot be made. The guest is beyond help: the caller crashes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No handler is registered.
    NoHandler,
    /// The stack lies in the hypervisor's hole or is not canonical.
    BadStack(u64),
}

/// Builds the frame.
///
/// # Errors
/// See [`Refused`].
#[inline]
pub fn build(regs: &GuestRegs, state: &Interrupted, handler: Handler, extra: Extra) -> Result<Frame, Refused> {
    if handler.address == 0 {
        return Err(Refused::NoHandler);
    }
    let stack = if state.in_kernel { regs.rsp } else { state.kernel_sp };

    let mut flags = regs.rflags & !(rflags::IF | rflags::IOPL);
    if !state.upcall_mask {
        flags |= rflags::IF;
    }
    if let Some(iopl) = state.architectural_iopl {
        flags |= iopl & rflags::IOPL;
    }
    // The kernel must not take itself for user mode: its selector shows privilege 0 in the frame.
    let cs = if state.in_kernel { regs.cs & 0xfffc } else { regs.cs & 0xffff };

    let mut words = ArrayVec::<u64, MAX_WORDS>::new();
    words.push(regs.rcx);
    words.push(regs.r11);
    match extra {
        Extra::None => {}
        Extra::ErrorCode(code) => words.push(u64::from(code)),
        Extra::Selectors { ds, es, fs, gs } => {
            words.extend([ds, es, fs, gs].map(u64::from));
        }
    }
    words.extend([regs.rip, cs | u64::from(state.upcall_mask) << 32, flags, regs.rsp, regs.ss & 0xffff]);

    let top = stack & !0xf;
    let sp = top.wrapping_sub(8 * words.len() as u64);
    // Both ends, since a frame can straddle the border of the hole or wrap around zero.
    if !is_guest_address(sp) || !is_guest_address(top.wrapping_sub(1)) || sp > top {
        return Err(Refused::BadStack(stack));
    }

    let (switch_to_kernel, mask_events) = (!state.in_kernel, handler.masks_events);
    Ok(Frame { sp, words, rip: handler.address, switch_to_kernel, mask_events })
}

impl Frame {
    /// Makes the interrupted registers those of the guest inside its handler.
    ///
    /// The frame holds rcx and r11, so the handler may be entered by SYSRET.
    #[inline]
    pub const fn enter(&self, regs: &mut GuestRegs) {
        regs.rip = self.rip;
        regs.cs = selector::FLAT_CODE64;
        regs.rflags &= !(rflags::AC | rflags::VM | rflags::RF | rflags::NT | rflags::TF);
        regs.rsp = self.sp;
        regs.ss = selector::FLAT_DATA;
        regs.entry_vector = TRAP_SYSCALL;
    }
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

    fn state() -> Interrupted {
        Interrupted { in_kernel: true, kernel_sp: 0xffff_c900_0000_4000, upcall_mask: false, architectural_iopl: None }
    }

    const HANDLER: Handler = Handler { address: 0xffff_ffff_81c0_0000, masks_events: true };

    #[test]
    fn an_exception_in_the_kernel() {
        let frame = build(&regs(), &state(), HANDLER, Extra::ErrorCode(2)).unwrap();
        assert_eq!(
            frame.words.as_slice(),
            &[1, 2, 2, 0xffff_ffff_8100_1234, 0xe030, 0x10346, 0xffff_ffff_8280_3f58, 0xe02b]
        );
        assert_eq!(frame.sp, 0xffff_ffff_8280_3f50 - 64);
        assert!(!frame.switch_to_kernel);
        assert!(frame.mask_events);
        let mut entered = regs();
        frame.enter(&mut entered);
        assert_eq!((entered.rip, entered.rsp), (HANDLER.address, frame.sp));
        assert_eq!(entered.rflags, 0x246, "the live flags lose RF and TF");
        assert_eq!(entered.rax, 77);
    }

    #[test]
    fn an_event_in_user_mode_uses_the_registered_stack() {
        let user = GuestRegs { rsp: 0x7fff_ffff_e000, ..regs() };
        let kernel_is_left = Interrupted { in_kernel: false, ..state() };
        let frame = build(&user, &kernel_is_left, HANDLER, Extra::None).unwrap();
        assert!(frame.switch_to_kernel);
        assert_eq!(frame.sp, 0xffff_c900_0000_4000 - 56);
        assert_eq!(frame.words[3], 0xe033, "user mode shows privilege 3");
        assert_eq!(frame.words[5], 0x7fff_ffff_e000);
    }

    #[test]
    fn the_mask_is_saved_beside_the_selector_and_in_the_flags() {
        let masked = Interrupted { upcall_mask: true, architectural_iopl: Some(1 << 12), ..state() };
        let frame = build(&regs(), &masked, HANDLER, Extra::None).unwrap();
        assert_eq!(frame.words[3], 0xe030 | 1 << 32);
        assert_eq!(frame.words[4] & rflags::IF, 0);
        assert_eq!(frame.words[4] & rflags::IOPL, 1 << 12);
    }

    #[test]
    fn the_failsafe_frame_carries_selectors() {
        let extra = Extra::Selectors { ds: 0x2b, es: 0x2b, fs: 7, gs: 0xf };
        let frame = build(&regs(), &state(), HANDLER, extra).unwrap();
        assert_eq!(&frame.words[2..6], &[0x2b, 0x2b, 7, 0xf]);
        assert_eq!(frame.words.len(), 11);
    }

    #[test]
    fn hopeless_guests_are_refused() {
        let none = Handler { address: 0, ..HANDLER };
        assert_eq!(build(&regs(), &state(), none, Extra::None), Err(Refused::NoHandler));
        for rsp in [0xffff_8000_0000_0010, 0xffff_8800_0000_0000, 0, 8, 0x8000_0000_0020] {
            let wild = GuestRegs { rsp, ..regs() };
            assert!(build(&wild, &state(), HANDLER, Extra::None).is_err(), "{rsp:x}");
        }
    }

    #[test]
    fn the_user_bit_follows_the_guests_mode() {
        assert_eq!(page_fault_error_code(0b111, true), 0b011);
        assert_eq!(page_fault_error_code(0b011, false), 0b111);
    }
}

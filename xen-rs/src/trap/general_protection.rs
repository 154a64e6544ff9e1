//! #GP of a PV guest: `int n`, a privileged instruction to be emulated, or a fault of its own.

use logic::guest::In;
use logic::msr;
use logic::regs::{GuestRegs, rflags};
use logic::trap::{selector, vector};
use machine::mem::guest_words;

use super::{deliver, privileged};
use crate::cpu::{Context, Running};
use crate::guest::Handle;

/// Error-code bits (SDM vol. 3A, 6.13).
const EXTERNAL: u32 = 1;
const IDT: u32 = 2;

const INT_N: u8 = 0xcd;
/// Two bytes.
const RDMSR: u32 = 0x320f;

/// A kernel's `rdmsr` of its processes' GS base, which Linux executes at each switch between them. False: it is not that, or
/// not as simple, and nothing has been done.
#[inline(always)]
pub fn at_once(running: &Running, regs: &mut GuestRegs, error_code: u32) -> bool {
    let pv = &running.state.pv;
    let asks = regs.rcx & 0xffff_ffff == msr::index::SHADOW_GS_BASE.into()
        && error_code == 0
        && pv.in_kernel
        && regs.cs & 0xffff == selector::FLAT_CODE64
        && regs.rflags & rflags::TF == 0;
    if !asks || guest_words::read_at_once(regs.rip).is_none_or(|code| code & 0xffff != RDMSR) {
        return false;
    }
    regs.rax = pv.bases.gs_user & 0xffff_ffff;
    regs.rdx = pv.bases.gs_user >> 32;
    regs.rip = regs.rip.wrapping_add(2);
    regs.rflags &= !rflags::RF;
    true
}

/// The exception.
pub fn general_protection(cx: &mut Context<'_>, error_code: u32) {
    if error_code & EXTERNAL == 0 && error_code & IDT != 0 {
        let vector = vector_of(cx, error_code);
        if cx.state.pv.traps.gate(vector).allows_software(cx.state.pv.in_kernel) {
            return deliver::software_interrupt(cx, vector);
        }
    } else if error_code == 0 && privileged::emulate(cx) {
        return;
    }
    deliver::exception(cx, vector::GENERAL_PROTECTION, Some(error_code));
}

/// The vector of the `int n` that faulted. The CPU reports the gate as n * 8 + 2; some emulators count gates of 16
/// bytes, so the instruction itself is asked first.
fn vector_of(cx: &Context<'_>, error_code: u32) -> u8 {
    match Handle::<[u8; 2], In>::new(cx.regs.rip).read() {
        Ok([INT_N, vector])
            if error_code == u32::from(vector) << 3 | IDT || error_code == u32::from(vector) << 4 | IDT =>
        {
            vector
        }
        #[allow(clippy::cast_possible_truncation, reason = "an IDT has 256 gates")]
        _ => (error_code >> 3) as u8,
    }
}

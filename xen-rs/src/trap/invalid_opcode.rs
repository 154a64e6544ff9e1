//! #UD of a PV guest: the prefix that asks for emulation, or a fault of its own.

use logic::emulate::decode::{begins_with_forced_cpuid, is_forced_cpuid};
use logic::regs::{GuestRegs, rflags};
use logic::trap::vector;
use machine::mem::{guest_copy, guest_words};

use super::{cpuid, deliver, privileged};
use crate::cpu::{Context, Running};

/// Length of the prefix (`XEN_EMULATE_PREFIX`), and with `cpuid`.
const PREFIX: usize = 5;
const WHOLE: usize = 7;

/// The prefix with `cpuid` behind it, which kernels execute whenever they want to know something. False: it is not that, or
/// not as simple, and nothing has been done.
#[inline(always)]
pub fn at_once(running: &Running, regs: &mut GuestRegs) -> bool {
    let Some([code]) = guest_words::read_1_at_once(regs.rip) else { return false };
    if !begins_with_forced_cpuid(code) || regs.rflags & rflags::TF != 0 {
        return false;
    }
    if !cpuid::at_once(&running.domain, &running.state.pv, regs, true) {
        return false;
    }
    regs.rip = regs.rip.wrapping_add(WHOLE as u64);
    regs.rflags &= !rflags::RF;
    true
}

/// The exception.
pub fn invalid_opcode(cx: &mut Context<'_>) {
    let mut code = [0; WHOLE];
    let there = WHOLE - guest_copy::copy_in_up_to(cx.regs.rip, &mut code);
    match is_forced_cpuid(&code) {
        Some(length) if there == WHOLE => {
            cpuid::cpuid(cx, true);
            privileged::step(cx, length);
        }
        // As in Xen, what cannot be read of the prefix or behind it is a page fault, before anything else.
        _ if there < PREFIX || there < WHOLE && code.starts_with(&xen_abi::arch_x86::XEN_EMULATE_PREFIX) => {
            deliver::page_fault(cx, cx.regs.rip.wrapping_add(there as u64), 0);
        }
        _ => deliver::exception(cx, vector::INVALID_OPCODE, None),
    }
}

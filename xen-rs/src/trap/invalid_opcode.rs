//! #UD of a PV guest: the prefix that asks for emulation, or a fault of its own.

use logic::emulate::decode::is_forced_cpuid;
use logic::trap::vector;
use machine::mem::guest_copy;

use super::{cpuid, deliver, privileged};
use crate::cpu::Context;

/// Length of the prefix (`XEN_EMULATE_PREFIX`), and with `cpuid`.
const PREFIX: usize = 5;
const WHOLE: usize = 7;

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

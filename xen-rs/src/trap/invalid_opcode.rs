//! #UD of a PV guest: the prefix that asks for emulation, or a fault of its own.

use logic::emulate::decode::is_forced_cpuid;
use logic::trap::vector;

use super::{cpuid, deliver, privileged};
use crate::cpu::Context;

/// The exception.
pub fn invalid_opcode(cx: &mut Context<'_>) {
    let code = privileged::fetch::<7>(cx.regs.rip);
    match is_forced_cpuid(&code) {
        Some(length) => {
            cpuid::cpuid(cx, true);
            privileged::step(cx, length);
        }
        None => deliver::exception(cx, vector::INVALID_OPCODE, None),
    }
}

//! `HYPERVISOR_stack_switch`: the stack on which the kernel is entered from user mode.

use logic::hypercall::Outcome;

use crate::cpu::Context;

/// The hypercall: rdi is the selector, rsi the pointer. A pointer that cannot be used shows at the first entry.
#[inline(always)]
pub fn stack_switch(cx: &mut Context<'_>) -> Outcome {
    cx.state.pv.kernel_ss = cx.args()[0] | 3;
    cx.state.pv.kernel_sp = cx.args()[1];
    Outcome::OK
}

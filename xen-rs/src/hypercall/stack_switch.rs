//! `HYPERVISOR_stack_switch`: the stack on which the kernel is entered from user mode.

use crate::trap::PvState;

/// The hypercall. A pointer that cannot be used shows at the first entry.
#[inline(always)]
pub fn stack_switch(state: &mut PvState, selector: u64, pointer: u64) {
    state.kernel_ss = selector | 3;
    state.kernel_sp = pointer;
}

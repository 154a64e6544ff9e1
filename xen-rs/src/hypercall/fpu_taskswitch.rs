//! `HYPERVISOR_fpu_taskswitch`: sets or clears the guest's CR0.TS.

use logic::hypercall::Outcome;

use crate::{cpu::Context, trap};

/// The hypercall: rdi is not 0 to set it.
#[inline(always)]
pub fn fpu_taskswitch(cx: &mut Context<'_>) -> Outcome {
    let set = cx.args()[0] & 0xffff_ffff != 0;
    trap::set_task_switched(cx, set);
    Outcome::OK
}

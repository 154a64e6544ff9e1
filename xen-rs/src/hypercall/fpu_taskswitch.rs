//! `HYPERVISOR_fpu_taskswitch`: sets or clears the guest's CR0.TS.

use crate::trap::{self, PvState};

/// The hypercall: `set` is not 0 to set it.
#[inline(always)]
pub fn fpu_taskswitch(state: &mut PvState, set: u64) {
    trap::set_task_switched(state, set & 0xffff_ffff != 0);
}

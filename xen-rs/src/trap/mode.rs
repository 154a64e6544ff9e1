//! A PV guest's two modes: kernel and user both run in ring 3, told apart by the page tables and the GS base in use.

use machine::arch::x86_64::segments;

use crate::cpu::Context;

/// Goes from one mode to the other: GS bases, then the root table.
///
/// To user mode only when there is a root table for it.
pub fn toggle(cx: &mut Context<'_>) {
    let pv = &mut cx.state.pv;
    // With FSGSBASE the guest changes its base without telling.
    let live = segments::gs_base();
    if pv.in_kernel {
        pv.bases.gs_kernel = live;
    } else {
        pv.bases.gs_user = live;
    }
    segments::swap_gs();
    pv.in_kernel = !pv.in_kernel;
    let in_kernel = pv.in_kernel;
    cx.state.paging.switch_mode(in_kernel);
    if in_kernel {
        cx.state.areas.catch_up(cx.vcpu, cx.domain);
    }
}

//! A PV guest's two modes: kernel and user both run in ring 3, told apart by the page tables and the GS base in use.

use machine::arch::x86_64::segments;

use super::PvState;
use crate::cpu::Context;
use crate::memory::Paging;

/// Goes from one mode to the other: GS bases, then the root table.
///
/// To user mode only when there is a root table for it.
pub fn toggle(cx: &mut Context<'_>) {
    switch(&mut cx.state.pv, &cx.state.paging);
    if cx.state.pv.in_kernel {
        cx.state.areas.catch_up(cx.vcpu, cx.domain);
    }
}

/// From the kernel to user mode; false if there is no root table for it.
#[inline]
pub fn to_user(pv: &mut PvState, paging: &Paging) -> bool {
    let there_is = paging.user.is_some();
    if there_is {
        switch(pv, paging);
    }
    there_is
}

#[inline]
fn switch(pv: &mut PvState, paging: &Paging) {
    // With FSGSBASE the guest changes its base without telling.
    let live = segments::gs_base();
    if pv.in_kernel {
        pv.bases.gs_kernel = live;
    } else {
        pv.bases.gs_user = live;
    }
    segments::swap_gs();
    pv.in_kernel = !pv.in_kernel;
    paging.switch_mode(pv.in_kernel);
}

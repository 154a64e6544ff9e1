//! What setting a parameter of a domain does.

use core::sync::atomic::Ordering;

use alloc::sync::Arc;
use logic::{lock::Held, width::Width};
use machine::container::attributes;

use crate::{cpu::Context, cpu_loop, domain::Domain, event, time};

/// How the domain hears of events from now on (`HVM_PARAM_CALLBACK_IRQ`).
pub fn set_callback(domain: &Arc<Domain>, value: u64, held: &mut Held<'_, 0>) {
    let Some(pvh) = domain.pvh() else { return };
    pvh.callback.store(value, Ordering::Release);
    // What has come before is delivered now.
    for vcpu in domain.vcpus() {
        cpu_loop::event(vcpu, held);
    }
}

/// The kernel's words are as wide as the mode is in which it does this: it sets its callback or its hypercall page, which is
/// among the first things that kernels do (Xen's `hvm_latch_shinfo_size`).
pub fn latch_width(cx: &mut Context<'_>) {
    let Some(pvh) = cx.state.pvh.as_deref() else { return };
    let long_mode = pvh.container.code_attributes() & attributes::LONG != 0;
    let width = if long_mode { Width::Long64 } else { Width::Long32 };
    event::set_width(cx.domain, width, &mut cx.held);
    // Its clock may be elsewhere now.
    time::show_wall_clock(cx.domain, &mut cx.held);
}

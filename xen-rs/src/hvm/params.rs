//! What setting a parameter of a domain does.

use core::sync::atomic::Ordering;

use alloc::sync::Arc;
use logic::lock::Held;

use crate::{cpu_loop, domain::Domain};

/// How the domain hears of events from now on (`HVM_PARAM_CALLBACK_IRQ`).
pub fn set_callback(domain: &Arc<Domain>, value: u64, held: &mut Held<'_, 0>) {
    let Some(pvh) = domain.pvh() else { return };
    pvh.callback.store(value, Ordering::Release);
    // What has come before is delivered now.
    for vcpu in domain.vcpus() {
        cpu_loop::event(vcpu, held);
    }
}

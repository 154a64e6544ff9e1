//! Interrupts for a PVH vCPU: upcalls for events, by its own vector or by its domain's callback.
//!
//! Whether something waits is looked at before each entry: what comes while the guest runs kicks it out.

use core::sync::atomic::Ordering;

use logic::regs::GuestRegs;
use machine::container::Event;
use xen_abi::hvm::HVM_PARAM_CALLBACK_TYPE_VECTOR;

use super::{PvhVcpu, apic};
use crate::{domain::Domain, vcpu::Vcpu};

/// Offers the guest the interrupt that waits, or asks to come back when it takes one.
#[inline(always)]
pub fn offer(pvh: &mut PvhVcpu, vcpu: &Vcpu, domain: &Domain, regs: &GuestRegs) {
    if pvh.container.cr8() | pvh.apic.task_priority() != 0 {
        priority_matters(pvh);
    }
    if vcpu.info.get().upcall_pending() || pvh.apic.has_requests() {
        raise(pvh, vcpu, domain, regs);
    }
}

/// The guest lowers its task priority without an exit, unless something waits for that.
#[cold]
fn priority_matters(pvh: &mut PvhVcpu) {
    apic::sync_priority(pvh);
    pvh.container.watch_priority(pvh.apic.held_off().unwrap_or(0));
}

#[inline(never)]
fn raise(pvh: &mut PvhVcpu, vcpu: &Vcpu, domain: &Domain, regs: &GuestRegs) {
    if let Some(vectors) = pvh.apic.pass_on() {
        pvh.container.request(&vectors);
    }
    let callback = callback(vcpu, domain);
    let Some(vector) = callback.or_else(|| pvh.apic.pending()) else { return };
    if !pvh.container.takes_interrupts(regs) {
        return pvh.container.want_window(true);
    }
    if callback.is_none() {
        pvh.apic.begin(vector);
    }
    pvh.container.inject(Event::interrupt(vector));
    // There may be another one behind it; else nobody waits for a window any more (docs/decisions/0044).
    pvh.container.want_window(callback.is_some() && pvh.apic.pending().is_some());
}

/// The vector of an upcall that waits, where it does not come by way of the APIC.
fn callback(vcpu: &Vcpu, domain: &Domain) -> Option<u8> {
    if vcpu.upcall_vector() != 0 || !vcpu.info.get().upcall_pending() {
        return None;
    }
    let callback = domain.pvh()?.callback.load(Ordering::Relaxed);
    let [vector, .., kind] = callback.to_le_bytes();
    (u32::from(kind) == HVM_PARAM_CALLBACK_TYPE_VECTOR && vector >= 0x10).then_some(vector)
}

/// Whether an interrupt waits that the vCPU would take: then it does not wait.
pub fn is_due(pvh: &PvhVcpu, vcpu: &Vcpu, domain: &Domain) -> bool {
    !vcpu.inbox.is_empty()
        || pvh.apic.pending().is_some()
        || pvh.container.is_due(pvh.apic.on_its_way())
        || callback(vcpu, domain).is_some()
}

//! The segment state of a PV vCPU across a switch of CPUs' attention: selectors and bases.

use core::sync::atomic::{AtomicU32, Ordering};

use logic::emulate::control::cr4;
use machine::arch::x86_64::{guest_registers, percpu, segments};
use machine::mem::tlb::MAX_CPUS;
use xen_abi::ids::DomId;

use super::PvState;
use crate::domain::Domain;

/// Whose vCPU each CPU ran last, plus 1.
static LAST: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(0) }; MAX_CPUS];

/// Before a CPU runs a vCPU of a domain: nothing that another domain taught its branch predictors may steer this one.
pub fn separate(domain: DomId) {
    let Some(last) = usize::try_from(percpu::number()).ok().and_then(|cpu| LAST.get(cpu)) else { return };
    let this = u32::from(domain.0) + 1;
    // Only this CPU touches its entry.
    if last.load(Ordering::Relaxed) != this {
        last.store(this, Ordering::Relaxed);
        guest_registers::prediction_barrier();
    }
}

/// Takes a vCPU's segment and debug state off this CPU.
pub fn leave(pv: &mut PvState) {
    pv.selectors = segments::read();
    pv.bases.fs = segments::fs_base();
    let gs = segments::gs_base();
    if pv.in_kernel {
        pv.bases.gs_kernel = gs;
    } else {
        pv.bases.gs_user = gs;
    }
    // Nothing of the guest's may fault or break in the next one.
    if !pv.selectors.all_null() {
        let _null_always_loads = segments::load(segments::Selectors::default());
    }
    if pv.debug.active() {
        guest_registers::set_debug_control(0);
    }
    if pv.task_switched {
        guest_registers::set_task_switched(false);
    }
}

/// CR4 as the CPU has it while the guest runs: reads of an emulated TSC fault.
pub fn real_cr4(pv: &PvState, domain: &Domain) -> u64 {
    if domain.tsc.is_emulated() { pv.cr4 | cr4::TSD } else { pv.cr4 }
}

/// Puts it onto this CPU, whose descriptor and page tables are the vCPU's already. False: a selector could not be
/// loaded, and the failsafe callback has to hear of it.
#[must_use]
pub fn enter(pv: &PvState, domain: &Domain) -> bool {
    let loaded = pv.selectors.all_null() || segments::load(pv.selectors);
    guest_registers::set_guest_cr4(real_cr4(pv, domain));
    // A selector takes the base from its descriptor, a null one may clear it: bases last.
    let (gs, other) =
        if pv.in_kernel { (pv.bases.gs_kernel, pv.bases.gs_user) } else { (pv.bases.gs_user, pv.bases.gs_kernel) };
    segments::set_fs_base(pv.bases.fs);
    segments::set_gs_base(gs);
    segments::set_other_gs_base(other);
    guest_registers::set_tsc_aux(pv.tsc_aux);
    // All components are on after the extended state was loaded; a CPU without XSAVE has nothing to set.
    let _set = guest_registers::set_xcr0(pv.xcr0);
    if pv.debug.active() {
        load_debug_registers(pv);
    }
    if pv.task_switched {
        guest_registers::set_task_switched(true);
    }
    loaded
}

/// Loads all debug registers of a vCPU that has a breakpoint.
pub fn load_debug_registers(pv: &PvState) {
    for (index, address) in (0..).zip(pv.debug.address) {
        guest_registers::set_breakpoint(index, address);
    }
    guest_registers::set_debug_status(pv.debug.dr6);
    guest_registers::set_debug_control(pv.debug.dr7);
}

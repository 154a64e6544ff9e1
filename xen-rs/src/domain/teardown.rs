//! The end of a domain: everything it holds goes back, in bounded steps.
//!
//! Order: no vCPU runs any more; grants it mapped are unmapped; its event channels close; its vCPUs let go of page
//! tables and shared areas; its pages go back. Pages that other domains still map stay theirs to release; until then the
//! domain stays in the table, dying, and holds only those.

use alloc::{sync::Arc, vec::Vec};

use logic::{hypercall::Outcome, lock::Held};

use super::{Domain, Life};
use crate::{cpu_loop, event, grant, irq, memory, vcpu::Vcpu};

/// Event channels closed in one step.
const PORTS_PER_STEP: u32 = 64;

/// One step; `Again` while there is more to do.
pub fn step(domain: &Arc<Domain>, held: &mut Held<'_, 0>) -> Outcome {
    if domain.life.begin_death() {
        domain.pause(held);
        domain.vcpus().iter().for_each(|vcpu| cpu_loop::release(vcpu, held));
        // Else the control domain could make it a port that nobody closes any more.
        domain.events.table.lock(held).0.set_dying();
    }
    if domain.life.get() == Life::Dead {
        return Outcome::OK;
    }
    for vcpu in domain.vcpus() {
        if !cpu_loop::is_parked(vcpu, held) {
            return Outcome::Again;
        }
    }
    if !grant::release_mappings(domain, held) {
        return Outcome::Again;
    }
    if !event::close_some(domain, PORTS_PER_STEP, held) {
        return Outcome::Again;
    }
    irq::unmap_all(domain, held);
    for vcpu in domain.vcpus() {
        if !release_tables(domain, vcpu, held) {
            return Outcome::Again;
        }
    }
    if domain.events.shared_info().is_some() {
        release_shared_pages(domain, held);
    }
    if let Some(pvh) = domain.pvh()
        && !pvh.physmap.take_apart(domain, held)
    {
        return Outcome::Again;
    }
    // The last page may have buried the domain on the way.
    if !domain.memory.relinquish(domain, held) && domain.life.get() != Life::Dead {
        return Outcome::Again;
    }
    bury(domain, held);
    Outcome::OK
}

/// Gives up the page tables and descriptor tables of a vCPU that does not run; false: call again.
fn release_tables(domain: &Arc<Domain>, vcpu: &Arc<Vcpu>, held: &mut Held<'_, 0>) -> bool {
    let Some(mut state) = vcpu.parked.lock(held).0.take() else { return false };
    let mut mm = memory::mmu(held.again(), domain, &mut state.paging.deferred);
    for page in state.pv.gdt.pages.drain(..) {
        mm.put_ref(page);
    }
    state.pv.ldt.release(&mut mm);
    let done = state.paging.release(domain, held);
    *vcpu.parked.lock(held).0 = Some(state);
    done
}

/// Ends the hypervisor's use of the pages it shares with the domain; they go back with the domain's others.
fn release_shared_pages(domain: &Arc<Domain>, held: &mut Held<'_, 0>) {
    let mut deferred = Vec::new();
    event::retire(domain, |page| {
        let mut mm = memory::mmu(held.again(), domain, &mut deferred);
        mm.end_shared(page.into_frame());
        // The page was writable, never a table: there is nothing to be put off.
        let _ = memory::finish(&mut mm);
    });
}

/// Takes a domain off the table once nothing of its memory is left: after its own last step, or when the last page that
/// somebody else held goes.
pub fn bury(domain: &Domain, held: &mut Held<'_, 0>) {
    if domain.memory.is_relinquished() && domain.memory.is_empty() && domain.life.finish_death() {
        // As long as the number is its own.
        cpu_loop::forget(domain, held);
        if let Some(domain) = super::remove(domain.id, held) {
            grant::release_table(&domain, held);
        }
        event::raise_dom_exc(held);
    }
}

//! The end of a domain: everything it holds goes back, in bounded steps.
//!
//! Order: no vCPU runs any more; grants it mapped are unmapped; its event channels close; its vCPUs let go of page
//! tables and shared areas; its pages go back. Pages that other domains still map stay theirs to release; until then the
//! domain stays in the table, dying, and holds only those.

use alloc::sync::Arc;

use logic::{hypercall::Outcome, lock::Held};

use super::{Domain, Life};
use crate::cpu_loop;

/// One step; `Again` while there is more to do.
pub fn step(domain: &Arc<Domain>, held: &mut Held<'_, 0>) -> Outcome {
    if domain.life.begin_death() {
        domain.pause(held);
    }
    if domain.life.get() == Life::Dead {
        return Outcome::OK;
    }
    for vcpu in domain.vcpus() {
        if !cpu_loop::is_parked(vcpu, held) {
            return Outcome::Again;
        }
    }
    domain.life.finish_death();
    super::remove(domain.id, held);
    crate::event::raise_dom_exc(held);
    Outcome::OK
}

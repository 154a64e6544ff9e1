//! Pausing: reasons not to run are counted, the toolstack's among them.

use core::sync::atomic::Ordering;

use logic::lock::Held;

use super::Domain;
use crate::cpu_loop;

impl Domain {
    /// One more reason not to run. Its vCPUs leave their CPUs soon, not yet when this returns.
    pub fn pause(&self, held: &mut Held<'_, 0>) {
        self.pause_count.fetch_add(1, Ordering::AcqRel);
        for vcpu in self.vcpus() {
            cpu_loop::kick(vcpu, held);
        }
    }

    /// One reason less; the last one lets its vCPUs run.
    pub fn unpause(&self, held: &mut Held<'_, 0>) {
        if self.pause_count.fetch_sub(1, Ordering::AcqRel) == 1 {
            for vcpu in self.vcpus() {
                cpu_loop::wake(vcpu, held);
            }
        }
    }

    /// The toolstack's pause; each wants an unpause of its own.
    pub fn pause_by_controller(&self, held: &mut Held<'_, 0>) {
        self.controller_pauses.fetch_add(1, Ordering::AcqRel);
        self.pause(held);
    }

    /// Takes one of the toolstack's pauses back; false: there is none.
    pub fn unpause_by_controller(&self, held: &mut Held<'_, 0>) -> bool {
        let taken = self
            .controller_pauses
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| count.checked_sub(1))
            .is_ok();
        if taken {
            self.unpause(held);
        }
        taken
    }

    /// Whether the toolstack keeps it from running.
    #[must_use]
    pub fn paused_by_controller(&self) -> bool {
        self.controller_pauses.load(Ordering::Acquire) > 0
    }
}

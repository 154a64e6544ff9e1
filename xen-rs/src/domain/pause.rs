//! Pausing: reasons not to run are counted, the toolstack's among them.

use core::sync::atomic::{AtomicU32, Ordering};

use logic::lock::{Held, rank};

use super::Domain;
use crate::{cpu_loop, sync::Lock};

/// The count. Its lock makes a change of it and what follows for the vCPUs one step.
pub(super) struct Pauses {
    count: AtomicU32,
    change: Lock<(), { rank::DOMAIN }>,
}

impl Pauses {
    pub(super) const fn new(count: u32) -> Self {
        Self { count: AtomicU32::new(count), change: Lock::new(()) }
    }
}

impl Domain {
    /// Whether there is a reason for it not to run.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.pauses.count.load(Ordering::Acquire) > 0
    }

    /// One more reason not to run. Its vCPUs leave their CPUs soon, not yet when this returns.
    pub fn pause(&self, held: &mut Held<'_, 0>) {
        let (_change, _held) = self.pauses.change.lock(held);
        if self.pauses.count.fetch_add(1, Ordering::AcqRel) == 0 {
            for vcpu in self.vcpus() {
                cpu_loop::pause(vcpu);
            }
        }
    }

    /// One reason less; the last one lets its vCPUs run.
    pub fn unpause(&self, held: &mut Held<'_, 0>) {
        let (_change, mut held) = self.pauses.change.lock(held);
        if self.pauses.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            for vcpu in self.vcpus() {
                cpu_loop::unpause(vcpu, &mut held);
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
        let before =
            self.controller_pauses.fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| count.checked_sub(1));
        if before == Ok(1) {
            // From here on it may have seen what CPUID says.
            self.cpuid.fix();
        }
        if before.is_ok() {
            self.unpause(held);
        }
        before.is_ok()
    }

    /// Whether the toolstack keeps it from running.
    #[must_use]
    pub fn paused_by_controller(&self) -> bool {
        self.controller_pauses.load(Ordering::Acquire) > 0
    }
}

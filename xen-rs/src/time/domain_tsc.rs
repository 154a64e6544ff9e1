//! The TSC of a domain: who reads it goes by way of here.

use core::sync::atomic::{AtomicBool, Ordering};

use logic::{
    hvm::apic::Clock,
    lock::rank,
    time::{GuestTsc, Nanos, TimeBody},
};
use machine::arch::x86_64::cpu::rdtsc;
use xen_abi::{domctl::TscInfo, errno::Errno};

use super::{now, system, tsc_khz};
use crate::sync::Lock;

/// A domain's TSC.
#[derive(Debug)]
pub struct DomainTsc {
    /// Whether it is not the CPU's own, which is asked more often than anything else.
    emulated: AtomicBool,
    rules: Lock<GuestTsc, { rank::LEAF }>,
}

impl DomainTsc {
    /// The CPU's own. A PV control domain is told nothing of it, as on Xen.
    #[must_use]
    pub fn new(is_told: bool) -> Self {
        let mut rules = GuestTsc::native();
        if is_told {
            let _usual = rules.set(&TscInfo::default(), now(), tsc_khz());
        }
        Self { emulated: AtomicBool::new(false), rules: Lock::new(rules) }
    }

    /// Whether its guest's reads have to be answered.
    #[inline(always)]
    #[must_use]
    pub fn is_emulated(&self) -> bool {
        self.emulated.load(Ordering::Relaxed)
    }

    /// Changes it, while none of its vCPUs runs.
    pub fn set(&self, info: &TscInfo) -> Result<(), Errno> {
        self.rules.lock_leaf(|rules| {
            rules.set(info, now(), tsc_khz())?;
            self.emulated.store(rules.is_emulated(), Ordering::Relaxed);
            Ok(())
        })
    }

    /// What a domain restored from this one goes on with.
    #[must_use]
    pub fn info(&self) -> TscInfo {
        self.rules().info(now(), rdtsc(), tsc_khz())
    }

    /// What it is made of.
    #[must_use]
    pub fn rules(&self) -> GuestTsc {
        self.rules.lock_leaf(|rules| *rules)
    }

    /// Reads it.
    #[must_use]
    pub fn read(&self) -> u64 {
        if self.is_emulated() { self.rules.lock_leaf(|rules| rules.read(now())) } else { rdtsc() }
    }

    /// The time record of its guest.
    #[inline]
    pub(super) fn body(&self, stable: bool) -> TimeBody {
        let clock = system();
        if self.is_emulated() { self.rules().body(&clock, stable) } else { TimeBody::new(&clock, stable) }
    }
}

/// The hypervisor's clock, which is the guest's, and its TSC.
impl Clock for DomainTsc {
    fn now(&self) -> Nanos {
        now()
    }

    fn when_tsc_is(&self, ticks: u64) -> Nanos {
        let now = now();
        if self.is_emulated() {
            return self.rules().when(ticks, now);
        }
        let ahead = ticks.saturating_sub(rdtsc());
        let khz = u64::from(tsc_khz()).max(1);
        now.after(Nanos(ahead.saturating_mul(1_000_000) / khz))
    }
}

//! The TSC of a domain: who reads it goes by way of here.

use core::sync::atomic::{AtomicU8, Ordering};

use logic::{
    hvm::apic::Clock,
    lock::rank,
    time::{GuestTsc, Host, Nanos, Scaling, TimeBody, Way},
};
use machine::arch::x86_64::{cpu::rdtsc, tsc};
use xen_abi::{domctl::TscInfo, errno::Errno};

use super::{now, system, tsc_khz};
use crate::sync::Lock;

const NATIVE: u8 = 0;
const SCALED: u8 = 1;
const EMULATED: u8 = 2;

/// A domain's TSC.
#[derive(Debug)]
pub struct DomainTsc {
    /// Whether it is the CPU's own, which is asked more often than anything else.
    kind: AtomicU8,
    rules: Lock<GuestTsc, { rank::LEAF }>,
}

impl DomainTsc {
    /// The CPU's own. A PV control domain is told nothing of it, as on Xen.
    #[must_use]
    pub fn new(is_told: bool) -> Self {
        let mut rules = GuestTsc::native();
        if is_told {
            let _usual = rules.set(&TscInfo::default(), &host(), None);
        }
        Self { kind: AtomicU8::new(NATIVE), rules: Lock::new(rules) }
    }

    /// Whether its guest's reads have to be answered.
    #[inline(always)]
    #[must_use]
    pub fn is_emulated(&self) -> bool {
        self.kind.load(Ordering::Relaxed) == EMULATED
    }

    #[inline(always)]
    fn is_native(&self) -> bool {
        self.kind.load(Ordering::Relaxed) == NATIVE
    }

    /// Where its guest's readings come from.
    #[inline(always)]
    #[must_use]
    pub fn way(&self) -> Way {
        if self.is_native() { Way::Native } else { self.rules().way() }
    }

    /// Changes it, while none of its vCPUs runs. `scaling`: what the hardware can do for it.
    pub fn set(&self, info: &TscInfo, scaling: Option<Scaling>) -> Result<(), Errno> {
        self.rules.lock_leaf(|rules| {
            rules.set(info, &host(), scaling)?;
            let kind = match rules.way() {
                Way::Native => NATIVE,
                Way::Scaled(_) => SCALED,
                Way::Emulated => EMULATED,
            };
            self.kind.store(kind, Ordering::Relaxed);
            Ok(())
        })
    }

    /// What a domain restored from this one goes on with.
    #[must_use]
    pub fn info(&self) -> TscInfo {
        self.rules().info(&host())
    }

    /// What it is made of.
    #[must_use]
    pub fn rules(&self) -> GuestTsc {
        self.rules.lock_leaf(|rules| *rules)
    }

    /// Reads it.
    #[must_use]
    pub fn read(&self) -> u64 {
        match self.way() {
            Way::Native => rdtsc(),
            Way::Scaled(scaled) => scaled.at(rdtsc()),
            Way::Emulated => self.rules.lock_leaf(|rules| rules.read(now())),
        }
    }

    /// The time record of its guest.
    #[inline]
    pub(super) fn body(&self, stable: bool) -> TimeBody {
        let clock = system();
        if self.is_native() { TimeBody::new(&clock, stable) } else { self.rules().body(&clock, stable) }
    }
}

/// The host now.
fn host() -> Host {
    let ticks = rdtsc();
    Host { now: system().at(ticks), ticks, hertz: tsc::hertz() }
}

/// The hypervisor's clock, which is the guest's, and its TSC.
impl Clock for DomainTsc {
    fn now(&self) -> Nanos {
        now()
    }

    fn when_tsc_is(&self, ticks: u64) -> Nanos {
        let now = now();
        let ahead = match self.way() {
            Way::Native => ticks.saturating_sub(rdtsc()),
            Way::Scaled(scaled) => scaled.host_ticks(ticks.saturating_sub(scaled.at(rdtsc()))),
            Way::Emulated => return self.rules().when(ticks, now),
        };
        let ahead = u128::from(ahead) * 1_000_000 / u128::from(tsc_khz()).max(1);
        now.after(Nanos(u64::try_from(ahead).unwrap_or(u64::MAX >> 2)))
    }
}

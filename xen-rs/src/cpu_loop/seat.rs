//! A vCPU's place in the scheduler.

use core::sync::atomic::{AtomicI64, AtomicU8, AtomicU32, AtomicU64, Ordering};

use logic::sched::{Account, CpuMask, Readiness, RunClock, WEIGHT_DEFAULT, pools::Slot};
use xen_abi::ids::VcpuId;

use super::pools;
use crate::time;

/// Whether a vCPU may run, where, and for how long.
#[derive(Debug)]
pub struct Seat {
    /// May it run, does it, who queues it.
    pub ready: Readiness,
    /// How it spends its time.
    pub clock: RunClock,
    processor: AtomicU32,
    hard: AtomicU64,
    soft: AtomicU64,
    /// The CPUs that it takes only where there are no others.
    shuns: AtomicU64,
    /// The only CPU for now (`SCHEDOP_pin_override`), plus 1.
    pin: AtomicU32,
    weight: AtomicU32,
    /// Its domain's pool, by its place.
    pool: AtomicU8,
    // The account. Only the CPU that runs the vCPU or is about to queue it touches these.
    credit: AtomicI64,
    round: AtomicU32,
}

impl Seat {
    /// Of a vCPU of a pool that is down, paused once if its domain is.
    #[must_use]
    pub fn new(id: VcpuId, paused: bool, pool: Slot) -> Self {
        let account = Account::new(WEIGHT_DEFAULT);
        let ready = Readiness::new();
        if paused {
            // It is down: there is nobody to kick.
            let _ = ready.pause();
        }
        let cpus = pools::cpus(pool);
        let turn = id.0 as usize % (cpus.0.count_ones() as usize).max(1);
        let seat = Self {
            ready,
            clock: RunClock::new(time::now()),
            processor: AtomicU32::new(cpus.iter().nth(turn).unwrap_or(0)),
            hard: AtomicU64::new(CpuMask::ALL.0),
            soft: AtomicU64::new(CpuMask::ALL.0),
            shuns: AtomicU64::new(0),
            pin: AtomicU32::new(0),
            weight: AtomicU32::new(WEIGHT_DEFAULT.into()),
            pool: AtomicU8::new(0),
            credit: AtomicI64::new(account.credit),
            round: AtomicU32::new(account.round),
        };
        seat.set_pool(pool);
        seat
    }

    /// Its domain's pool.
    #[must_use]
    #[inline]
    pub fn pool(&self) -> Slot {
        Slot::of(self.pool.load(Ordering::SeqCst).into()).unwrap_or(Slot::FIRST)
    }

    /// Its domain is in another pool.
    pub fn set_pool(&self, pool: Slot) {
        self.pool.store(u8::try_from(pool.index()).unwrap_or(0), Ordering::SeqCst);
    }

    /// The CPU it runs or ran on, or on whose queue it is.
    #[inline]
    #[must_use]
    pub fn processor(&self) -> u32 {
        self.processor.load(Ordering::Relaxed)
    }

    pub(super) fn set_processor(&self, cpu: u32) {
        self.processor.store(cpu, Ordering::Relaxed);
    }

    /// The CPUs it may run on.
    #[must_use]
    pub fn hard_affinity(&self) -> CpuMask {
        match self.pin.load(Ordering::Relaxed) {
            0 => CpuMask(self.hard.load(Ordering::Relaxed)),
            pinned => CpuMask::one(pinned - 1),
        }
    }

    /// The CPUs of its pool that it may run on: all of them when none is left of its affinity.
    #[must_use]
    pub fn may_run_on(&self) -> CpuMask {
        let pool = pools::cpus(self.pool());
        let cpus = match self.hard_affinity().and(pool) {
            CpuMask(0) => pool,
            some => some,
        };
        match cpus.without(CpuMask(self.shuns.load(Ordering::Relaxed))) {
            CpuMask(0) => cpus,
            better => better,
        }
    }

    /// It takes these CPUs only where there are no others.
    pub fn shun(&self, cpus: CpuMask) {
        self.shuns.store(cpus.0, Ordering::Relaxed);
    }

    /// The CPU that it is tied to, whatever its affinity says.
    #[must_use]
    pub fn pinned(&self) -> Option<u32> {
        self.pin.load(Ordering::Relaxed).checked_sub(1)
    }

    /// Ties it to one CPU whatever its affinity says, unless it is tied to one. Whether it was done.
    #[must_use]
    pub fn pin(&self, cpu: u32) -> bool {
        self.pin.compare_exchange(0, cpu + 1, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Ties it no longer. Whether it was tied.
    pub fn unpin(&self) -> bool {
        self.pin.swap(0, Ordering::Relaxed) != 0
    }

    /// The CPUs it had better run on.
    #[must_use]
    pub fn soft_affinity(&self) -> CpuMask {
        CpuMask(self.soft.load(Ordering::Relaxed))
    }

    /// Sets both. A vCPU that is on the wrong CPU leaves it when it is [kicked](super::kick).
    pub fn set_affinity(&self, hard: CpuMask, soft: CpuMask) {
        self.hard.store(hard.0, Ordering::Relaxed);
        self.soft.store(soft.0, Ordering::Relaxed);
    }

    /// Its share relative to others'.
    #[must_use]
    pub fn weight(&self) -> u16 {
        u16::try_from(self.weight.load(Ordering::Relaxed)).unwrap_or(u16::MAX)
    }

    /// Sets its share.
    pub fn set_weight(&self, weight: u16) {
        self.weight.store(weight.into(), Ordering::Relaxed);
    }

    pub(super) fn account(&self) -> Account {
        Account {
            credit: self.credit.load(Ordering::Relaxed),
            round: self.round.load(Ordering::Relaxed),
            weight: self.weight(),
        }
    }

    pub(super) fn set_account(&self, account: Account) {
        self.credit.store(account.credit, Ordering::Relaxed);
        self.round.store(account.round, Ordering::Relaxed);
    }
}

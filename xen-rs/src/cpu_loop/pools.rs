//! Pools of CPUs on this machine: which CPU serves which queue, and which CPUs a domain's vCPUs may use.
//!
//! What others read all the time, the CPUs of a pool and the queue of a CPU, are atomics; they change under one lock. A vCPU
//! is put on a queue only while the CPU that was chosen for it still serves that queue and is still one of its own, and who
//! waits on a queue that none of its CPUs serves any more is taken from there: so nobody is forgotten while CPUs come and go.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use logic::{
    lock::{Held, rank},
    sched::{
        CpuMask, QUEUE_CPUS, Scheduler, Settings, WEIGHT_DEFAULT,
        pools::{self, POOLS, Pool, Pools, Slot},
    },
};
use machine::mailbox;
use xen_abi::{errno::Errno, ids::DomId};

use super::{cap, look_again, queues};
use crate::{
    domain::{self, Domain, Life},
    sync::Lock,
};

static TABLE: Lock<Pools, { rank::CONTROL }> = Lock::new(Pools::new());

/// What others need to know of a pool.
struct Shown {
    id: AtomicU32,
    cpus: AtomicU64,
    domains: AtomicU32,
    scheduler: AtomicU8,
    settings: Lock<Settings, { rank::LEAF }>,
    /// Of its settings: microseconds.
    rate_limit: AtomicU32,
}

static SHOWN: [Shown; POOLS] = [const {
    Shown {
        id: AtomicU32::new(pools::FIRST),
        cpus: AtomicU64::new(0),
        domains: AtomicU32::new(0),
        scheduler: AtomicU8::new(0),
        settings: Lock::new(Settings::DEFAULT),
        rate_limit: AtomicU32::new(0),
    }
}; POOLS];

/// The pool of each CPU, by its place, plus 1; 0: none.
static POOL_OF: [AtomicU8; queues::MAX_CPUS] = [const { AtomicU8::new(1) }; queues::MAX_CPUS];

fn shown(slot: Slot) -> &'static Shown {
    SHOWN.get(slot.index()).unwrap_or(&SHOWN[0])
}

/// The CPUs of a pool; the first pool's where it has none, so that nobody is left without.
#[inline]
pub(super) fn cpus(slot: Slot) -> CpuMask {
    match CpuMask(shown(slot).cpus.load(Ordering::SeqCst)) {
        CpuMask(0) => CpuMask(SHOWN[0].cpus.load(Ordering::SeqCst)),
        some => some,
    }
}

/// The pool that a CPU is in.
pub(super) fn of_cpu(cpu: u32) -> Option<Slot> {
    let slot = POOL_OF.get(cpu as usize)?.load(Ordering::Relaxed);
    Slot::of(usize::from(slot).checked_sub(1)?)
}

fn set_pool_of(cpu: u32, slot: Option<Slot>) {
    if let Some(word) = POOL_OF.get(cpu as usize) {
        let slot = slot.and_then(|slot| u8::try_from(slot.index() + 1).ok()).unwrap_or(0);
        word.store(slot, Ordering::SeqCst);
    }
}

/// Whether the scheduler of a pool is null.
pub(super) fn is_null(slot: Slot) -> bool {
    shown(slot).scheduler.load(Ordering::Relaxed) == number(Scheduler::Null)
}

const fn number(scheduler: Scheduler) -> u8 {
    scheduler as u8
}

/// How long who has got a CPU of a pool keeps it, in microseconds.
pub(super) fn rate_limit(slot: Slot) -> u32 {
    shown(slot).rate_limit.load(Ordering::Relaxed)
}

/// A domain's place in a pool.
#[derive(Debug)]
pub struct Member(AtomicU8);

impl Member {
    /// In the pool of a number. `ESRCH`: there is none; `ENODEV`: it has no CPU.
    pub fn join(id: u32, held: &mut Held<'_, 0>) -> Result<Self, Errno> {
        let (table, _held) = TABLE.lock(held);
        let pool = table.find(id).ok_or(Errno::ESRCH)?;
        if pool.cpus == CpuMask(0) {
            return Err(Errno::ENODEV);
        }
        shown(pool.slot).domains.fetch_add(1, Ordering::Relaxed);
        Ok(Member(AtomicU8::new(u8::try_from(pool.slot.index()).unwrap_or(0))))
    }

    /// The pool.
    #[must_use]
    pub fn slot(&self) -> Slot {
        Slot::of(self.0.load(Ordering::SeqCst).into()).unwrap_or(Slot::FIRST)
    }

    /// The pool's number.
    #[must_use]
    pub fn id(&self) -> u32 {
        shown(self.slot()).id.load(Ordering::Relaxed)
    }

    /// The pool's CPUs.
    #[must_use]
    pub fn cpus(&self) -> CpuMask {
        cpus(self.slot())
    }

    /// The pool's scheduler.
    #[must_use]
    pub fn scheduler(&self) -> Scheduler {
        let scheduler = shown(self.slot()).scheduler.load(Ordering::Relaxed);
        [Scheduler::Credit, Scheduler::Null].into_iter().find(|one| number(*one) == scheduler).unwrap_or_default()
    }

    fn go(&self, to: Slot) {
        shown(to).domains.fetch_add(1, Ordering::Relaxed);
        let from = self.slot();
        self.0.store(u8::try_from(to.index()).unwrap_or(0), Ordering::SeqCst);
        shown(from).domains.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        shown(self.slot()).domains.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The first pool, with all CPUs.
pub fn start(scheduler: Scheduler, settings: Settings, held: &mut Held<'_, 0>) {
    let (mut table, mut held) = TABLE.lock(held);
    let online = mailbox::online();
    table.start(scheduler, online);
    if let Some(pool) = table.find(pools::FIRST) {
        for cpu in online.iter().filter(|cpu| queues::slot(*cpu) == 0) {
            queues::of(cpu).lock(&mut held).0.set_rules(settings.rules(scheduler));
        }
        show(pool, settings);
    }
}

/// A pool is new: what others see of it.
fn show(pool: &Pool, settings: Settings) {
    let shown = shown(pool.slot);
    shown.id.store(pool.id, Ordering::Relaxed);
    shown.scheduler.store(number(pool.scheduler), Ordering::Relaxed);
    shown.settings.lock_leaf(|known| *known = settings);
    shown.rate_limit.store(settings.rate_limit_us, Ordering::Relaxed);
    shown.cpus.store(pool.cpus.0, Ordering::SeqCst);
}

/// What there is to say about a pool.
#[derive(Debug, Clone, Copy)]
pub struct Info {
    /// The pool.
    pub pool: Pool,
    /// Domains in it.
    pub domains: u32,
}

/// The pool of a number, or else of the next one.
pub fn next_from(id: u32, held: &mut Held<'_, 0>) -> Option<Info> {
    let pool = *TABLE.lock(held).0.next_from(id)?;
    Some(Info { pool, domains: shown(pool.slot).domains.load(Ordering::Relaxed) })
}

/// CPUs that are in no pool.
pub fn free_cpus(held: &mut Held<'_, 0>) -> CpuMask {
    TABLE.lock(held).0.free()
}

/// A new pool; its number.
pub fn create(id: Option<u32>, scheduler: Option<Scheduler>, held: &mut Held<'_, 0>) -> Result<u32, Errno> {
    let (mut table, _held) = TABLE.lock(held);
    let pool = table.create(id, scheduler)?;
    show(&pool, Settings::DEFAULT);
    Ok(pool.id)
}

/// Takes an empty pool away.
pub fn destroy(id: u32, held: &mut Held<'_, 0>) -> Result<(), Errno> {
    TABLE.lock(held).0.destroy(id, |slot| shown(slot).domains.load(Ordering::Relaxed)).map(|_| ())
}

/// A pool's scheduler and its settings. `ESRCH`: there is no such pool.
pub fn settings(id: u32, held: &mut Held<'_, 0>) -> Result<(Scheduler, Settings), Errno> {
    let (table, _held) = TABLE.lock(held);
    let pool = table.find(id).ok_or(Errno::ESRCH)?;
    Ok((pool.scheduler, shown(pool.slot).settings.lock_leaf(|settings| *settings)))
}

/// Sets them.
pub fn set_settings(id: u32, wanted: Settings, held: &mut Held<'_, 0>) -> Result<(), Errno> {
    let (table, mut held) = TABLE.lock(held);
    let pool = table.find(id).ok_or(Errno::ESRCH)?;
    let wanted = wanted.checked(pool.scheduler)?;
    shown(pool.slot).settings.lock_leaf(|settings| *settings = wanted);
    shown(pool.slot).rate_limit.store(wanted.rate_limit_us, Ordering::Relaxed);
    for cpu in pool.cpus.iter() {
        queues::of(cpu).lock(&mut held).0.set_rules(wanted.rules(pool.scheduler));
    }
    Ok(())
}

/// Gives a free CPU to a pool; `None`: any.
pub fn add_cpu(id: u32, cpu: Option<u32>, held: &mut Held<'_, 0>) -> Result<(), Errno> {
    let (mut table, mut held) = TABLE.lock(held);
    let (pool, cpu) = table.can_add(id, cpu)?;
    let rules = shown(pool.slot).settings.lock_leaf(|settings| settings.rules(pool.scheduler));
    let peer = neighbours(cpu).find(|other| pool.cpus.has(*other));
    if !queues::join(cpu, peer, rules, &mut held) {
        return Err(Errno::ENOMEM);
    }
    table.add(id, cpu)?;
    set_pool_of(cpu, Some(pool.slot));
    shown(pool.slot).cpus.fetch_or(CpuMask::one(cpu).0, Ordering::SeqCst);
    // Somebody may have waited for just this one.
    look_again(cpu);
    mailbox::kick(cpu);
    Ok(())
}

/// CPUs that can share a queue with this one.
fn neighbours(cpu: u32) -> impl Iterator<Item = u32> {
    let first = cpu - queues::slot(cpu);
    (0..QUEUE_CPUS).filter_map(move |at| u32::try_from(at).ok().map(|at| first + at)).filter(move |other| *other != cpu)
}

/// Takes a CPU out of its pool; `None`: the highest. Who may run nowhere else in the pool may run everywhere in it from then
/// on. `EBUSY`: it is the last one and there are domains; `EADDRINUSE`: somebody is tied to it.
pub fn remove_cpu(id: u32, cpu: Option<u32>, held: &mut Held<'_, 0>) -> Result<(), Errno> {
    let (mut table, mut held) = TABLE.lock(held);
    let (pool, cpu, last) = table.can_remove(id, cpu)?;
    let left = CpuMask(pool.cpus.0 & !CpuMask::one(cpu).0);
    let mut inside = Inside::new(pool.slot);
    while let Some(domain) = inside.next(&mut held) {
        if last && domain.life.get() == Life::Alive {
            return Err(Errno::EBUSY);
        }
        if domain.vcpus().iter().any(|vcpu| vcpu.seat.pinned() == Some(cpu)) {
            return Err(Errno::EADDRINUSE);
        }
    }
    let mut inside = Inside::new(pool.slot);
    while let Some(domain) = inside.next(&mut held) {
        if last {
            enter(&domain, Slot::FIRST, &mut held);
            continue;
        }
        for vcpu in domain.vcpus() {
            if vcpu.seat.hard_affinity().and(left) == CpuMask(0) {
                log::debug!("Breaking affinity for d{}v{}", domain.id.0, vcpu.id.0);
                vcpu.seat.set_affinity(CpuMask::ALL, vcpu.seat.soft_affinity());
            }
        }
    }
    table.remove(id, cpu)?;
    shown(pool.slot).cpus.fetch_and(!CpuMask::one(cpu).0, Ordering::SeqCst);
    set_pool_of(cpu, None);
    queues::leave(cpu, &mut held);
    look_again(cpu);
    mailbox::kick(cpu);
    Ok(())
}

/// Moves another domain into a pool, where it starts as every domain does: it may run on all of its CPUs, has the usual
/// weight and no cap. `ENOENT`: there is no such pool, or it has no CPU; `EBUSY`: a vCPU is tied to a CPU.
pub fn move_domain(domain: &Arc<Domain>, id: u32, held: &mut Held<'_, 0>) -> Result<(), Errno> {
    {
        let (table, mut held) = TABLE.lock(held);
        if domain.pool.id() == id {
            return Ok(());
        }
        let pool = table.find(id).filter(|pool| pool.cpus != CpuMask(0)).ok_or(Errno::ENOENT)?;
        if domain.vcpus().iter().any(|vcpu| vcpu.seat.pinned().is_some()) {
            return Err(Errno::EBUSY);
        }
        enter(domain, pool.slot, &mut held);
    }
    cap::set_cap(domain, 0, held);
    Ok(())
}

fn enter(domain: &Arc<Domain>, to: Slot, held: &mut Held<'_, { rank::CONTROL }>) {
    domain.pool.go(to);
    for vcpu in domain.vcpus() {
        let seat = &vcpu.seat;
        let from = seat.processor();
        queues::release(vcpu, held);
        seat.set_pool(to);
        seat.set_affinity(CpuMask::ALL, CpuMask::ALL);
        seat.set_weight(WEIGHT_DEFAULT);
        queues::settle_lost(from, held);
        queues::resettle(vcpu, held);
    }
}

/// The domains of a pool, one after the other.
struct Inside {
    slot: Slot,
    next: Option<DomId>,
}

impl Inside {
    const fn new(slot: Slot) -> Self {
        Self { slot, next: Some(DomId(0)) }
    }

    fn next(&mut self, held: &mut Held<'_, { rank::CONTROL }>) -> Option<Arc<Domain>> {
        loop {
            let domain = domain::next_from(self.next?, held)?;
            self.next = domain.id.0.checked_add(1).map(DomId);
            if domain.pool.slot() == self.slot {
                return Some(domain);
            }
        }
    }
}

//! The run queue of a few CPUs: vCPUs that wait for one of them, most credit first.
//!
//! CPUs that share a queue share out time as one: what somebody gets does not depend on who else happens to wait for the
//! same CPU. A CPU is known here by its place among them.

use alloc::vec::Vec;

use super::place::CpuMask;
use super::policy::{Rules, Scheduler};
use super::slice::{Account, CREDIT_INIT, SLICE_MAX, SLICE_MIN};
use crate::time::Nanos;

/// The most CPUs that share a queue.
pub const CPUS: usize = 8;

/// The vCPUs (`T` names one) that wait for a CPU.
#[derive(Debug)]
pub struct RunQueue<T> {
    rules: Rules,
    /// Ends with the first to run. Allowances that have been given since somebody was put here are added when it is looked
    /// at: all get the same, and what lies above one allowance is cut off, which can make equals of others, but cannot
    /// change their order. So a new round costs the same however many wait.
    waiting: Vec<Entry<T>>,
    round: u32,
    /// Null: whose each CPU is. It stays so while that one sleeps.
    owners: [Option<u64>; CPUS],
    /// What each CPU runs, as of its last look: nothing where it is not there, where it was told to look and has not looked yet,
    /// and where it waits for an interrupt.
    running: [Option<Runs>; CPUS],
    /// Those that wait for an interrupt.
    idle: CpuMask,
}

#[derive(Debug)]
struct Entry<T> {
    account: Account,
    key: u64,
    unit: T,
}

/// A vCPU on a CPU.
#[derive(Debug, Clone, Copy)]
struct Runs {
    /// Its account when the slice began.
    account: Account,
    /// When that was.
    since: Nanos,
    /// Nobody else waited then, so no end of the slice was set.
    alone: bool,
}

/// Where a vCPU may run, of the CPUs of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// Where it may.
    pub allowed: CpuMask,
    /// Where it had better.
    pub preferred: CpuMask,
    /// Where it ran last.
    pub last: u32,
    /// A number that no other vCPU has.
    pub key: u64,
}

impl<T> RunQueue<T> {
    /// An empty queue of CPUs that have not come by yet.
    #[must_use]
    pub const fn new() -> Self {
        RunQueue {
            rules: Rules::new(Scheduler::Credit2),
            waiting: Vec::new(),
            round: 0,
            owners: [None; CPUS],
            running: [None; CPUS],
            idle: CpuMask(0),
        }
    }

    /// What it goes by from now on.
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    fn is_null(&self) -> bool {
        self.rules.scheduler == Scheduler::Null
    }

    /// Whether a CPU may take a vCPU that it fits: always, but under null.
    fn is_for(&self, cpu: u32, key: u64) -> bool {
        !self.is_null()
            || match self.owners.iter().position(|owner| *owner == Some(key)) {
                Some(own) => own == cpu as usize,
                None => self.owners.get(cpu as usize).is_some_and(Option::is_none),
            }
    }

    /// The first that waits and that a CPU may take.
    fn first(&self, cpu: u32, fits: impl Fn(&T) -> bool) -> Option<usize> {
        self.waiting.iter().rposition(|entry| fits(&entry.unit) && self.is_for(cpu, entry.key))
    }

    /// A vCPU needs its CPU no longer (null), unless that is one of `stays`. That CPU, if it had one.
    pub fn release(&mut self, key: u64, stays: CpuMask) -> Option<u32> {
        let at = self.owners.iter().position(|owner| *owner == Some(key))?;
        if u32::try_from(at).is_ok_and(|at| stays.has(at)) {
            return None;
        }
        *self.owners.get_mut(at)? = None;
        u32::try_from(at).ok()
    }

    /// A CPU serves this queue no longer, or does so from now on: what was known of it is gone.
    pub fn forget_cpu(&mut self, cpu: u32) {
        if let Some(owner) = self.owners.get_mut(cpu as usize) {
            *owner = None;
        }
        self.note(cpu, None, false);
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether somebody waits whom a CPU may take and for whom `fits` holds.
    #[must_use]
    pub fn has(&self, cpu: u32, fits: impl Fn(&T) -> bool) -> bool {
        self.first(cpu, fits).is_some()
    }

    /// Makes room for `count` vCPUs in all, so that [`RunQueue::insert`] needs no memory. False: there is none.
    pub fn reserve(&mut self, count: usize) -> bool {
        self.waiting.try_reserve(count.saturating_sub(self.waiting.len())).is_ok()
    }

    /// Puts a vCPU on the queue, after those with the same credit. The CPU that has to be told, if one has.
    pub fn insert(&mut self, mut account: Account, unit: T, now: Nanos, wish: Wish) -> Option<u32> {
        account.refresh(self.round, self.rules.allowance());
        let at = self.waiting.partition_point(|other| self.credit(&other.account) < account.credit);
        self.waiting.insert(at, Entry { account, key: wish.key, unit });
        let cpu = self.idle_one(wish).or_else(|| self.weakest(&account, now, wish))?;
        // It is told once, and somebody else the next time.
        self.note(cpu, None, false);
        Some(cpu)
    }

    /// What a CPU does from now on.
    fn note(&mut self, cpu: u32, runs: Option<Runs>, idle: bool) {
        let Some(running) = self.running.get_mut(cpu as usize) else { return };
        *running = runs;
        self.idle = if idle { self.idle.or(CpuMask::one(cpu)) } else { self.idle.without(CpuMask::one(cpu)) };
    }

    /// A CPU that has nothing to do.
    fn idle_one(&self, wish: Wish) -> Option<u32> {
        let idle = wish.allowed.and(self.idle);
        if idle.is_empty() {
            return None;
        }
        let fits = |cpu: &u32| self.is_for(*cpu, wish.key);
        [idle.and(wish.preferred), idle].into_iter().find_map(|among| {
            Some(wish.last).filter(|last| among.has(*last) && fits(last)).or_else(|| among.iter().find(fits))
        })
    }

    /// The CPU whose vCPU has the least credit by now, if that is less than this one's, or if it would never look.
    fn weakest(&self, account: &Account, now: Nanos, wish: Wish) -> Option<u32> {
        if self.is_null() {
            return None;
        }
        let credit = |cpu: u32| {
            let Runs { mut account, since, alone } = (*self.running.get(cpu as usize)?)?;
            account.refresh(self.round, self.rules.allowance());
            account.burn(now.since(since));
            Some((account.credit, cpu, alone))
        };
        let (least, cpu, alone) = wish.allowed.iter().take(CPUS).filter_map(credit).min()?;
        (alone || account.credit > least).then_some(cpu)
    }

    /// The credit of one that waits.
    fn credit(&self, account: &Account) -> i64 {
        let mut account = *account;
        account.refresh(self.round, self.rules.allowance());
        account.credit
    }

    /// Takes one off.
    fn take(&mut self, at: usize) -> (Account, T) {
        let Entry { mut account, unit, .. } = self.waiting.remove(at);
        account.refresh(self.round, self.rules.allowance());
        (account, unit)
    }

    /// The credit of the first that waits and fits, where anybody waits for what another one runs on.
    fn front(&self, fits: impl Fn(&T) -> bool) -> Option<i64> {
        if self.is_null() {
            return None;
        }
        self.waiting.iter().rev().find(|entry| fits(&entry.unit)).map(|entry| self.credit(&entry.account))
    }

    /// Gives everyone a new allowance, when it is looked at next.
    const fn next_round(&mut self) {
        self.round = self.round.wrapping_add(1);
    }

    /// Whether the running vCPU, whose account is settled up to now, should make way: someone who fits has more credit.
    #[must_use]
    pub fn should_switch(&self, running: &Account, fits: impl Fn(&T) -> bool) -> bool {
        let mut current = *running;
        current.refresh(self.round, self.rules.allowance());
        self.front(fits).is_some_and(|front| front > current.credit)
    }

    /// The running vCPU gives way to the first that waits and fits, if anyone does: it gets no more credit than that one.
    #[must_use]
    pub fn give_way(&self, running: &mut Account, fits: impl Fn(&T) -> bool) -> bool {
        let Some(front) = self.front(fits) else { return false };
        running.refresh(self.round, self.rules.allowance());
        running.credit = running.credit.min(front);
        true
    }

    /// Takes off the first that a CPU may take and that fits; under null the CPU is its own from then on.
    pub fn pop(&mut self, cpu: u32, fits: impl Fn(&T) -> bool) -> Option<(Account, T)> {
        let at = self.first(cpu, fits)?;
        let entry = self.waiting.get(at)?;
        let (key, spent) = (entry.key, self.credit(&entry.account) <= 0);
        if self.is_null() {
            *self.owners.get_mut(cpu as usize)? = Some(key);
        } else if spent {
            self.next_round();
        }
        Some(self.take(at))
    }

    /// Takes off the first that fits, for a CPU of another queue that has nothing to do.
    pub fn steal(&mut self, fits: impl Fn(&T) -> bool) -> Option<(Account, T)> {
        let owned = |key| self.owners.contains(&Some(key));
        let at = self.waiting.iter().rposition(|entry| fits(&entry.unit) && !owned(entry.key))?;
        Some(self.take(at))
    }

    /// Takes off those for which `gone` holds.
    pub fn remove(&mut self, gone: impl Fn(&T) -> bool) -> usize {
        let before = self.waiting.len();
        self.waiting.retain(|entry| !gone(&entry.unit));
        before - self.waiting.len()
    }

    /// Takes off one for which `lost` holds: none of the CPUs here is for it any more.
    pub fn take_lost(&mut self, lost: impl Fn(&T) -> bool) -> Option<T> {
        let at = self.waiting.iter().position(|entry| lost(&entry.unit))?;
        let entry = self.waiting.remove(at);
        self.release(entry.key, CpuMask(0));
        Some(entry.unit)
    }

    /// A CPU begins to run a vCPU. How long it may run before the next look; `None`: as long as it likes.
    pub fn begin(&mut self, cpu: u32, account: &mut Account, now: Nanos, fits: impl Fn(&T) -> bool) -> Option<Nanos> {
        account.refresh(self.round, self.rules.allowance());
        if account.credit <= 0 && !self.is_null() {
            self.next_round();
            account.refresh(self.round, self.rules.allowance());
        }
        let front = self.front(fits);
        self.note(cpu, Some(Runs { account: *account, since: now, alone: front.is_none() }), false);
        if self.rules.scheduler == Scheduler::Credit {
            return front.map(|_| self.rules.time_slice);
        }
        let floor = front?.max(account.credit.saturating_sub(CREDIT_INIT));
        let slice = account.time_until(floor);
        Some(slice.clamp(SLICE_MIN, SLICE_MAX))
    }

    /// A CPU has nothing to run.
    pub fn idle(&mut self, cpu: u32) {
        self.note(cpu, None, true);
    }
}

impl<T> Default for RunQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

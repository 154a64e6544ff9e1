//! The run queue of one CPU: vCPUs that wait for it, most credit first.

use alloc::vec::Vec;

use super::slice::{Account, CREDIT_INIT, SLICE_MAX, SLICE_MIN};
use crate::time::Nanos;

/// The vCPUs (`T` names one) that wait for a CPU.
#[derive(Debug)]
pub struct RunQueue<T> {
    /// Ends with the first to run: the common step is to pop.
    waiting: Vec<(Account, T)>,
    round: u32,
    /// Whoever runs on the CPU, as of the last look.
    running: Standing,
}

/// What the CPU of a queue does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing: it waits for an interrupt.
    Idle,
    /// It runs a vCPU that had this credit at this time and may run on while nobody else waits.
    Runs {
        /// Credit at the beginning of the slice.
        credit: i64,
        /// Nobody else waited then, so no end of the slice was set.
        alone: bool,
    },
}

/// Whether the CPU of a queue has to be told that someone was put on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Tickle {
    /// It will come by in time.
    No,
    /// Kick it, unless it is this CPU.
    Yes,
}

impl<T> RunQueue<T> {
    /// An empty queue of an idle CPU.
    #[must_use]
    pub const fn new() -> Self {
        RunQueue { waiting: Vec::new(), round: 0, running: Standing::Idle }
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

    /// Makes room for `count` vCPUs in all, so that [`RunQueue::insert`] needs no memory. False: there is none.
    pub fn reserve(&mut self, count: usize) -> bool {
        self.waiting.try_reserve(count.saturating_sub(self.waiting.len())).is_ok()
    }

    /// Puts a vCPU on the queue, after those with the same credit.
    pub fn insert(&mut self, mut account: Account, unit: T) -> Tickle {
        account.refresh(self.round);
        let at = self.waiting.partition_point(|(other, _)| other.credit < account.credit);
        self.waiting.insert(at, (account, unit));
        match self.running {
            Standing::Idle => Tickle::Yes,
            Standing::Runs { alone: true, .. } => Tickle::Yes,
            Standing::Runs { credit, .. } if account.credit > credit => Tickle::Yes,
            Standing::Runs { .. } => Tickle::No,
        }
    }

    /// The credit of the first that waits.
    fn front(&self) -> Option<i64> {
        self.waiting.last().map(|(account, _)| account.credit)
    }

    /// Gives everyone who waits a new allowance.
    fn next_round(&mut self) {
        self.round = self.round.wrapping_add(1);
        let round = self.round;
        self.waiting.iter_mut().for_each(|(account, _)| account.refresh(round));
    }

    /// Whether the running vCPU, whose account is settled up to now, should make way: someone has more credit.
    #[must_use]
    pub fn should_switch(&self, running: &Account) -> bool {
        let mut current = *running;
        current.refresh(self.round);
        self.front().is_some_and(|front| front > current.credit)
    }

    /// The running vCPU gives way to the first that waits, if anyone does: it gets no more credit than that one.
    #[must_use]
    pub fn give_way(&self, running: &mut Account) -> bool {
        let Some(front) = self.front() else { return false };
        running.refresh(self.round);
        running.credit = running.credit.min(front);
        true
    }

    /// Takes off the first to run.
    pub fn pop(&mut self) -> Option<(Account, T)> {
        if self.front()? <= 0 {
            self.next_round();
        }
        self.waiting.pop()
    }

    /// Takes off the first for which `fits` holds: for an idle CPU that helps this one out.
    pub fn steal(&mut self, fits: impl Fn(&T) -> bool) -> Option<(Account, T)> {
        let at = self.waiting.iter().rposition(|(_, unit)| fits(unit))?;
        Some(self.waiting.remove(at))
    }

    /// Takes off those for which `gone` holds.
    pub fn remove(&mut self, gone: impl Fn(&T) -> bool) -> usize {
        let before = self.waiting.len();
        self.waiting.retain(|(_, unit)| !gone(unit));
        before - self.waiting.len()
    }

    /// The CPU begins to run a vCPU. How long it may run before the next look; `None`: as long as it likes.
    pub fn begin(&mut self, account: &mut Account) -> Option<Nanos> {
        account.refresh(self.round);
        if account.credit <= 0 {
            self.next_round();
            account.refresh(self.round);
        }
        let front = self.front();
        self.running = Standing::Runs { credit: account.credit, alone: front.is_none() };
        let floor = front?.max(account.credit.saturating_sub(CREDIT_INIT));
        let slice = account.time_until(floor);
        Some(slice.clamp(SLICE_MIN, SLICE_MAX))
    }

    /// The CPU has nothing to run.
    pub fn idle(&mut self) {
        self.running = Standing::Idle;
    }
}

impl<T> Default for RunQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

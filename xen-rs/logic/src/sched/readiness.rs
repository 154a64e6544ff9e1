//! May a vCPU run, does it, and who has to put it on a queue: one atomic word per vCPU.
//!
//! A vCPU is in one of four places: on a CPU, on one run queue, on its way between the two, or nowhere because it
//! must not run. Every change is one atomic step, and exactly one of the CPUs that race gets the answer that obliges
//! it to act ([`Wake::Enqueue`], or true from [`Readiness::switch_out`]), so a vCPU is never lost and never on two queues.

use crate::atomic::{AtomicU64, Ordering};

/// Not brought up.
const DOWN: u64 = 1 << 0;
/// Waits for an event, a timeout or one of some ports.
const BLOCKED: u64 = 1 << 1;
/// On a run queue, or in the hands of the CPU that is about to put it on one or just took it off.
const QUEUED: u64 = 1 << 2;
/// A CPU owns its registers.
const RUNNING: u64 = 1 << 3;
/// An NMI is to be delivered to it.
const NMI: u64 = 1 << 4;
/// Its domain has run as much as its cap allows in this period.
const CAPPED: u64 = 1 << 5;
/// One pause; the count takes the upper half.
const PAUSE: u64 = 1 << 32;

/// The word of one vCPU.
#[derive(Debug)]
pub struct Readiness(AtomicU64);

/// What the CPU that changed the word has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Wake {
    /// Nothing: it still may not run, or runs, or is on a queue.
    Nothing,
    /// Put it on a run queue.
    Enqueue,
}

/// Whether a vCPU that was asked to pause has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum PauseState {
    /// No CPU runs it, and none will: its registers are parked.
    Stopped,
    /// A CPU still runs it: kick that CPU and look again later.
    Running,
}

const fn runnable(word: u64) -> bool {
    word & (DOWN | BLOCKED | CAPPED) == 0 && word < PAUSE
}

impl Readiness {
    /// A vCPU that is down.
    #[must_use]
    pub fn new() -> Self {
        Readiness(AtomicU64::new(DOWN))
    }

    #[inline(always)]
    fn load(&self) -> u64 {
        // The model knows no total order of plain accesses, which the language and the CPU have.
        if cfg!(loom) { self.0.fetch_or(0, Ordering::SeqCst) } else { self.0.load(Ordering::SeqCst) }
    }

    /// Applies `change` in one step and gives the word before and after.
    fn update(&self, mut change: impl FnMut(u64) -> u64) -> (u64, u64) {
        let mut old = self.0.load(Ordering::Relaxed);
        loop {
            let new = change(old);
            match self.0.compare_exchange_weak(old, new, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return (old, new),
                Err(found) => old = found,
            }
        }
    }

    /// Applies `change`, and takes on the queueing if the vCPU may now run and is nowhere.
    fn wake(&self, mut change: impl FnMut(u64) -> u64) -> (u64, Wake) {
        let (old, new) = self.update(|word| {
            let word = change(word);
            if runnable(word) && word & (QUEUED | RUNNING) == 0 { word | QUEUED } else { word }
        });
        (old, if old & QUEUED == 0 && new & QUEUED != 0 { Wake::Enqueue } else { Wake::Nothing })
    }

    /// Whether nothing but the scheduler's choice keeps it from running.
    #[must_use]
    #[inline]
    pub fn is_runnable(&self) -> bool {
        runnable(self.load())
    }

    /// Whether it is runnable and no NMI waits: nothing but events stands between the running vCPU and its guest.
    #[must_use]
    #[inline(always)]
    pub fn is_undisturbed(&self) -> bool {
        let word = self.load();
        word & (DOWN | BLOCKED | CAPPED | NMI) == 0 && word < PAUSE
    }

    /// An NMI is to be delivered to it; whether one was waiting already.
    pub fn set_nmi(&self) -> bool {
        self.0.fetch_or(NMI, Ordering::SeqCst) & NMI != 0
    }

    /// The NMI is delivered.
    pub fn clear_nmi(&self) {
        self.0.fetch_and(!NMI, Ordering::SeqCst);
    }

    /// Whether an NMI waits for it.
    #[must_use]
    #[inline]
    pub fn nmi_pending(&self) -> bool {
        self.load() & NMI != 0
    }

    /// Whether a CPU owns its registers.
    #[must_use]
    #[inline]
    pub fn is_running(&self) -> bool {
        self.load() & RUNNING != 0
    }

    /// Whether it waits for an event.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.load() & BLOCKED != 0
    }

    /// Whether it could run if its domain had not run as much as it may.
    #[must_use]
    pub fn is_held_by_cap(&self) -> bool {
        let word = self.load();
        word & CAPPED != 0 && runnable(word & !CAPPED)
    }

    /// Its domain has run as much as it may. The caller looks afterwards whether that is still so, and calls
    /// [`Readiness::uncap`] if not.
    pub fn cap(&self) {
        self.0.fetch_or(CAPPED, Ordering::SeqCst);
    }

    /// Its domain may run again.
    pub fn uncap(&self) -> Wake {
        if self.load() & CAPPED == 0 {
            return Wake::Nothing;
        }
        self.wake(|word| word & !CAPPED).1
    }

    /// Whether it has been brought up (`VCPUOP_is_up`).
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.load() & DOWN == 0
    }

    /// How often it is paused.
    #[must_use]
    pub fn pauses(&self) -> u64 {
        self.load() / PAUSE
    }

    /// The running vCPU wants to wait. Afterwards (not before) the caller looks whether an event is there already and
    /// calls [`Readiness::unblock`] if so.
    #[inline]
    pub fn block(&self) {
        self.0.fetch_or(BLOCKED, Ordering::SeqCst);
    }

    /// Something to wake up for has come.
    #[inline]
    pub fn unblock(&self) -> Wake {
        if self.load() & BLOCKED == 0 {
            return Wake::Nothing;
        }
        self.wake(|word| word & !BLOCKED).1
    }

    /// `VCPUOP_up`: whether it was down.
    pub fn bring_up(&self) -> (bool, Wake) {
        let (old, wake) = self.wake(|word| word & !DOWN);
        (old & DOWN != 0, wake)
    }

    /// `VCPUOP_down`: whether it was up.
    pub fn take_down(&self) -> (bool, PauseState) {
        let old = self.0.fetch_or(DOWN, Ordering::SeqCst);
        (old & DOWN == 0, if old & RUNNING == 0 { PauseState::Stopped } else { PauseState::Running })
    }

    /// One more reason for it not to run. It stays until [`Readiness::unpause`], whether or not the vCPU has stopped.
    pub fn pause(&self) -> PauseState {
        let old = self.0.fetch_add(PAUSE, Ordering::SeqCst);
        if old & RUNNING == 0 { PauseState::Stopped } else { PauseState::Running }
    }

    /// Whether a vCPU that was paused has stopped by now.
    pub fn paused(&self) -> PauseState {
        if self.is_running() { PauseState::Running } else { PauseState::Stopped }
    }

    /// One reason less.
    pub fn unpause(&self) -> Wake {
        self.wake(|word| if word >= PAUSE { word - PAUSE } else { word }).1
    }

    /// The CPU that took it off a queue wants to run it: false if it may not run any more (it is nowhere then).
    pub fn switch_in(&self) -> bool {
        let (_, new) = self.update(|word| {
            let word = word & !QUEUED;
            if runnable(word) { word | RUNNING } else { word }
        });
        new & RUNNING != 0
    }

    /// The CPU that ran it has parked its registers: true if the CPU has to put it on a queue, since it may still run.
    pub fn switch_out(&self) -> bool {
        let (_, new) = self.update(|word| {
            let word = word & !RUNNING;
            if runnable(word) { word | QUEUED } else { word }
        });
        new & QUEUED != 0
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

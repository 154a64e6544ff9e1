//! How a vCPU has spent its time, as `vcpu.h` counts it.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::time::Nanos;

/// What a vCPU does (`RUNSTATE_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Runstate {
    /// A CPU runs it.
    Running = 0,
    /// It could run.
    Runnable = 1,
    /// It waits for an event.
    Blocked = 2,
    /// It must not run: paused, or down.
    Offline = 3,
}

/// The clock of one vCPU. Written by the CPU that changes the vCPU's place (one at a time), read by anyone.
#[derive(Debug)]
pub struct RunClock {
    state: AtomicU32,
    since: AtomicU64,
    time: [AtomicU64; 4],
}

/// The clock at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunSnapshot {
    /// The state, as `RUNSTATE_*`.
    pub state: u32,
    /// When it began.
    pub since: Nanos,
    /// The time in each state. For the present one: up to the moment, or up to when it began, as asked.
    pub time: [u64; 4],
}

impl RunClock {
    /// Of a vCPU that was made `now` and is down.
    #[must_use]
    pub const fn new(now: Nanos) -> Self {
        RunClock {
            state: AtomicU32::new(Runstate::Offline as u32),
            since: AtomicU64::new(now.0),
            time: [const { AtomicU64::new(0) }; 4],
        }
    }

    /// The vCPU's state changes.
    pub fn change(&self, to: Runstate, now: Nanos) {
        let state = self.state.load(Ordering::Relaxed);
        let since = self.since.load(Ordering::Relaxed);
        // A clock that another CPU set a little ahead of ours must not run backwards.
        let now = now.0.max(since);
        if let Some(spent) = self.time.get(state as usize) {
            spent.store(spent.load(Ordering::Relaxed) + (now - since), Ordering::Relaxed);
        }
        self.since.store(now, Ordering::Relaxed);
        self.state.store(to as u32, Ordering::Release);
    }

    /// The state, as `RUNSTATE_*`.
    #[must_use]
    pub fn state(&self) -> u32 {
        self.state.load(Ordering::Acquire)
    }

    /// As stored: what a guest's memory area shows.
    #[must_use]
    pub fn stored(&self) -> RunSnapshot {
        RunSnapshot {
            state: self.state(),
            since: Nanos(self.since.load(Ordering::Relaxed)),
            time: [0, 1, 2, 3].map(|n: usize| self.time.get(n).map_or(0, |time| time.load(Ordering::Relaxed))),
        }
    }

    /// Up to now: what `VCPUOP_get_runstate_info` answers.
    #[must_use]
    pub fn at(&self, now: Nanos) -> RunSnapshot {
        let mut snapshot = self.stored();
        if let Some(time) = snapshot.time.get_mut(snapshot.state as usize) {
            *time += now.0.saturating_sub(snapshot.since.0);
        }
        snapshot
    }
}

//! Timers: the queue of one CPU, and the timers of one vCPU.

use alloc::vec::Vec;

use super::Nanos;

/// Deadlines with keys, earliest first. A key has at most one deadline.
#[derive(Debug)]
pub struct TimerQueue<K> {
    /// Ends with the earliest.
    deadlines: Vec<(Nanos, K)>,
}

impl<K: Copy + PartialEq> TimerQueue<K> {
    /// An empty queue.
    #[must_use]
    pub const fn new() -> Self {
        TimerQueue { deadlines: Vec::new() }
    }

    /// Sets the key's deadline. False: no memory for it, so nothing is set.
    #[must_use]
    pub fn set(&mut self, key: K, deadline: Nanos) -> bool {
        self.cancel(key);
        if self.deadlines.try_reserve(1).is_err() {
            return false;
        }
        let at = self.deadlines.partition_point(|(other, _)| *other > deadline);
        self.deadlines.insert(at, (deadline, key));
        true
    }

    /// Forgets the key's deadline; whether it had one.
    pub fn cancel(&mut self, key: K) -> bool {
        let found = self.deadlines.iter().position(|(_, other)| *other == key);
        if let Some(at) = found {
            self.deadlines.remove(at);
        }
        found.is_some()
    }

    /// Forgets the deadlines of all keys but those for which `keep` holds.
    pub fn retain(&mut self, keep: impl Fn(K) -> bool) {
        self.deadlines.retain(|(_, key)| keep(*key));
    }

    /// The earliest deadline.
    #[must_use]
    pub fn next(&self) -> Option<Nanos> {
        self.deadlines.last().map(|(deadline, _)| *deadline)
    }

    /// Takes off a key whose deadline has come.
    pub fn pop_due(&mut self, now: Nanos) -> Option<K> {
        self.deadlines.pop_if(|(deadline, _)| *deadline <= now).map(|(_, key)| key)
    }
}

impl<K: Copy + PartialEq> Default for TimerQueue<K> {
    fn default() -> Self {
        Self::new()
    }
}

/// A timer that fires again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Periodic {
    /// The span between two firings.
    pub period: Nanos,
    /// The next one.
    pub next: Nanos,
}

/// The timers of one vCPU. While it runs they are its CPU's alone; when it is put aside the earliest goes on a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VcpuTimers {
    /// `VCPUOP_set_singleshot_timer` and `HYPERVISOR_set_timer_op`: raises `VIRQ_TIMER`.
    pub singleshot: Option<Nanos>,
    /// `VCPUOP_set_periodic_timer`: raises `VIRQ_TIMER` again and again.
    pub periodic: Option<Periodic>,
    /// The end of a `SCHEDOP_poll`: wakes the vCPU, raises nothing.
    pub poll: Option<Nanos>,
    /// The timer of a PVH vCPU's local APIC.
    pub apic: Option<Nanos>,
    /// The queue, by its CPU, on which the vCPU was put last, and for when. It stays there while the vCPU runs, until that time
    /// comes: most often it is put aside again before, and nothing has changed.
    pub queued: Option<(u32, Nanos)>,
}

/// What came of looking at a vCPU's timers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fired {
    /// Raise `VIRQ_TIMER`.
    pub virq: bool,
    /// The poll is over.
    pub poll: bool,
    /// The APIC's timer went off.
    pub apic: bool,
}

impl VcpuTimers {
    /// What a PV vCPU starts with: a tick of 100 Hz, until it stops that (Xen public header `vcpu.h`).
    #[must_use]
    pub fn of_new_vcpu(now: Nanos) -> Self {
        let period = Nanos::from_millis(10);
        Self { periodic: Some(Periodic { period, next: now.after(period) }), ..Self::default() }
    }

    /// The earliest deadline.
    #[must_use]
    pub fn next(&self) -> Option<Nanos> {
        Nanos::earliest([self.singleshot, self.periodic.map(|periodic| periodic.next), self.poll, self.apic])
    }

    /// The earliest deadline that wakes the vCPU when it does not run: as in Xen, the periodic timer does not.
    #[must_use]
    pub fn next_parked(&self) -> Option<Nanos> {
        Nanos::earliest([self.singleshot, self.poll, self.apic])
    }

    /// What to put on a CPU's queue for a vCPU that is put aside there: nothing where it stands there already.
    #[must_use]
    pub fn to_queue(&self, cpu: u32, now: Nanos) -> Option<Nanos> {
        let deadline = self.next_parked()?;
        // Before its time nobody takes it off.
        let stands = self.queued == Some((cpu, deadline)) && deadline > now;
        (!stands).then_some(deadline)
    }

    /// Takes off what is due. A periodic timer that missed several rounds fires once.
    pub fn expire(&mut self, now: Nanos) -> Fired {
        let mut fired = Fired::default();
        fired.virq |= self.singleshot.take_if(|deadline| *deadline <= now).is_some();
        fired.apic |= self.apic.take_if(|deadline| *deadline <= now).is_some();
        fired.poll |= self.poll.take_if(|deadline| *deadline <= now).is_some();
        if let Some(periodic) = &mut self.periodic
            && periodic.next <= now
        {
            fired.virq = true;
            let missed = now.since(periodic.next).0 / periodic.period.0.max(1);
            let step = periodic.period.0.max(1).saturating_mul(missed.saturating_add(1));
            periodic.next = periodic.next.after(Nanos(step));
        }
        fired
    }
}

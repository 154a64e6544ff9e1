//! Timers: the queue of one CPU, and the timers of one vCPU.

use alloc::vec::Vec;
use core::hash::{BuildHasherDefault, Hash, Hasher};

use hashbrown::HashMap;

use super::Nanos;

/// Deadlines with keys, the earliest at hand. A key has at most one deadline. Setting one, moving it and forgetting it
/// costs about the same however many there are: one look-up, and as many steps as the number has bits, most often fewer.
#[derive(Debug)]
pub struct TimerQueue<K> {
    /// A heap of the first `live`: none is later than the two below it. Behind them stand slots that nobody uses.
    heap: Vec<Entry>,
    live: usize,
    /// Whose entry it is and where that stands, by the slot in the entry.
    slots: Vec<Slot<K>>,
    /// The slot of each key that has a deadline.
    by_key: HashMap<K, usize, BuildHasherDefault<Mixer>>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    deadline: Nanos,
    slot: usize,
}

#[derive(Debug, Clone, Copy)]
struct Slot<K> {
    key: K,
    at: usize,
}

impl<K: Copy + Eq + Hash> TimerQueue<K> {
    /// An empty queue.
    #[must_use]
    pub const fn new() -> Self {
        let by_key = HashMap::with_hasher(BuildHasherDefault::new());
        TimerQueue { heap: Vec::new(), live: 0, slots: Vec::new(), by_key }
    }

    /// Sets the key's deadline. False: no memory for it, so nothing is set; a key that has one always gets the new one.
    #[must_use]
    pub fn set(&mut self, key: K, deadline: Nanos) -> bool {
        let at = match self.place_of(key) {
            Some(at) => at,
            None if self.take_slot(key) => self.live - 1,
            None => return false,
        };
        if let Some(entry) = self.heap.get_mut(at) {
            entry.deadline = deadline;
        }
        self.settle(at);
        true
    }

    /// Forgets the key's deadline; whether it had one.
    pub fn cancel(&mut self, key: K) -> bool {
        let at = self.place_of(key);
        at.is_some_and(|at| self.take_off(at).is_some())
    }

    /// How many deadlines there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// The earliest deadline.
    #[must_use]
    pub fn next(&self) -> Option<Nanos> {
        self.earliest().map(|entry| entry.deadline)
    }

    /// Takes off a key whose deadline has come.
    pub fn pop_due(&mut self, now: Nanos) -> Option<K> {
        self.earliest().filter(|entry| entry.deadline <= now)?;
        self.take_off(0)
    }

    fn earliest(&self) -> Option<&Entry> {
        self.heap.first().filter(|_| self.live != 0)
    }

    fn place_of(&self, key: K) -> Option<usize> {
        if self.live == 0 {
            return None;
        }
        let slot = self.by_key.get(&key)?;
        self.slots.get(*slot).map(|slot| slot.at)
    }

    /// Gives the key a slot behind the others; false: there is no memory for one.
    fn take_slot(&mut self, key: K) -> bool {
        if self.by_key.try_reserve(1).is_err() {
            return false;
        }
        let at = self.live;
        if at == self.heap.len() {
            if self.heap.try_reserve(1).is_err() || self.slots.try_reserve(1).is_err() {
                return false;
            }
            self.heap.push(Entry { deadline: Nanos::NEVER, slot: at });
            self.slots.push(Slot { key, at });
        }
        let Some(Entry { slot, .. }) = self.heap.get(at).copied() else { return false };
        if let Some(own) = self.slots.get_mut(slot) {
            *own = Slot { key, at };
        }
        self.by_key.insert(key, slot);
        self.live += 1;
        true
    }

    /// Takes off the entry that stands at `at`; its slot is free then.
    fn take_off(&mut self, at: usize) -> Option<K> {
        let last = self.live.checked_sub(1)?;
        let key = self.slots.get(self.heap.get(at)?.slot)?.key;
        self.by_key.remove(&key);
        self.swap(at, last);
        self.live = last;
        if at < last {
            self.settle(at);
        }
        Some(key)
    }

    /// Moves an entry whose deadline is new to where it belongs.
    fn settle(&mut self, mut at: usize) {
        while at > 0 && self.is_earlier(at, (at - 1) / 2) {
            self.swap(at, (at - 1) / 2);
            at = (at - 1) / 2;
        }
        loop {
            let left = 2 * at + 1;
            let below = if self.is_earlier(left + 1, left) { left + 1 } else { left };
            if !self.is_earlier(below, at) {
                break;
            }
            self.swap(at, below);
            at = below;
        }
    }

    /// Whether the first place's deadline is earlier; not if nobody stands there.
    fn is_earlier(&self, place: usize, other: usize) -> bool {
        let deadline = |at: usize| self.heap.get(at).map(|entry| entry.deadline);
        place < self.live && deadline(place) < deadline(other)
    }

    fn swap(&mut self, one: usize, other: usize) {
        self.heap.swap(one, other);
        for at in [one, other] {
            if let Some(entry) = self.heap.get(at)
                && let Some(slot) = self.slots.get_mut(entry.slot)
            {
                slot.at = at;
            }
        }
    }
}

impl<K: Copy + Eq + Hash> Default for TimerQueue<K> {
    fn default() -> Self {
        Self::new()
    }
}

/// Mixes what keys consist of: the hypervisor's own small numbers, so nobody chooses those that meet.
#[derive(Debug, Default)]
struct Mixer(u64);

impl Mixer {
    fn mix(&mut self, word: u64) {
        // 2^64 divided by the golden ratio: neighbours go far apart.
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.mix((*byte).into()));
    }

    fn write_u16(&mut self, word: u16) {
        self.mix(word.into());
    }

    fn write_u32(&mut self, word: u32) {
        self.mix(word.into());
    }

    fn write_u64(&mut self, word: u64) {
        self.mix(word);
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
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

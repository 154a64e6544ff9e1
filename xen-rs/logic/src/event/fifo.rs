//! The FIFO layout of events (`event_channel.h`, `EVTCHNOP_init_control`): one word per port, and for each vCPU sixteen
//! queues of ports, linked through those words, the lower-numbered served first.
//!
//! The words and the heads of the queues lie in the guest's memory; the tails are ours. A port joins a queue when it is
//! pending, not masked and on no queue (`LINKED`); the guest takes it off. Each port remembers the queue it was last on,
//! its *home*, since its word may be that queue's tail for as long as nobody joins behind it:
//!
//! * a port is put on a queue only under the lock of its home, and
//! * its home changes only under the lock of the old one, while the port is on no queue, and a tail that names it goes.
//!
//! So whenever a tail names a port that is linked, it is linked there, and one lock at a time is enough. What the guest
//! makes of its words misleads nobody but itself: every number from there is looked up, every retry is counted.

use xen_abi::event_channel::{
    EVTCHN_FIFO_BUSY, EVTCHN_FIFO_LINK_MASK, EVTCHN_FIFO_LINKED, EVTCHN_FIFO_MASKED, EVTCHN_FIFO_MAX_QUEUES,
    EVTCHN_FIFO_PENDING, EVTCHN_FIFO_PRIORITY_DEFAULT, EVTCHN_FIFO_PRIORITY_MIN,
};
use xen_abi::ids::{Port, VcpuId};

use super::{EventDomain, Notify, polled, raise_upcall};
use crate::atomic::{AtomicU32, Ordering};

const PENDING: u32 = 1 << EVTCHN_FIFO_PENDING;
const MASKED: u32 = 1 << EVTCHN_FIFO_MASKED;
const LINKED: u32 = 1 << EVTCHN_FIFO_LINKED;
const BUSY: u32 = 1 << EVTCHN_FIFO_BUSY;
const LINK: u32 = EVTCHN_FIFO_LINK_MASK;

/// Ports whose words fit in one page.
pub const WORDS_PER_PAGE: u32 = 1024;

/// One word of the array, which the guest changes at any moment. Each method is one atomic access.
pub trait EventWord: Copy {
    /// Reads it.
    fn load(self) -> u32;
    /// Sets bits; the old value.
    fn set(self, bits: u32) -> u32;
    /// Clears bits; the old value.
    fn clear(self, bits: u32) -> u32;
    /// Replaces `old`; the value found there instead is the error.
    fn replace(self, old: u32, new: u32) -> Result<(), u32>;
}

/// A vCPU's control block.
pub trait ControlBlock: Copy {
    /// Writes `head` of a queue.
    fn set_head(self, queue: Priority, port: Port);
    /// Sets a queue's bit of `ready`; true if it was set before.
    fn test_and_set_ready(self, queue: Priority) -> bool;
}

/// What a domain shares with the hypervisor in the FIFO layout. Words and control blocks are not kept while this CPU
/// waits for a lock.
pub trait FifoMemory {
    /// A word of the array.
    type Word<'a>: EventWord
    where
        Self: 'a;
    /// A control block.
    type Control<'a>: ControlBlock
    where
        Self: 'a;

    /// The word of a port, if the guest has provided it.
    fn word(&self, port: Port) -> Option<Self::Word<'_>>;
    /// The control block of a vCPU, if the guest has provided it.
    fn control(&self, vcpu: VcpuId) -> Option<Self::Control<'_>>;
    /// Runs `f` under the lock of a vCPU's queues.
    fn with_queues<V>(&self, vcpu: VcpuId, f: impl FnOnce(&mut Queues) -> V) -> Option<V>;
}

/// The number of a queue: below 16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Priority(u8);

impl Priority {
    /// What a port has until its domain says otherwise.
    #[allow(clippy::cast_possible_truncation, reason = "it is 7")]
    pub const DEFAULT: Priority = Priority(EVTCHN_FIFO_PRIORITY_DEFAULT as u8);

    /// From a guest's number.
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        u8::try_from(number).ok().filter(|_| number <= EVTCHN_FIFO_PRIORITY_MIN).map(Priority)
    }

    /// The number.
    #[must_use]
    #[inline]
    pub const fn index(self) -> usize {
        (self.0 & 0xf) as usize
    }
}

/// The tails of a vCPU's queues: the port that joined last, 0 for none.
#[derive(Debug, Default)]
pub struct Queues([u32; EVTCHN_FIFO_MAX_QUEUES]);

impl Queues {
    /// Empty ones.
    #[must_use]
    pub const fn new() -> Self {
        Queues([0; EVTCHN_FIFO_MAX_QUEUES])
    }

    fn tail(&mut self, queue: Priority) -> Option<&mut u32> {
        self.0.get_mut(queue.index())
    }
}

/// A queue: whose, and which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Home {
    vcpu: VcpuId,
    queue: Priority,
}

/// What the hypervisor remembers of a port in this layout.
#[derive(Debug)]
pub(super) struct Queueing {
    /// Its home: the vCPU above the queue's four bits.
    home: AtomicU32,
    /// The queue it is to join next.
    priority: AtomicU32,
    /// An event came before its word was there.
    saved: AtomicU32,
}

impl Queueing {
    pub(super) fn new() -> Self {
        Queueing {
            home: AtomicU32::new(EVTCHN_FIFO_PRIORITY_DEFAULT),
            priority: AtomicU32::new(EVTCHN_FIFO_PRIORITY_DEFAULT),
            saved: AtomicU32::new(0),
        }
    }

    fn home(&self) -> Home {
        let word = self.home.load(Ordering::SeqCst);
        Home { vcpu: VcpuId(word >> 4), queue: Priority((word & 0xf) as u8) }
    }

    fn set_home(&self, home: Home) {
        self.home.store(home.vcpu.0 << 4 | u32::from(home.queue.0), Ordering::SeqCst);
    }

    fn priority(&self) -> Priority {
        Priority((self.priority.load(Ordering::Relaxed) & 0xf) as u8)
    }

    /// Whatever joins from now on joins that queue. A port that is on one stays there.
    pub(super) fn set_priority(&self, priority: Priority) {
        self.priority.store(priority.0.into(), Ordering::Relaxed);
    }

    /// Remembers an event.
    pub(super) fn save(&self) {
        self.saved.store(1, Ordering::SeqCst);
    }

    /// Forgets it; whether there was one.
    pub(super) fn take_saved(&self) -> bool {
        self.saved.swap(0, Ordering::SeqCst) != 0
    }
}

/// What came of one look at a port, under the lock of its home.
enum Step {
    /// Its home is another one now.
    Again,
    /// It had to go nowhere, or cannot.
    Done,
    /// It joined; the vCPU, if it has to be told that the queue is not empty.
    Joined { tell: Option<VcpuId> },
}

/// A port's home changes when it is sent to another vCPU or gets another priority. After so many changes by others during
/// one send the port joins where it is. Whoever changes a home has a try left, so somebody always comes to an end with it.
const TRIES: u32 = 4;

/// Makes a port pending and puts it on its queue.
#[cold]
#[inline(never)]
pub(super) fn raise<D: EventDomain>(domain: &D, fifo: &D::Fifo, vcpu: VcpuId, port: Port) -> Notify {
    let Some(queueing) = domain.channels().queueing(port) else { return Notify::NOBODY };
    if fifo.word(port).is_none() {
        queueing.save();
        // The page may have come meanwhile, and nobody may have seen what was saved.
        if fifo.word(port).is_none() || !queueing.take_saved() {
            return Notify::NOBODY;
        }
    }
    let mut was_pending = None;
    let tell = join(fifo, queueing, vcpu, port, &mut was_pending);
    let poll = if was_pending == Some(false) { polled(domain, port) } else { None };
    Notify::of(tell.filter(|vcpu| raise_upcall(domain, *vcpu)), poll)
}

/// `EVTCHNOP_unmask`.
pub(super) fn unmask<D: EventDomain>(domain: &D, fifo: &D::Fifo, vcpu: VcpuId, port: Port) -> Notify {
    let Some(queueing) = domain.channels().queueing(port) else { return Notify::NOBODY };
    let pending = fifo.word(port).is_some_and(|word| word.clear(MASKED) & PENDING != 0);
    let tell = if pending { join(fifo, queueing, vcpu, port, &mut Some(true)) } else { None };
    Notify::of(tell.filter(|vcpu| raise_upcall(domain, *vcpu)), None)
}

pub(super) fn is_pending<F: FifoMemory>(fifo: &F, port: Port) -> bool {
    fifo.word(port).is_some_and(|word| word.load() & PENDING != 0)
}

pub(super) fn is_linked<F: FifoMemory>(fifo: &F, port: Port) -> bool {
    fifo.word(port).is_some_and(|word| word.load() & LINKED != 0)
}

/// The guest takes a port that is not pending off its queue and ignores it.
pub(super) fn clear_pending<D: EventDomain>(domain: &D, fifo: &D::Fifo, port: Port) {
    if let Some(queueing) = domain.channels().queueing(port) {
        queueing.take_saved();
    }
    if let Some(word) = fifo.word(port) {
        word.clear(PENDING);
    }
}

/// Puts a port on the queue of `vcpu`, after setting its pending bit if `was_pending` does not say what that was.
/// Gives the vCPU that has to be told.
fn join<F: FifoMemory>(
    fifo: &F,
    queueing: &Queueing,
    vcpu: VcpuId,
    port: Port,
    was_pending: &mut Option<bool>,
) -> Option<VcpuId> {
    for left in (0..TRIES).rev() {
        let home = queueing.home();
        let wanted = if left == 0 { home } else { Home { vcpu, queue: queueing.priority() } };
        let step = fifo.with_queues(home.vcpu, |queues| {
            if queueing.home() != home {
                return Step::Again;
            }
            let (Some(word), Some(control)) = (fifo.word(port), fifo.control(wanted.vcpu)) else {
                // Without a control block nobody could hear it: it is dropped, as Xen drops it.
                return Step::Done;
            };
            let seen = match was_pending {
                Some(_) => word.load(),
                None => {
                    let old = word.set(PENDING);
                    *was_pending = Some(old & PENDING != 0);
                    old | PENDING
                }
            };
            if seen & (PENDING | MASKED | LINKED) != PENDING {
                // Taken already, or masked, or waiting.
                return Step::Done;
            }
            if home != wanted {
                if let Some(tail) = queues.tail(home.queue).filter(|tail| **tail == port.0) {
                    *tail = 0;
                }
                queueing.set_home(wanted);
                return Step::Again;
            }
            if word.set(LINKED) & LINKED != 0 {
                return Step::Done;
            }
            let Some(tail) = queues.tail(home.queue) else { return Step::Done };
            let last = core::mem::replace(tail, port.0);
            // A port that is the tail itself was taken off, so the queue is empty.
            let behind = last != 0 && last != port.0 && fifo.word(Port(last)).is_some_and(|last| link(last, port));
            if !behind {
                control.set_head(home.queue, port);
            }
            let news = !behind && !control.test_and_set_ready(home.queue);
            Step::Joined { tell: news.then_some(home.vcpu) }
        });
        match step {
            Some(Step::Again) => {}
            Some(Step::Joined { tell }) => return tell,
            Some(Step::Done) | None => return None,
        }
    }
    None
}

/// What the guest may do to a linked word while we look at it: mask it, unmask it (but not while it is busy), clear its
/// pending bit, unlink it. So so many tries are enough for a guest that keeps to the rules.
const LINK_TRIES: u32 = 4;

/// Lets a tail's word name the port behind it, if it is still on its queue.
fn link<W: EventWord>(tail: W, next: Port) -> bool {
    let attempt = |seen: u32| {
        if seen & LINKED == 0 {
            return Ok(false);
        }
        tail.replace(seen, seen & !(BUSY | LINK) | next.0 & LINK).map(|()| true)
    };
    if let Ok(linked) = attempt(tail.load()) {
        return linked;
    }
    let mut seen = tail.set(BUSY) | BUSY;
    for _ in 0..LINK_TRIES {
        match attempt(seen) {
            Ok(true) => return true,
            Ok(false) => {
                tail.clear(BUSY);
                return false;
            }
            Err(now) => seen = now,
        }
    }
    // The guest plays with the word: it loses this event.
    tail.clear(BUSY);
    true
}

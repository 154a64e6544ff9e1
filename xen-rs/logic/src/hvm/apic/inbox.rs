//! What others send to a vCPU's APIC while some CPU runs it or none does: atomic words, so that a sender takes no lock.

use super::address::{Address, Target};
use super::icr::Message;
use crate::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// The part of an APIC that everyone may touch.
#[derive(Debug)]
pub struct Inbox {
    id: u32,
    vectors: [AtomicU32; 8],
    signals: AtomicU32,
    /// Something may be in one of the others: set behind it, and taken back before they are looked at. In one order with
    /// [`Readiness`](crate::sched::Readiness): who goes to sleep and then finds nothing here is woken by the one who sets it.
    any: AtomicBool,
    address: AtomicU64,
}

/// What arrived beside vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Signals {
    /// A non-maskable interrupt.
    pub nmi: bool,
    /// INIT: the vCPU goes down. The rest is [`Inbox::take_start`]'s.
    pub init: bool,
}

/// What a vCPU that is down is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Start {
    /// Nothing.
    Nothing,
    /// To be as after INIT, and to wait for a SIPI.
    Wait,
    /// To be as after INIT, and to begin in real mode at this page.
    At(u8),
}

const NMI: u32 = 1 << 8;
const INIT: u32 = 1 << 9;
const STARTUP: u32 = 1 << 10;
const STARTUP_PAGE: u32 = 0xff;

impl Inbox {
    /// That of the APIC with this number.
    #[must_use]
    pub fn new(id: u32) -> Self {
        let address = Address::after_reset();
        Self {
            id,
            vectors: core::array::from_fn(|_| AtomicU32::new(0)),
            signals: AtomicU32::new(0),
            any: AtomicBool::new(false),
            address: AtomicU64::new(address.packed()),
        }
    }

    /// Says how the APIC is to be reached from now on.
    pub fn set_address(&self, address: Address) {
        self.address.store(address.packed(), Ordering::Release);
    }

    /// Whether what is sent to `target` by the APIC with number `sender` reaches this one.
    #[must_use]
    pub fn is_reached(&self, target: Target, sender: u32) -> bool {
        target.reaches(self.id, Address::unpacked(self.address.load(Ordering::Acquire)), sender)
    }

    /// Puts a message in; true where the vCPU has to be woken or interrupted to see it.
    pub fn post(&self, message: Message) -> bool {
        let new = match message {
            // An APIC that is off takes no interrupts, but signals that start a processor.
            Message::Fixed(_) if !self.is_open() => false,
            Message::Fixed(vector) => return self.post_vector(vector),
            Message::Nmi => self.signals.fetch_or(NMI, Ordering::AcqRel) & NMI == 0,
            Message::Init => {
                // A SIPI from before is forgotten, one that comes after it counts.
                let _ = self.update(|_| INIT);
                true
            }
            Message::Startup(page) => self
                .update(|old| if old & STARTUP != 0 { old } else { old & !STARTUP_PAGE | STARTUP | u32::from(page) }),
        };
        self.any.store(true, Ordering::SeqCst);
        new
    }

    /// Puts a vector in; true where it was not there.
    pub fn post_vector(&self, vector: u8) -> bool {
        let bit = 1 << (vector & 31);
        let new = match self.vectors.get(usize::from(vector >> 5)) {
            Some(word) => word.fetch_or(bit, Ordering::AcqRel) & bit == 0,
            None => false,
        };
        self.any.store(true, Ordering::SeqCst);
        new
    }

    /// Changes the signals; true where that made a difference.
    fn update(&self, change: impl Fn(u32) -> u32) -> bool {
        self.replace(&change).is_some_and(|old| change(old) != old)
    }

    /// Changes the signals; what they were. In one order with the changes of [`Readiness`](crate::sched::Readiness): who sends a
    /// signal and then finds the vCPU up is seen by the one who parks it.
    fn replace(&self, change: impl Fn(u32) -> u32) -> Option<u32> {
        self.signals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |old| Some(change(old))).ok()
    }

    /// What it says to a vCPU that is down and parked; `waits`: it has had its INIT, or never run. The first SIPI behind INIT
    /// counts, and one for a vCPU that does not wait is left alone.
    pub fn take_start(&self, waits: bool) -> Start {
        let counts = |signals: u32| waits || signals & INIT != 0;
        let signals = self.replace(|old| if counts(old) { 0 } else { old }).filter(|old| counts(*old)).unwrap_or(0);
        match signals {
            _ if signals & STARTUP != 0 => Start::At(u8::try_from(signals & STARTUP_PAGE).unwrap_or(0)),
            _ if signals & INIT != 0 => Start::Wait,
            _ => Start::Nothing,
        }
    }

    /// Whether interrupts reach the APIC that are sent to it.
    #[must_use]
    pub fn is_open(&self) -> bool {
        Address::unpacked(self.address.load(Ordering::Acquire)).enabled
    }

    /// Whether anything is in it.
    #[inline(always)]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.any.load(Ordering::SeqCst)
    }

    /// Empties it, but for INIT and a SIPI behind it.
    pub(super) fn drain(&self, mut each: impl FnMut(u8)) -> Signals {
        self.any.swap(false, Ordering::AcqRel);
        for (index, word) in (0u8..).zip(&self.vectors) {
            // Most are empty, and looking costs less than an exchange.
            if word.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let mut bits = word.swap(0, Ordering::AcqRel);
            while bits != 0 {
                let bit = u8::try_from(bits.trailing_zeros()).unwrap_or(0);
                bits &= bits - 1;
                each(index << 5 | bit);
            }
        }
        if self.signals.load(Ordering::Relaxed) == 0 {
            return Signals::default();
        }
        let signals = self.replace(|old| if old & INIT != 0 { old & !NMI } else { 0 }).unwrap_or(0);
        Signals { nmi: signals & NMI != 0, init: signals & INIT != 0 }
    }
}

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
    /// Something may be in one of the others: set behind it, and taken back before they are looked at.
    any: AtomicBool,
    address: AtomicU64,
}

/// What arrived beside vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Signals {
    /// A non-maskable interrupt.
    pub nmi: bool,
    /// INIT: the vCPU stops, as after reset, and waits for a SIPI.
    pub init: bool,
    /// The first SIPI since it was last asked: real mode begins at this page. Only a vCPU that waits takes it.
    pub startup: Option<u8>,
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
        let address = Address::unpacked(self.address.load(Ordering::Acquire));
        let new = match message {
            // An APIC that is off takes no interrupts, but signals that start a processor.
            Message::Fixed(_) if !address.enabled => false,
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
        self.any.store(true, Ordering::Release);
        new
    }

    /// Puts a vector in; true where it was not there.
    pub fn post_vector(&self, vector: u8) -> bool {
        let bit = 1 << (vector & 31);
        let new = match self.vectors.get(usize::from(vector >> 5)) {
            Some(word) => word.fetch_or(bit, Ordering::AcqRel) & bit == 0,
            None => false,
        };
        self.any.store(true, Ordering::Release);
        new
    }

    /// Changes the signals; true where that made a difference.
    fn update(&self, change: impl Fn(u32) -> u32) -> bool {
        let change = |old| Some(change(old));
        self.signals.fetch_update(Ordering::AcqRel, Ordering::Acquire, change).is_ok_and(|old| change(old) != Some(old))
    }

    /// Whether anything is in it.
    #[inline(always)]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.any.load(Ordering::Acquire)
    }

    /// Empties it.
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
        let signals = self.signals.swap(0, Ordering::AcqRel);
        let page = u8::try_from(signals & STARTUP_PAGE).unwrap_or(0);
        Signals {
            nmi: signals & NMI != 0,
            init: signals & INIT != 0,
            startup: (signals & STARTUP != 0).then_some(page),
        }
    }
}

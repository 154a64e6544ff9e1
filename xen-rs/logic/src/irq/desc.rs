//! One interrupt: its vector, how it signals, who is told.

use arrayvec::ArrayVec;
use xen_abi::{
    errno::Errno,
    ids::{DomId, Port},
};

use super::Pirq;
use crate::time::Nanos;

/// Most domains that share a line (Xen's default for `irq-max-guests`).
pub const MAX_GUESTS: usize = 32;

/// How long the guests of a level may take, and how long a flood is held back.
pub const PATIENCE: Nanos = Nanos::from_millis(1);
/// Arrivals within that time that are a flood.
const FLOOD: u32 = 256;

/// What an interrupt needs after it was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing: an edge or a message.
    Edge,
    /// The line is asserted until the device was served: it is masked until each of its guests says so.
    Level,
}

/// A domain that is told of an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guest {
    /// The domain.
    pub domain: DomId,
    /// Its number for the interrupt.
    pub pirq: Pirq,
    /// The event channel it is bound to.
    pub port: Port,
    /// It was told and has not said that it is done.
    pub busy: bool,
}

/// An interrupt.
#[derive(Clone, Debug)]
pub struct Desc {
    /// Its vector.
    pub vector: Option<u8>,
    /// The CPU it goes to.
    pub cpu: u32,
    /// What it needs after it was taken.
    pub mode: Mode,
    /// The hypervisor uses it for itself.
    pub own: bool,
    signal: Setup,
    shareable: bool,
    guests: ArrayVec<Guest, MAX_GUESTS>,
    /// When the arrivals began to be counted, and how many there were.
    counted: (Nanos, u32),
    /// It is held back since too many came.
    held_back: bool,
    /// When waiting ends.
    patience_ends: Nanos,
}

/// Whether a line was told how to signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setup {
    /// As the firmware says, or as PCI's lines do.
    Default,
    /// It was, and is in use since, or is going to be.
    Told,
    /// It was, and has been in use.
    Kept,
}

/// What the end of a binding leaves to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unbound {
    /// Nothing: others are told, and some of them are not done yet or it was not masked.
    Others,
    /// Others are told, and nobody is busy any more: unmask it.
    Unmask,
    /// Nobody is told any more: mask it.
    Last,
}

impl Desc {
    /// An interrupt that nobody uses.
    #[must_use]
    pub const fn new(mode: Mode) -> Self {
        Self {
            vector: None,
            cpu: 0,
            mode,
            own: false,
            signal: Setup::Default,
            shareable: false,
            guests: ArrayVec::new_const(),
            counted: (Nanos::ZERO, 0),
            held_back: false,
            patience_ends: Nanos::ZERO,
        }
    }

    /// Those who are told.
    #[must_use]
    pub fn guests(&self) -> &[Guest] {
        &self.guests
    }

    /// Whether nobody uses it.
    #[must_use]
    pub fn is_unused(&self) -> bool {
        !self.own && self.guests.is_empty()
    }

    /// A line is told how to signal: once in its life; true if this is the time. `EEXIST` for a line that is in use, or was
    /// told and has not been in use since (as Xen has it).
    pub fn set_up(&mut self) -> Result<bool, Errno> {
        match self.signal {
            Setup::Told => Err(Errno::EEXIST),
            _ if !self.is_unused() => Err(Errno::EEXIST),
            Setup::Kept => Ok(false),
            Setup::Default => {
                self.signal = Setup::Told;
                Ok(true)
            }
        }
    }

    /// Tells a domain of it from now on; true when it is the first one. `EBUSY`: it is the hypervisor's, or it is bound and
    /// one of the two would not share, or too many share it.
    pub fn bind(&mut self, domain: DomId, pirq: Pirq, port: Port, share: bool) -> Result<bool, Errno> {
        let first = self.guests.is_empty();
        if self.own || !(first || share && self.shareable) {
            return Err(Errno::EBUSY);
        }
        self.guests.try_push(Guest { domain, pirq, port, busy: false }).map_err(|_| Errno::EBUSY)?;
        if first {
            self.shareable = share;
        }
        Ok(first)
    }

    /// A domain is no longer told of it (by that port, or by whichever); nothing if it was not.
    pub fn unbind(&mut self, domain: DomId, pirq: Pirq, port: Option<Port>) -> Option<Unbound> {
        let is_meant =
            |guest: &Guest| guest.domain == domain && guest.pirq == pirq && port.is_none_or(|port| port == guest.port);
        let at = self.guests.iter().position(is_meant)?;
        let gone = self.guests.swap_remove(at);
        Some(match () {
            () if self.guests.is_empty() => {
                if self.signal == Setup::Told {
                    self.signal = Setup::Kept;
                }
                Unbound::Last
            }
            () if gone.busy && self.is_idle() => Unbound::Unmask,
            () => Unbound::Others,
        })
    }

    fn is_idle(&self) -> bool {
        self.guests.iter().all(|guest| !guest.busy)
    }

    /// It was taken: notes who has to say that it is done. True when it comes too often: mask it until its
    /// [time is up](Self::time_is_up).
    pub fn arrived(&mut self, now: Nanos) -> bool {
        self.patience_ends = now.after(PATIENCE);
        if self.mode == Mode::Level {
            self.guests.iter_mut().for_each(|guest| guest.busy = true);
            // Masked until it was served, it cannot flood.
            return false;
        }
        let (since, count) = &mut self.counted;
        if now.since(*since) > PATIENCE {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        self.held_back |= *count >= FLOOD;
        self.held_back
    }

    /// A domain is done; true when that was the last one waited for: unmask it.
    pub fn end(&mut self, domain: DomId, pirq: Pirq) -> bool {
        let mine = |guest: &&mut Guest| guest.domain == domain && guest.pirq == pirq;
        let was_busy = self.guests.iter_mut().find(mine).is_some_and(|guest| core::mem::take(&mut guest.busy));
        was_busy && self.is_idle()
    }

    /// Nobody is waited for any longer, unless it has come again since; true when somebody was, or when it was held back:
    /// unmask it.
    pub fn time_is_up(&mut self, now: Nanos) -> bool {
        if now < self.patience_ends {
            return false;
        }
        let waited = core::mem::take(&mut self.held_back) || !self.is_idle();
        self.counted = (now, 0);
        self.guests.iter_mut().for_each(|guest| guest.busy = false);
        waited
    }
}

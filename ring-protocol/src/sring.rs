//! The ring of requests and responses that block and network devices share (`io/ring.h`), from both ends.
//!
//! Both ends keep their own indices in private; what the other end writes is read once, and an index that cannot be is
//! a [`Fault`]. A request that was taken is a [`Ticket`] for exactly one response, so a response can never run over a
//! request that was not taken yet.

#[cfg(all(test, loom))]
mod loom;

use crate::page::Page;
use crate::peer::Fault;
use xen_abi::io::ring::{REQ_EVENT, REQ_PROD, RSP_EVENT, RSP_PROD, SLOTS, slots};

/// How many slots a ring has and how large they are. Its pages lie side by side in one [`Page`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    slots: u32,
    slot: usize,
}

impl Shape {
    /// The ring of `bytes` bytes with slots of `slot` bytes; `None` where not even one fits.
    #[must_use]
    pub fn new(bytes: usize, slot: usize) -> Option<Self> {
        let slots = u32::try_from(slots(bytes, slot)).ok().filter(|slots| *slots > 0)?;
        Some(Self { slots, slot })
    }

    /// How many slots.
    #[must_use]
    pub const fn slots(self) -> u32 {
        self.slots
    }

    fn offset(self, index: u32) -> usize {
        SLOTS + (index & (self.slots - 1)) as usize * self.slot
    }

    /// Copies a slot out, as much as there is room for.
    fn read(self, page: &impl Page, index: u32, to: &mut [u8]) {
        let len = to.len().min(self.slot);
        let (to, _) = to.split_at_mut(len);
        page.read(self.offset(index), to);
    }

    fn write(self, page: &impl Page, index: u32, from: &[u8]) {
        let (from, _) = from.split_at(from.len().min(self.slot));
        page.write(self.offset(index), from);
    }
}

/// The right to one response.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "every request is answered"]
pub struct Ticket(());

/// Whether the other end wants to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a peer that is not woken waits for good"]
pub enum Wake {
    /// It looks by itself.
    No,
    /// It sleeps: send the event.
    Yes,
}

/// The end that serves.
#[derive(Debug)]
pub struct Back {
    shape: Shape,
    /// Requests taken.
    taken: u32,
    /// Responses written, and of these announced.
    answered: u32,
    announced: u32,
}

impl Back {
    /// Takes over a ring where its responses end: a new ring, or one whose last server is gone.
    ///
    /// # Errors
    /// When the indices are impossible.
    pub fn attach(shape: Shape, page: &impl Page) -> Result<Self, Fault> {
        let at = page.load_u32(RSP_PROD);
        let this = Self { shape, taken: at, answered: at, announced: at };
        this.waiting(page).map(|_| this)
    }

    /// Requests that were not taken yet.
    ///
    /// # Errors
    /// When the other end claims more than the ring holds.
    pub fn waiting(&self, page: &impl Page) -> Result<u32, Fault> {
        let producer = page.load_u32(REQ_PROD);
        let fault = Fault::Indices { consumer: self.taken, producer };
        // What is taken and not answered occupies its slot still.
        if producer.wrapping_sub(self.answered) > self.shape.slots {
            return Err(fault);
        }
        let waiting = producer.wrapping_sub(self.taken);
        if waiting > self.shape.slots { Err(fault) } else { Ok(waiting) }
    }

    /// Copies the next request.
    ///
    /// # Errors
    /// When the other end claims more than the ring holds.
    pub fn take(&mut self, page: &impl Page, to: &mut [u8]) -> Result<Option<Ticket>, Fault> {
        if self.waiting(page)? == 0 {
            return Ok(None);
        }
        self.shape.read(page, self.taken, to);
        self.taken = self.taken.wrapping_add(1);
        Ok(Some(Ticket(())))
    }

    /// Writes a response; the other end sees it after [`Back::announce`].
    pub fn answer(&mut self, page: &impl Page, ticket: Ticket, response: &[u8]) {
        let Ticket(()) = ticket;
        self.shape.write(page, self.answered, response);
        self.answered = self.answered.wrapping_add(1);
    }

    /// Shows the responses written so far.
    pub fn announce(&mut self, page: &impl Page) -> Wake {
        let (old, new) = (self.announced, self.answered);
        if old == new {
            return Wake::No;
        }
        self.announced = new;
        page.store_u32(RSP_PROD, new);
        // The index must be seen before we look at what the other end waits for.
        page.fence();
        passed(old, new, page.load_u32(RSP_EVENT))
    }

    /// Asks to be woken for the next request; whether there is one already.
    ///
    /// # Errors
    /// When the other end claims more than the ring holds.
    pub fn sleep(&mut self, page: &impl Page) -> Result<bool, Fault> {
        if self.waiting(page)? > 0 {
            return Ok(true);
        }
        page.store_u32(REQ_EVENT, self.taken.wrapping_add(1));
        page.fence();
        Ok(self.waiting(page)? > 0)
    }
}

/// Whether the index `event` was passed on the way from `old` to `new`.
const fn passed(old: u32, new: u32, event: u32) -> Wake {
    if new.wrapping_sub(event) < new.wrapping_sub(old) { Wake::Yes } else { Wake::No }
}

/// The end that asks.
#[derive(Debug)]
pub struct Front {
    shape: Shape,
    /// Requests written, and of these announced.
    asked: u32,
    announced: u32,
    /// Responses taken.
    taken: u32,
}

impl Front {
    /// Makes an empty ring of zeroed memory.
    pub fn new(shape: Shape, page: &impl Page) -> Self {
        page.store_u32(REQ_PROD, 0);
        page.store_u32(RSP_PROD, 0);
        page.store_u32(REQ_EVENT, 1);
        page.store_u32(RSP_EVENT, 1);
        Self { shape, asked: 0, announced: 0, taken: 0 }
    }

    /// How many requests can be written now.
    #[must_use]
    pub const fn room(&self) -> u32 {
        self.shape.slots - self.asked.wrapping_sub(self.taken)
    }

    /// Writes a request, if there is room; the other end sees it after [`Front::announce`].
    #[must_use]
    pub fn ask(&mut self, page: &impl Page, request: &[u8]) -> bool {
        if self.room() == 0 {
            return false;
        }
        self.shape.write(page, self.asked, request);
        self.asked = self.asked.wrapping_add(1);
        true
    }

    /// Shows the requests written so far.
    pub fn announce(&mut self, page: &impl Page) -> Wake {
        let (old, new) = (self.announced, self.asked);
        if old == new {
            return Wake::No;
        }
        self.announced = new;
        page.store_u32(REQ_PROD, new);
        page.fence();
        passed(old, new, page.load_u32(REQ_EVENT))
    }

    fn waiting(&self, page: &impl Page) -> Result<u32, Fault> {
        let producer = page.load_u32(RSP_PROD);
        let waiting = producer.wrapping_sub(self.taken);
        if waiting > self.announced.wrapping_sub(self.taken) {
            return Err(Fault::Indices { consumer: self.taken, producer });
        }
        Ok(waiting)
    }

    /// Copies the next response; whether there was one.
    ///
    /// # Errors
    /// When the other end answers more than was asked.
    pub fn take(&mut self, page: &impl Page, to: &mut [u8]) -> Result<bool, Fault> {
        if self.waiting(page)? == 0 {
            return Ok(false);
        }
        self.shape.read(page, self.taken, to);
        self.taken = self.taken.wrapping_add(1);
        Ok(true)
    }

    /// Asks to be woken for the next response; whether there is one already.
    ///
    /// # Errors
    /// When the other end answers more than was asked.
    pub fn sleep(&mut self, page: &impl Page) -> Result<bool, Fault> {
        if self.waiting(page)? > 0 {
            return Ok(true);
        }
        page.store_u32(RSP_EVENT, self.taken.wrapping_add(1));
        page.fence();
        Ok(self.waiting(page)? > 0)
    }
}

//! The end that asks.

use super::wire::{self, Layout, Operation, Status};
use crate::page::Page;
use crate::peer::Fault;
use crate::sring::{self, Shape, Wake};
use xen_abi::io::blkif::BlkifResponse;

/// Requests that can be under way: those of a ring of 16 pages.
const MOST: usize = 512;

/// Names a request under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag(u16);

impl Tag {
    /// As an index below [`Queue::slots`].
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// One queue.
#[derive(Debug)]
pub struct Queue {
    ring: sring::Front,
    layout: Layout,
    slots: u16,
    /// Which tags are under way. What the other end answers is checked against it.
    under_way: [u64; MOST / 64],
}

/// What went wrong with a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The indices are impossible.
    Ring(Fault),
    /// It answers what was not asked.
    Stranger(u64),
}

impl Queue {
    /// Makes a ring of `bytes` bytes of zeroed memory; `None` where it is too small.
    pub fn new(page: &impl Page, bytes: usize, layout: Layout) -> Option<Self> {
        let shape = Shape::new(bytes, layout.slot())?;
        let slots = u16::try_from(shape.slots()).ok().filter(|slots| usize::from(*slots) <= MOST)?;
        Some(Self { ring: sring::Front::new(shape, page), layout, slots, under_way: [0; MOST / 64] })
    }

    /// How many requests can be under way.
    #[must_use]
    pub const fn slots(&self) -> u16 {
        self.slots
    }

    fn word(&mut self, tag: u16) -> Option<(&mut u64, u64)> {
        Some((self.under_way.get_mut(usize::from(tag / 64))?, 1 << (tag % 64)))
    }

    /// Asks, if there is room; the other end sees it after [`Queue::announce`].
    pub fn ask(&mut self, page: &impl Page, handle: u16, operation: &Operation) -> Option<Tag> {
        let free = |tag: &u16| {
            let word = self.under_way.get(usize::from(tag / 64));
            word.is_some_and(|word| word & (1 << (tag % 64)) == 0)
        };
        let tag = (0..self.slots).find(free)?;
        let mut slot = wire::encode(tag.into(), handle, operation)?;
        self.layout.narrow(&mut slot);
        if !self.ring.ask(page, &slot) {
            return None;
        }
        if let Some((word, bit)) = self.word(tag) {
            *word |= bit;
        }
        Some(Tag(tag))
    }

    /// Shows the requests so far.
    pub fn announce(&mut self, page: &impl Page) -> Wake {
        self.ring.announce(page)
    }

    /// The next answer.
    ///
    /// # Errors
    /// When the other end broke the protocol.
    pub fn take(&mut self, page: &impl Page) -> Result<Option<(Tag, Status)>, Broken> {
        let mut bytes = [0; size_of::<BlkifResponse>()];
        if !self.ring.take(page, &mut bytes).map_err(Broken::Ring)? {
            return Ok(None);
        }
        let (id, status) = wire::decode_response(&bytes);
        let stranger = Broken::Stranger(id);
        let tag = u16::try_from(id).map_err(|_| stranger)?;
        match self.word(tag) {
            Some((word, bit)) if *word & bit != 0 => *word &= !bit,
            _ => return Err(stranger),
        }
        Ok(Some((Tag(tag), status)))
    }

    /// Asks to be woken; whether there is an answer already.
    ///
    /// # Errors
    /// When the other end's index is impossible.
    pub fn sleep(&mut self, page: &impl Page) -> Result<bool, Fault> {
        self.ring.sleep(page)
    }
}

//! The end that serves: requests are copied once, then checked against the disk; only what passed is work.

use super::wire::{
    self, Direction, Layout, Operation, SECTOR, SECTORS_PER_PAGE, SEGMENT, SEGMENTS_PER_PAGE, Segment, Status,
};
use crate::page::Page;
use crate::peer::Fault;
use crate::sring::{self, Shape, Ticket, Wake};
use arrayvec::ArrayVec;
use xen_abi::ids::GrantRef;
use xen_abi::io::blkif::{BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST, SLOT};

/// What a disk is, as far as requests are checked against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Its size in sectors of 512 bytes.
    pub sectors: u64,
    /// Bytes of its own sectors: a power of two, 512 at least.
    pub sector_size: u32,
    /// Writes are errors.
    pub read_only: bool,
    /// It can flush.
    pub flush: bool,
    /// It can discard.
    pub discard: bool,
    /// Segments that an indirect request may have; 0 for none.
    pub indirect: u16,
}

/// Work that passed all checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Move data.
    Transfer {
        /// Which way.
        direction: Direction,
        /// First sector on the disk, of 512 bytes.
        sector: u64,
        /// The pages.
        pages: Pages,
    },
    /// Flush, then write, then flush.
    Barrier {
        /// First sector on the disk, of 512 bytes.
        sector: u64,
        /// The pages; maybe none.
        segments: ArrayVec<Segment, 11>,
    },
    /// Flush.
    Flush,
    /// Discard.
    Discard {
        /// First sector, of 512 bytes.
        sector: u64,
        /// How many.
        count: u64,
    },
}

/// Where the segments are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pages {
    /// Here, checked.
    Direct(ArrayVec<Segment, 11>),
    /// In these pages: copy them and ask [`Disk::segments`].
    Listed {
        /// How many segments.
        count: u16,
        /// The pages.
        lists: ArrayVec<GrantRef, BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST>,
    },
}

/// A request that was taken from the ring and is not answered yet.
#[derive(Debug)]
pub struct Taken {
    ticket: Ticket,
    id: u64,
    code: u8,
}

impl Disk {
    /// Whether the sectors are the disk's, and whole sectors of its own.
    fn holds(&self, sector: u64, count: u64) -> bool {
        let grain = u64::from(self.sector_size) / SECTOR;
        let end = sector.checked_add(count);
        count > 0
            && end.is_some_and(|end| end <= self.sectors)
            && sector.is_multiple_of(grain.max(1))
            && count.is_multiple_of(grain.max(1))
    }

    /// Data can only move in whole sectors of the disk's own, within each page too.
    fn fits(&self, segments: &[Segment]) -> bool {
        let grain = u8::try_from(u64::from(self.sector_size) / SECTOR).unwrap_or(SECTORS_PER_PAGE).max(1);
        segments.iter().all(|segment| segment.first % grain == 0 && (segment.last + 1) % grain == 0)
    }

    fn total(segments: &[Segment]) -> u64 {
        segments.iter().map(|segment| segment.sectors()).sum()
    }

    /// Checks a request: the work it is, or its answer.
    ///
    /// # Errors
    /// How to answer at once.
    pub fn check(&self, operation: Operation) -> Result<Work, Status> {
        match operation {
            Operation::Transfer { direction, sector, segments } => {
                self.check_transfer(direction, sector, &segments)?;
                Ok(Work::Transfer { direction, sector, pages: Pages::Direct(segments) })
            }
            Operation::Indirect { direction, sector, count, lists } => {
                if count > self.indirect {
                    return Err(Status::Error);
                }
                self.may(direction)?;
                Ok(Work::Transfer { direction, sector, pages: Pages::Listed { count, lists } })
            }
            Operation::Barrier { .. } | Operation::Flush if !self.flush => Err(Status::Unsupported),
            Operation::Barrier { sector, segments } => {
                if !segments.is_empty() {
                    self.check_transfer(Direction::Write, sector, &segments)?;
                }
                Ok(Work::Barrier { sector, segments })
            }
            Operation::Flush => Ok(Work::Flush),
            Operation::Discard { secure: true, .. } => Err(Status::Unsupported),
            Operation::Discard { .. } if !self.discard => Err(Status::Unsupported),
            Operation::Discard { sector, count, .. } => {
                self.may(Direction::Write)?;
                if self.holds(sector, count) { Ok(Work::Discard { sector, count }) } else { Err(Status::Error) }
            }
            Operation::Unknown => Err(Status::Unsupported),
            Operation::Malformed => Err(Status::Error),
        }
    }

    fn may(&self, direction: Direction) -> Result<(), Status> {
        if self.read_only && direction == Direction::Write { Err(Status::Error) } else { Ok(()) }
    }

    fn check_transfer(&self, direction: Direction, sector: u64, segments: &[Segment]) -> Result<(), Status> {
        self.may(direction)?;
        if self.holds(sector, Self::total(segments)) && self.fits(segments) { Ok(()) } else { Err(Status::Error) }
    }

    /// The segments of an indirect request from a copy of its pages, one after the other, checked.
    ///
    /// # Errors
    /// How to answer at once.
    pub fn segments(
        &self,
        direction: Direction,
        sector: u64,
        count: u16,
        lists: &[u8],
        mut each: impl FnMut(Segment),
    ) -> Result<(), Status> {
        let count = usize::from(count);
        let parts = lists.get(..count * SEGMENT).ok_or(Status::Error)?.as_chunks::<SEGMENT>().0;
        let mut total = 0;
        for part in parts {
            let segment = wire::segment(part).ok_or(Status::Error)?;
            if !self.fits(&[segment]) {
                return Err(Status::Error);
            }
            total += segment.sectors();
            each(segment);
        }
        self.may(direction)?;
        if self.holds(sector, total) { Ok(()) } else { Err(Status::Error) }
    }
}

/// Pages of segments that an indirect request with `count` segments has.
#[must_use]
pub const fn lists(count: u16) -> usize {
    (count as usize).div_ceil(SEGMENTS_PER_PAGE)
}

/// One queue.
#[derive(Debug)]
pub struct Queue {
    ring: sring::Back,
    layout: Layout,
}

impl Queue {
    /// Takes over a ring of `bytes` bytes.
    ///
    /// # Errors
    /// When its indices are impossible.
    pub fn attach(page: &impl Page, bytes: usize, layout: Layout) -> Result<Self, Fault> {
        let shape = Shape::new(bytes, layout.slot()).ok_or(Fault::Indices { consumer: 0, producer: 0 })?;
        Ok(Self { ring: sring::Back::attach(shape, page)?, layout })
    }

    /// The next request.
    ///
    /// # Errors
    /// When the other end's index is impossible.
    pub fn take(&mut self, page: &impl Page) -> Result<Option<(Taken, Operation)>, Fault> {
        let mut slot = [0; SLOT];
        let Some(ticket) = self.ring.take(page, &mut slot)? else {
            return Ok(None);
        };
        self.layout.widen(&mut slot);
        let request = wire::decode(&slot);
        Ok(Some((Taken { ticket, id: request.id, code: request.code }, request.operation)))
    }

    /// Answers one.
    pub fn answer(&mut self, page: &impl Page, taken: Taken, status: Status) {
        self.ring.answer(page, taken.ticket, &wire::response(taken.id, taken.code, status));
    }

    /// Shows the answers so far.
    pub fn announce(&mut self, page: &impl Page) -> Wake {
        self.ring.announce(page)
    }

    /// Asks to be woken; whether there is a request already.
    ///
    /// # Errors
    /// When the other end's index is impossible.
    pub fn sleep(&mut self, page: &impl Page) -> Result<bool, Fault> {
        self.ring.sleep(page)
    }
}

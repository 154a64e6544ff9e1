//! The buddy allocator over the frame table.
//!
//! A free block of 2^order frames is aligned to its size; its order is in the word of its first frame, and its links too.
//! A block may hold an earlier owner's data (it is dirty) or not, and only blocks of the same condition merge: so what an
//! idle CPU has scrubbed stays known as clean. Which frames of a block are dirty is known frame by frame, so that nothing
//! is zeroed twice. A dirty block whose buddy is free and clean has a list of its own: when a large block is wanted that
//! exists only in such pieces, they are found without a search, and each call merges a bounded number of them.

use arrayvec::ArrayVec;
use xen_abi::ids::Mfn;

use super::{Block, PageList, Stale};
use crate::page::{Frame, FrameTable};

/// Blocks have up to 2^18 frames: 1 GiB.
pub const MAX_ORDER: u8 = 18;
const ORDERS: usize = MAX_ORDER as usize + 1;

/// Where memory has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    /// Below 4 GiB, for devices that cannot address more.
    Low,
    /// Anywhere; memory above 4 GiB is used up first.
    Any,
    /// The beginning of a whole free GiB (of 2^[`MAX_ORDER`] frames), where there is one; else anywhere.
    Largest,
    /// From this frame on, where that is free or will be when idle CPUs have scrubbed it; else anywhere.
    From(Mfn),
}

const LOW_END: u64 = 1 << LOW_WIDTH;
/// Bits of the numbers of frames below 4 GiB.
const LOW_WIDTH: usize = 20;
/// Bits of a frame's number, at most: addresses have 52.
const MAX_WIDTH: usize = 40;

/// Why there is no block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// There is none of that size.
    Exhausted,
    /// There may be one after more work: ask again.
    Unfinished,
}

/// A free block's list.
#[derive(Clone, Copy, Debug)]
enum Condition {
    /// All of it is zero.
    Clean,
    /// Some of it may not be.
    Dirty,
    /// Dirty, and the buddy is free and clean.
    Mixed,
}

impl Condition {
    /// Of a block with that buddy, if it is free.
    const fn of(dirty: bool, buddy: Option<Frame<'_>>) -> Self {
        match (dirty, buddy) {
            (false, _) => Self::Clean,
            (true, None) => Self::Dirty,
            (true, Some(_)) => Self::Mixed,
        }
    }
}

const CONDITIONS: [Condition; 3] = [Condition::Clean, Condition::Dirty, Condition::Mixed];

/// CPUs whose scrubbing is known of.
const SCRUBBERS: usize = 64;
/// Merges of mixed pairs in one call.
const MERGES: usize = 256;

/// The free memory of the machine.
#[derive(Debug)]
pub struct Buddy {
    /// By zone (low, high), condition and order.
    lists: [[[PageList; ORDERS]; CONDITIONS.len()]; 2],
    /// Free frames by the bits that their numbers take. All of a block's take as many, since frame 0 is never in one.
    free: [u64; 65],
    /// Frames in blocks that may hold dirty ones.
    soiled: u64,
    /// What idle CPUs are scrubbing, as far as there is room: it comes back soon.
    scrubbed: ArrayVec<(Mfn, u8), SCRUBBERS>,
}

impl Default for Buddy {
    fn default() -> Self {
        Self::new()
    }
}

const fn zone_of(mfn: Mfn) -> usize {
    (mfn.0 >= LOW_END) as usize
}

/// The bits that a frame's number takes.
const fn width_of(mfn: Mfn) -> usize {
    (u64::BITS - mfn.0.leading_zeros()) as usize
}

#[allow(
    clippy::indexing_slicing,
    reason = "zones are 0 and 1, widths at most 64, orders are checked to be at most MAX_ORDER"
)]
impl Buddy {
    /// An allocator without memory.
    #[must_use]
    pub const fn new() -> Self {
        const NONE: [PageList; ORDERS] = [const { PageList::new() }; ORDERS];
        Buddy {
            lists: [const { [NONE; CONDITIONS.len()] }; 2],
            free: [0; 65],
            soiled: 0,
            scrubbed: ArrayVec::new_const(),
        }
    }

    /// Number of free frames.
    #[must_use]
    pub fn free_pages(&self) -> u64 {
        self.free_pages_of(0..=MAX_WIDTH)
    }

    /// Number of free frames whose numbers take so many bits.
    #[must_use]
    pub fn free_pages_of(&self, widths: core::ops::RangeInclusive<usize>) -> u64 {
        self.free.get(widths).unwrap_or_default().iter().sum()
    }

    /// Number of free frames in blocks with dirty ones: an upper bound of the frames that are not clean.
    #[must_use]
    pub const fn dirty_pages(&self) -> u64 {
        self.soiled
    }

    /// Adds memory that was never used: the frames `from..to`, holes in the table already or not. `dirty`: not known to
    /// be zero. Frame 0 is left out.
    pub fn add(&mut self, table: FrameTable<'_>, from: Mfn, to: Mfn, dirty: bool) {
        let mut mfn = from.0.max(1);
        let end = to.0.min(table.end().0);
        for mfn in mfn..end {
            if let Some(info) = table.info(Mfn(mfn)) {
                info.set_ram(dirty);
            }
        }
        while mfn < end {
            let aligned = u8::try_from(mfn.trailing_zeros()).unwrap_or(MAX_ORDER);
            let mut order = aligned.min(MAX_ORDER);
            while mfn + (1 << order) > end {
                order -= 1;
            }
            self.free(table, Block::new(Mfn(mfn), order));
            mfn += 1 << order;
        }
    }

    /// Takes 2^order frames.
    ///
    /// # Errors
    /// There is no such block, or it has to be put together in more calls.
    pub fn alloc(&mut self, table: FrameTable<'_>, order: u8, zone: Zone) -> Result<Stale, Shortage> {
        let zones: &[usize] = match zone {
            Zone::Low => &[0],
            Zone::Any | Zone::Largest | Zone::From(_) => &[1, 0],
        };
        match zone {
            Zone::Largest => match self.alloc_of(table, order, MAX_ORDER, zones) {
                Err(Shortage::Exhausted) => {}
                found => return found,
            },
            Zone::From(mfn) => match self.find_at(table, mfn, order) {
                Err(Shortage::Exhausted) => {}
                found => return found,
            },
            Zone::Low | Zone::Any => {}
        }
        self.alloc_of(table, order, order, zones)
    }

    /// Takes the first 2^`order` frames of a free block of 2^`least` frames or more.
    fn alloc_of(&mut self, table: FrameTable<'_>, order: u8, least: u8, zones: &[usize]) -> Result<Stale, Shortage> {
        for _ in 0..MERGES {
            if let Some((f, have)) = self.find(table, least, zones) {
                return Ok(self.carve(table, f, have, (f.mfn(), order)));
            }
            if !zones.iter().any(|&zone| self.free_in(zone) >= 1 << least && self.merge_one(table, least, zone)) {
                return Err(Shortage::Exhausted);
            }
        }
        Err(Shortage::Unfinished)
    }

    fn free_in(&self, zone: usize) -> u64 {
        self.free_pages_of(if zone == 0 { 0..=LOW_WIDTH } else { LOW_WIDTH + 1..=MAX_WIDTH })
    }

    /// A free block of 2^`order` frames or more, and how large it is.
    fn find<'f>(&self, table: FrameTable<'f>, order: u8, zones: &[usize]) -> Option<(Frame<'f>, u8)> {
        for &zone in zones {
            for have in order..=MAX_ORDER {
                for condition in CONDITIONS {
                    let list = &self.lists[zone][condition as usize][usize::from(have)];
                    let Some(f) = list.first(table).and_then(|mfn| table.ram(mfn)) else { continue };
                    return Some((f, have));
                }
            }
        }
        None
    }

    /// Takes the 2^`order` frames from `mfn` on, if all of them are free and the number is a multiple of theirs. They may be
    /// so soon, if an idle CPU has some of them.
    fn find_at(&mut self, table: FrameTable<'_>, mfn: Mfn, order: u8) -> Result<Stale, Shortage> {
        if order > MAX_ORDER || !mfn.0.is_multiple_of(1 << order) || mfn >= table.end() {
            return Err(Shortage::Exhausted);
        }
        for have in order..=MAX_ORDER {
            let first = table.ram(Mfn(mfn.0 & !((1 << have) - 1)));
            if let Some(f) = first.filter(|f| f.info().block() == Some(have)) {
                return Ok(self.carve(table, f, have, (mfn, order)));
            }
        }
        // In pieces, some of them clean and some not.
        let piece = |at| table.ram(Mfn(at)).and_then(|f| Some((f, f.info().block()?)));
        let end = mfn.0 + (1 << order);
        let mut at = mfn.0;
        while at < end {
            let is_scrubbed = || self.scrubbed.iter().any(|(first, order)| first.0 >> order == at >> order);
            at += match piece(at) {
                Some((_, have)) => 1 << have,
                None if is_scrubbed() => return Err(Shortage::Unfinished),
                None => return Err(Shortage::Exhausted),
            };
        }
        self.free[width_of(mfn)] -= 1 << order;
        at = mfn.0;
        while let Some((f, have)) = piece(at).filter(|_| at < end) {
            self.take_out(table, f, have);
            at += 1 << have;
        }
        Ok(Stale(Block::new(mfn, order)))
    }

    /// Takes the 2^`order` frames from `mfn` on out of a free block, which they lie in; the rest stays free.
    fn carve(&mut self, table: FrameTable<'_>, f: Frame<'_>, have: u8, (mfn, order): (Mfn, u8)) -> Stale {
        let dirty = f.info().is_block_dirty();
        self.take_out(table, f, have);
        self.free[width_of(mfn)] -= 1 << order;
        for half in (order..have).rev() {
            // The half that they do not lie in.
            let other = Mfn((mfn.0 ^ 1 << half) & !((1 << half) - 1));
            if let Some(other) = table.ram(other) {
                self.insert(table, other, half, dirty);
            }
        }
        Stale(Block::new(mfn, order))
    }

    /// Gives frames back.
    pub fn free(&mut self, table: FrameTable<'_>, block: Block) {
        let (mut mfn, mut order) = (block.mfn(), block.order());
        if !self.scrubbed.is_empty() {
            self.scrubbed.retain(|(first, _)| *first != mfn);
        }
        let dirty = block.frames(table).any(|f| f.info().is_dirty());
        self.free[width_of(mfn)] += 1 << order;
        while order < MAX_ORDER {
            let Some(buddy) = free_buddy(table, mfn, order).filter(|f| f.info().is_block_dirty() == dirty) else {
                break;
            };
            self.take_out(table, buddy, order);
            mfn = Mfn(mfn.0.min(buddy.mfn().0));
            order += 1;
        }
        if let Some(f) = table.ram(mfn) {
            self.insert(table, f, order, dirty);
        }
    }

    /// Merges a mixed pair of a size below `order`, the largest there is. False: there is none.
    fn merge_one(&mut self, table: FrameTable<'_>, order: u8, zone: usize) -> bool {
        for order in (0..order.min(MAX_ORDER)).rev() {
            let list = &self.lists[zone][Condition::Mixed as usize][usize::from(order)];
            let Some(f) = list.first(table).and_then(|mfn| table.ram(mfn)) else { continue };
            let Some(buddy) = free_buddy(table, f.mfn(), order) else { continue };
            self.take_out(table, f, order);
            self.take_out(table, buddy, order);
            // As one block they are given back: it may have dirty neighbours to merge with.
            self.free[width_of(f.mfn())] -= 2 << order;
            self.free(table, Block::new(f.mfn().min(buddy.mfn()), order + 1));
            return true;
        }
        false
    }

    /// Takes a block with dirty frames out, at most 2^`order` frames, for an idle CPU to scrub and give back.
    pub fn take_dirty(&mut self, table: FrameTable<'_>, order: u8) -> Option<Stale> {
        for zone in [1, 0] {
            for have in 0..=MAX_ORDER {
                for condition in [Condition::Dirty, Condition::Mixed] {
                    let list = &self.lists[zone][condition as usize][usize::from(have)];
                    let Some(f) = list.first(table).and_then(|mfn| table.ram(mfn)) else { continue };
                    let order = have.min(order);
                    let _ = self.scrubbed.try_push((f.mfn(), order));
                    return Some(self.carve(table, f, have, (f.mfn(), order)));
                }
            }
        }
        None
    }

    fn insert(&mut self, table: FrameTable<'_>, f: Frame<'_>, order: u8, dirty: bool) {
        f.info().set_block(Some(order));
        f.info().set_block_dirty(dirty);
        self.soiled += if dirty { 1 << order } else { 0 };
        let buddy = free_buddy(table, f.mfn(), order);
        self.list(f, order, Condition::of(dirty, buddy)).push_front(table, f);
        if let Some(buddy) = buddy.filter(|_| !dirty) {
            self.list(buddy, order, Condition::Dirty).remove(table, buddy);
            self.list(buddy, order, Condition::Mixed).push_front(table, buddy);
        }
    }

    /// Takes a free block off its list.
    fn take_out(&mut self, table: FrameTable<'_>, f: Frame<'_>, order: u8) {
        let dirty = f.info().is_block_dirty();
        let buddy = free_buddy(table, f.mfn(), order);
        self.list(f, order, Condition::of(dirty, buddy)).remove(table, f);
        if let Some(buddy) = buddy.filter(|_| !dirty) {
            self.list(buddy, order, Condition::Mixed).remove(table, buddy);
            self.list(buddy, order, Condition::Dirty).push_front(table, buddy);
        }
        f.info().set_block(None);
        self.soiled -= if dirty { 1 << order } else { 0 };
    }

    fn list(&mut self, f: Frame<'_>, order: u8, condition: Condition) -> &mut PageList {
        &mut self.lists[zone_of(f.mfn())][condition as usize][usize::from(order)]
    }
}

/// The other half of the block of twice that size, if it is a free block. Halves of the same condition have merged, so
/// one half is clean and the other dirty.
fn free_buddy(table: FrameTable<'_>, mfn: Mfn, order: u8) -> Option<Frame<'_>> {
    let buddy = if order < MAX_ORDER { table.ram(Mfn(mfn.0 ^ (1 << order))) } else { None };
    buddy.filter(|f| f.info().block() == Some(order))
}

//! The buddy allocator over the frame table.
//!
//! A free block of 2^order frames is aligned to its size; its order is in the word of its first frame, and its links too.
//! Blocks that may hold an earlier owner's data go to the end of their list, clean ones to the front, and only blocks of
//! the same condition merge: so what an idle CPU has scrubbed stays known as clean. Which frames of a block are dirty is
//! known frame by frame, so that nothing is zeroed twice. When a large block is wanted that exists only in pieces of both
//! conditions, the pieces are merged then.

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
}

const LOW_END: u64 = 1 << 20;

/// The free memory of the machine.
#[derive(Debug)]
pub struct Buddy {
    /// By zone (low, high) and order.
    lists: [[PageList; ORDERS]; 2],
    free: [u64; 2],
    /// Frames in blocks that may hold dirty ones.
    soiled: u64,
}

impl Default for Buddy {
    fn default() -> Self {
        Self::new()
    }
}

const fn zone_of(mfn: Mfn) -> usize {
    (mfn.0 >= LOW_END) as usize
}

#[allow(clippy::indexing_slicing, reason = "zones are 0 and 1, orders are checked to be at most MAX_ORDER")]
impl Buddy {
    /// An allocator without memory.
    #[must_use]
    pub const fn new() -> Self {
        Buddy { lists: [const { [const { PageList::new() }; ORDERS] }; 2], free: [0; 2], soiled: 0 }
    }

    /// Number of free frames.
    #[must_use]
    pub const fn free_pages(&self) -> u64 {
        self.free[0] + self.free[1]
    }

    /// Number of free frames below 4 GiB.
    #[must_use]
    pub const fn free_low_pages(&self) -> u64 {
        self.free[0]
    }

    /// Number of free frames in blocks with dirty ones: an upper bound of the frames that are not clean.
    #[must_use]
    pub const fn dirty_pages(&self) -> u64 {
        self.soiled
    }

    /// Adds memory that was never used: the frames `from..to`, holes in the table already or not. `dirty`: not known to
    /// be zero.
    pub fn add(&mut self, table: FrameTable<'_>, from: Mfn, to: Mfn, dirty: bool) {
        let mut mfn = from.0;
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
    pub fn alloc(&mut self, table: FrameTable<'_>, order: u8, zone: Zone) -> Option<Stale> {
        let zones: &[usize] = match zone {
            Zone::Low => &[0],
            Zone::Any => &[1, 0],
        };
        if let Some(found) = self.find(table, order, zones) {
            return Some(found);
        }
        let enough = zones.iter().any(|&zone| self.free[zone] >= 1 << order);
        if order == 0 || !enough {
            return None;
        }
        for &zone in zones {
            self.merge_mixed(table, order, zone);
        }
        self.find(table, order, zones)
    }

    fn find(&mut self, table: FrameTable<'_>, order: u8, zones: &[usize]) -> Option<Stale> {
        for &zone in zones {
            for have in order..=MAX_ORDER {
                let Some(f) = self.lists[zone][usize::from(have)].pop(table) else { continue };
                let dirty = f.info().is_block_dirty();
                f.info().set_block(None);
                self.soiled -= if dirty { 1 << have } else { 0 };
                self.free[zone] -= 1 << order;
                // The lower half is kept, the upper goes back, until the size fits.
                for half in (order..have).rev() {
                    if let Some(upper) = table.ram(Mfn(f.mfn().0 + (1 << half))) {
                        self.insert(table, upper, half, dirty);
                    }
                }
                return Some(Stale(Block::new(f.mfn(), order)));
            }
        }
        None
    }

    /// Gives frames back.
    pub fn free(&mut self, table: FrameTable<'_>, block: Block) {
        let (mut mfn, mut order) = (block.mfn(), block.order());
        let dirty = block.frames(table).any(|f| f.info().is_dirty());
        self.free[zone_of(mfn)] += 1 << order;
        while order < MAX_ORDER {
            let buddy = Mfn(mfn.0 ^ (1 << order));
            let Some(f) = table.ram(buddy) else { break };
            if f.info().block() != Some(order) || f.info().is_block_dirty() != dirty {
                break;
            }
            self.take_out(table, f, order);
            mfn = Mfn(mfn.0.min(buddy.0));
            order += 1;
        }
        if let Some(f) = table.ram(mfn) {
            self.insert(table, f, order, dirty);
        }
    }

    /// Takes a free block off its list.
    fn take_out(&mut self, table: FrameTable<'_>, f: Frame<'_>, order: u8) {
        self.lists[zone_of(f.mfn())][usize::from(order)].remove(table, f);
        f.info().set_block(None);
        self.soiled -= if f.info().is_block_dirty() { 1 << order } else { 0 };
    }

    /// Merges dirty blocks below `order` with free buddies of either condition.
    fn merge_mixed(&mut self, table: FrameTable<'_>, order: u8, zone: usize) {
        for order in 0..order {
            // Dirty blocks are at the end of the list; what does not merge goes to the front and ends the round.
            let mut left = self.lists[zone][usize::from(order)].len();
            while left > 0 {
                left -= 1;
                let list = &mut self.lists[zone][usize::from(order)];
                let Some(f) = list.last(table).and_then(|mfn| table.ram(mfn)) else { break };
                if !f.info().is_block_dirty() {
                    break;
                }
                let buddy = table.ram(Mfn(f.mfn().0 ^ (1 << order)));
                match buddy.filter(|b| b.info().block() == Some(order)) {
                    Some(buddy) => {
                        self.take_out(table, f, order);
                        self.take_out(table, buddy, order);
                        let lower = if buddy.mfn() < f.mfn() { buddy } else { f };
                        self.insert(table, lower, order + 1, true);
                        left = left.saturating_sub(1);
                    }
                    None => {
                        list.remove(table, f);
                        list.push_front(table, f);
                    }
                }
            }
            // The dirty ones back to the end.
            let list = &mut self.lists[zone][usize::from(order)];
            for _ in 0..list.len() {
                let Some(f) = list.first(table).and_then(|mfn| table.ram(mfn)) else { break };
                if !f.info().is_block_dirty() {
                    break;
                }
                list.remove(table, f);
                list.push(table, f);
            }
        }
    }

    fn insert(&mut self, table: FrameTable<'_>, f: Frame<'_>, order: u8, dirty: bool) {
        f.info().set_block(Some(order));
        f.info().set_block_dirty(dirty);
        self.soiled += if dirty { 1 << order } else { 0 };
        let list = &mut self.lists[zone_of(f.mfn())][usize::from(order)];
        if dirty { list.push(table, f) } else { list.push_front(table, f) }
    }

    /// Takes a block with dirty frames out, at most 2^`order` frames, for an idle CPU to scrub and give back.
    pub fn take_dirty(&mut self, table: FrameTable<'_>, order: u8) -> Option<Stale> {
        for zone in [1, 0] {
            for have in 0..=MAX_ORDER {
                let list = &self.lists[zone][usize::from(have)];
                let Some(f) = list.last(table).and_then(|mfn| table.ram(mfn)) else { continue };
                if !f.info().is_block_dirty() {
                    continue;
                }
                self.take_out(table, f, have);
                let order = have.min(order);
                self.free[zone] -= 1 << order;
                for half in (order..have).rev() {
                    if let Some(upper) = table.ram(Mfn(f.mfn().0 + (1 << half))) {
                        self.insert(table, upper, half, true);
                    }
                }
                return Some(Stale(Block::new(f.mfn(), order)));
            }
        }
        None
    }
}

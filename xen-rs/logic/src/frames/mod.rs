//! Free memory, and lists of pages.
//!
//! A frame is in exactly one place: the allocator ([`Buddy`]), a domain's page list ([`PageList`]), or the hypervisor's
//! own use. Between these it travels as a [`Block`] that cannot be copied, and out of the allocator first as [`Stale`]:
//! TLBs may still map it for its last owner, and its content may still be that owner's.
//!
//! ```
//! use logic::{frames::{PageList, Stale}, page::{FrameTable, Stamp}};
//! use xen_abi::ids::DomId;
//! fn give(stale: Stale, table: FrameTable<'_>, to: DomId, list: &mut PageList, flush: impl FnOnce(Stamp)) {
//!     stale.flushed(table, flush).assign(table, to, list);
//! }
//! ```
//!
//! Without the flush a block cannot be given to anybody:
//!
//! ```compile_fail,E0599
//! # use logic::{frames::{PageList, Stale}, page::FrameTable};
//! # use xen_abi::ids::DomId;
//! fn give(stale: Stale, table: FrameTable<'_>, to: DomId, list: &mut PageList) {
//!     stale.assign(table, to, list);
//! }
//! ```
//!
//! and it cannot be given to two:
//!
//! ```compile_fail,E0382
//! # use logic::{frames::{Block, PageList}, page::FrameTable};
//! # use xen_abi::ids::DomId;
//! fn share(block: Block, table: FrameTable<'_>, list: &mut PageList) {
//!     block.assign(table, DomId(1), list);
//!     block.assign(table, DomId(2), list);
//! }
//! ```

mod batch;
mod buddy;
mod list;

#[cfg(all(test, not(loom)))]
mod tests;

use xen_abi::ids::{DomId, Mfn};

pub use batch::Batch;
pub use buddy::{Buddy, MAX_ORDER, Shortage, Zone};
pub use list::PageList;

use crate::page::{Frame, FrameTable, Stamp};

/// 2^order frames that belong to nobody but the holder of this value.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the frames would be lost"]
pub struct Block {
    mfn: Mfn,
    order: u8,
}

/// A block as it comes from the allocator: its last owner may still reach it.
#[derive(Debug)]
#[must_use = "the frames would be lost"]
pub struct Stale(Block);

/// A frame of a block in hand: nobody else can reach it, so it may be overwritten.
#[derive(Debug)]
pub struct Unowned<'f>(Frame<'f>);

impl Unowned<'_> {
    /// Its number.
    #[must_use]
    pub const fn mfn(&self) -> Mfn {
        self.0.mfn()
    }
}

impl Stale {
    pub(crate) const fn new(block: Block) -> Self {
        Stale(block)
    }

    /// How many frames it has.
    #[must_use]
    pub const fn pages(&self) -> u64 {
        1 << self.0.order
    }

    /// Makes the block safe to use: `flush` flushes each TLB that was not flushed after that moment.
    pub fn flushed(self, table: FrameTable<'_>, flush: impl FnOnce(Stamp)) -> Block {
        flush(self.0.frames(table).map(|f| f.info().stamp()).max().unwrap_or_default());
        self.0
    }
}

impl Block {
    pub(crate) const fn new(mfn: Mfn, order: u8) -> Self {
        Block { mfn, order }
    }

    /// Puts the two together where they are the halves of one block, in whatever order; else gives both back.
    ///
    /// # Errors
    /// The two.
    #[inline(always)]
    pub fn join(self, other: Self) -> Result<Self, (Self, Self)> {
        let halves = self.order == other.order && self.order < MAX_ORDER && self.mfn.0 ^ other.mfn.0 == 1 << self.order;
        if halves { Ok(Self { mfn: Mfn(self.mfn.0 & other.mfn.0), order: self.order + 1 }) } else { Err((self, other)) }
    }

    /// Number of the first frame.
    #[must_use]
    pub const fn mfn(&self) -> Mfn {
        self.mfn
    }

    /// It has 2^order frames.
    #[must_use]
    pub const fn order(&self) -> u8 {
        self.order
    }

    /// Number of frames.
    #[must_use]
    pub const fn pages(&self) -> u64 {
        1 << self.order
    }

    /// The frames.
    pub fn frames<'f>(&self, table: FrameTable<'f>) -> impl Iterator<Item = Frame<'f>> + use<'f> {
        (self.mfn.0..self.mfn.0 + self.pages()).filter_map(move |mfn| table.ram(Mfn(mfn)))
    }

    /// Zeroes what is not zero yet, by `zero`, but at most `limit` frames. Whether all of it is zero then.
    #[must_use]
    pub fn scrub(&mut self, table: FrameTable<'_>, limit: usize, mut zero: impl FnMut(&Unowned<'_>)) -> bool {
        let mut dirty = self.frames(table).filter(|f| f.info().is_dirty());
        for f in dirty.by_ref().take(limit) {
            zero(&Unowned(f));
            f.info().set_clean();
        }
        dirty.next().is_none()
    }

    /// Notes that all of it is zero.
    pub fn known_clean(&mut self, table: FrameTable<'_>) {
        for f in self.frames(table) {
            f.info().set_clean();
        }
    }

    /// Marks all of it as holding somebody's data.
    pub fn soil(&mut self, table: FrameTable<'_>) {
        for f in self.frames(table) {
            f.info().set_ram(true);
        }
    }

    /// Gives the frames to a domain: on its list, with one reference each. The first frame's number.
    pub fn assign(self, table: FrameTable<'_>, owner: DomId, list: &mut PageList) -> Mfn {
        for f in self.frames(table) {
            list.push(table, f);
            f.info().assign(owner, false);
        }
        self.mfn
    }

    /// Gives the frames to a domain (or `DOMID_XEN`) as pages of the hypervisor that the owner may map: they are on no
    /// list, and the hypervisor drops the reference of the allocation when it has no more use for them.
    pub fn share(self, table: FrameTable<'_>, owner: DomId) -> Mfn {
        for f in self.frames(table) {
            f.info().assign(owner, true);
        }
        self.mfn
    }

    /// Keeps the frames for the hypervisor itself.
    pub fn keep(self, table: FrameTable<'_>) -> (Mfn, u8) {
        for f in self.frames(table) {
            f.info().keep();
        }
        (self.mfn, self.order)
    }
}

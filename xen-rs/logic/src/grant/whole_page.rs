//! The short way of what is nearly all there ever is: the only use of a whole page, by an entry of version 1.

use xen_abi::grant_table as abi;
use xen_abi::ids::{DomId, Gfn, GrantRef, Mfn};

use super::entry::{Access, EntryCell, EntryPage, Extent, Purpose, Via, Word, type_mask};
use super::table::{ENTRIES_PER_FRAME, Frame, Table, Version};
use crate::num::index_below;

/// The entries of a locked table of version 1. What is seen in them is good until the table is unlocked.
#[derive(Debug)]
pub struct Offers<'t, P>(&'t [Frame<P>]);

/// A whole page that an entry grants and nobody uses.
#[derive(Debug)]
pub struct Offer<C> {
    cell: C,
    word: Word,
    access: Access,
}

/// An [`Offer`] that is being used: the guest sees so.
#[derive(Debug)]
#[must_use = "the guest would wait for ever"]
pub struct InUse<C> {
    cell: C,
    access: Access,
}

impl<'t, P: EntryPage> Offers<'t, P> {
    /// What an entry grants `by` for as long as the table is locked: then nobody else sees the use, and it is not recorded.
    /// `None`: it is not as usual; [`Table::claim`] tells more.
    #[inline(always)]
    #[must_use]
    pub fn get(&self, gref: GrantRef, by: DomId, access: Access) -> Option<Offer<P::Cell<'t>>> {
        let frame = self.0.get(index_below((gref.0 / ENTRIES_PER_FRAME).into(), self.0.len())?)?;
        let index = (gref.0 % ENTRIES_PER_FRAME) as usize;
        let cell = frame.shared.cell(index);
        let word = Word(cell.load());
        let is_free = !frame.active.get(index)?.is_pinned();
        (is_free && grants(word, by, access)).then_some(Offer { cell, word, access })
    }
}

impl<C: EntryCell> Offer<C> {
    /// The guest's number of the page.
    #[inline(always)]
    #[must_use]
    pub fn gfn(&self) -> Gfn {
        self.word.frame()
    }

    /// Begins the use, if the entry still says the same.
    #[inline(always)]
    #[must_use]
    pub fn begin(self) -> Option<InUse<C>> {
        let new = self.word.0 | u64::from(self.access.status());
        self.cell.compare_exchange(self.word.0, new).ok()?;
        Some(InUse { cell: self.cell, access: self.access })
    }
}

impl<C: EntryCell> InUse<C> {
    /// Ends the use.
    #[inline(always)]
    pub fn end(self) {
        self.cell.and(!u64::from(self.access.status()));
    }
}

/// Whether a word of version 1 grants `by` a whole page.
#[inline(always)]
fn grants(word: Word, by: DomId, access: Access) -> bool {
    let forbidden = if access == Access::Write { abi::GTF_READONLY } else { 0 };
    let seen = Word::new(type_mask(Purpose::Map) | forbidden, DomId(u16::MAX), 0).0;
    word.0 & seen == Word::new(abi::GTF_PERMIT_ACCESS, by, 0).0
}

impl<P: EntryPage> Table<P> {
    /// The entries, if they are of version 1.
    #[inline(always)]
    #[must_use]
    pub fn offers(&self) -> Option<Offers<'_, P>> {
        (self.version == Version::One).then_some(Offers(&self.frames))
    }

    /// The usual case of [`Table::pin`], and all there is to it: an entry of version 1 that grants a whole page and is not
    /// in use. The page; where it is `None`, nothing has changed, and `pin` tells more.
    #[inline(always)]
    pub fn pin_at_once(
        &mut self,
        gref: GrantRef,
        by: DomId,
        access: Access,
        frame: impl FnOnce(Gfn) -> Option<Mfn>,
    ) -> Option<Mfn> {
        let (shared, index, active) = self.entry_of_one(gref)?;
        let word = Word(shared.load(index));
        if active.is_pinned() || !grants(word, by, access) {
            return None;
        }
        let mfn = frame(word.frame())?;
        shared.compare_exchange(index, word.0, word.0 | u64::from(access.status())).ok()?;
        active.begin(by, mfn, Extent::PAGE);
        active.pin(access, Via::HOST);
        self.pinned += 1;
        Some(mfn)
    }

    /// Ends a use that was begun by [`Table::pin_at_once`] if it is the only one still; else [`Table::unpin`] is left to do.
    #[inline(always)]
    #[must_use]
    pub fn unpin_at_once(&mut self, gref: GrantRef, access: Access) -> bool {
        let Some((shared, index, active)) = self.entry_of_one(gref) else { return false };
        if !active.end_only_use(access) {
            return false;
        }
        shared.and(index, !u64::from(access.status()));
        self.pinned -= 1;
        true
    }
}

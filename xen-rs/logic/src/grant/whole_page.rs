//! The short way of what is nearly all there ever is: the only use of a whole page, by an entry of version 1.

use xen_abi::grant_table as abi;
use xen_abi::ids::{DomId, Gfn, GrantRef, Mfn};

use super::entry::{Access, EntryPage, Extent, Purpose, Via, Word, type_mask};
use super::table::Table;

impl<P: EntryPage> Table<P> {
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
        let forbidden = if access == Access::Write { abi::GTF_READONLY } else { 0 };
        let seen = Word::new(type_mask(Purpose::Map) | forbidden, DomId(u16::MAX), 0).0;
        if active.is_pinned() || word.0 & seen != Word::new(abi::GTF_PERMIT_ACCESS, by, 0).0 {
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

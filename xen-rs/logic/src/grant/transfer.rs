//! Entries that wait for a page to be given (`GTF_accept_transfer`), and finding a page among the grants in use.

use xen_abi::grant_table as abi;
use xen_abi::ids::{DomId, Gfn, GrantRef, Mfn};

use super::entry::{EntryPage, Word};
use super::table::Table;
use super::version2;

/// How often an entry that the guest keeps changing is tried.
const TRIES: u32 = 5;

/// Whether a page is in use by a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Search {
    /// It is.
    Found,
    /// Not by those looked at: go on here.
    Unfinished(GrantRef),
    /// It is not.
    NotFound,
}

impl<P: EntryPage> Table<P> {
    /// An entry that waits for a page from `from` now waits for no other: its transfer is committed. False if it does not
    /// wait, and for one beyond the table.
    pub fn commit_transfer(&mut self, gref: GrantRef, from: DomId) -> bool {
        let Some(entry) = self.entry(gref) else { return false };
        let index = if entry.status.is_some() { entry.index * 2 } else { entry.index };
        let mut word = Word(entry.page.load(index));
        for _ in 0..TRIES {
            if word.flags() != abi::GTF_ACCEPT_TRANSFER || word.domain() != from {
                return false;
            }
            let committed = word.0 | u64::from(abi::GTF_TRANSFER_COMMITTED);
            match entry.page.compare_exchange(index, word.0, committed) {
                Ok(()) => return true,
                Err(found) => word = Word(found),
            }
        }
        false
    }

    /// The page of a committed transfer is the domain's: its entry names it. The number that the entry had for it.
    pub fn complete_transfer(&mut self, gref: GrantRef, mfn: Mfn) -> Option<Gfn> {
        let entry = self.entry(gref)?;
        let completed = u64::from(abi::GTF_TRANSFER_COMPLETED);
        Some(if entry.status.is_some() {
            let pfn = version2::frame(entry.page, entry.index);
            entry.page.store(entry.index * 2 + 1, mfn.0);
            entry.page.or(entry.index * 2, completed);
            pfn
        } else {
            let pfn = Word(entry.page.load(entry.index)).frame();
            // Frames end far below 2^32: the direct map's size.
            entry.page.and(entry.index, u64::from(u32::MAX));
            entry.page.or(entry.index, mfn.0 << 32);
            entry.page.or(entry.index, completed);
            pfn
        })
    }

    /// Looks for a use by `by` of this frame, among at most `most` entries from `from` on.
    pub fn find_use(&mut self, by: DomId, frame: Mfn, from: GrantRef, most: u32) -> Search {
        let end = from.0.saturating_add(most).min(self.entries());
        for number in from.0..end {
            if self.entry(GrantRef(number)).is_some_and(|entry| entry.is_use_of(by, frame)) {
                return Search::Found;
            }
        }
        if end < self.entries() { Search::Unfinished(GrantRef(end)) } else { Search::NotFound }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::tests::{good, page};
    use super::super::{Access, Purpose, Version, Via};
    use super::*;

    const OWN: DomId = DomId(1);
    const OTHER: DomId = DomId(5);

    #[test]
    fn an_entry_takes_one_page() {
        let mut table = Table::new(OWN, 4, Version::One);
        let entries = page(100);
        table.add_frame(entries.clone()).unwrap();
        entries.store(9, Word::new(abi::GTF_ACCEPT_TRANSFER, OTHER, 77).0);
        assert!(!table.commit_transfer(GrantRef(9), OWN), "from another");
        assert!(!table.commit_transfer(GrantRef(8), OTHER), "it waits for nothing");
        assert!(!table.commit_transfer(GrantRef(512), OTHER), "beyond the table");
        assert!(table.commit_transfer(GrantRef(9), OTHER));
        assert!(!table.commit_transfer(GrantRef(9), OTHER), "twice");
        assert_eq!(table.complete_transfer(GrantRef(9), Mfn(0x1234)), Some(Gfn(77)));
        let all = abi::GTF_ACCEPT_TRANSFER | abi::GTF_TRANSFER_COMMITTED | abi::GTF_TRANSFER_COMPLETED;
        assert_eq!(entries.load(9), Word::new(all, OTHER, 0x1234).0);
    }

    #[test]
    fn uses_are_found_in_steps() {
        let mut table = Table::new(OWN, 4, Version::One);
        let entries = page(100);
        table.add_frame(entries.clone()).unwrap();
        entries.store(300, Word::new(abi::GTF_PERMIT_ACCESS, OTHER, 7).0);
        let find = |table: &mut Table<_>, from| table.find_use(OTHER, Mfn(7), GrantRef(from), 256);
        assert_eq!(find(&mut table, 256), Search::NotFound, "not in use yet");
        let pinned = table.pin(GrantRef(300), OTHER, Access::Read, Via::HOST, Purpose::Map, good).unwrap();
        let mut find = |from| table.find_use(OTHER, pinned.frame, GrantRef(from), 256);
        assert_eq!(find(0), Search::Unfinished(GrantRef(256)));
        assert_eq!(find(256), Search::Found);
        assert_eq!(find(301), Search::NotFound);
        assert_eq!(find(u32::MAX), Search::NotFound);
        assert_eq!(table.find_use(OWN, pinned.frame, GrantRef(256), 256), Search::NotFound, "another's");
    }
}

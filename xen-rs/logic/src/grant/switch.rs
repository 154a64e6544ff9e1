//! `GNTTABOP_set_version` and `GNTTABOP_swap_grant_ref`: a domain has entries moved into another layout or place.

use xen_abi::errno::Errno;
use xen_abi::grant_table as abi;
use xen_abi::ids::GrantRef;

use super::Refusal;
use super::entry::{EntryPage, Word};
use super::table::{Entry, Table, Version};
use super::version2::status_frames;

/// Entries at the beginning that stay, in use or not: the tools' (console, xenstore).
const RESERVED: u32 = abi::GNTTAB_NR_RESERVED_ENTRIES;
const STATUS: u16 = abi::GTF_READING | abi::GTF_WRITING;

impl<P: EntryPage> Table<P> {
    /// The version in force.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The pages of status that count: none in version 1.
    #[must_use]
    pub fn status_frames(&self) -> u32 {
        match self.version {
            Version::One => 0,
            Version::Two => status_frames(self.frames()),
        }
    }

    /// A page of status.
    #[must_use]
    pub fn status_frame(&self, index: u32) -> Option<&P> {
        if index < self.status_frames() { self.status.get(index as usize) } else { None }
    }

    /// How many pages of status are missing for so many pages of entries of version 2.
    #[must_use]
    pub fn missing_status(&self, frames: u32) -> u32 {
        status_frames(frames).saturating_sub(u32::try_from(self.status.len()).unwrap_or(u32::MAX))
    }

    /// Adds a page of status. ENOMEM gives it back.
    pub fn add_status(&mut self, page: P) -> Result<(), (P, Errno)> {
        if self.closed || self.status.try_reserve(1).is_err() {
            return Err((page, Errno::ENOMEM));
        }
        self.status.push(page);
        Ok(())
    }

    /// What version a guest's number asks for: EINVAL when there is none, ENOSYS when it is not offered (as if this had
    /// never been invented).
    pub fn wanted_version(&self, number: u32) -> Result<Version, Errno> {
        let version = Version::new(number).ok_or(Errno::EINVAL)?;
        if version > self.max_version { Err(Errno::ENOSYS) } else { Ok(version) }
    }

    /// Changes the version: EBUSY while entries beyond the first eight are in use, or pages of status are mapped that are
    /// to go; ERANGE when one of the eight cannot be said in the other layout; ENOMEM as long as pages of status are
    /// missing. All entries but those eight are emptied.
    pub fn set_version(&mut self, version: Version) -> Result<(), Errno> {
        if version == self.version {
            return Ok(());
        }
        let reserved = (0..RESERVED).map(GrantRef);
        let kept_uses = reserved.clone().filter(|gref| self.is_pinned(*gref)).count();
        if usize::try_from(self.pinned()).is_ok_and(|all| all > kept_uses) {
            return Err(Errno::EBUSY);
        }
        if version == Version::Two && self.missing_status(self.frames()) != 0 {
            return Err(Errno::ENOMEM);
        }
        let mut kept = [([0u64; 2], 0u16); RESERVED as usize];
        for (gref, kept) in reserved.clone().zip(&mut kept) {
            let old = self.content(gref);
            *kept = match version {
                Version::One => narrow(old)?,
                Version::Two => widen(old),
            };
        }
        if version == Version::One && self.status.iter().any(EntryPage::is_mapped) {
            return Err(Errno::EBUSY);
        }
        // Under one lock: a table that is half emptied is of no version. A domain has 64 frames and their status at most.
        self.frames.iter().map(|frame| &frame.shared).chain(&self.status).for_each(EntryPage::empty);
        self.version = version;
        reserved.zip(kept).for_each(|(gref, content)| self.set_content(gref, content));
        Ok(())
    }

    /// `GNTTABOP_swap_grant_ref`: bad reference beyond the table, EAGAIN while one of them is in use.
    pub fn swap(&mut self, a: GrantRef, b: GrantRef) -> Result<(), Refusal> {
        let entries = self.entries();
        if a.0 >= entries || b.0 >= entries {
            return Err(Refusal::BadGntref);
        }
        if a == b {
            return Ok(());
        }
        if self.is_pinned(a) || self.is_pinned(b) {
            return Err(Refusal::Again);
        }
        let (old_a, old_b) = (self.content(a), self.content(b));
        self.set_content(a, old_b);
        self.set_content(b, old_a);
        Ok(())
    }

    /// The words of an entry, and its status.
    pub(super) fn content(&mut self, gref: GrantRef) -> ([u64; 2], u16) {
        match self.entry(gref) {
            Some(Entry { page, index, status: None, .. }) => ([page.load(index), 0], 0),
            Some(Entry { page, index, status: Some((status, place)), .. }) => {
                ([page.load(index * 2), page.load(index * 2 + 1)], place.get(status))
            }
            None => ([0; 2], 0),
        }
    }

    /// Writes all of an entry, and its status.
    pub(super) fn set_content(&mut self, gref: GrantRef, (words, flags): ([u64; 2], u16)) {
        match self.entry(gref) {
            Some(Entry { page, index, status: None, .. }) => page.store(index, words[0]),
            Some(Entry { page, index, status: Some((status, place)), .. }) => {
                page.store(index * 2 + 1, words[1]);
                page.store(index * 2, words[0]);
                place.clear(status, u16::MAX);
                place.set(status, flags);
            }
            None => {}
        }
    }
}

/// An entry of version 1 in version 2.
fn widen(([word, _], _): ([u64; 2], u16)) -> ([u64; 2], u16) {
    let word = Word(word);
    ([Word::new(word.flags() & !STATUS, word.domain(), 0).0, word.frame().0], word.flags() & STATUS)
}

/// An entry of version 2 in version 1: ERANGE for what has no place there. What grants nothing is dropped.
fn narrow(([first, second], status): ([u64; 2], u16)) -> Result<([u64; 2], u16), Errno> {
    let word = Word(first);
    match word.flags() & abi::GTF_TYPE_MASK {
        abi::GTF_PERMIT_ACCESS => {
            let frame = u32::try_from(second).map_err(|_| Errno::ERANGE)?;
            Ok(([Word::new(word.flags() | status, word.domain(), frame).0, 0], 0))
        }
        abi::GTF_TRANSITIVE => Err(Errno::ERANGE),
        _ => Ok(([0; 2], 0)),
    }
}

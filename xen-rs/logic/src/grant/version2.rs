//! Entries of version 2: two words and a status each, pages above 16 TiB, parts of pages, and grants passed on.

use xen_abi::grant_table as abi;
use xen_abi::ids::{DomId, Gfn, GrantRef};

use super::Refusal;
use super::entry::{Access, EntryPage, Extent, Purpose, Word, type_mask};

/// Entries in one page.
pub const ENTRIES_PER_FRAME: u32 = 256;
/// Entries whose status fits in one page.
pub const STATUS_PER_FRAME: u32 = 2048;

/// Pages of status that so many pages of entries need.
#[must_use]
pub const fn status_frames(frames: u32) -> u32 {
    (frames * ENTRIES_PER_FRAME).div_ceil(STATUS_PER_FRAME)
}

/// Where an entry's status is on its page: the word, and the shift in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct StatusPlace {
    pub(super) word: usize,
    shift: u32,
}

impl StatusPlace {
    pub(super) const fn of(gref: GrantRef) -> Self {
        let index = gref.0 % STATUS_PER_FRAME;
        StatusPlace { word: (index / 4) as usize, shift: index % 4 * 16 }
    }

    const fn bits(self, flags: u16) -> u64 {
        (flags as u64) << self.shift
    }

    pub(super) fn set<P: EntryPage>(self, page: &P, flags: u16) {
        page.or(self.word, self.bits(flags));
    }

    pub(super) fn clear<P: EntryPage>(self, page: &P, flags: u16) {
        page.and(self.word, !self.bits(flags));
    }

    #[allow(clippy::cast_possible_truncation, reason = "takes one field")]
    pub(super) fn get<P: EntryPage>(self, page: &P) -> u16 {
        (page.load(self.word) >> self.shift) as u16
    }
}

/// What an entry says, as it was when its status had been set.
#[derive(Debug, Clone, Copy)]
pub(super) enum Granted {
    /// A page of the granting domain's, or a part of one.
    Page(Gfn, Extent),
    /// What this grant gave to the granting domain.
    PassedOn(DomId, GrantRef),
}

/// The first word of the entry with this index on its page.
pub(super) fn header<P: EntryPage>(page: &P, index: usize) -> Word {
    Word(page.load(index * 2))
}

/// The frame of an entry.
pub(super) fn frame<P: EntryPage>(page: &P, index: usize) -> Gfn {
    Gfn(page.load(index * 2 + 1))
}

/// Whether a word passes a grant on.
pub(super) fn passes_on(word: Word) -> bool {
    word.flags() & abi::GTF_TYPE_MASK == abi::GTF_TRANSITIVE
}

/// Sets `GTF_reading` (and `GTF_writing`) in the status of an entry that grants `by` the access.
///
/// The guest revokes by changing the entry and then looking at the status; here the status is set and then the entry looked
/// at again. One of the two sees the other.
pub(super) fn set_status<P: EntryPage>(
    (page, index): (&P, usize),
    (status, place): (&P, StatusPlace),
    pinned: bool,
    by: DomId,
    access: Access,
    purpose: Purpose,
) -> Result<Granted, Refusal> {
    let permits = |word: Word| {
        let kind = word.flags() & type_mask(purpose);
        (kind == abi::GTF_PERMIT_ACCESS || kind == abi::GTF_TRANSITIVE) && word.domain() == by
    };
    let writes = access == Access::Write;
    let read_only = |word: Word| writes && word.flags() & abi::GTF_READONLY != 0;
    let before = header(page, index);
    if (!pinned && !permits(before)) || read_only(before) {
        return Err(Refusal::GeneralError);
    }
    place.set(status, access.status());
    let word = header(page, index);
    if (!pinned && !permits(word)) || read_only(word) {
        let taken_back = if pinned { abi::GTF_WRITING } else { abi::GTF_READING | abi::GTF_WRITING };
        place.clear(status, taken_back);
        return Err(Refusal::GeneralError);
    }
    let second = page.load(index * 2 + 1);
    let (first_byte, length) = word.upper();
    Ok(if passes_on(word) {
        #[allow(clippy::cast_possible_truncation, reason = "the reference is the low half")]
        Granted::PassedOn(DomId(first_byte), GrantRef(second as u32))
    } else if word.flags() & abi::GTF_SUB_PAGE != 0 {
        Granted::Page(Gfn(second), Extent { start: first_byte, length, is_part: true })
    } else {
        Granted::Page(Gfn(second), Extent::PAGE)
    })
}

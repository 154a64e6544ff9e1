//! The granting side: pages of entries and what is in use of them.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::num::index_below;
use xen_abi::errno::Errno;
use xen_abi::grant_table as abi;
use xen_abi::ids::{DomId, Gfn, GrantRef, Mfn};

use super::entry::{Access, Active, EntryPage, Purpose, Via, Word, set_status};
use super::maptrack::Detached;
use super::{Flushed, Refusal};

/// Entries of version 1 in one page.
pub const ENTRIES_PER_FRAME: u32 = 512;

/// The table of a granting domain, over shared pages of type `P`.
#[derive(Debug)]
pub struct Table<P> {
    frames: Vec<Frame<P>>,
    max_frames: u32,
    /// Entries in use: none may be when the table goes.
    pinned: u32,
}

#[derive(Debug)]
struct Frame<P> {
    shared: P,
    active: Box<[Active]>,
}

/// A grant that is now in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Pinned {
    /// The page. The caller takes its references on it, and unpins when that fails.
    pub frame: Mfn,
    /// `GTF_PWT`, `GTF_PCD` and `GTF_PAT` of the entry, for frames that are not memory.
    pub cache_flags: u16,
}

/// References that nobody needs any more, to be given up by `Mmu::put_freed` of `logic::page`: a general one for each
/// way, and a writable type reference with it after a use that could write.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the page would be kept for ever"]
pub struct Freed {
    frame: Mfn,
    access: Access,
    via: Via,
}

impl Freed {
    /// The page.
    #[must_use]
    pub const fn frame(&self) -> Mfn {
        self.frame
    }

    /// What the uses were.
    #[must_use]
    pub const fn access(&self) -> Access {
        self.access
    }

    /// One reference for each way.
    #[must_use]
    pub const fn via(&self) -> Via {
        self.via
    }

    #[cfg(test)]
    pub(crate) const fn of(frame: Mfn, writable: bool) -> Freed {
        Freed { frame, access: if writable { Access::Write } else { Access::Read }, via: Via::HOST }
    }
}

impl<P: EntryPage> Table<P> {
    /// A table without pages. `gnttab_set_version` and the rest work on it, every grant is refused.
    #[must_use]
    pub fn new(max_frames: u32) -> Self {
        Table { frames: Vec::new(), max_frames, pinned: 0 }
    }

    /// Pages in use (`nr_frames` of `GNTTABOP_query_size`).
    #[must_use]
    pub fn frames(&self) -> u32 {
        u32::try_from(self.frames.len()).unwrap_or(u32::MAX)
    }

    /// Pages it may have (`max_nr_frames`).
    #[must_use]
    pub fn max_frames(&self) -> u32 {
        self.max_frames
    }

    /// Entries there are pages for.
    #[must_use]
    pub fn entries(&self) -> u32 {
        self.frames() * ENTRIES_PER_FRAME
    }

    /// Entries in use by someone.
    #[must_use]
    pub fn pinned(&self) -> u32 {
        self.pinned
    }

    /// How many pages are missing for `wanted` of them; general error above the limit. (`GNTTABOP_setup_table` with 0
    /// leaves one page.)
    pub fn missing(&self, wanted: u32) -> Result<u32, Refusal> {
        if wanted > self.max_frames {
            return Err(Refusal::GeneralError);
        }
        Ok(wanted.max(1).saturating_sub(self.frames()))
    }

    /// Adds a page of zeroes. ENOMEM gives it back.
    pub fn add_frame(&mut self, shared: P) -> Result<(), (P, Errno)> {
        let mut active = Vec::new();
        if self.frames.try_reserve(1).is_err() || active.try_reserve_exact(ENTRIES_PER_FRAME as usize).is_err() {
            return Err((shared, Errno::ENOMEM));
        }
        active.resize(ENTRIES_PER_FRAME as usize, Active::default());
        self.frames.push(Frame { shared, active: active.into_boxed_slice() });
        Ok(())
    }

    /// The page with this index.
    #[must_use]
    pub fn frame(&self, index: u32) -> Option<&P> {
        self.frames.get(usize::try_from(index).ok()?).map(|frame| &frame.shared)
    }

    /// Takes the last page away, at the end of the domain.
    pub fn remove_frame(&mut self) -> Option<P> {
        self.frames.pop().map(|frame| frame.shared)
    }

    fn entry(&mut self, gref: GrantRef) -> Option<(&P, usize, &mut Active)> {
        let page = index_below((gref.0 / ENTRIES_PER_FRAME).into(), self.frames.len())?;
        let frame = self.frames.get_mut(page)?;
        let index = (gref.0 % ENTRIES_PER_FRAME) as usize;
        Some((&frame.shared, index, frame.active.get_mut(index)?))
    }

    /// Writes an entry for the guest (the reserved grants of a domain that is being built).
    pub fn grant(&mut self, gref: GrantRef, to: DomId, frame: u32) -> Result<(), Refusal> {
        let (page, index, _) = self.entry(gref).ok_or(Refusal::BadGntref)?;
        page.store(index, Word::new(abi::GTF_PERMIT_ACCESS, to, frame).0);
        Ok(())
    }

    /// Begins a use of a grant by the domain `by`.
    ///
    /// When it is the first use, `frame` finds the machine frame behind the guest's number, or says why not: usually
    /// [`Refusal::BadPage`], since it is not the granting domain's.
    pub fn pin(
        &mut self,
        gref: GrantRef,
        by: DomId,
        access: Access,
        via: Via,
        purpose: Purpose,
        frame: impl FnOnce(Gfn) -> Result<Mfn, Refusal>,
    ) -> Result<Pinned, Refusal> {
        let (page, index, active) = self.entry(gref).ok_or(Refusal::BadGntref)?;
        if !active.admits(by, access, via) {
            return Err(Refusal::GeneralError);
        }
        let first = !active.is_pinned();
        let mut word = Word(page.load(index));
        if active.needs_status(access) {
            word = set_status(page, index, !first, by, access, purpose)?;
            if first {
                match frame(word.frame()) {
                    Ok(mfn) => active.begin(by, mfn),
                    Err(refusal) => {
                        page.and(index, !u64::from(active.stale_flags(access)));
                        return Err(refusal);
                    }
                }
            }
        }
        active.pin(access, via);
        let cache_flags = word.flags() & (abi::GTF_PWT | abi::GTF_PCD | abi::GTF_PAT);
        let pinned = Pinned { frame: active.frame, cache_flags };
        self.pinned += u32::from(first);
        Ok(pinned)
    }

    /// Ends a use that never came to a mapping, or a copy.
    pub fn unpin(&mut self, gref: GrantRef, access: Access, via: Via) {
        let Some((page, index, active)) = self.entry(gref) else { return };
        if !active.is_pinned() {
            return;
        }
        active.unpin(access, via);
        let stale = active.stale_flags(access);
        let last = !active.is_pinned();
        if stale != 0 {
            page.and(index, !u64::from(stale));
        }
        self.pinned -= u32::from(last);
    }

    /// Ends the use that a mapping was, now that no TLB knows it any more.
    pub fn release(&mut self, mapping: Detached, _flushed: &Flushed) -> Freed {
        let (gref, access, via, frame) = mapping.into_parts();
        self.unpin(gref, access, via);
        Freed { frame, access, via }
    }

    /// Ends the use that a mapping was although its entry may still be there: its domain dies and runs no more. The
    /// entry keeps its references until its table goes, a device's use ends now.
    pub fn forget(&mut self, mapping: Detached) -> Freed {
        let (gref, access, via, frame) = mapping.into_parts();
        self.unpin(gref, access, via);
        Freed { frame, access, via: Via { host: false, device: via.device } }
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
        let read = |table: &mut Self, gref| {
            let (page, index, active) = table.entry(gref).ok_or(Refusal::BadGntref)?;
            if active.is_pinned() { Err(Refusal::Again) } else { Ok(page.load(index)) }
        };
        let (word_a, word_b) = (read(self, a)?, read(self, b)?);
        for (gref, word) in [(a, word_b), (b, word_a)] {
            let (page, index, _) = self.entry(gref).ok_or(Refusal::BadGntref)?;
            page.store(index, word);
        }
        Ok(())
    }

    /// `GNTTABOP_set_version`: EINVAL for a version that does not exist, ENOSYS for the second, as Xen does when it is
    /// told to offer only the first.
    pub fn set_version(version: u32) -> Result<(), Errno> {
        match version {
            1 => Ok(()),
            2 => Err(Errno::ENOSYS),
            _ => Err(Errno::EINVAL),
        }
    }
}

//! The granting side: pages of entries and what is in use of them.

use alloc::boxed::Box;
use alloc::vec::Vec;

use xen_abi::errno::Errno;
use xen_abi::grant_table as abi;
use xen_abi::ids::{DomId, Gfn, GrantRef, Mfn};

use super::entry::{Access, Active, EntryPage, Extent, Purpose, Uses, Via, Word, set_status};
use super::maptrack::{Detached, TableId};
use super::version2::{self, Granted, StatusPlace};
use super::{Flushed, Refusal};
use crate::num::index_below;

/// Entries of version 1 in one page.
pub const ENTRIES_PER_FRAME: u32 = 512;

/// The layouts of entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Version {
    /// 8 bytes each, with their status.
    One = 1,
    /// 16 bytes each, and their status elsewhere.
    Two = 2,
}

impl Version {
    /// Of a guest's number.
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        match number {
            1 => Some(Version::One),
            2 => Some(Version::Two),
            _ => None,
        }
    }

    /// Entries in one page.
    const fn per_frame(self) -> u32 {
        match self {
            Version::One => ENTRIES_PER_FRAME,
            Version::Two => version2::ENTRIES_PER_FRAME,
        }
    }
}

/// The table of a granting domain, over shared pages of type `P`.
#[derive(Debug)]
pub struct Table<P> {
    own: DomId,
    id: TableId,
    pub(super) version: Version,
    pub(super) max_version: Version,
    pub(super) frames: Vec<Frame<P>>,
    /// Pages of status: enough for all entries while the version is 2, those of an earlier time otherwise.
    pub(super) status: Vec<P>,
    max_frames: u32,
    /// Entries in use: none may be when the table goes.
    pub(super) pinned: u32,
    /// The table goes: it takes no more pages.
    pub(super) closed: bool,
}

#[derive(Debug)]
pub(super) struct Frame<P> {
    pub(super) shared: P,
    pub(super) active: Box<[Active; ENTRIES_PER_FRAME as usize]>,
}

/// A grant that is now in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Pinned {
    /// The page. The caller takes its references on it, and unpins when that fails.
    pub frame: Mfn,
    /// What of it.
    pub extent: Extent,
}

/// What a copy finds behind a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Claim {
    /// A page.
    Pinned(Pinned),
    /// What this grant gives to the granting domain, which passes it on: claim it there, then [`Table::pin_passed_on`] or
    /// [`Table::give_up`] here.
    PassedOn(PassedOn),
}

/// A grant that is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassedOn {
    /// Whose it is.
    pub domain: DomId,
    /// Which.
    pub gref: GrantRef,
    /// The uses of the entry that passes it on when it was looked at.
    uses: Uses,
}

/// An entry and all that belongs to it.
pub(super) struct Entry<'a, P> {
    pub(super) page: &'a P,
    pub(super) index: usize,
    active: &'a mut Active,
    /// Version 2.
    pub(super) status: Option<(&'a P, StatusPlace)>,
}

impl<P: EntryPage> Entry<'_, P> {
    #[inline(always)]
    fn set_status(&self, by: DomId, access: Access, purpose: Purpose) -> Result<Granted, Refusal> {
        let pinned = self.active.is_pinned();
        match self.status {
            None => set_status(self.page, self.index, pinned, by, access, purpose)
                .map(|word| Granted::Page(word.frame(), Extent::PAGE)),
            Some(status) => version2::set_status((self.page, self.index), status, pinned, by, access, purpose),
        }
    }

    /// Whether it is in use by that domain, for that frame.
    pub(super) fn is_use_of(&self, by: DomId, frame: Mfn) -> bool {
        self.active.is_pinned() && self.active.is_by(by) && self.active.frame == frame
    }

    /// Clears the flags that no use justifies.
    #[inline(always)]
    fn clear_stale(&self, access: Access) {
        let stale = self.active.stale_flags(access);
        if stale != 0 {
            match self.status {
                None => self.page.and(self.index, !u64::from(stale)),
                Some((page, place)) => place.clear(page, stale),
            }
        }
    }
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

    #[cfg(all(test, not(loom)))]
    pub(crate) const fn of(frame: Mfn, writable: bool) -> Freed {
        Freed { frame, access: if writable { Access::Write } else { Access::Read }, via: Via::HOST }
    }
}

/// The page with an index that a guest chose.
#[inline(always)]
fn frame_at<P>(frames: &mut [Frame<P>], index: u32) -> Option<&mut Frame<P>> {
    frames.get_mut(index_below(index.into(), frames.len())?)
}

impl<P: EntryPage> Table<P> {
    /// A table of `own` without pages. `gnttab_set_version` and the rest work on it, every grant is refused.
    #[must_use]
    pub fn new(own: DomId, max_frames: u32, max_version: Version) -> Self {
        let version = Version::One;
        Table {
            own,
            id: TableId::next(),
            version,
            max_version,
            frames: Vec::new(),
            status: Vec::new(),
            max_frames,
            pinned: 0,
            closed: false,
        }
    }

    /// Which one it is, for the handles of its mappings.
    #[must_use]
    pub fn id(&self) -> TableId {
        self.id
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
        self.frames() * self.version.per_frame()
    }

    /// Entries in use by someone.
    #[must_use]
    pub fn pinned(&self) -> u32 {
        self.pinned
    }

    /// How many pages are missing for `wanted` of them; general error above the limit. (`GNTTABOP_setup_table` with 0
    /// leaves one page.)
    pub fn missing(&self, wanted: u32) -> Result<u32, Refusal> {
        if wanted > self.max_frames || self.closed {
            return Err(Refusal::GeneralError);
        }
        Ok(wanted.max(1).saturating_sub(self.frames()))
    }

    /// Adds a page of zeroes. ENOMEM gives it back, also in version 2 as long as the status of its entries has no page.
    pub fn add_frame(&mut self, shared: P) -> Result<(), (P, Errno)> {
        let mut active = Vec::new();
        if self.closed
            || (self.version == Version::Two && self.missing_status(self.frames() + 1) != 0)
            || self.frames.try_reserve(1).is_err()
            || active.try_reserve_exact(ENTRIES_PER_FRAME as usize).is_err()
        {
            return Err((shared, Errno::ENOMEM));
        }
        active.resize(ENTRIES_PER_FRAME as usize, Active::default());
        let Ok(active) = active.into_boxed_slice().try_into() else { return Err((shared, Errno::ENOMEM)) };
        self.frames.push(Frame { shared, active });
        Ok(())
    }

    /// The page with this index.
    #[must_use]
    pub fn frame(&self, index: u32) -> Option<&P> {
        self.frames.get(usize::try_from(index).ok()?).map(|frame| &frame.shared)
    }

    /// Takes the last page away, at the end of the domain.
    pub fn remove_frame(&mut self) -> Option<P> {
        self.closed = true;
        self.frames.pop().map(|frame| frame.shared).or_else(|| self.status.pop())
    }

    #[inline(always)]
    pub(super) fn entry(&mut self, gref: GrantRef) -> Option<Entry<'_, P>> {
        if self.version == Version::Two {
            return self.entry_of_two(gref);
        }
        self.entry_of_one(gref).map(|(page, index, active)| Entry { page, index, active, status: None })
    }

    #[cold]
    fn entry_of_two(&mut self, gref: GrantRef) -> Option<Entry<'_, P>> {
        let frame = frame_at(&mut self.frames, gref.0 / version2::ENTRIES_PER_FRAME)?;
        let index = (gref.0 % version2::ENTRIES_PER_FRAME) as usize;
        let status = (gref.0 / version2::STATUS_PER_FRAME).into();
        let status = self.status.get(index_below(status, self.status.len())?)?;
        let status = Some((status, StatusPlace::of(gref)));
        Some(Entry { page: &frame.shared, index, active: frame.active.get_mut(index)?, status })
    }

    /// Writes an entry for the guest (the reserved grants of a domain that is being built).
    pub fn grant(&mut self, gref: GrantRef, to: DomId, frame: u32) -> Result<(), Refusal> {
        let entry = self.entry(gref).ok_or(Refusal::BadGntref)?;
        match entry.status {
            None => entry.page.store(entry.index, Word::new(abi::GTF_PERMIT_ACCESS, to, frame).0),
            Some(_) => {
                entry.page.store(entry.index * 2 + 1, frame.into());
                entry.page.store(entry.index * 2, Word::new(abi::GTF_PERMIT_ACCESS, to, 0).0);
            }
        }
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
        let entry = self.entry(gref).ok_or(Refusal::BadGntref)?;
        let first = !entry.active.is_pinned();
        let is_part = !first && entry.active.extent.is_part;
        if !entry.active.admits(by, access, via) || (is_part && purpose == Purpose::Map) {
            return Err(Refusal::GeneralError);
        }
        if entry.active.needs_status(access) {
            let granted = entry.set_status(by, access, purpose)?;
            if first {
                let found = match granted {
                    Granted::Page(gfn, extent) => frame(gfn).map(|mfn| (mfn, extent)),
                    // Only copies may go through another domain.
                    Granted::PassedOn(..) => Err(Refusal::GeneralError),
                };
                match found {
                    Ok((mfn, extent)) => entry.active.begin(by, mfn, extent),
                    Err(refusal) => {
                        entry.clear_stale(access);
                        return Err(refusal);
                    }
                }
            }
        }
        entry.active.pin(access, via);
        let pinned = Pinned { frame: entry.active.frame, extent: entry.active.extent };
        self.pinned += u32::from(first);
        Ok(pinned)
    }

    #[inline(always)]
    pub(super) fn entry_of_one(&mut self, gref: GrantRef) -> Option<(&P, usize, &mut Active)> {
        if self.version != Version::One {
            return None;
        }
        let Frame { shared, active } = frame_at(&mut self.frames, gref.0 / ENTRIES_PER_FRAME)?;
        let index = (gref.0 % ENTRIES_PER_FRAME) as usize;
        Some((shared, index, active.get_mut(index)?))
    }

    /// [`Table::pin`] for a copy, which may find that the grant is passed on.
    #[inline(always)]
    pub fn claim(
        &mut self,
        gref: GrantRef,
        by: DomId,
        access: Access,
        frame: impl FnOnce(Gfn) -> Result<Mfn, Refusal>,
    ) -> Result<Claim, Refusal> {
        if self.version == Version::Two
            && let Some(passed_on) = self.claim_passed_on(gref, by, access)?
        {
            return Ok(Claim::PassedOn(passed_on));
        }
        self.pin(gref, by, access, Via::HOST, Purpose::Copy, frame).map(Claim::Pinned)
    }

    /// Sets the status of an entry that passes a grant on; `None` if it does not.
    fn claim_passed_on(&mut self, gref: GrantRef, by: DomId, access: Access) -> Result<Option<PassedOn>, Refusal> {
        let own = self.own;
        let entry = self.entry(gref).ok_or(Refusal::BadGntref)?;
        if !version2::passes_on(version2::header(entry.page, entry.index)) {
            return Ok(None);
        }
        if !entry.active.admits(by, access, Via::HOST) {
            return Err(Refusal::GeneralError);
        }
        let granted = if entry.active.needs_status(access) {
            entry.set_status(by, access, Purpose::Copy)?
        } else {
            let word = version2::header(entry.page, entry.index);
            #[allow(clippy::cast_possible_truncation, reason = "the reference is the low half")]
            Granted::PassedOn(DomId(word.upper().0), GrantRef(version2::frame(entry.page, entry.index).0 as u32))
        };
        match granted {
            // A domain cannot pass on what it grants itself.
            Granted::PassedOn(domain, origin) if domain != own => {
                Ok(Some(PassedOn { domain, gref: origin, uses: entry.active.uses() }))
            }
            // It changed under our eyes, or that.
            _ => {
                entry.clear_stale(access);
                Err(Refusal::GeneralError)
            }
        }
    }

    /// The grant that is passed on has been claimed, and is `page`: begins the use here. [`Refusal::Again`]: the entry or
    /// its uses changed meanwhile; nothing is left of the attempt here.
    pub fn pin_passed_on(
        &mut self,
        gref: GrantRef,
        by: DomId,
        access: Access,
        passed_on: PassedOn,
        page: Pinned,
    ) -> Result<Pinned, Refusal> {
        if self.version != Version::Two {
            return Err(Refusal::Again);
        }
        let entry = self.entry(gref).ok_or(Refusal::Again)?;
        let origin = Some((passed_on.domain, passed_on.gref));
        let extent = Extent { is_part: true, ..page.extent };
        let first = !entry.active.is_pinned();
        let active = &*entry.active;
        let same = first || (active.frame == page.frame && active.extent == extent && active.origin == origin);
        if active.uses() != passed_on.uses || !same || !entry.active.admits(by, access, Via::HOST) {
            entry.clear_stale(access);
            return Err(Refusal::Again);
        }
        if first {
            entry.active.begin(by, page.frame, extent);
            entry.active.origin = origin;
        }
        entry.active.pin(access, Via::HOST);
        self.pinned += u32::from(first);
        Ok(Pinned { frame: page.frame, extent })
    }

    /// The grant that is passed on could not be claimed.
    pub fn give_up(&mut self, gref: GrantRef, access: Access) {
        if let Some(entry) = self.entry(gref) {
            entry.clear_stale(access);
        }
    }

    /// Ends a use that never came to a mapping, or a copy. The grant that was passed on has to be unpinned, too.
    pub fn unpin(&mut self, gref: GrantRef, access: Access, via: Via) -> Option<(DomId, GrantRef)> {
        let entry = self.entry(gref)?;
        if !entry.active.is_pinned() {
            return None;
        }
        entry.active.unpin(access, via);
        entry.clear_stale(access);
        let (last, origin) = (!entry.active.is_pinned(), entry.active.origin);
        self.pinned -= u32::from(last);
        origin
    }

    /// Ends the use that a mapping was, now that no TLB knows it any more.
    pub fn release(&mut self, mapping: Detached, _flushed: &Flushed) -> Freed {
        self.end(mapping)
    }

    /// Ends the use that a mapping was although its entry may still be there: its domain dies and runs no more. The
    /// entry keeps its references until its table goes, a device's use ends now.
    pub fn forget(&mut self, mapping: Detached) -> Freed {
        let freed = self.end(mapping);
        Freed { via: freed.via.without(Via::HOST), ..freed }
    }

    fn end(&mut self, mapping: Detached) -> Freed {
        let Detached { table, gref, access, via, frame, .. } = mapping;
        // The domain whose grant it was may be gone, and its number another's.
        if table == self.id && (via != Via::HOST || !self.unpin_at_once(gref, access)) {
            // What is passed on is never mapped.
            let _ = self.unpin(gref, access, via);
        }
        Freed { frame, access, via }
    }

    /// Whether an entry is in use.
    pub(super) fn is_pinned(&mut self, gref: GrantRef) -> bool {
        self.entry(gref).is_some_and(|entry| entry.active.is_pinned())
    }
}

//! The mapping side: handles, and the life of a mapping.

use alloc::{boxed::Box, vec::Vec};
use core::sync::atomic::{AtomicU32, Ordering};

use crate::num::index_below;
use xen_abi::ids::{DomId, GrantHandle, GrantRef, Mfn};

use super::Refusal;
use super::entry::{Access, Via};

/// Which table, of all that there ever were: the number of a domain may come back, and a handle may outlive both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableId(u32);

impl TableId {
    /// The id of no table.
    const NONE: Self = Self(0);

    pub(super) fn next() -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed).wrapping_add(1))
    }
}

/// The mappings that a domain holds, by handle.
#[derive(Debug)]
pub struct Maptrack {
    /// In pieces of [`PER_FRAME`], so that growing takes a little memory at a time and copies nothing.
    frames: Vec<Tracks>,
    /// Most handles it may ever have.
    limit: u32,
    /// First of the free handles, linked through `gref`.
    free: u32,
    /// Handles that are not free.
    used: u32,
    /// Handles that the death of the domain has looked at.
    released: u32,
}

type Tracks = Box<[Track; PER_FRAME as usize]>;

#[derive(Debug, Clone, Copy)]
struct Track {
    frame: Mfn,
    gref: GrantRef,
    table: TableId,
    domain: DomId,
    access: Access,
    /// The mapping was made by the address of its entry.
    by_entry: bool,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    /// Given out, the mapping is being made.
    Reserved,
    /// Mapped; `claimed` of it is being unmapped by someone.
    Live {
        via: Via,
        claimed: Via,
    },
}

impl Track {
    const FREE: Track = Track {
        frame: Mfn(0),
        gref: GrantRef(NO_HANDLE),
        table: TableId::NONE,
        domain: DomId(0),
        access: Access::Read,
        by_entry: false,
        state: State::Free,
    };

    /// Makes it the first of the free ones.
    #[inline(always)]
    fn make_free(&mut self, first: &mut u32, own: GrantHandle) {
        self.state = State::Free;
        self.gref = GrantRef(core::mem::replace(first, own.0));
    }
}

const NO_HANDLE: u32 = u32::MAX;
/// Handles in one page of Xen's map track, the unit its limit is given in.
const PER_FRAME: u32 = 256;

/// Where a handle's record is: looked up once, and good from then on, since there are never fewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    frame: usize,
    index: u8,
}

/// A handle for a mapping that is being made: give it to [`Maptrack::commit`] or [`Maptrack::cancel`].
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Reserved(GrantHandle, Place);

/// A mapping of which some ways were claimed for unmapping: they are this holder's to take away.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct GrantMapping {
    handle: GrantHandle,
    place: Place,
    granter: DomId,
    table: TableId,
    gref: GrantRef,
    frame: Mfn,
    access: Access,
    by_entry: bool,
    via: Via,
}

/// A mapping whose page-table entry is gone while TLBs may still know it.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Detached {
    granter: DomId,
    pub(super) table: TableId,
    pub(super) gref: GrantRef,
    pub(super) frame: Mfn,
    pub(super) access: Access,
    pub(super) via: Via,
}

/// Proof that the TLBs of all CPUs that may have used a mapping were flushed after it was detached.
///
/// Only the code that waited for the flush makes one.
#[derive(Debug)]
pub struct Flushed(());

impl Flushed {
    /// To be called where a flush has just been acknowledged by all CPUs.
    #[must_use]
    pub const fn acknowledged() -> Self {
        Flushed(())
    }
}

/// What was mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapped {
    /// Whose grant.
    pub granter: DomId,
    /// The table that it is in.
    pub table: TableId,
    /// Which grant.
    pub gref: GrantRef,
    /// The page.
    pub frame: Mfn,
    /// What the mapping allows.
    pub access: Access,
    /// How it was mapped.
    pub via: Via,
    /// At the address of its page-table entry, not at that of the page.
    pub by_entry: bool,
}

/// What to unmap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unmap {
    /// The mapping.
    pub handle: GrantHandle,
    /// Which of its ways (those it does not have are ignored).
    pub via: Via,
}

/// What is at a handle's place. Apart from the rest of the map track, so that it can be changed along.
#[inline(always)]
fn track(frames: &mut [Tracks], place: Place) -> Option<&mut Track> {
    frames.get_mut(place.frame)?.get_mut(usize::from(place.index))
}

impl Maptrack {
    /// A map track of at most `frames` of Xen's pages of 256 handles.
    #[must_use]
    pub fn new(frames: u32) -> Self {
        Maptrack { frames: Vec::new(), limit: frames.saturating_mul(PER_FRAME), free: NO_HANDLE, used: 0, released: 0 }
    }

    /// Handles in use.
    #[must_use]
    pub fn used(&self) -> u32 {
        self.used
    }

    /// Where a handle's record is, if there is one.
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation, reason = "takes the low part")]
    fn place(&self, handle: GrantHandle) -> Option<Place> {
        const { assert!(PER_FRAME == 1 << u8::BITS) };
        let frame = index_below((handle.0 / PER_FRAME).into(), self.frames.len())?;
        Some(Place { frame, index: handle.0 as u8 })
    }

    /// How many handles there are, free or not.
    fn count(&self) -> u32 {
        u32::try_from(self.frames.len()).unwrap_or(u32::MAX).saturating_mul(PER_FRAME)
    }

    /// Makes one more piece of handles: no space at the limit or when memory is short.
    pub fn grow(&mut self) -> Result<(), Refusal> {
        let first = self.count();
        let mut tracks = Vec::new();
        if first >= self.limit
            || self.frames.try_reserve(1).is_err()
            || tracks.try_reserve_exact(PER_FRAME as usize).is_err()
        {
            return Err(Refusal::NoSpace);
        }
        tracks.resize(PER_FRAME as usize, Track::FREE);
        for (track, next) in tracks.iter_mut().zip(first + 1..first + PER_FRAME) {
            track.gref = GrantRef(next);
        }
        if let Some(last) = tracks.last_mut() {
            last.gref = GrantRef(self.free);
        }
        self.frames.push(tracks.into_boxed_slice().try_into().map_err(|_| Refusal::NoSpace)?);
        self.free = first;
        Ok(())
    }

    /// A handle for a new mapping: no space when none is free, until it [grows](Maptrack::grow).
    #[inline(always)]
    pub fn reserve(&mut self) -> Result<Reserved, Refusal> {
        let handle = GrantHandle(self.free);
        let place = self.place(handle).ok_or(Refusal::NoSpace)?;
        let track = track(&mut self.frames, place).ok_or(Refusal::NoSpace)?;
        track.state = State::Reserved;
        self.free = track.gref.0;
        self.used += 1;
        Ok(Reserved(handle, place))
    }

    /// The mapping was not made.
    pub fn cancel(&mut self, handle: Reserved) {
        if let Some(track) = track(&mut self.frames, handle.1) {
            self.used = self.used.saturating_sub(1);
            track.make_free(&mut self.free, handle.0);
        }
    }

    /// The mapping was made: from now on its handle can be unmapped.
    #[inline(always)]
    pub fn commit(&mut self, handle: Reserved, mapped: Mapped) -> GrantHandle {
        let Mapped { granter, table, gref, frame, access, via, by_entry } = mapped;
        if let Some(track) = track(&mut self.frames, handle.1) {
            let state = State::Live { via, claimed: Via::NOTHING };
            *track = Track { frame, gref, table, domain: granter, access, by_entry, state };
        }
        handle.0
    }

    /// Claims ways of a mapping for unmapping. Bad handle for one that is not mapped, or all of whose wanted ways
    /// somebody else is unmapping at the moment; `None` when it has none of the wanted ways.
    #[inline(always)]
    pub fn claim(&mut self, unmap: Unmap) -> Result<Option<GrantMapping>, Refusal> {
        let place = self.place(unmap.handle).ok_or(Refusal::BadHandle)?;
        let track = track(&mut self.frames, place).ok_or(Refusal::BadHandle)?;
        let State::Live { via, claimed } = &mut track.state else { return Err(Refusal::BadHandle) };
        let wanted = via.and(unmap.via);
        let got = wanted.without(*claimed);
        if !wanted.any() {
            return Ok(None);
        }
        if !got.any() {
            return Err(Refusal::BadHandle);
        }
        *claimed = claimed.or(got);
        Ok(Some(GrantMapping {
            handle: unmap.handle,
            place,
            granter: track.domain,
            table: track.table,
            gref: track.gref,
            frame: track.frame,
            access: track.access,
            by_entry: track.by_entry,
            via: got,
        }))
    }

    /// The unmapping failed: the mapping stays.
    pub fn unclaim(&mut self, mapping: GrantMapping) {
        if let Some(Track { state: State::Live { claimed, .. }, .. }) = track(&mut self.frames, mapping.place) {
            *claimed = claimed.without(mapping.via);
        }
    }

    /// The page-table entry is gone. The handle is free when nothing of the mapping is left.
    #[inline(always)]
    pub fn detach(&mut self, mapping: GrantMapping) -> Detached {
        let GrantMapping { handle, place, granter, table, gref, frame, access, via: gone, by_entry: _ } = mapping;
        if let Some(track) = track(&mut self.frames, place)
            && let State::Live { via, claimed } = &mut track.state
        {
            *via = via.without(gone);
            *claimed = claimed.without(gone);
            if !via.any() {
                self.used = self.used.saturating_sub(1);
                track.make_free(&mut self.free, handle);
            }
        }
        Detached { granter, table, gref, frame, access, via: gone }
    }

    /// The pages that devices use by the domain's mappings.
    pub fn of_devices(&self) -> impl Iterator<Item = (Mfn, Access)> {
        let tracks = self.frames.iter().flat_map(|frame| frame.iter());
        tracks
            .filter(|track| matches!(track.state, State::Live { via, .. } if via.device()))
            .map(|t| (t.frame, t.access))
    }

    /// The next mapping of a domain that dies, claimed whole. It makes no new ones any more, so each handle is looked at
    /// once; up to `most` of them in this call.
    pub fn claim_next(&mut self, most: &mut u32) -> Left {
        while self.released < self.count() && self.used != 0 {
            if *most == 0 {
                return Left::Unknown;
            }
            *most -= 1;
            let handle = GrantHandle(self.released);
            self.released += 1;
            if let Ok(Some(mapping)) = self.claim(Unmap { handle, via: Via::ALL }) {
                return Left::Mapping(mapping);
            }
        }
        Left::Nothing
    }
}

/// What is left of a dying domain's mappings.
#[derive(Debug, PartialEq, Eq)]
pub enum Left {
    /// This one, and perhaps more.
    Mapping(GrantMapping),
    /// To be looked at in another call.
    Unknown,
    /// Nothing.
    Nothing,
}

impl GrantMapping {
    /// The domain whose grant it is.
    #[must_use]
    pub fn granter(&self) -> DomId {
        self.granter
    }

    /// The page.
    #[must_use]
    pub fn frame(&self) -> Mfn {
        self.frame
    }

    /// What the mapping allows.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access
    }

    /// Whether its address is that of its page-table entry (`GNTMAP_contains_pte`).
    #[must_use]
    pub fn by_entry(&self) -> bool {
        self.by_entry
    }

    /// The ways that were claimed.
    #[must_use]
    pub fn via(&self) -> Via {
        self.via
    }
}

impl Detached {
    /// The domain whose table has to be told.
    #[must_use]
    pub fn granter(&self) -> DomId {
        self.granter
    }
}

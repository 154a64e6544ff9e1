//! What the hypervisor knows about one frame of memory: 32 bytes, and the table of them.

use xen_abi::ids::{DomId, Mfn};

use super::atomic::{AtomicU32, AtomicU64, Ordering};
use super::word::{Stamp, Word};

/// One frame. All fields are atomics, since any CPU may look at any frame.
///
/// The reference word counts what keeps the frame from being given to somebody else. It grows only from a count above
/// zero; at zero the frame belongs to whoever saw it become zero, and then to the allocator.
#[derive(Debug)]
pub struct PageInfo {
    /// The type word ([`Word`]).
    pub(super) word: AtomicU64,
    /// References in bits 0..48, flags above.
    pub(super) refs: AtomicU64,
    /// Owner: 0 for none, else the domain's id with bit 16 set.
    owner: AtomicU32,
    /// Links of the one list the frame is on: the owner's pages or the allocator's free blocks. Guarded by that list's lock.
    next: AtomicU32,
    /// See `next`.
    prev: AtomicU32,
    /// Of the first frame of an allocator block: 1 when some frame of the block may be dirty.
    spare: AtomicU32,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<PageInfo>() == 32);

/// The references in [`PageInfo::refs`].
const COUNT: u64 = (1 << 48) - 1;
const ORDER_SHIFT: u32 = 48;
const ORDER: u64 = 0x1f << ORDER_SHIFT;
/// Memory, as opposed to a hole in the map.
const RAM: u64 = 1 << 59;
/// Content of an earlier owner is still in it.
const DIRTY: u64 = 1 << 60;
/// First frame of a block of the allocator, whose order is in the word.
const HEAD: u64 = 1 << 61;
/// Belongs to the hypervisor: mapped by guests only as far as it was shared with them.
const SPECIAL: u64 = 1 << 62;
/// One reference is held by the owner for having been given the page.
const ALLOCATED: u64 = 1 << 63;

const OWNED: u32 = 1 << 16;

/// A domain, as frames say whose they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner(u32);

impl Owner {
    /// That domain.
    #[must_use]
    pub const fn of(domain: DomId) -> Self {
        Owner(OWNED | domain.0 as u32)
    }
}

impl PageInfo {
    /// A frame that is not memory.
    #[cfg(not(loom))]
    #[must_use]
    pub const fn hole() -> Self {
        PageInfo {
            word: AtomicU64::new(Word::NEW.0),
            refs: AtomicU64::new(0),
            owner: AtomicU32::new(0),
            next: AtomicU32::new(0),
            prev: AtomicU32::new(0),
            spare: AtomicU32::new(0),
        }
    }

    /// A frame that is not memory.
    #[cfg(loom)]
    #[must_use]
    pub fn hole() -> Self {
        PageInfo {
            word: AtomicU64::new(Word::NEW.0),
            refs: AtomicU64::new(0),
            owner: AtomicU32::new(0),
            next: AtomicU32::new(0),
            prev: AtomicU32::new(0),
            spare: AtomicU32::new(0),
        }
    }

    /// The type word as it is now.
    #[inline(always)]
    #[must_use]
    pub fn word(&self) -> Word {
        Word(self.word.load(Ordering::Acquire))
    }

    /// Who owns the frame. It is stable as long as the caller holds a reference.
    #[inline(always)]
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "the low half is the id")]
    pub fn owner(&self) -> Option<DomId> {
        let raw = self.owner.load(Ordering::Relaxed);
        (raw & OWNED != 0).then_some(DomId(raw as u16))
    }

    /// Whether this domain owns the frame: [`PageInfo::owner`] asked the other way round.
    #[inline(always)]
    #[must_use]
    pub fn is_owned_by(&self, domain: DomId) -> bool {
        self.owner.load(Ordering::Relaxed) == OWNED | u32::from(domain.0)
    }

    /// [`PageInfo::is_owned_by`].
    #[inline(always)]
    #[must_use]
    pub fn is_of(&self, owner: Owner) -> bool {
        self.owner.load(Ordering::Relaxed) == owner.0
    }

    /// Number of general references.
    #[inline(always)]
    #[must_use]
    pub fn references(&self) -> u64 {
        self.refs.load(Ordering::Relaxed) & COUNT
    }

    /// Whether the frame is memory at all.
    #[inline(always)]
    #[must_use]
    pub fn is_ram(&self) -> bool {
        self.refs.load(Ordering::Relaxed) & RAM != 0
    }

    /// Whether the frame belongs to the hypervisor.
    #[inline(always)]
    #[must_use]
    pub fn is_special(&self) -> bool {
        self.refs.load(Ordering::Relaxed) & SPECIAL != 0
    }

    /// Whether the owner's own reference is still there.
    #[inline(always)]
    #[must_use]
    pub fn is_allocated(&self) -> bool {
        self.refs.load(Ordering::Relaxed) & ALLOCATED != 0
    }

    /// Takes a reference if the frame is in use. Whose it is does not change from then on.
    #[inline(always)]
    #[must_use]
    pub(super) fn get_any(&self) -> bool {
        let mut old = self.refs.load(Ordering::Relaxed);
        while old & COUNT != 0 {
            match self.refs.compare_exchange_weak(old, old + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => old = now,
            }
        }
        false
    }

    /// Takes a reference if the frame is in use, and says whose it is.
    #[inline]
    #[must_use]
    pub(super) fn get(&self) -> Option<DomId> {
        if self.get_any() { self.owner() } else { None }
    }

    /// Takes one more reference where the caller already has one.
    #[inline]
    pub(super) fn get_more(&self) {
        let old = self.refs.fetch_add(1, Ordering::Relaxed);
        debug_assert!(old & COUNT != 0, "a reference out of nothing");
    }

    /// Drops a reference; true when it was the last, and then the frame is the caller's.
    #[inline]
    #[must_use]
    pub(super) fn put(&self) -> bool {
        let old = self.refs.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(old & COUNT != 0, "more references dropped than taken");
        old & COUNT == 1
    }

    /// Gives up the owner's own reference if it is still there: true once.
    #[inline]
    #[must_use]
    pub(super) fn take_allocated(&self) -> bool {
        self.refs.fetch_and(!ALLOCATED, Ordering::AcqRel) & ALLOCATED != 0
    }

    /// Takes the owner's own reference, if it is the only one and the page is an ordinary one: then nobody can refer to it.
    #[must_use]
    pub(super) fn seize(&self) -> bool {
        let alone = RAM | ALLOCATED | 1;
        self.refs.compare_exchange(alone, RAM, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Undoes [`PageInfo::seize`].
    pub(super) fn give_again(&self) {
        self.refs.store(RAM | ALLOCATED | 1, Ordering::Release);
    }

    /// Gives the frame, which belongs to nobody, to `owner`, with the one reference of the allocation. A `special` page
    /// is written by the hypervisor at any time, so it has a type reference for that too.
    pub(crate) fn assign(&self, owner: DomId, special: bool) {
        self.owner.store(OWNED | u32::from(owner.0), Ordering::Relaxed);
        let word = if special { Word::valid(super::Kind::Writable, 1) } else { Word::NEW };
        self.word.store(word.0, Ordering::Relaxed);
        let special = if special { SPECIAL } else { 0 };
        self.refs.store(RAM | ALLOCATED | special | 1, Ordering::Release);
    }

    /// Lets the frame, which is the hypervisor's, be mapped as one of `owner`'s, but never for writing: it is in use as
    /// nothing, for good.
    pub(crate) fn show(&self, owner: DomId) {
        self.owner.store(OWNED | u32::from(owner.0), Ordering::Relaxed);
        self.word.store(Word::valid(super::Kind::None, 1).0, Ordering::Relaxed);
        self.refs.store(RAM | SPECIAL | 1, Ordering::Release);
    }

    /// Marks a page that has been given back: nobody's, with unknown content.
    pub(super) fn disown(&self, now: Stamp) {
        self.owner.store(0, Ordering::Relaxed);
        self.word.store(Word::free(super::Kind::None, now).0, Ordering::Relaxed);
        self.refs.store(RAM | DIRTY, Ordering::Release);
    }

    /// When the frame was last given back.
    pub(crate) fn stamp(&self) -> Stamp {
        Stamp::new(self.word.load(Ordering::Relaxed))
    }

    /// Declares the frame to be memory of nobody; `dirty`: its content is not zero.
    pub(crate) fn set_ram(&self, dirty: bool) {
        self.refs.store(RAM | if dirty { DIRTY } else { 0 }, Ordering::Relaxed);
    }

    /// Whether it has to be zeroed before somebody else gets it.
    pub(crate) fn is_dirty(&self) -> bool {
        self.refs.load(Ordering::Relaxed) & DIRTY != 0
    }

    /// It has been zeroed, or the new owner does not mind.
    pub(crate) fn set_clean(&self) {
        self.refs.fetch_and(!DIRTY, Ordering::Relaxed);
    }

    pub(crate) fn links(&self) -> (u32, u32) {
        (self.prev.load(Ordering::Relaxed), self.next.load(Ordering::Relaxed))
    }

    pub(crate) fn set_links(&self, prev: u32, next: u32) {
        self.set_prev(prev);
        self.set_next(next);
    }

    pub(crate) fn set_next(&self, next: u32) {
        self.next.store(next, Ordering::Relaxed);
    }

    pub(crate) fn set_prev(&self, prev: u32) {
        self.prev.store(prev, Ordering::Relaxed);
    }

    /// The order of the allocator's block that begins here.
    #[allow(clippy::cast_possible_truncation, reason = "five bits")]
    pub(crate) fn block(&self) -> Option<u8> {
        let refs = self.refs.load(Ordering::Relaxed);
        (refs & HEAD != 0).then_some(((refs & ORDER) >> ORDER_SHIFT) as u8)
    }

    /// Whether some frame of the block that begins here may be dirty.
    pub(crate) fn is_block_dirty(&self) -> bool {
        self.spare.load(Ordering::Relaxed) != 0
    }

    /// Says whether some frame of the block that begins here may be dirty.
    pub(crate) fn set_block_dirty(&self, dirty: bool) {
        self.spare.store(u32::from(dirty), Ordering::Relaxed);
    }

    /// The frame is the hypervisor's own and nobody else can refer to it.
    pub(crate) fn keep(&self) {
        self.refs.store(RAM | SPECIAL, Ordering::Relaxed);
    }

    /// Makes this the first frame of a block, or of none.
    pub(crate) fn set_block(&self, order: Option<u8>) {
        let refs = self.refs.load(Ordering::Relaxed) & !(HEAD | ORDER);
        let block = order.map_or(0, |order| HEAD | (u64::from(order) << ORDER_SHIFT));
        self.refs.store(refs | block, Ordering::Relaxed);
    }
}

/// The table of all frames, indexed by frame number.
#[derive(Clone, Copy, Debug)]
pub struct FrameTable<'f>(&'f [PageInfo]);

/// One frame of the table: its number and what is known about it.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'f> {
    mfn: Mfn,
    info: &'f PageInfo,
}

impl<'f> FrameTable<'f> {
    /// The table over `frames`, whose first element describes frame 0. In the hypervisor there is one, made by the
    /// machine floor.
    #[must_use]
    pub const fn new(frames: &'f [PageInfo]) -> Self {
        FrameTable(frames)
    }

    /// The frame of this number if it is memory.
    #[inline(always)]
    #[must_use]
    pub fn ram(self, mfn: Mfn) -> Option<Frame<'f>> {
        let info = self.0.get(usize::try_from(mfn.0).ok()?)?;
        info.is_ram().then_some(Frame { mfn, info })
    }

    /// Enters the frames `from..to` as memory of the hypervisor, which nobody can refer to.
    pub fn reserve(self, from: Mfn, to: Mfn) {
        for info in (from.0..to.0).filter_map(|mfn| self.info(Mfn(mfn))) {
            info.keep();
        }
    }

    /// Lets frames of the hypervisor's, `from..to`, be mapped for reading as pages of `owner`.
    pub fn show(self, from: Mfn, to: Mfn, owner: DomId) {
        for info in (from.0..to.0).filter_map(|mfn| self.info(Mfn(mfn))) {
            info.show(owner);
        }
    }

    /// What is known about a frame, memory or not.
    #[inline(always)]
    #[must_use]
    pub fn info(self, mfn: Mfn) -> Option<&'f PageInfo> {
        self.0.get(usize::try_from(mfn.0).ok()?)
    }

    /// One more than the highest frame number in the table.
    #[inline(always)]
    #[must_use]
    pub const fn end(self) -> Mfn {
        Mfn(self.0.len() as u64)
    }
}

impl<'f> Frame<'f> {
    /// Of memory.
    #[inline(always)]
    pub(super) const fn of(mfn: Mfn, info: &'f PageInfo) -> Self {
        Frame { mfn, info }
    }

    /// Its number.
    #[inline(always)]
    #[must_use]
    pub const fn mfn(self) -> Mfn {
        self.mfn
    }

    /// What is known about it.
    #[inline(always)]
    #[must_use]
    pub const fn info(self) -> &'f PageInfo {
        self.info
    }

    /// Notes that another domain than the owner has a writable mapping. The caller holds a type reference for it.
    #[inline(always)]
    pub(super) fn mark_foreign(self) {
        self.info.word.fetch_or(Word::NEW.with_foreign(true).0, Ordering::Relaxed);
    }

    /// The type word as it is now.
    #[inline(always)]
    #[must_use]
    pub fn word(self) -> Word {
        self.info.word()
    }
}

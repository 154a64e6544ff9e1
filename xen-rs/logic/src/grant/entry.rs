//! One entry: the guest's words, and our count of its uses.

#[cfg(not(loom))]
use core::sync::atomic::{
    AtomicU64,
    Ordering::{Release, SeqCst},
};
#[cfg(loom)]
use loom::sync::atomic::{
    AtomicU64,
    Ordering::{Release, SeqCst},
};

use xen_abi::grant_table as abi;
use xen_abi::ids::{DomId, Gfn, GrantRef, Mfn};

use super::Refusal;

/// A page that a guest and the hypervisor both write: of entries, or of their status. It is seen as 512 words of 64 bits,
/// and indices are below that.
///
/// An entry of version 1 is one word: flags (bits 0..16), domain (16..32), frame (32..64). One of version 2 is two: flags,
/// domain and what depends on the kind; the frame. Its status is 16 bits on a page of their own.
pub trait EntryPage {
    /// One of its words.
    type Cell<'a>: EntryCell
    where
        Self: 'a;

    /// Where the page is, for the guest to map.
    fn mfn(&self) -> Mfn;
    /// The word with this index.
    fn cell(&self, index: usize) -> Self::Cell<'_>;
    /// Whether a guest has it mapped.
    fn is_mapped(&self) -> bool;

    /// Writes zeros to all of it.
    fn empty(&self) {
        (0..512).for_each(|index| self.store(index, 0));
    }

    /// [`EntryCell::load`].
    #[inline(always)]
    fn load(&self, index: usize) -> u64 {
        self.cell(index).load()
    }
    /// [`EntryCell::store`].
    #[inline(always)]
    fn store(&self, index: usize, word: u64) {
        self.cell(index).store(word);
    }
    /// [`EntryCell::compare_exchange`].
    #[inline(always)]
    fn compare_exchange(&self, index: usize, old: u64, new: u64) -> Result<(), u64> {
        self.cell(index).compare_exchange(old, new)
    }
    /// [`EntryCell::and`].
    #[inline(always)]
    fn and(&self, index: usize, mask: u64) {
        self.cell(index).and(mask);
    }
    /// [`EntryCell::or`].
    #[inline(always)]
    fn or(&self, index: usize, bits: u64) {
        self.cell(index).or(bits);
    }
}

/// A word of an [`EntryPage`].
pub trait EntryCell: Copy {
    /// One atomic read.
    fn load(self) -> u64;
    /// One atomic write, after everything written before.
    fn store(self, word: u64);
    /// One atomic compare-and-exchange: the word found is the error.
    fn compare_exchange(self, old: u64, new: u64) -> Result<(), u64>;
    /// One atomic AND.
    fn and(self, mask: u64);
    /// One atomic OR, a full barrier.
    fn or(self, bits: u64);
}

impl EntryCell for &AtomicU64 {
    #[inline(always)]
    fn load(self) -> u64 {
        AtomicU64::load(self, SeqCst)
    }
    #[inline(always)]
    fn store(self, word: u64) {
        AtomicU64::store(self, word, Release);
    }
    #[inline(always)]
    fn compare_exchange(self, old: u64, new: u64) -> Result<(), u64> {
        AtomicU64::compare_exchange(self, old, new, SeqCst, SeqCst).map(drop)
    }
    #[inline(always)]
    fn and(self, mask: u64) {
        self.fetch_and(mask, SeqCst);
    }
    #[inline(always)]
    fn or(self, bits: u64) {
        self.fetch_or(bits, SeqCst);
    }
}

/// Why a page is pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To be mapped.
    Map,
    /// For the duration of a copy by the hypervisor.
    Copy,
}

/// Read, or write too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Only reads.
    Read,
    /// Reads and writes.
    Write,
}

impl Access {
    /// The flags that tell the guest.
    #[inline(always)]
    pub(super) const fn status(self) -> u16 {
        match self {
            Access::Read => abi::GTF_READING,
            Access::Write => abi::GTF_READING | abi::GTF_WRITING,
        }
    }
}

/// Through which addresses a page is used: a set of the two ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Via(u8);

impl Via {
    /// Nothing.
    pub const NOTHING: Via = Via(0);
    /// A CPU's page tables (and copies).
    pub const HOST: Via = Via(1);
    /// A device's.
    pub const DEVICE: Via = Via(2);
    /// Both.
    pub const ALL: Via = Via(3);

    /// Those of the two that are wanted.
    #[must_use]
    #[inline(always)]
    pub const fn new(host: bool, device: bool) -> Via {
        Via(host as u8 | (device as u8) << 1)
    }

    /// Whether there is anything.
    #[must_use]
    #[inline(always)]
    pub const fn any(self) -> bool {
        self.0 != 0
    }

    /// Whether a CPU's page tables are among them.
    #[must_use]
    #[inline(always)]
    pub const fn host(self) -> bool {
        self.0 & Via::HOST.0 != 0
    }

    /// Whether a device's addresses are among them.
    #[must_use]
    #[inline(always)]
    pub const fn device(self) -> bool {
        self.0 & Via::DEVICE.0 != 0
    }

    /// Those of both sets.
    #[must_use]
    #[inline(always)]
    pub const fn and(self, other: Via) -> Via {
        Via(self.0 & other.0)
    }

    /// Those of either set.
    #[must_use]
    #[inline(always)]
    pub const fn or(self, other: Via) -> Via {
        Via(self.0 | other.0)
    }

    /// Those that are not of the other set.
    #[must_use]
    #[inline(always)]
    pub const fn without(self, other: Via) -> Via {
        Via(self.0 & !other.0)
    }
}

/// Which bytes of its page a grant is for: all, or in version 2 a part (for copies only).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The first.
    pub start: u16,
    /// How many.
    pub length: u16,
    /// It is a part, or not the granting domain's own page: so it cannot be mapped.
    pub is_part: bool,
}

impl Extent {
    /// A whole page.
    pub const PAGE: Extent = Extent { start: 0, length: 4096, is_part: false };

    /// Whether `length` bytes from `start` on are granted.
    #[must_use]
    #[inline(always)]
    pub fn covers(self, start: u16, length: u16) -> bool {
        let end = |start: u16, length: u16| u32::from(start) + u32::from(length);
        start >= self.start && end(start, length) <= end(self.start, self.length)
    }
}

/// How often an entry is used in each way: four counters of eight bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Uses(u32);

impl Uses {
    /// The lowest bit of each counter.
    const ONES: u32 = 0x0101_0101;
    /// The counters of uses that write.
    const WRITES: u32 = 0xff00_ff00;

    /// One use: reads are counted in even bytes and writes in odd ones, those by CPUs in the lower half.
    #[inline(always)]
    const fn one(access: Access, via: Via) -> u32 {
        (via.host() as u32 | (via.device() as u32) << 16) << if matches!(access, Access::Write) { 8 } else { 0 }
    }

    /// The lowest bits of the counters that are not zero.
    #[inline(always)]
    const fn counting(self) -> u32 {
        let low = Self::ONES * 0x7f;
        (((self.0 & low) + low) | self.0) >> 7 & Self::ONES
    }

    #[inline(always)]
    const fn any(self) -> bool {
        self.0 != 0
    }

    #[inline(always)]
    const fn any_write(self) -> bool {
        self.0 & Self::WRITES != 0
    }
}

/// The uses of one entry, and what it granted when the first of them began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Active {
    uses: Uses,
    domain: DomId,
    pub(super) frame: Mfn,
    pub(super) extent: Extent,
    /// The grant to the granting domain that this one passes on (version 2).
    pub(super) origin: Option<(DomId, GrantRef)>,
}

impl Default for Active {
    fn default() -> Self {
        Active { uses: Uses::default(), domain: DomId(0), frame: Mfn(0), extent: Extent::PAGE, origin: None }
    }
}

impl Active {
    #[inline(always)]
    pub(super) fn is_pinned(&self) -> bool {
        self.uses.any()
    }

    /// Whether the uses are that domain's.
    pub(super) fn is_by(&self, domain: DomId) -> bool {
        self.domain == domain
    }

    /// Whether `by` may use it once more: a counter at 128 is refused, so that none can ever wrap.
    #[inline(always)]
    pub(super) fn admits(&self, by: DomId, access: Access, via: Via) -> bool {
        !self.is_pinned() || (self.domain == by && self.uses.0 & Uses::one(access, via) << 7 == 0)
    }

    /// Whether the guest's word has to be looked at: for the first use, and for the first that writes.
    pub(super) fn needs_status(&self, access: Access) -> bool {
        !self.is_pinned() || (access == Access::Write && !self.uses.any_write())
    }

    /// The first use.
    #[inline(always)]
    pub(super) fn begin(&mut self, by: DomId, frame: Mfn, extent: Extent) {
        self.domain = by;
        self.frame = frame;
        self.extent = extent;
        self.origin = None;
    }

    /// How often it is used, in which way.
    pub(super) const fn uses(&self) -> Uses {
        self.uses
    }

    /// One more use that it [admits](Active::admits).
    #[inline(always)]
    pub(super) fn pin(&mut self, access: Access, via: Via) {
        self.uses.0 = self.uses.0.wrapping_add(Uses::one(access, via));
    }

    #[inline(always)]
    pub(super) fn unpin(&mut self, access: Access, via: Via) {
        self.uses.0 = self.uses.0.wrapping_sub(Uses::one(access, via) & self.uses.counting());
    }

    /// Ends a use by a CPU if it is the only one of any kind.
    #[inline(always)]
    pub(super) fn end_only_use(&mut self, access: Access) -> bool {
        let is_only = self.uses.0 == Uses::one(access, Via::HOST);
        if is_only {
            self.uses = Uses::default();
        }
        is_only
    }

    /// The status flags that no use justifies any more after one of `access` ended.
    #[inline(always)]
    pub(super) fn stale_flags(&self, access: Access) -> u16 {
        let mut flags = 0;
        if access == Access::Write && !self.uses.any_write() {
            flags |= abi::GTF_WRITING;
        }
        if !self.is_pinned() {
            flags |= abi::GTF_READING;
        }
        flags
    }
}

/// The fields of an entry's word.
#[derive(Debug, Clone, Copy)]
pub(super) struct Word(pub(super) u64);

impl Word {
    #[allow(clippy::cast_possible_truncation, reason = "takes the low field")]
    pub(super) fn flags(self) -> u16 {
        self.0 as u16
    }

    #[allow(clippy::cast_possible_truncation, reason = "takes one field")]
    pub(super) fn domain(self) -> DomId {
        DomId((self.0 >> 16) as u16)
    }

    pub(super) fn frame(self) -> Gfn {
        Gfn(self.0 >> 32)
    }

    /// The upper half of a first word of version 2: of a part of a page first byte and length, of a grant passed on the
    /// domain whose it was.
    #[allow(clippy::cast_possible_truncation, reason = "takes two fields")]
    pub(super) fn upper(self) -> (u16, u16) {
        ((self.0 >> 32) as u16, (self.0 >> 48) as u16)
    }

    pub(super) fn new(flags: u16, domain: DomId, frame: u32) -> Word {
        Word(u64::from(flags) | u64::from(domain.0) << 16 | u64::from(frame) << 32)
    }
}

/// How often a word that the guest keeps changing is tried before the guest is told off.
const TRIES: u32 = 5;

/// Which of an entry's flags have to be those of a permission.
pub(super) const fn type_mask(purpose: Purpose) -> u16 {
    match purpose {
        Purpose::Map => abi::GTF_TYPE_MASK | abi::GTF_SUB_PAGE,
        Purpose::Copy => abi::GTF_TYPE_MASK,
    }
}

/// Sets `GTF_reading` (and `GTF_writing`) in an entry that grants `by` the access. The word as it was then.
pub(super) fn set_status<P: EntryPage>(
    page: &P,
    index: usize,
    pinned: bool,
    by: DomId,
    access: Access,
    purpose: Purpose,
) -> Result<Word, Refusal> {
    let mask = type_mask(purpose);
    let mut word = Word(page.load(index));
    for _ in 0..TRIES {
        let permits = word.flags() & mask == abi::GTF_PERMIT_ACCESS && word.domain() == by;
        if !pinned && !permits {
            return Err(Refusal::GeneralError);
        }
        if access == Access::Write && word.flags() & abi::GTF_READONLY != 0 {
            return Err(Refusal::GeneralError);
        }
        match page.compare_exchange(index, word.0, word.0 | u64::from(access.status())) {
            Ok(()) => return Ok(word),
            Err(found) => word = Word(found),
        }
    }
    Err(Refusal::GeneralError)
}

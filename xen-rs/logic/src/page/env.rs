//! What the rules of page types need from the floor above: table memory, TLBs, time, policy.

use xen_abi::ids::{DomId, Mfn};

use super::entry::Entry;
use super::info::Frame;
use super::word::{Kind, Stamp};

/// Index of an entry in a table: below 512 by construction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot(u16);

impl Slot {
    /// Slots of a root table that belong to the hypervisor (Xen public header `arch-x86/xen-x86_64.h`: 256 to 271).
    pub const OURS: core::ops::RangeInclusive<u16> = 256..=271;

    /// The slot with this number, modulo 512.
    #[inline(always)]
    #[must_use]
    pub const fn new(number: u16) -> Self {
        Slot(number & 511)
    }

    /// The slot at this machine address of an entry.
    #[inline(always)]
    #[must_use]
    pub const fn of_address(address: u64) -> Self {
        Slot(((address >> 3) & 511) as u16)
    }

    /// The number.
    #[inline(always)]
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }

    /// Whether the guest has this slot in a table of this kind.
    #[inline(always)]
    #[must_use]
    pub const fn is_guests(self, kind: Kind) -> bool {
        !matches!(kind, Kind::L4) || self.0 < *Self::OURS.start() || self.0 > *Self::OURS.end()
    }
}

/// A page table that nobody else changes while this exists: the proof for writing to it.
///
/// Only this module's state machine makes one, when it has locked the page's type word.
#[derive(Debug)]
pub struct Table<'f> {
    pub(super) frame: Frame<'f>,
    pub(super) kind: Kind,
}

impl<'f> Table<'f> {
    /// Its frame.
    #[inline(always)]
    #[must_use]
    pub const fn frame(&self) -> Frame<'f> {
        self.frame
    }

    /// Its frame's number.
    #[inline(always)]
    #[must_use]
    pub const fn mfn(&self) -> Mfn {
        self.frame.mfn()
    }

    /// Its level.
    #[inline(always)]
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }
}

/// A page whose last reference is gone: it goes off its owner's list and to the allocator, with the moment from which
/// a TLB must have been flushed before another domain gets it.
#[derive(Debug)]
#[must_use = "the frame would be lost"]
pub struct Freed<'f> {
    pub(super) frame: Frame<'f>,
    pub(super) owner: Option<DomId>,
}

impl<'f> Freed<'f> {
    /// The frame.
    #[must_use]
    pub const fn frame(&self) -> Frame<'f> {
        self.frame
    }

    /// Whose it was.
    #[must_use]
    pub const fn owner(&self) -> Option<DomId> {
        self.owner
    }

    /// The frame as a block for the allocator, once it is off its owner's list; `now`: the flush clock.
    pub fn into_block(self, now: Stamp) -> crate::frames::Block {
        self.frame.info().disown(now);
        crate::frames::Block::new(self.frame.mfn(), 0)
    }
}

/// A table whose last reference must be dropped, which takes longer than one slice. It holds a general reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the page would keep its type for ever"]
pub struct Deferred {
    pub(super) mfn: Mfn,
    /// The reference is a part of the page's own state, not one of its count.
    pub(super) partial: bool,
}

/// What the floor above does for the page state machine.
pub trait Env {
    /// Reads an entry of a table.
    fn read(&self, table: &Table<'_>, slot: Slot) -> Entry;
    /// Exchanges an entry of a table. A full barrier: what the flush clock says afterwards is later than the write.
    fn swap(&mut self, table: &Table<'_>, slot: Slot, new: Entry) -> Entry;
    /// Exchanges an entry if it still is `old`, else says what it is. A full barrier too.
    fn compare_exchange(&mut self, table: &Table<'_>, slot: Slot, old: Entry, new: Entry) -> Result<(), Entry>;
    /// Fills the hypervisor's slots of a root table that is about to become valid.
    fn fill_root(&mut self, root: &Table<'_>, owner: DomId);

    /// The flush clock.
    fn now(&self) -> Stamp;
    /// Flushes the TLB of each CPU that may run in `owner`'s tables (or of every CPU when `everyone`), as far as it
    /// was not flushed after `since`.
    fn flush(&mut self, owner: DomId, everyone: bool, since: Stamp);

    /// One turn of waiting for another CPU: serves this CPU's mailbox.
    fn relax(&mut self);
    /// Charges work to the current slice; true when the slice is used up.
    fn spend(&mut self, units: u32) -> bool;
    /// A moment in the middle of a table at which this CPU may take interrupts.
    fn breathe(&mut self) {}

    /// Takes a page that nobody refers to any more.
    fn release(&mut self, freed: Freed<'_>);
    /// Remembers a table to be given up; the caller of the operation finishes it with [`super::Mmu::finish`].
    fn defer(&mut self, table: Deferred);

    /// Whether a domain may map this frame, which is not memory.
    fn may_map_io(&mut self, who: DomId, mfn: Mfn) -> bool;
    /// Whether a frame, which is not memory, may only be mapped read-only: what is programmed there is the hypervisor's.
    fn is_read_only_io(&mut self, mfn: Mfn) -> bool;
    /// Whether a domain may choose how its mappings are cached.
    fn may_choose_caching(&mut self, who: DomId) -> bool;
    /// Whether the CPU has the no-execute bit.
    fn has_nx(&self) -> bool;
    /// Whether a non-present entry could make the CPU read memory speculatively (L1TF). If so, the environment has
    /// crashed the domain.
    fn refuse_absent(&mut self, owner: DomId, entry: Entry) -> bool;
}

impl<T: Env> Env for &mut T {
    #[inline(always)]
    fn read(&self, table: &Table<'_>, slot: Slot) -> Entry {
        (**self).read(table, slot)
    }
    #[inline(always)]
    fn swap(&mut self, table: &Table<'_>, slot: Slot, new: Entry) -> Entry {
        (**self).swap(table, slot, new)
    }
    #[inline(always)]
    fn compare_exchange(&mut self, table: &Table<'_>, slot: Slot, old: Entry, new: Entry) -> Result<(), Entry> {
        (**self).compare_exchange(table, slot, old, new)
    }
    fn fill_root(&mut self, root: &Table<'_>, owner: DomId) {
        (**self).fill_root(root, owner);
    }
    #[inline(always)]
    fn now(&self) -> Stamp {
        (**self).now()
    }
    fn flush(&mut self, owner: DomId, everyone: bool, since: Stamp) {
        (**self).flush(owner, everyone, since);
    }
    fn relax(&mut self) {
        (**self).relax();
    }
    #[inline(always)]
    fn breathe(&mut self) {
        (**self).breathe();
    }
    fn spend(&mut self, units: u32) -> bool {
        (**self).spend(units)
    }
    fn release(&mut self, freed: Freed<'_>) {
        (**self).release(freed);
    }
    fn defer(&mut self, table: Deferred) {
        (**self).defer(table);
    }
    fn may_map_io(&mut self, who: DomId, mfn: Mfn) -> bool {
        (**self).may_map_io(who, mfn)
    }
    fn is_read_only_io(&mut self, mfn: Mfn) -> bool {
        (**self).is_read_only_io(mfn)
    }
    #[inline(always)]
    fn may_choose_caching(&mut self, who: DomId) -> bool {
        (**self).may_choose_caching(who)
    }
    #[inline(always)]
    fn has_nx(&self) -> bool {
        (**self).has_nx()
    }
    #[inline(always)]
    fn refuse_absent(&mut self, owner: DomId, entry: Entry) -> bool {
        (**self).refuse_absent(owner, entry)
    }
}

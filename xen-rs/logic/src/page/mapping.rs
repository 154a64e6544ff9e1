//! Last-level entries that the hypervisor writes for a guest: mappings of other domains' pages by grants.
//!
//! The references that such an entry stands for are taken before it is written and given up after it is gone and flushed;
//! between that they belong to the entry, as those of every other entry do. So a guest that overwrites it by ordinary
//! means gives them up, and loses only the way to unmap the grant.

use xen_abi::Errno;
use xen_abi::ids::{DomId, Mfn};

use super::brief::Brief;
use super::entry::{Entry, bit};
use super::env::{Env, Slot};
use super::info::Frame;
use super::refs::Mmu;
use super::update::Locked;
use super::word::Kind;
use crate::grant::{Access, Freed};

/// The references that one mapping needs: a general one, and a writable type reference if it allows writing.
#[derive(Debug)]
#[must_use = "the page would be kept for ever"]
pub struct Mapping<'f> {
    frame: Frame<'f>,
    writable: bool,
}

/// Bits that a mapping's creator chooses beyond the frame and the right to write.
#[derive(Clone, Copy, Debug, Default)]
pub struct MappingBits {
    /// Reachable from user mode.
    pub user: bool,
    /// The three software bits.
    pub available: u8,
}

impl Mapping<'_> {
    /// The frame's number.
    #[must_use]
    pub const fn mfn(&self) -> Mfn {
        self.frame.mfn()
    }

    /// The entry for it, as it is stored.
    #[must_use]
    pub const fn entry(&self, bits: MappingBits) -> Entry {
        let rw = if self.writable { bit::RW } else { 0 };
        let user = if bits.user { bit::USER } else { 0 };
        let available = ((bits.available as u64) << 9) & bit::AVAIL;
        let flags = bit::PRESENT | bit::ACCESSED | bit::DIRTY | rw | user | available;
        Entry(((self.frame.mfn().0 << 12) & bit::ADDRESS) | flags).adjusted(Kind::L1)
    }
}

impl<'f, E: Env> Mmu<'f, E> {
    /// Takes the references for a mapping by `mapper` of a page of `owner`.
    #[inline(always)]
    pub fn hold_mapping(
        &mut self,
        mfn: Mfn,
        owner: DomId,
        writable: bool,
        mapper: DomId,
    ) -> Result<Mapping<'f>, Errno> {
        self.get_mapping(mfn, owner, writable, mapper).map(|frame| Mapping { frame, writable })
    }

    /// [`Mmu::hold_mapping`] of a page of `owner` that is held already; it is so no more after `EBUSY`.
    #[inline(always)]
    pub fn mapping_of(
        &mut self,
        page: Brief<'f>,
        owner: DomId,
        writable: bool,
        mapper: DomId,
    ) -> Result<Mapping<'f>, Errno> {
        self.map_held(page.frame(), owner, writable, mapper).map(|frame| Mapping { frame, writable })
    }

    /// Gives up the references of each way that a grant was mapped, now that its use has ended.
    #[inline(always)]
    pub fn put_freed(&mut self, freed: Freed) {
        let writable = freed.access() == Access::Write;
        let Some(frame) = self.frames.ram(freed.frame()) else { return };
        if freed.via().host() {
            self.put_mapping(frame, writable);
        }
        if freed.via().device() {
            self.put_mapping(frame, writable);
        }
    }

    /// The mapping's references stay with what the caller has made of it: a device's use of the page. They are given up
    /// by [`Mmu::put_freed`].
    pub fn leave_mapping(&mut self, mapping: Mapping<'f>) {
        let Mapping { .. } = mapping;
    }

    /// Gives the references of a mapping up. TLBs were flushed if it had been in a table.
    pub fn drop_mapping(&mut self, mapping: Mapping<'f>) {
        self.put_mapping(mapping.frame, mapping.writable);
    }

    /// Writes the entry of a mapping to a slot of an L1 table of `owner`, and gives up what the old entry referred to.
    /// The mapping comes back if the table is of another level.
    #[inline(always)]
    pub fn place_mapping(
        &mut self,
        locked: &Locked<'f>,
        slot: Slot,
        mapping: Mapping<'f>,
        bits: MappingBits,
        owner: DomId,
    ) -> Result<(), Mapping<'f>> {
        if locked.table().kind() != Kind::L1 {
            return Err(mapping);
        }
        let old = self.env.swap(locked.table(), slot, mapping.entry(bits));
        if old.is_present() {
            self.put_data(old, owner);
        }
        Ok(())
    }

    /// Replaces the entry of a mapping of `mfn` by `with`, whose references go with it. The old entry's references are
    /// left for [`Mmu::put_freed`] after the flush. False: the slot of an L1 table does not hold such an entry, nothing has changed.
    #[inline(always)]
    pub fn remove_mapping(&mut self, locked: &Locked<'f>, slot: Slot, mfn: Mfn, writable: bool, with: Entry) -> bool {
        let table = locked.table();
        if table.kind() != Kind::L1 {
            return false;
        }
        let mut old = self.env.read(table, slot);
        while old.is_present() && old.mfn() == mfn && old.is_writable() == writable {
            match self.env.compare_exchange(table, slot, old, with) {
                Ok(()) => return true,
                // The CPU has set accessed or dirty.
                Err(now) => old = now,
            }
        }
        false
    }

    /// Takes the present entry out of a slot of an L1 table: its references are the caller's, to be placed elsewhere by
    /// [`Mmu::remove_mapping`] or given up by [`Mmu::drop_entry`].
    pub fn steal_entry(&mut self, locked: &Locked<'f>, slot: Slot) -> Option<Entry> {
        if locked.table().kind() != Kind::L1 {
            return None;
        }
        Some(self.env.swap(locked.table(), slot, Entry::default()))
    }

    /// Gives up what a stolen entry of `owner`'s refers to.
    pub fn drop_entry(&mut self, entry: Entry, owner: DomId) {
        if entry.is_present() {
            self.put_data(entry, owner);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::tests::{A, B, Machine};
    use super::super::{Owners, Replace, Slot};
    use super::*;

    const TABLE: Mfn = Mfn(1);
    const GRANTED: Mfn = Mfn(5);

    fn machine() -> Machine {
        let machine = Machine::new(8);
        machine.give(0..4, A);
        machine.give(5..7, B);
        machine
    }

    #[test]
    fn placed_and_removed_leaves_no_reference() {
        let machine = machine();
        let mut mm = machine.mmu();
        let table = mm.get_page(TABLE, A).unwrap();
        mm.get_type(table, Kind::L1).unwrap();
        let before = machine.table().ram(GRANTED).unwrap().info().references();
        for writable in [false, true] {
            let mapping = mm.hold_mapping(GRANTED, B, writable, A).unwrap();
            let locked = mm.lock_table(table, A).unwrap();
            mm.place_mapping(&locked, Slot::new(3), mapping, MappingBits::default(), A).unwrap();
            let entry = Entry(machine.peek(TABLE.0, 3));
            assert_eq!((entry.mfn(), entry.is_writable()), (GRANTED, writable));
            assert!(!mm.remove_mapping(&locked, Slot::new(3), GRANTED, !writable, Entry(0)), "other rights");
            assert!(!mm.remove_mapping(&locked, Slot::new(3), Mfn(6), writable, Entry(0)), "other frame");
            assert!(mm.remove_mapping(&locked, Slot::new(3), GRANTED, writable, Entry(0)));
            assert_eq!(machine.peek(TABLE.0, 3), 0);
            drop(locked);
            mm.put_freed(Freed::of(GRANTED, writable));
        }
        assert_eq!(machine.table().ram(GRANTED).unwrap().info().references(), before);
    }

    #[test]
    fn a_guest_that_overwrites_the_entry_gives_the_references_up() {
        let machine = machine();
        let mut mm = machine.mmu();
        let table = mm.get_page(TABLE, A).unwrap();
        mm.get_type(table, Kind::L1).unwrap();
        let before = machine.table().ram(GRANTED).unwrap().info().references();
        let mapping = mm.hold_mapping(GRANTED, B, true, A).unwrap();
        let locked = mm.lock_table(table, A).unwrap();
        mm.place_mapping(&locked, Slot::new(3), mapping, MappingBits { user: true, available: 5 }, A).unwrap();
        assert_eq!(machine.peek(TABLE.0, 3) & (bit::AVAIL | bit::GUEST_KERNEL), 5 << 9);
        let owners = Owners { pages: A, caller: A };
        mm.update(locked, Slot::new(3), Entry(0), Replace::Whole, A, owners).unwrap();
        assert_eq!(machine.table().ram(GRANTED).unwrap().info().references(), before);
    }
}

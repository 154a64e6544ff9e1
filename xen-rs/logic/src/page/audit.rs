//! A recount: what the tables in use refer to, against what the words of the pages say. A reference inside a page table is a
//! number, so a miscount shows nowhere else until it is too late.
//!
//! It is for debugging, of domains that stand still. A part of all frames is looked at in one go, so that it takes little
//! memory; what refers to pages from outside the tables is told by whoever knows it.

use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use xen_abi::Errno;
use xen_abi::ids::{DomId, Mfn};

use super::entry::Entry;
use super::env::{Deferred, Env, Slot, Table};
use super::info::{Frame, FrameTable};
use super::refs::Mmu;
use super::word::{ENTRIES, Kind, State, Word};

/// The references to one frame that were found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Found {
    general: u32,
    types: u32,
    /// A bit for each kind that somebody uses it as.
    kinds: u8,
}

/// The references to some frames that were found so far.
#[derive(Debug)]
pub struct Audit {
    first: Mfn,
    found: Vec<Found>,
}

/// A page whose counts are not what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Which.
    pub mfn: Mfn,
    word: Word,
    references: u64,
    found: Found,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mfn, word, references, found } = self;
        write!(
            f,
            "frame {:#x} has {references} references and is {word:?}; found: {} references, {} of types {:#b}",
            mfn.0, found.general, found.types, found.kinds
        )
    }
}

impl Audit {
    /// Of `frames` frames in one go. `ENOMEM`.
    pub fn new(frames: usize) -> Result<Self, Errno> {
        let mut found = Vec::new();
        found.try_reserve_exact(frames).map_err(|_| Errno::ENOMEM)?;
        found.resize(frames, Found::default());
        Ok(Self { first: Mfn(0), found })
    }

    /// Begins with the frames from there on: which they are.
    pub fn begin(&mut self, first: Mfn) -> Range<u64> {
        self.first = first;
        self.found.fill(Found::default());
        first.0..first.0.saturating_add(self.found.len() as u64)
    }

    /// A general reference, and one of a type where `kind` is not [`Kind::None`].
    pub fn found(&mut self, mfn: Mfn, kind: Kind) {
        let index = mfn.0.checked_sub(self.first.0).and_then(|index| usize::try_from(index).ok());
        if let Some(found) = index.and_then(|index| self.found.get_mut(index)) {
            found.general += 1;
            if kind != Kind::None {
                found.types += 1;
                found.kinds |= 1 << kind as u8;
            }
        }
    }

    /// The references of a table that is to be given up.
    pub fn deferred(&mut self, deferred: &Deferred, frames: FrameTable<'_>) {
        let kind = frames.ram(deferred.mfn).map_or(Kind::None, |f| f.word().kind());
        self.found(deferred.mfn, if deferred.partial { Kind::None } else { kind });
    }

    /// The references that the entries of a table hold. Nobody changes it meanwhile, or the answer means nothing.
    pub fn table<E: Env>(&mut self, mmu: &Mmu<'_, E>, f: Frame<'_>) {
        let word = f.word();
        let (counted, partial) = match word.state() {
            State::Valid(_) => (ENTRIES, None),
            State::Partial(at) => (at.done, at.partial_entry.then_some(at.done)),
            State::Free(_) | State::Locked(_) => return,
        };
        let table = Table { frame: f, kind: word.kind() };
        for number in (0..ENTRIES).filter(|number| Slot::new(*number).is_guests(table.kind)) {
            let entry = mmu.env.read(&table, Slot::new(number));
            if !entry.is_present() || mmu.frames.ram(entry.mfn()).is_none() {
                continue;
            }
            if number < counted {
                self.entry(entry, &table);
            } else if partial == Some(number) {
                self.found(entry.mfn(), Kind::None);
            }
        }
    }

    fn entry(&mut self, entry: Entry, table: &Table<'_>) {
        match table.kind {
            Kind::L1 if entry.is_writable() => self.found(entry.mfn(), Kind::Writable),
            Kind::L1 => self.found(entry.mfn(), Kind::None),
            // A table that shows itself holds nothing by that.
            _ if entry.is_own(table) => {}
            kind => self.found(entry.mfn(), kind.below()),
        }
    }

    /// Compares the pages of `owner`: how many there are, and what is wrong.
    pub fn check(&self, frames: FrameTable<'_>, owner: DomId, mut wrong: impl FnMut(Mistake)) -> u64 {
        let mut pages = 0;
        for (number, found) in (self.first.0..).zip(&self.found) {
            let Some(f) = frames.ram(Mfn(number)).filter(|f| f.info().is_owned_by(owner)) else { continue };
            pages += 1;
            let (info, word) = (f.info(), f.word());
            let mut found = *found;
            if info.is_allocated() {
                found.general += 1;
                // The hypervisor's own page was born with a type reference.
                if info.is_special() {
                    found.types += 1;
                    found.kinds |= 1 << Kind::Writable as u8;
                }
            }
            if word.is_pinned() {
                found.general += 1;
                found.types += 1;
                found.kinds |= 1 << word.kind() as u8;
            }
            let types = match word.state() {
                State::Valid(count) => found.kinds == 1 << word.kind() as u8 && count == u64::from(found.types),
                State::Partial(_) => {
                    found.general += 1;
                    found.types == 0
                }
                State::Free(_) => found.types == 0,
                State::Locked(_) => false,
            };
            if !types || word.is_updating() || info.references() != u64::from(found.general) {
                wrong(Mistake { mfn: f.mfn(), word, references: info.references(), found });
            }
        }
        pages
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::tests::{A, Machine, RO, RW, entry};
    use super::*;
    use std::string::ToString;
    use std::vec::Vec as Mistakes;

    #[test]
    fn a_miscount_is_found() {
        let machine = Machine::new(8);
        machine.give(0..6, A);
        machine.poke(1, 0, entry(2, RW).0);
        machine.poke(1, 1, entry(3, RO).0);
        let mut mmu = machine.mmu();
        mmu.pin(Mfn(1), Kind::L1, A).unwrap();
        let audit = |mmu: &Mmu<'_, _>| {
            let mut audit = Audit::new(8).unwrap();
            audit.begin(Mfn(0));
            audit.table(mmu, mmu.frames.ram(Mfn(1)).unwrap());
            let mut wrong = Mistakes::new();
            assert_eq!(audit.check(mmu.frames, A, |mistake| wrong.push(mistake)), 6);
            wrong
        };
        assert_eq!(audit(&mmu), []);
        // Entries that nobody counted: a writable mapping of a page, and one of a table.
        machine.poke(1, 2, entry(4, RW).0);
        machine.poke(1, 3, entry(1, RW).0);
        let wrong = audit(&mmu);
        assert_eq!(wrong.iter().map(|mistake| mistake.mfn.0).collect::<Mistakes<_>>(), [1, 4]);
        assert!(wrong[1].to_string().contains("frame 0x4 has 1 references"), "{}", wrong[1]);
    }
}

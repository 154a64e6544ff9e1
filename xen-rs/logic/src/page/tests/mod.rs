//! A machine of a few frames for the tests of page types, and an obvious recount of everything.
#![allow(missing_docs, clippy::cast_possible_truncation, reason = "test code")]

use std::collections::{BTreeMap, BTreeSet};
use std::vec;
use std::vec::Vec;

use xen_abi::ids::{DomId, Mfn};

use super::atomic::{AtomicU64, Ordering};
use super::entry::bit;
use super::*;

pub mod model;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod threads;

pub const A: DomId = DomId(1);
pub const B: DomId = DomId(2);

/// Memory, TLBs and the flush clock of a small machine, shared by its CPUs.
pub struct Machine {
    pub info: Vec<PageInfo>,
    memory: Vec<[AtomicU64; 512]>,
    clock: AtomicU64,
}

impl Machine {
    pub fn new(frames: usize) -> Self {
        Machine {
            info: (0..frames).map(|_| PageInfo::hole()).collect(),
            memory: (0..frames).map(|_| [const { AtomicU64::new(0) }; 512]).collect(),
            clock: AtomicU64::new(1),
        }
    }

    pub fn give(&self, frames: core::ops::Range<u64>, owner: DomId) {
        for mfn in frames {
            self.info[mfn as usize].assign(owner, false);
        }
    }

    pub fn table(&self) -> FrameTable<'_> {
        FrameTable::new(&self.info)
    }

    /// What a guest writes to a page it has mapped writable.
    pub fn poke(&self, mfn: u64, slot: u16, value: u64) {
        self.memory[mfn as usize][usize::from(slot)].store(value, Ordering::SeqCst);
    }

    pub fn peek(&self, mfn: u64, slot: u16) -> u64 {
        self.memory[mfn as usize][usize::from(slot)].load(Ordering::SeqCst)
    }

    pub fn mmu(&self) -> Mmu<'_, Fake<'_>> {
        Mmu { frames: self.table(), env: Fake::new(self) }
    }
}

/// The floor above as the tests have it.
pub struct Fake<'m> {
    pub machine: &'m Machine,
    /// What is left of the slice.
    pub budget: u32,
    pub deferred: Vec<Deferred>,
    pub freed: Vec<u64>,
    /// Per CPU: whose tables are loaded, when flushed last, what it may write.
    pub cpus: Vec<Cpu>,
    pub flushes: u32,
    pub waits: u32,
    pub io: bool,
    /// A frame of device memory that is only to be read.
    pub read_only_io: Option<Mfn>,
}

#[derive(Default)]
pub struct Cpu {
    pub runs: u16,
    pub flushed: u64,
    pub writable: BTreeSet<u64>,
}

impl<'m> Fake<'m> {
    pub fn new(machine: &'m Machine) -> Self {
        let cpu = |runs| Cpu { runs, ..Cpu::default() };
        Fake {
            machine,
            budget: u32::MAX,
            deferred: vec![],
            freed: vec![],
            cpus: vec![cpu(A.0), cpu(B.0)],
            flushes: 0,
            waits: 0,
            io: false,
            read_only_io: None,
        }
    }

    fn cell(&self, table: &Table<'_>, slot: Slot) -> &'m AtomicU64 {
        &self.machine.memory[table.mfn().0 as usize][usize::from(slot.number())]
    }
}

impl Env for Fake<'_> {
    fn read(&self, table: &Table<'_>, slot: Slot) -> Entry {
        Entry(self.cell(table, slot).load(Ordering::SeqCst))
    }
    fn swap(&mut self, table: &Table<'_>, slot: Slot, new: Entry) -> Entry {
        Entry(self.cell(table, slot).swap(new.0, Ordering::SeqCst))
    }
    fn compare_exchange(&mut self, table: &Table<'_>, slot: Slot, old: Entry, new: Entry) -> Result<(), Entry> {
        let cell = self.cell(table, slot);
        cell.compare_exchange(old.0, new.0, Ordering::SeqCst, Ordering::SeqCst).map(drop).map_err(Entry)
    }
    fn fill_root(&mut self, root: &Table<'_>, _owner: DomId) {
        for i in Slot::OURS {
            self.cell(root, Slot::new(i)).store(0xabc, Ordering::SeqCst);
        }
    }
    fn now(&self) -> Stamp {
        Stamp::new(self.machine.clock.load(Ordering::SeqCst))
    }
    fn flush(&mut self, owner: DomId, everyone: bool, since: Stamp) {
        for cpu in &mut self.cpus {
            if (everyone || cpu.runs == owner.0) && cpu.flushed <= since.number() {
                cpu.flushed = self.machine.clock.fetch_add(1, Ordering::SeqCst) + 1;
                cpu.writable.clear();
                self.flushes += 1;
            }
        }
    }
    fn relax(&mut self) {
        self.waits += 1;
        std::thread::yield_now();
    }
    fn spend(&mut self, units: u32) -> bool {
        self.budget = self.budget.saturating_sub(units);
        self.budget == 0
    }
    fn release(&mut self, freed: Freed<'_>) {
        freed.frame().info().disown(self.now());
        self.freed.push(freed.frame().mfn().0);
    }
    fn defer(&mut self, table: Deferred) {
        self.deferred.push(table);
    }
    fn may_map_io(&mut self, _who: DomId, _mfn: Mfn) -> bool {
        self.io
    }
    fn is_read_only_io(&mut self, mfn: Mfn) -> bool {
        self.read_only_io == Some(mfn)
    }
    fn may_choose_caching(&mut self, _who: DomId) -> bool {
        self.io
    }
    fn has_nx(&self) -> bool {
        true
    }
    fn refuse_absent(&mut self, _owner: DomId, _entry: Entry) -> bool {
        false
    }
}

pub const fn entry(mfn: u64, flags: u64) -> Entry {
    Entry(mfn << 12 | flags | bit::PRESENT)
}

pub const RW: u64 = bit::RW | bit::USER;
pub const RO: u64 = bit::USER;

impl<'m> Mmu<'m, Fake<'m>> {
    pub fn whole(&mut self) {
        self.env.budget = u32::MAX;
        while let Some(next) = self.env.deferred.pop() {
            if let Some(rest) = self.finish(next) {
                self.env.deferred.push(rest);
            }
        }
    }

    pub fn set(&mut self, table: u64, slot: u16, new: Entry, owner: DomId, pages: DomId) -> Result<Changed, Fail> {
        let f = self.frames.ram(Mfn(table)).unwrap();
        let Some(locked) = self.lock_table(f, owner) else { return Err(Fail::Refused(xen_abi::Errno::EINVAL)) };
        let owners = Owners { pages, caller: owner };
        self.update(locked, Slot::new(slot), new, Replace::Whole, owner, owners)
    }

    pub fn word(&self, mfn: u64) -> Word {
        self.frames.info(Mfn(mfn)).unwrap().word()
    }
}

/// What the hypervisor's own recount says, in parts of three frames.
fn agrees_with_the_audit(mmu: &Mmu<'_, Fake<'_>>, roots: &[u64]) {
    let mut audit = Audit::new(3).unwrap();
    for first in (0..mmu.frames.end().0).step_by(3) {
        audit.begin(Mfn(first));
        roots.iter().for_each(|root| audit.found(Mfn(*root), Kind::L4));
        mmu.env.deferred.iter().for_each(|deferred| audit.deferred(deferred, mmu.frames));
        let frames = (0..mmu.frames.end().0).filter_map(|mfn| mmu.frames.ram(Mfn(mfn)));
        frames.filter(|f| f.word().kind().is_table()).for_each(|f| audit.table(mmu, f));
        for owner in [A, B] {
            audit.check(mmu.frames, owner, |mistake| panic!("{mistake}"));
        }
    }
}

/// Counts every reference from scratch and compares; `roots`: type references held by virtual CPUs.
pub fn recount(mmu: &Mmu<'_, Fake<'_>>, roots: &[u64]) {
    let machine = mmu.env.machine;
    let (mut refs, mut types): (BTreeMap<u64, u64>, BTreeMap<u64, u64>) = Default::default();
    for &root in roots {
        *refs.entry(root).or_default() += 1;
        *types.entry(root).or_default() += 1;
    }
    for deferred in &mmu.env.deferred {
        *refs.entry(deferred.mfn.0).or_default() += 1;
        if !deferred.partial {
            *types.entry(deferred.mfn.0).or_default() += 1;
        }
    }
    for (mfn, info) in machine.info.iter().enumerate() {
        let mfn = mfn as u64;
        let word = info.word();
        if info.is_allocated() {
            *refs.entry(mfn).or_default() += 1;
        }
        if word.is_pinned() {
            *refs.entry(mfn).or_default() += 1;
            *types.entry(mfn).or_default() += 1;
        }
        assert!(!word.is_updating());
        let counted = match word.state() {
            State::Valid(_) => 512,
            State::Partial(at) => {
                *refs.entry(mfn).or_default() += 1;
                at.done
            }
            State::Locked(_) => panic!("left locked: {mfn} {word:?}"),
            State::Free(_) => 0,
        };
        if !word.kind().is_table() {
            continue;
        }
        let partial = match word.state() {
            State::Partial(at) if at.partial_entry => Some(at.done),
            _ => None,
        };
        for i in (0..512u16).filter(|&i| Slot::new(i).is_guests(word.kind())) {
            let entry = Entry(machine.peek(mfn, i));
            let target = entry.mfn().0;
            if !entry.is_present() || mmu.frames.ram(entry.mfn()).is_none() {
                continue;
            }
            if word.kind() != Kind::L1 && target == mfn {
                assert!(i >= counted || !entry.is_writable(), "{mfn}[{i}]: itself for writing");
                continue;
            }
            if i < counted {
                *refs.entry(target).or_default() += 1;
                let kind = mmu.word(target).kind();
                if word.kind() != Kind::L1 {
                    *types.entry(target).or_default() += 1;
                    assert_eq!(kind, word.kind().below(), "{mfn}[{i}] -> {target}");
                } else if entry.is_writable() {
                    *types.entry(target).or_default() += 1;
                    assert_eq!(kind, Kind::Writable, "{mfn}[{i}] -> {target}: a writable table");
                }
            } else if partial == Some(i) {
                *refs.entry(target).or_default() += 1;
            }
        }
    }
    agrees_with_the_audit(mmu, roots);
    for (mfn, info) in machine.info.iter().enumerate() {
        let mfn = mfn as u64;
        assert_eq!(info.references(), refs.get(&mfn).copied().unwrap_or(0), "references of {mfn}: {:?}", info.word());
        if let State::Valid(count) = info.word().state() {
            assert_eq!(count, types.get(&mfn).copied().unwrap_or(0), "types of {mfn}: {:?}", info.word());
            assert_ne!(count, 0);
        } else {
            assert_eq!(types.get(&mfn), None, "types of {mfn}: {:?}", info.word());
        }
        let is_table = info.word().kind().is_table() && !matches!(info.word().state(), State::Free(_));
        for cpu in &mmu.env.cpus {
            assert!(!(is_table && cpu.writable.contains(&mfn)), "{mfn} is a table and in a TLB as writable");
        }
    }
}

//! The map against a list of what is mapped, for both formats, with every reference recounted.
#![allow(missing_docs, clippy::cast_possible_truncation, reason = "test code")]

use std::collections::BTreeMap;
use std::vec::Vec;

use xen_abi::ids::{Gfn, Mfn};

use super::*;
use crate::frames::Block;
use crate::grant::Flushed;
use crate::page::tests::{A, B, Machine};
use crate::page::{FrameTable, Slot};

pub mod model;
#[cfg(test)]
mod rules;

/// The tables of a machine of the tests.
#[derive(Clone, Copy)]
pub struct Tables<'m>(pub &'m Machine);

impl TableMemory for Tables<'_> {
    fn read(self, node: &Node, slot: Slot) -> u64 {
        self.0.peek(node.mfn().0, slot.number())
    }
    fn swap(self, node: &Node, slot: Slot, value: u64) -> u64 {
        let old = self.read(node, slot);
        self.fill(node, slot, value);
        old
    }
    fn fill(self, node: &Node, slot: Slot, value: u64) {
        self.0.poke(node.mfn().0, slot.number(), value);
    }
}

/// A machine with a map in it, and frames for its tables from 0 on.
pub struct World<'m> {
    pub machine: &'m Machine,
    pub map: Physmap<Tables<'m>>,
    pub free: Vec<u64>,
    /// What should be mapped: frame, size, use.
    pub want: BTreeMap<u64, (u64, Access, Use)>,
}

/// Frames for tables.
pub const TABLES: u64 = 64;
/// Frames of the domain, in single pages.
pub const SMALL: core::ops::Range<u64> = 64..96;
/// Another domain's.
pub const OTHERS: core::ops::Range<u64> = 96..104;
/// Frames of the domain that large pages can be made of.
pub const LARGE: core::ops::Range<u64> = 512..1536;
/// Frames of the machine.
pub const ALL: usize = 1536;

pub fn machine() -> Machine {
    let machine = Machine::new(ALL);
    (0..TABLES as usize).for_each(|i| machine.info[i].set_ram(false));
    machine.give(SMALL, A);
    machine.give(OTHERS, B);
    machine.give(LARGE, A);
    machine
}

impl<'m> World<'m> {
    pub fn new(machine: &'m Machine, format: Format) -> Self {
        let free = (1..TABLES).rev().collect();
        let map = Physmap::new(format, Order::Huge, Tables(machine), Block::new(Mfn(0), 0), machine.table()).unwrap();
        World { machine, map, free, want: BTreeMap::new() }
    }

    pub fn feed(&mut self) {
        while self.map.wants() > 0 {
            let Some(mfn) = self.free.pop() else { return };
            self.map.feed(Block::new(Mfn(mfn), 0), self.machine.table()).unwrap();
        }
    }

    /// Maps a page; whether it was.
    pub fn enter(&mut self, gfn: u64, (mfn, order): (u64, Order), access: Access, usage: Use) -> Result<(), Refused> {
        let owner = if OTHERS.contains(&mfn) { B } else { A };
        let mut mm = self.machine.mmu();
        let Ok(page) = Page::take(&mut mm, (Mfn(mfn), order), owner, (access, usage), A) else {
            return Err(Refused::Misplaced);
        };
        match self.map.map(Gfn(gfn), page) {
            Ok(()) => {
                for i in 0..order.frames() {
                    assert!(self.want.insert(gfn + i, (mfn + i, access, usage)).is_none(), "{gfn:x} mapped twice");
                }
                Ok(())
            }
            Err((refused, page)) => {
                page.give_up(&mut mm);
                Err(refused)
            }
        }
    }

    /// Takes out what begins at a number; how much it was.
    pub fn leave(&mut self, gfn: u64, most: Order) -> Result<Option<Order>, Refused> {
        let Some(stale) = self.map.unmap(Gfn(gfn), most, self.machine.table())? else { return Ok(None) };
        let order = stale.order();
        assert!(order <= most);
        for i in 0..order.frames() {
            assert!(self.want.remove(&(gfn + i)).is_some(), "{:x} was not mapped", gfn + i);
        }
        stale.flushed(&Flushed::acknowledged()).give_up(&mut self.machine.mmu());
        Ok(Some(order))
    }

    /// The map says what it should, and each frame has the references of its entries.
    pub fn check(&self) {
        let mut holders: BTreeMap<u64, u64> = BTreeMap::new();
        let mut writers: BTreeMap<u64, u64> = BTreeMap::new();
        for (&gfn, &(mfn, access, usage)) in &self.want {
            let found = self.map.find(Gfn(gfn)).unwrap();
            assert_eq!((found.mfn, found.access, found.usage), (Mfn(mfn), access, usage), "{gfn:x}");
            *holders.entry(mfn).or_default() += 1;
            *writers.entry(mfn).or_default() += u64::from(access.write);
        }
        for gfn in [0, 1, 511, 512, 513, 1023, 1024, 2048, (1 << 27) - 1, END.0 - 1, END.0, u64::MAX] {
            assert_eq!(self.map.find(Gfn(gfn)).is_some(), self.want.contains_key(&gfn), "{gfn:x}");
        }
        for mfn in SMALL.chain(OTHERS).chain(LARGE) {
            let info = &self.machine.info[mfn as usize];
            assert_eq!(info.references(), 1 + holders.get(&mfn).copied().unwrap_or(0), "references of {mfn:x}");
            let writers = writers.get(&mfn).copied().unwrap_or(0);
            let word = info.word();
            assert_eq!(if word.is_valid(crate::page::Kind::Writable) { word.count() } else { 0 }, writers);
        }
        assert_eq!(self.map.tables() + self.free.len() as u64, TABLES);
    }

    /// Takes all apart in slices of `budget`; every frame comes back.
    pub fn end(mut self, budget: u64) {
        let frames: FrameTable<'_> = self.machine.table();
        let mut mm = self.machine.mmu();
        let (mut free, mut slices) = (core::mem::take(&mut self.free), 0);
        loop {
            let mut left = budget;
            let mut page = |stale: Stale<'m>| stale.flushed(&Flushed::acknowledged()).give_up(&mut mm);
            if self.map.take_apart(frames, &mut left, &mut page, &mut |block| free.push(block.mfn().0)) {
                break;
            }
            slices += 1;
            assert!(slices < 100_000, "it never ends");
        }
        assert_eq!(self.map.tables(), 0);
        free.sort_unstable();
        assert_eq!(free, (0..TABLES).collect::<Vec<_>>());
        self.want.clear();
        for mfn in SMALL.chain(OTHERS).chain(LARGE) {
            assert_eq!(self.machine.info[mfn as usize].references(), 1, "references of {mfn:x} in the end");
        }
    }
}

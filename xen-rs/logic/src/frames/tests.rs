//! The allocator against an obvious model: a set of free frames.
#![allow(clippy::cast_possible_truncation, reason = "test code")]

use std::collections::BTreeSet;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::page::PageInfo;

fn holes(frames: usize) -> Vec<PageInfo> {
    (0..frames).map(|_| PageInfo::hole()).collect()
}

#[test]
fn memory_with_holes() {
    let info = holes(1000);
    let table = FrameTable::new(&info);
    let mut buddy = Buddy::new();
    buddy.add(table, Mfn(1), Mfn(159), true);
    buddy.add(table, Mfn(256), Mfn(2000), false);
    assert_eq!(buddy.free_pages(), 158 + 744);
    assert_eq!(buddy.alloc(table, 9, Zone::Any).err(), Some(Shortage::Exhausted), "no aligned block of that size");
    let mut seen = BTreeSet::new();
    while let Ok(stale) = buddy.alloc(table, 0, Zone::Low) {
        let block = stale.flushed(table, |_| ());
        let (mfn, _) = block.keep(table);
        assert!(seen.insert(mfn.0));
    }
    assert_eq!(seen.len(), 158 + 744);
    assert!(!seen.contains(&200));
    assert_eq!(buddy.free_pages(), 0);
}

#[test]
fn scrubs_each_dirty_frame_once() {
    let info = holes(128);
    let table = FrameTable::new(&info);
    let mut buddy = Buddy::new();
    buddy.add(table, Mfn(64), Mfn(128), false);
    let mut list = PageList::new();
    let block = buddy.alloc(table, 2, Zone::Any).unwrap().flushed(table, |_| ());
    let first = block.assign(table, DomId(1), &mut list);
    assert_eq!((list.len(), list.first(table)), (4, Some(first)));
    let f = list.pop(table).unwrap();
    f.info().set_ram(true);
    buddy.free(table, Block::new(f.mfn(), 0));
    while let Some(f) = list.pop(table) {
        f.info().set_ram(false);
        buddy.free(table, Block::new(f.mfn(), 0));
    }
    assert_eq!(buddy.free_pages(), 64);
    let mut whole = buddy.alloc(table, 6, Zone::Any).unwrap().flushed(table, |_| ());
    let mut zeroed = 0;
    assert!(whole.scrub(table, 2, |_| zeroed += 1));
    assert!(whole.scrub(table, 2, |_| zeroed += 1));
    assert_eq!(zeroed, 1);
    buddy.free(table, whole);
    assert!(buddy.take_dirty(table, 4).is_none());
}

#[test]
fn idle_scrubbing_comes_to_an_end() {
    let info = holes(512);
    let table = FrameTable::new(&info);
    let mut buddy = Buddy::new();
    buddy.add(table, Mfn(1), Mfn(500), true);
    assert_eq!(buddy.dirty_pages(), 499);
    let mut pieces = 0;
    while let Some(stale) = buddy.take_dirty(table, 4) {
        let mut block = stale.flushed(table, |_| ());
        assert!(block.scrub(table, 16, |_| ()));
        buddy.free(table, block);
        pieces += 1;
    }
    assert_eq!((buddy.dirty_pages(), buddy.free_pages()), (0, 499));
    assert!(pieces < 50, "{pieces}");
    assert!(buddy.alloc(table, 7, Zone::Any).is_ok(), "clean pieces have merged");
}

#[test]
fn mixed_pieces_merge_when_they_must() {
    let info = holes(128);
    let table = FrameTable::new(&info);
    let mut buddy = Buddy::new();
    buddy.add(table, Mfn(64), Mfn(128), false);
    let blocks: Vec<Block> =
        core::iter::from_fn(|| buddy.alloc(table, 0, Zone::Any).ok()).map(|s| s.flushed(table, |_| ())).collect();
    for mut block in blocks {
        if block.mfn().0 % 3 == 1 {
            block.soil(table);
        }
        buddy.free(table, block);
    }
    let mut whole = buddy.alloc(table, 6, Zone::Any).unwrap().flushed(table, |_| ());
    let mut zeroed = 0;
    assert!(!whole.scrub(table, 21, |_| zeroed += 1), "one is left");
    assert!(whole.scrub(table, 21, |_| zeroed += 1));
    assert_eq!((zeroed, buddy.free_pages(), buddy.dirty_pages()), (22, 0, 0));
}

#[test]
fn merging_takes_as_many_calls_as_it_needs() {
    const FRAMES: u64 = 4096;
    let info = holes(2 * FRAMES as usize);
    let table = FrameTable::new(&info);
    let mut buddy = Buddy::new();
    buddy.add(table, Mfn(FRAMES), Mfn(2 * FRAMES), false);
    let blocks: Vec<Block> =
        core::iter::from_fn(|| buddy.alloc(table, 0, Zone::Any).ok()).map(|s| s.flushed(table, |_| ())).collect();
    for mut block in blocks {
        if block.mfn().0 % 2 == 0 {
            block.soil(table);
        }
        buddy.free(table, block);
    }
    let mut calls = 0;
    let whole = loop {
        calls += 1;
        match buddy.alloc(table, 12, Zone::Any) {
            Ok(stale) => break stale,
            Err(shortage) => assert_eq!(shortage, Shortage::Unfinished),
        }
    };
    assert_eq!((whole.pages(), buddy.free_pages(), buddy.dirty_pages()), (FRAMES, 0, 0));
    assert!((8..=9).contains(&calls), "2048 pairs and no more than 256 a call: {calls}");
}

#[test]
fn free_frames_by_the_width_of_their_numbers() {
    let info = holes(64);
    let table = FrameTable::new(&info);
    let mut buddy = Buddy::new();
    buddy.add(table, Mfn(0), Mfn(64), false);
    let each = |buddy: &Buddy| (1..=6).map(|bits| buddy.free_pages_of(bits..=bits)).collect::<Vec<_>>();
    assert_eq!(each(&buddy), [1, 2, 4, 8, 16, 32], "all but frame 0");
    let stale = buddy.alloc(table, 4, Zone::Any).unwrap();
    assert_eq!((each(&buddy), buddy.free_pages()), (std::vec![1, 2, 4, 8, 0, 32], 47));
    buddy.free(table, stale.flushed(table, |_| ()));
    assert_eq!((each(&buddy), buddy.free_pages_of(4..=40)), (std::vec![1, 2, 4, 8, 16, 32], 56));
}

#[test]
fn large_blocks_side_by_side() {
    const GIB: u64 = 1 << MAX_ORDER;
    let info = holes(3 * GIB as usize);
    let table = FrameTable::new(&info);
    let mut buddy = Buddy::new();
    buddy.add(table, Mfn(1), Mfn(512), false);
    buddy.add(table, Mfn(GIB), Mfn(3 * GIB), false);
    let mut take = |order, zone| buddy.alloc(table, order, zone).map(|stale| stale.flushed(table, |_| ()));
    // What is left of a GiB comes first, and a whole one is found all the same.
    let before = take(9, Zone::Any).unwrap();
    let other = 4 * GIB - GIB - (before.mfn().0 & !(GIB - 1)); // The one that is still whole.
    let mut blocks = std::vec![take(9, Zone::Largest).unwrap()];
    assert_eq!(blocks[0].mfn().0, other);
    for i in 1..512 {
        let next = Mfn(other + i * 512);
        blocks.push(take(9, Zone::From(next)).unwrap());
        assert_eq!(blocks.last().map(Block::mfn), Some(next));
    }
    // There is no whole one any more; what is taken, or not aligned, is not to be had.
    assert_ne!(take(9, Zone::Largest).unwrap().mfn().0 & !(GIB - 1), other);
    for elsewhere in [other, other + 1, u64::MAX - 511] {
        assert_ne!(take(9, Zone::From(Mfn(elsewhere))).unwrap().mfn(), Mfn(elsewhere));
    }
    // In pieces: half of it is dirty.
    let mut block = blocks.pop().unwrap();
    let at = block.mfn();
    block.soil(table);
    buddy.free(table, block);
    let mut half = buddy.take_dirty(table, 8).unwrap().flushed(table, |_| ());
    // It comes back.
    assert_eq!(buddy.alloc(table, 9, Zone::From(at)).err(), Some(Shortage::Unfinished));
    while !half.scrub(table, 64, |_| ()) {}
    buddy.free(table, half);
    let free = buddy.free_pages();
    let whole = buddy.alloc(table, 9, Zone::From(at)).unwrap().flushed(table, |_| ());
    assert_eq!((whole.mfn(), buddy.free_pages()), (at, free - 512));
    buddy.free(table, whole);
    assert_eq!(buddy.free_pages(), free);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn against_a_set(ops in prop::collection::vec((any::<bool>(), 0..5u8, any::<usize>(), 0..4u8), 1..200)) {
        let info = holes(300);
        let table = FrameTable::new(&info);
        let mut buddy = Buddy::new();
        buddy.add(table, Mfn(3), Mfn(290), false);
        let mut free: BTreeSet<u64> = (3..290).collect();
        let mut held: Vec<Block> = Vec::new();
        for (take, order, pick, how) in ops {
            if take {
                let at = pick as u64 % 300;
                let zone = match how {
                    0 => Zone::From(Mfn(at)),
                    1 => Zone::Largest,
                    _ => Zone::Any,
                };
                let there = at.is_multiple_of(1 << order) && (at..at + (1 << order)).all(|m| free.contains(&m));
                match buddy.alloc(table, order, zone) {
                    Ok(stale) => {
                        let block = stale.flushed(table, |_| ());
                        prop_assert!(how != 0 || !there || block.mfn().0 == at, "not where it was wanted");
                        prop_assert_eq!(block.mfn().0 % (1 << order), 0);
                        for mfn in block.mfn().0..block.mfn().0 + (1 << order) {
                            prop_assert!(free.remove(&mfn));
                        }
                        held.push(block);
                    }
                    Err(shortage) => {
                        prop_assert_eq!(shortage, Shortage::Exhausted);
                        let size = 1u64 << order;
                        let fits = (0..300 / size).any(|i| (i * size..(i + 1) * size).all(|m| free.contains(&m)));
                        prop_assert!(!fits, "a block of order {} is free", order);
                    }
                }
            } else if !held.is_empty() {
                let mut block = held.swap_remove(pick % held.len());
                free.extend(block.mfn().0..block.mfn().0 + block.pages());
                if order == 0 {
                    block.soil(table);
                }
                buddy.free(table, block);
            }
            prop_assert_eq!(buddy.free_pages(), free.len() as u64);
        }
    }
}

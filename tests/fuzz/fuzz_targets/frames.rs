//! The allocator, against a set of free frames.
#![no_main]
#![forbid(unsafe_code)]

use fuzz::Bytes;
use libfuzzer_sys::fuzz_target;
use logic::frames::{Block, Buddy, PageList, Zone};
use logic::page::{FrameTable, PageInfo};
use xen_abi::ids::{DomId, Mfn};

const FRAMES: usize = 256;
const OWNER: DomId = DomId(1);

fuzz_target!(|data: &[u8]| {
    let info: Vec<PageInfo> = (0..FRAMES).map(|_| PageInfo::hole()).collect();
    let table = FrameTable::new(&info);
    let mut buddy = Buddy::new();
    let mut bytes = Bytes::new(data);
    let (one, other) = (u64::from(bytes.u8()), u64::from(bytes.u8()));
    let (from, to) = (one.min(other), one.max(other));
    buddy.add(table, Mfn(from), Mfn(to), true);
    // Frame 0 is left out.
    let all = to.saturating_sub(from.max(1));
    let mut owner = vec![false; FRAMES];
    let mut held: Vec<Block> = Vec::new();
    while !bytes.is_empty() {
        let what = bytes.u8();
        match what % 3 {
            0 if !held.is_empty() => {
                let block = held.swap_remove(usize::from(bytes.u8()) % held.len());
                for f in block.frames(table) {
                    owner[f.mfn().0 as usize] = false;
                }
                buddy.free(table, block);
            }
            1 => {
                if let Some(stale) = buddy.take_dirty(table, what >> 4) {
                    let mut block = stale.flushed(table, |_| ());
                    let _ = block.scrub(table, 7, |_| ());
                    buddy.free(table, block);
                }
            }
            _ => {
                let zone = match bytes.u8() {
                    at @ 0..64 => Zone::From(Mfn(u64::from(at) << (what >> 4))),
                    64..80 => Zone::Largest,
                    _ => Zone::Any,
                };
                let Ok(stale) = buddy.alloc(table, what >> 4, zone) else { continue };
                let block = stale.flushed(table, |_| ());
                assert_eq!(block.mfn().0 % block.pages(), 0, "not aligned");
                for f in block.frames(table) {
                    let taken = &mut owner[f.mfn().0 as usize];
                    assert!(!std::mem::replace(taken, true), "{:?} was given out twice", f.mfn());
                }
                held.push(block);
            }
        }
        let taken = owner.iter().filter(|taken| **taken).count() as u64;
        assert_eq!(buddy.free_pages() + taken, all);
    }
    let mut list = PageList::new();
    let count: u64 = held.iter().map(Block::pages).sum();
    for block in held {
        block.assign(table, OWNER, &mut list);
    }
    assert_eq!(list.len(), count);
});

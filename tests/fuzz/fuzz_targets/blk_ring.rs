//! A block front end that writes whatever it likes into its ring, between the back end's steps.
#![no_main]
#![forbid(unsafe_code)]

#[path = "../../../ring-protocol/tests/support/mod.rs"]
mod support;

use fuzz::scribbled;
use libfuzzer_sys::fuzz_target;
use ring_protocol::blk::back::{Disk, Pages, Queue, Work};
use ring_protocol::blk::wire::{Direction, Layout, Status};
use ring_protocol::page::Page;
use support::Memory;

const DISK: Disk =
    Disk { sectors: 4096, sector_size: 4096, read_only: false, flush: true, discard: true, indirect: 64 };

fuzz_target!(|data: &[u8]| {
    let Some((layout, mut left)) = data.split_first() else { return };
    let page = Memory::new(1);
    let layout = if layout & 1 == 0 { Layout::X86_64 } else { Layout::X86_32 };
    let Ok(mut queue) = Queue::attach(&page, 4096, layout) else { return };
    let mut held = Vec::new();
    while let Some((&[step, high, low], rest)) = left.split_first_chunk() {
        left = rest;
        match step % 5 {
            0 => {
                let (at, bytes) = scribbled(&mut left, step, [high, low]);
                page.write(at, bytes);
            }
            1 => {
                if let Ok(Some((taken, operation))) = queue.take(&page) {
                    match DISK.check(operation) {
                        Ok(Work::Transfer { sector, pages: Pages::Direct(segments), .. }) => {
                            let sectors: u64 = segments.iter().map(|segment| segment.sectors()).sum();
                            assert!(sectors > 0 && sector + sectors <= DISK.sectors && sector % 8 == 0);
                        }
                        Ok(Work::Transfer { sector, pages: Pages::Listed { count, lists }, .. }) => {
                            assert!(count <= DISK.indirect && !lists.is_empty());
                            let mut sectors = 0;
                            let each = |segment: ring_protocol::blk::wire::Segment| sectors += segment.sectors();
                            let list = left.get(..usize::from(count) * 8).unwrap_or(left);
                            if DISK.segments(Direction::Read, sector, count, list, each).is_ok() {
                                assert!(sector + sectors <= DISK.sectors);
                            }
                        }
                        Ok(Work::Discard { sector, count }) => assert!(sector + count <= DISK.sectors),
                        Ok(Work::Barrier { .. } | Work::Flush) | Err(_) => {}
                    }
                    held.push(taken);
                    assert!(held.len() <= 32, "more under way than the ring has slots");
                }
            }
            2 if !held.is_empty() => {
                let taken = held.swap_remove(usize::from(high) % held.len());
                queue.answer(&page, taken, Status::Okay);
            }
            3 => drop(queue.announce(&page)),
            _ => drop(queue.sleep(&page)),
        }
    }
});

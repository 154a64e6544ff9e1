//! A block back end that writes whatever it likes into the ring, between the front end's steps: each request is answered once at
//! most, and none that was not made.
#![no_main]
#![forbid(unsafe_code)]

#[path = "../../../ring-protocol/tests/support/mod.rs"]
mod support;

use fuzz::scribbled;
use libfuzzer_sys::fuzz_target;
use ring_protocol::blk::front::Queue;
use ring_protocol::blk::wire::{Direction, Layout, Operation, Segment};
use ring_protocol::page::Page;
use std::collections::BTreeSet;
use support::Memory;
use xen_abi::ids::GrantRef;

fuzz_target!(|data: &[u8]| {
    let Some((layout, mut left)) = data.split_first() else { return };
    let page = Memory::new(1);
    let layout = if layout & 1 == 0 { Layout::X86_64 } else { Layout::X86_32 };
    let Some(mut queue) = Queue::new(&page, 4096, layout) else { return };
    let mut under_way = BTreeSet::new();
    while let Some((&[step, high, low], rest)) = left.split_first_chunk() {
        left = rest;
        match step % 5 {
            0 => {
                let (at, bytes) = scribbled(&mut left, step, [high, low]);
                page.write(at, bytes);
            }
            1 => {
                let segment = Segment::new(GrantRef(high.into()), low % 8, 7);
                let (direction, segments) = (Direction::Read, segment.into_iter().collect());
                let read = Operation::Transfer { direction, sector: low.into(), segments };
                if let Some(tag) = queue.ask(&page, 0, &read) {
                    assert!(under_way.insert(tag), "a name is used once at a time");
                    assert!(under_way.len() <= usize::from(queue.slots()));
                }
            }
            2 => {
                if let Ok(Some((tag, _))) = queue.take(&page) {
                    assert!(under_way.remove(&tag), "it was asked");
                }
            }
            3 => drop(queue.announce(&page)),
            _ => drop(queue.sleep(&page)),
        }
    }
});

//! The arithmetic of `memory_op`: whatever a guest asks for, rounds end, cover each extent once, and touch nothing but its
//! lists.
#![no_main]
#![forbid(unsafe_code)]

use fuzz::Bytes;
use libfuzzer_sys::fuzz_target;
use logic::guest::doc::Zeroes;
use logic::memory_op::{Direction, Extents, LARGEST_ORDER, Step, Trade, split_command};
use xen_abi::ids::DomId;
use xen_abi::memory::{MemoryExchange, MemoryReservation};

/// Extents looked at of one call: the rest is more of the same.
const MOST: u64 = 3000;
/// Pages that a round takes, and one extent more.
const LARGEST_ROUND: u64 = 24 + (1 << LARGEST_ORDER);

fn reservation(bytes: &mut Bytes<'_>) -> MemoryReservation {
    let shift = bytes.u8() % 64;
    MemoryReservation {
        extent_start: bytes.u64() >> (bytes.u8() % 64),
        nr_extents: bytes.u64() >> shift,
        extent_order: u32::from(bytes.u8()) << (bytes.u8() % 32),
        mem_flags: bytes.u32(),
        domid: DomId(u16::from(bytes.u8() & 1)),
        ..Default::default()
    }
}

fn extents(bytes: &mut Bytes<'_>) {
    let wanted = reservation(bytes);
    let direction = [Direction::Increase, Direction::Populate, Direction::Decrease][usize::from(bytes.u8() % 3)];
    let (command, mut first) = split_command(bytes.u64() >> (bytes.u8() % 64));
    let begun = first;
    while let Some(mut extents) = Extents::new::<Zeroes>(&wanted, first, direction) {
        assert!(u32::from(extents.order()) <= LARGEST_ORDER && first < wanted.nr_extents);
        let mut pages = 0u64;
        let ended = loop {
            match extents.next(bytes.u8() & 7 == 1) {
                Step::Extent(at) => {
                    let list = (wanted.extent_start != 0).then_some(wanted.extent_start);
                    assert_eq!(at, list.map(|list| list.wrapping_add(extents.done() * 8)));
                    assert!(at.is_some() || direction == Direction::Increase, "no list to look at");
                    pages += 1 << extents.order();
                    extents.complete();
                }
                step => break step,
            }
        };
        assert!(pages > 0 && pages < LARGEST_ROUND, "a round gets on, and ends");
        if ended == Step::Finished {
            assert_eq!(extents.done(), wanted.nr_extents);
            break;
        }
        assert_eq!(split_command(extents.continuation(command)), (command, extents.done()), "it goes on where it was");
        assert!(extents.done() > first);
        first = extents.done();
        if first - begun > MOST {
            break;
        }
    }
}

fn trade(bytes: &mut Bytes<'_>) {
    let (in_, out) = (reservation(bytes), reservation(bytes));
    let wanted = MemoryExchange { in_, out, nr_exchanged: bytes.u64() >> (bytes.u8() % 64) };
    let Ok(trade) = Trade::new::<Zeroes>(&wanted) else { return };
    assert!(trade.pages_per_chunk() <= 1 << LARGEST_ORDER, "a chunk is bounded");
    let mut next = None;
    for chunk in trade.chunks(wanted.nr_exchanged).take(16) {
        let given: Vec<_> = trade.given(chunk).collect();
        let taken: Vec<_> = trade.taken(chunk).collect();
        assert_eq!((given.len() as u64) << trade.given_order(), trade.pages_per_chunk());
        assert_eq!((taken.len() as u64) << trade.taken_order(), trade.pages_per_chunk(), "as much is taken as given");
        assert_eq!(taken.len(), trade.taken_per_chunk());
        assert!(trade.given_before(chunk) + given.len() as u64 <= trade.count());
        let first = given[0];
        assert_eq!(first, in_.extent_start.wrapping_add(trade.given_before(chunk) * 8));
        assert!(next.is_none_or(|next| next == first), "one behind the other");
        assert!(given.windows(2).all(|pair| pair[0].wrapping_add(8) == pair[1]));
        next = given.last().map(|last| last.wrapping_add(8));
    }
}

fuzz_target!(|data: &[u8]| {
    let mut bytes = Bytes::new(data);
    if bytes.u8() & 1 == 0 { extents(&mut bytes) } else { trade(&mut bytes) }
});

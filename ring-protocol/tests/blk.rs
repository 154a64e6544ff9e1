//! Both ends of a block device's queue over memory, and peers that write what they like.

mod support;

use arrayvec::ArrayVec;
use proptest::prelude::*;
use ring_protocol::blk::back::{self, Disk, Pages, Work};
use ring_protocol::blk::connect::{self, Step, Unfit, frontend};
use ring_protocol::blk::front::{self, Broken};
use ring_protocol::blk::wire::{self, Direction, Layout, Operation, SEGMENT, Segment, Status};
use ring_protocol::page::Page;
use ring_protocol::sring::Wake;
use ring_protocol::xenbus::State;
use std::collections::{BTreeMap, BTreeSet};
use support::Memory;
use xen_abi::ids::{GrantRef, Port};
use xen_abi::io::ring::{REQ_EVENT, REQ_PROD, RSP_EVENT, RSP_PROD, SLOTS};

const LAYOUTS: [Layout; 2] = [Layout::X86_64, Layout::X86_32];

const DISK: Disk =
    Disk { sectors: 1000, sector_size: 512, read_only: false, flush: true, discard: true, indirect: 600 };

fn segment(page: u32, first: u8, last: u8) -> Segment {
    Segment::new(GrantRef(page), first, last).unwrap()
}

fn transfer(direction: Direction, sector: u64, segments: &[Segment]) -> Operation {
    Operation::Transfer { direction, sector, segments: segments.iter().copied().collect() }
}

fn read(sector: u64, segments: &[Segment]) -> Operation {
    transfer(Direction::Read, sector, segments)
}

#[test]
fn a_request_is_asked_checked_and_answered() {
    for layout in LAYOUTS {
        is_asked_checked_and_answered(layout);
    }
}

fn is_asked_checked_and_answered(layout: Layout) {
    let page = Memory::new(1);
    let mut front = front::Queue::new(&page, page.len(), layout).unwrap();
    let mut back = back::Queue::attach(&page, page.len(), layout).unwrap();
    assert_eq!(front.slots(), 32);
    assert_eq!(back.sleep(&page), Ok(false));
    let tag = front.ask(&page, 51712, &read(8, &[segment(9, 0, 7)])).unwrap();
    assert!(back.take(&page).unwrap().is_none(), "it was not announced");
    assert_eq!(front.announce(&page), Wake::Yes, "the other end sleeps");
    let (taken, operation) = back.take(&page).unwrap().unwrap();
    let work = DISK.check(operation).unwrap();
    let Work::Transfer { direction: Direction::Read, sector: 8, pages: Pages::Direct(segments) } = work else {
        panic!("{work:?}");
    };
    assert_eq!(segments.as_slice(), [segment(9, 0, 7)]);
    assert!(!front.sleep(&page).unwrap());
    back.answer(&page, taken, Status::Okay);
    assert_eq!(front.take(&page), Ok(None));
    assert_eq!(back.announce(&page), Wake::Yes);
    assert_eq!(front.take(&page), Ok(Some((tag, Status::Okay))));
    // Who is awake is not woken.
    let _ = front.ask(&page, 0, &Operation::Flush).unwrap();
    assert_eq!(front.announce(&page), Wake::No);
}

#[test]
fn all_operations_survive_the_ring() {
    let lists: ArrayVec<GrantRef, 8> = [GrantRef(5), GrantRef(6)].into_iter().collect();
    let indirect = |direction| Operation::Indirect { direction, sector: 3, count: 513, lists: lists.clone() };
    for operation in [
        read(1, &[segment(1, 0, 0), segment(2, 1, 7)]),
        transfer(Direction::Write, u64::MAX, &[segment(u32::MAX, 7, 7); 11]),
        Operation::Flush,
        Operation::Barrier { sector: 5, segments: ArrayVec::new() },
        Operation::Barrier { sector: 5, segments: [segment(3, 0, 7)].into_iter().collect() },
        Operation::Discard { sector: 77, count: 88, secure: false },
        Operation::Discard { sector: 77, count: 88, secure: true },
        indirect(Direction::Read),
        indirect(Direction::Write),
    ] {
        let slot = wire::encode(42, 7, &operation).unwrap();
        let request = wire::decode(&slot);
        assert_eq!((request.id, &request.operation), (42, &operation));
        let code = if let Operation::Indirect { direction, .. } = operation { direction as u8 } else { slot[0] };
        assert_eq!(request.code, code, "an indirect request is answered by the operation behind it");
    }
    assert_eq!(wire::encode(0, 0, &Operation::Unknown), None);
}

#[test]
fn what_cannot_be_is_malformed() {
    let good = wire::encode(1, 0, &read(0, &[segment(1, 0, 7)])).unwrap();
    let with = |at: usize, value: u8| {
        let mut slot = good;
        slot[at] = value;
        wire::decode(&slot).operation
    };
    assert_eq!(with(0, 4), Operation::Unknown);
    assert_eq!(with(0, 200), Operation::Unknown);
    assert_eq!(with(1, 0), Operation::Malformed, "no segments");
    assert_eq!(with(1, 12), Operation::Malformed, "too many");
    assert_eq!(with(28, 8), Operation::Malformed, "starts behind its page");
    assert_eq!(with(29, 8), Operation::Malformed, "ends behind its page");
    assert_eq!(with(28, 7), read(0, &[segment(1, 7, 7)]));
    let mut backwards = good;
    (backwards[28], backwards[29]) = (5, 4);
    assert_eq!(wire::decode(&backwards).operation, Operation::Malformed);
    // Indirect: of what, and how many.
    let lists: ArrayVec<GrantRef, 8> = [GrantRef(5)].into_iter().collect();
    let operation = Operation::Indirect { direction: Direction::Read, sector: 3, count: 1, lists };
    let mut slot = wire::encode(1, 0, &operation).unwrap();
    slot[1] = 3;
    assert_eq!(wire::decode(&slot).operation, Operation::Malformed);
    slot[1] = 0;
    slot[2..4].copy_from_slice(&4097u16.to_le_bytes());
    assert_eq!(wire::decode(&slot).operation, Operation::Malformed, "more lists than a request has room for");
    slot[2..4].copy_from_slice(&0u16.to_le_bytes());
    assert_eq!(wire::decode(&slot).operation, Operation::Malformed);
}

#[test]
fn requests_are_checked_against_the_disk() {
    let full = segment(1, 0, 7);
    assert!(DISK.check(read(992, &[full])).is_ok());
    assert_eq!(DISK.check(read(993, &[full])), Err(Status::Error), "past the end");
    assert_eq!(DISK.check(read(u64::MAX, &[full])), Err(Status::Error), "around the end");
    let discard = |sector, count| Operation::Discard { sector, count, secure: false };
    assert!(DISK.check(discard(0, 1000)).is_ok());
    assert_eq!(DISK.check(discard(1, 1000)), Err(Status::Error));
    assert_eq!(DISK.check(discard(1, u64::MAX)), Err(Status::Error));
    assert_eq!(DISK.check(discard(1, 0)), Err(Status::Error));
    let secure = Operation::Discard { sector: 0, count: 8, secure: true };
    assert_eq!(DISK.check(secure), Err(Status::Unsupported));

    let read_only = Disk { read_only: true, discard: false, flush: false, ..DISK };
    assert!(read_only.check(read(0, &[full])).is_ok());
    assert_eq!(read_only.check(transfer(Direction::Write, 0, &[full])), Err(Status::Error));
    assert_eq!(read_only.check(discard(0, 8)), Err(Status::Unsupported));
    assert_eq!(read_only.check(Operation::Flush), Err(Status::Unsupported));
    assert_eq!(DISK.check(Operation::Unknown), Err(Status::Unsupported));
    assert_eq!(DISK.check(Operation::Malformed), Err(Status::Error));

    let large = Disk { sector_size: 4096, ..DISK };
    assert!(large.check(read(8, &[full])).is_ok());
    assert_eq!(large.check(read(4, &[full])), Err(Status::Error), "half a sector");
    assert_eq!(large.check(read(8, &[segment(1, 0, 3), segment(1, 4, 7)])), Err(Status::Error), "in two pieces");
}

#[test]
fn lists_of_segments_are_checked_too() {
    let bytes = |segments: &[Segment]| segments.iter().flat_map(|s| wire::segment_bytes(*s)).collect::<Vec<u8>>();
    let get = |disk: &Disk, sector, count, lists: &[u8]| {
        let mut all = Vec::new();
        disk.segments(Direction::Write, sector, count, lists, |segment| all.push(segment)).map(|()| all)
    };
    let two = [segment(1, 0, 7), segment(2, 3, 4)];
    assert_eq!(get(&DISK, 0, 2, &bytes(&two)), Ok(two.to_vec()));
    assert_eq!(get(&DISK, 0, 3, &bytes(&two)), Err(Status::Error), "the list is shorter than it says");
    assert_eq!(get(&DISK, 991, 2, &bytes(&two)), Err(Status::Error), "past the end");
    assert_eq!(get(&Disk { read_only: true, ..DISK }, 0, 2, &bytes(&two)), Err(Status::Error));
    let mut wrong = bytes(&two);
    wrong[SEGMENT + 5] = 9;
    assert_eq!(get(&DISK, 0, 2, &wrong), Err(Status::Error));
    let lists = ArrayVec::new();
    let many = Operation::Indirect { direction: Direction::Read, sector: 0, count: 601, lists };
    assert_eq!(DISK.check(many), Err(Status::Error), "more than was offered");
}

/// Offsets and sizes are those that an i386 compiler gives the structures of `io/blkif.h`.
#[test]
fn requests_of_32_bit_code_lie_closer() {
    let narrow = |operation: &Operation| {
        let mut slot = wire::encode(0x1122_3344_5566_7788, 0xabcd, operation).unwrap();
        let wide = slot;
        Layout::X86_32.narrow(&mut slot);
        let bytes = slot;
        Layout::X86_32.widen(&mut slot);
        assert_eq!(slot, wide);
        bytes
    };
    assert_eq!(Layout::X86_32.slot(), 108);
    let id = 0x1122_3344_5566_7788u64.to_le_bytes();
    let bytes = narrow(&read(0x99, &[segment(0x1234_5678, 1, 6)]));
    assert_eq!((&bytes[2..4], &bytes[4..12], bytes[12]), (&[0xcd, 0xab][..], &id[..], 0x99));
    assert_eq!(bytes[20..26], [0x78, 0x56, 0x34, 0x12, 1, 6]);
    let bytes = narrow(&Operation::Discard { sector: 0x99, count: 0x77, secure: false });
    assert_eq!((&bytes[4..12], bytes[12], bytes[20]), (&id[..], 0x99, 0x77));
    let lists = [GrantRef(0x55), GrantRef(0x66)].into_iter().collect();
    let bytes = narrow(&Operation::Indirect { direction: Direction::Write, sector: 0x99, count: 600, lists });
    assert_eq!((&bytes[4..12], bytes[12], &bytes[20..22]), (&id[..], 0x99, &[0xcd, 0xab][..]));
    assert_eq!((bytes[24], bytes[28]), (0x55, 0x66));
}

fn nodes<'a>(all: &'a [(&'a str, &'a str)]) -> impl FnMut(&str) -> Option<&'a str> {
    let all: BTreeMap<&str, &str> = all.iter().copied().collect();
    move |name| all.get(name).copied()
}

#[test]
fn front_ends_of_all_kinds_are_understood() {
    let one = frontend(nodes(&[("ring-ref", "8"), ("event-channel", "9"), ("protocol", "x86_64-abi")]), 4).unwrap();
    assert!(!one.persistent);
    assert_eq!(one.queues[0].port, Port(9));
    assert_eq!(one.queues[0].ring.as_slice(), [GrantRef(8)]);
    let large = [("ring-page-order", "1"), ("ring-ref0", "3"), ("ring-ref1", "4"), ("event-channel", "9")];
    assert_eq!(frontend(nodes(&large), 4).unwrap().queues[0].ring.as_slice(), [GrantRef(3), GrantRef(4)]);
    let two = [
        ("multi-queue-num-queues", "2"),
        ("feature-persistent", "1"),
        ("queue-0/ring-ref", "1"),
        ("queue-0/event-channel", "2"),
        ("queue-1/ring-ref", "3"),
        ("queue-1/event-channel", "4"),
    ];
    let got = frontend(nodes(&two), 4).unwrap();
    assert!(got.persistent);
    assert_eq!(got.queues.iter().map(|queue| queue.port).collect::<Vec<_>>(), [Port(2), Port(4)]);
    assert_eq!(frontend(nodes(&two), 1), Err(Unfit::Queues), "more than was offered");
    assert_eq!(frontend(nodes(&two[..5]), 4), Err(Unfit::Queue(1)));
    assert_eq!(frontend(nodes(&[("ring-ref", "x"), ("event-channel", "9")]), 4), Err(Unfit::Queue(0)));
    assert_eq!(one.layout, Layout::X86_64);
    let narrow = [("ring-ref", "8"), ("event-channel", "9"), ("protocol", "x86_32-abi")];
    assert_eq!(frontend(nodes(&narrow), 4).unwrap().layout, Layout::X86_32);
    assert_eq!(frontend(nodes(&[("protocol", "arm-abi")]), 4), Err(Unfit::Protocol));
    assert_eq!(frontend(nodes(&[("ring-page-order", "5"), ("event-channel", "1")]), 4), Err(Unfit::Order));
    assert_eq!(frontend(nodes(&[("multi-queue-num-queues", "0")]), 4), Err(Unfit::Queues));
    assert_eq!(frontend(nodes(&[("multi-queue-num-queues", "4000000000")]), 4), Err(Unfit::Queues));
}

/// The back end's state after it has done what a step says.
fn after(step: Step, own: State) -> State {
    match step {
        Step::Stay => own,
        Step::Offer => State::InitWait,
        Step::Connect => State::Connected,
        Step::Close => State::Closing,
        Step::Disconnect | Step::Remove => State::Closed,
    }
}

#[test]
fn a_device_s_life() {
    let mut own = State::Initialising;
    let mut go = |front, online| {
        let step = connect::step(own, front, online);
        own = after(step, own);
        step
    };
    assert_eq!(go(State::Initialising, true), Step::Offer);
    assert_eq!(go(State::Initialising, true), Step::Stay);
    assert_eq!(go(State::Initialised, true), Step::Connect);
    assert_eq!(go(State::Connected, true), Step::Stay);
    // The guest's kernel is replaced.
    assert_eq!(go(State::Closing, true), Step::Close);
    assert_eq!(go(State::Closed, true), Step::Disconnect);
    assert_eq!(go(State::Initialising, true), Step::Offer);
    assert_eq!(go(State::Initialised, true), Step::Connect);
    // It starts over without a word.
    assert_eq!(go(State::Initialising, true), Step::Disconnect);
    assert_eq!(go(State::Initialising, true), Step::Offer);
    assert_eq!(go(State::Initialised, true), Step::Connect);
    // The toolstack takes the device away.
    assert_eq!(go(State::Closing, false), Step::Close);
    assert_eq!(go(State::Closed, false), Step::Remove);
    assert_eq!(connect::step(State::Connected, State::Unknown, true), Step::Remove);
}

#[test]
fn states_settle() {
    for own in State::ALL {
        for front in State::ALL {
            for online in [false, true] {
                let mut state = own;
                let settled = (0..4).any(|_| {
                    let step = connect::step(state, front, online);
                    let settled = after(step, state) == state;
                    state = after(step, state);
                    settled
                });
                assert!(settled, "{own:?} {front:?} {online}");
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Act {
    Ask(u64, u8),
    Announce,
    Take,
    Answer(usize, bool),
    Show,
    Collect,
    Sleep,
    Scribble(usize, u32),
    Spoil(usize, u8),
}

fn layout() -> impl Strategy<Value = Layout> {
    proptest::sample::select(&LAYOUTS[..])
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (any::<u64>(), 1u8..11).prop_map(|(sector, count)| Act::Ask(sector, count)),
        3 => Just(Act::Announce),
        4 => Just(Act::Take),
        4 => (any::<usize>(), any::<bool>()).prop_map(|(which, well)| Act::Answer(which, well)),
        3 => Just(Act::Show),
        4 => Just(Act::Collect),
        2 => Just(Act::Sleep),
        1 => (0usize..4, any::<u32>()).prop_map(|(index, value)| Act::Scribble(index, value)),
        1 => (64usize..4096, any::<u8>()).prop_map(|(at, value)| Act::Spoil(at, value)),
    ]
}

proptest! {
    /// Each request arrives once, as it was asked, and its answer comes back under its name; nobody who waits is forgotten.
    #[test]
    fn requests_and_answers_match(layout in layout(), pages in 1usize..5, acts in proptest::collection::vec(act(), 1..300)) {
        let pages = pages.next_power_of_two();
        let page = Memory::new(pages);
        let mut front = front::Queue::new(&page, page.len(), layout).unwrap();
        let mut back = back::Queue::attach(&page, page.len(), layout).unwrap();
        let mut asked = BTreeMap::new();
        let mut expected = std::collections::VecDeque::new();
        let mut held = Vec::new();
        let mut answered = BTreeMap::new();
        let (mut announced, mut back_sleeps) = (0, false);
        for act in acts {
            match act {
                Act::Ask(sector, count) => {
                    let segments: Vec<Segment> = (0..count).map(|n| segment(u32::from(n), n % 8, 7)).collect();
                    let operation = read(sector, &segments);
                    let full = asked.len() == usize::from(front.slots());
                    let tag = front.ask(&page, 1, &operation);
                    prop_assert_eq!(tag.is_none(), full);
                    if let Some(tag) = tag {
                        prop_assert!(asked.insert(tag, ()).is_none(), "a name is used once at a time");
                        expected.push_back((tag, operation));
                    }
                }
                Act::Announce => {
                    let fresh = expected.len() > announced;
                    announced = expected.len();
                    let wake = front.announce(&page);
                    if fresh && back_sleeps {
                        prop_assert_eq!(wake, Wake::Yes);
                        back_sleeps = false;
                    }
                }
                Act::Take => {
                    let taken = back.take(&page).unwrap();
                    prop_assert_eq!(taken.is_some(), announced > 0);
                    if let Some((taken, operation)) = taken {
                        announced -= 1;
                        let (tag, was) = expected.pop_front().unwrap();
                        prop_assert_eq!(operation, was);
                        held.push((tag, taken));
                    }
                }
                Act::Answer(which, well) if !held.is_empty() => {
                    let (tag, taken) = held.swap_remove(which % held.len());
                    let status = if well { Status::Okay } else { Status::Error };
                    back.answer(&page, taken, status);
                    answered.insert(tag, status);
                }
                Act::Show => {
                    let _ = back.announce(&page);
                }
                Act::Collect => {
                    while let Some((tag, status)) = front.take(&page).unwrap() {
                        prop_assert_eq!(answered.remove(&tag), Some(status));
                        prop_assert!(asked.remove(&tag).is_some());
                    }
                }
                Act::Sleep => back_sleeps = !back.sleep(&page).unwrap(),
                _ => {}
            }
        }
    }

    /// A front end that writes anything anywhere gets faults and errors, never a panic, never more requests under way than
    /// the ring has slots, and no work past the disk's end.
    #[test]
    fn a_hostile_front_end_is_contained(layout in layout(), acts in proptest::collection::vec(act(), 1..300)) {
        let page = Memory::new(1);
        let mut front = front::Queue::new(&page, page.len(), layout).unwrap();
        let mut back = back::Queue::attach(&page, page.len(), layout).unwrap();
        let mut held = Vec::new();
        for act in acts {
            match act {
                Act::Ask(sector, count) => {
                    let segments: Vec<Segment> = (0..count).map(|n| segment(u32::from(n), 0, 7)).collect();
                    let _ = front.ask(&page, 1, &read(sector % 2000, &segments));
                }
                Act::Announce => drop(front.announce(&page)),
                Act::Take => {
                    if let Ok(Some((taken, operation))) = back.take(&page) {
                        if let Ok(Work::Transfer { sector, pages: Pages::Direct(segments), .. }) = DISK.check(operation) {
                            let sectors: u64 = segments.iter().map(|segment| segment.sectors()).sum();
                            prop_assert!(sector + sectors <= DISK.sectors);
                        }
                        held.push(taken);
                        prop_assert!(held.len() <= 32);
                    }
                }
                Act::Answer(which, _) if !held.is_empty() => {
                    back.answer(&page, held.swap_remove(which % held.len()), Status::Okay);
                }
                Act::Show => drop(back.announce(&page)),
                Act::Collect => drop(front.take(&page)),
                Act::Sleep => drop(back.sleep(&page)),
                Act::Scribble(index, value) => {
                    page.store_u32([REQ_PROD, REQ_EVENT, RSP_PROD, RSP_EVENT][index], value);
                }
                Act::Spoil(at, value) => page.write(at, &[value]),
                Act::Answer(..) => {}
            }
        }
    }

    /// A back end that writes anything anywhere gets faults, never a panic; the front end hears of each of its requests once
    /// at most, and never of one that it has not made.
    #[test]
    fn a_hostile_back_end_is_contained(layout in layout(), acts in proptest::collection::vec(act(), 1..300)) {
        let page = Memory::new(1);
        let mut front = front::Queue::new(&page, page.len(), layout).unwrap();
        let mut back = back::Queue::attach(&page, page.len(), layout).unwrap();
        let (mut under_way, mut held) = (BTreeSet::new(), Vec::new());
        for act in acts {
            match act {
                Act::Ask(sector, count) => {
                    let segments: Vec<Segment> = (0..count).map(|n| segment(u32::from(n), 0, 7)).collect();
                    if let Some(tag) = front.ask(&page, 1, &read(sector, &segments)) {
                        prop_assert!(under_way.insert(tag), "a name is used once at a time");
                    }
                    prop_assert!(under_way.len() <= usize::from(front.slots()));
                }
                Act::Announce => drop(front.announce(&page)),
                Act::Take => held.extend(back.take(&page).ok().flatten().map(|(taken, _)| taken)),
                Act::Answer(which, _) if !held.is_empty() => {
                    back.answer(&page, held.swap_remove(which % held.len()), Status::Okay);
                }
                Act::Show => drop(back.announce(&page)),
                Act::Collect => {
                    for _ in 0..=front.slots() {
                        match front.take(&page) {
                            Ok(None) => break,
                            Ok(Some((tag, _))) => prop_assert!(under_way.remove(&tag), "it was asked"),
                            Err(Broken::Stranger(id)) => {
                                prop_assert!(!under_way.iter().any(|tag| tag.index() as u64 == id));
                            }
                            Err(Broken::Ring(_)) => break,
                        }
                    }
                }
                Act::Sleep => drop(front.sleep(&page)),
                // It answers under a name of its own choice, as often as it likes.
                Act::Scribble(index, value) if index % 2 == 0 => {
                    let at = SLOTS + (value as usize % 32) * layout.slot();
                    page.write(at, &u64::from(value >> 5 & 0x3f).to_le_bytes());
                    page.store_u32(RSP_PROD, page.load_u32(RSP_PROD).wrapping_add(value >> 30));
                }
                Act::Scribble(index, value) => {
                    page.store_u32([REQ_PROD, REQ_EVENT, RSP_PROD, RSP_EVENT][index], value);
                }
                Act::Spoil(at, value) => page.write(at, &[value]),
                Act::Answer(..) => {}
            }
        }
    }

    /// Any bytes are some request.
    #[test]
    fn any_slot_decodes(bytes in proptest::collection::vec(any::<u8>(), 112)) {
        let slot: [u8; 112] = bytes.try_into().unwrap();
        let request = wire::decode(&slot);
        if let Some(back) = wire::encode(request.id, 0, &request.operation) {
            prop_assert_eq!(wire::decode(&back).operation, request.operation);
        }
    }
}

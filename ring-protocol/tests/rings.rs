//! Both ends of each ring over a page in memory, and peers that write what they like.

mod support;

use proptest::prelude::*;
use ring_protocol::page::Page;
use ring_protocol::peer::Fault;
use ring_protocol::xenbus::State;
use ring_protocol::{console, xenstore};
use support::Memory;
use xen_abi::io::console::interface as console_page;
use xen_abi::xs_wire::interface as store_page;

#[test]
fn a_console_carries_both_ways() {
    let page = Memory::new(1);
    let mut host = console::Host::attach(&page).unwrap();
    let mut guest = console::Guest::attach(&page).unwrap();
    assert_eq!(guest.write(&page, b"login: "), Ok(7));
    let mut buffer = [0; 16];
    assert_eq!(host.read(&page, &mut buffer), Ok(7));
    assert_eq!(&buffer[..7], b"login: ");
    assert_eq!(host.write(&page, b"root\r"), Ok(5));
    assert_eq!(guest.read(&page, &mut buffer[..3]), Ok(3));
    assert_eq!(guest.read(&page, &mut buffer[3..]), Ok(2));
    assert_eq!(&buffer[..5], b"root\r");
    assert_eq!(guest.read(&page, &mut buffer), Ok(0));
}

#[test]
fn full_rings_take_no_more() {
    let page = Memory::new(1);
    let mut host = console::Host::attach(&page).unwrap();
    let mut guest = console::Guest::attach(&page).unwrap();
    assert_eq!(guest.write(&page, &[1; 3000]), Ok(2048));
    assert_eq!(guest.write(&page, &[2]), Ok(0));
    let mut buffer = [0; 100];
    assert_eq!(host.read(&page, &mut buffer), Ok(100));
    assert_eq!(guest.write(&page, &[2; 3000]), Ok(100));
    assert_eq!(host.write(&page, &[3; 3000]), Ok(1024));
}

#[test]
fn indices_go_round() {
    let page = Memory::new(1);
    for offset in [store_page::REQ_CONS, store_page::REQ_PROD, store_page::RSP_CONS, store_page::RSP_PROD] {
        page.store_u32(offset, u32::MAX - 5);
    }
    let mut server = xenstore::Server::attach(&page).unwrap();
    let mut client = xenstore::Client::attach(&page).unwrap();
    for round in 0..200u8 {
        let text = [round; 37];
        assert_eq!(client.write(&page, &text), Ok(37));
        let mut buffer = [0; 64];
        assert_eq!(server.read(&page, &mut buffer), Ok(37));
        assert_eq!(buffer[..37], text);
        assert_eq!(server.write(&page, &buffer[..37]), Ok(37));
        assert_eq!(client.read(&page, &mut buffer), Ok(37));
        assert_eq!(buffer[..37], text);
    }
}

#[test]
fn impossible_indices_are_faults() {
    let page = Memory::new(1);
    let mut host = console::Host::attach(&page).unwrap();
    page.store_u32(console_page::OUT_PROD, 2049);
    assert_eq!(host.read(&page, &mut [0; 8]), Err(Fault::Indices { consumer: 0, producer: 2049 }));
    // A reader that claims to have read what was never written.
    page.store_u32(console_page::IN_CONS, 1);
    assert_eq!(host.write(&page, b"x"), Err(Fault::Indices { consumer: 1, producer: 0 }));
    assert!(console::Host::attach(&page).is_err());

    let page = Memory::new(1);
    let mut server = xenstore::Server::attach(&page).unwrap();
    page.store_u32(store_page::REQ_PROD, 1025);
    assert!(server.read(&page, &mut [0; 8]).is_err());
    page.store_u32(store_page::RSP_CONS, u32::MAX);
    assert_eq!(server.write(&page, b"x"), Ok(1), "one byte behind is possible");
    page.store_u32(store_page::RSP_CONS, 2);
    assert!(server.write(&page, b"x").is_err());
}

#[test]
fn our_own_indices_are_not_read_back() {
    let page = Memory::new(1);
    let mut host = console::Host::attach(&page).unwrap();
    let mut guest = console::Guest::attach(&page).unwrap();
    guest.write(&page, b"abcdef").unwrap();
    let mut buffer = [0; 3];
    host.read(&page, &mut buffer).unwrap();
    // The guest winds our index back; we go on where we were, and our next update repairs the page.
    page.store_u32(console_page::OUT_CONS, 0);
    host.read(&page, &mut buffer).unwrap();
    assert_eq!(&buffer, b"def");
    assert_eq!(page.load_u32(console_page::OUT_CONS), 6);
}

#[test]
fn a_server_says_what_it_can_do_and_why_it_stops() {
    let page = Memory::new(1);
    let _server = xenstore::Server::attach(&page).unwrap();
    assert_eq!(page.load_u32(store_page::SERVER_FEATURES), 2);
    xenstore::Server::complain(&page, xenstore::Complaint::Protocol);
    assert_eq!(page.load_u32(store_page::ERROR), 3);
}

#[test]
fn states_are_digits() {
    for state in State::ALL {
        assert_eq!(State::parse(state.as_str().as_bytes()), state);
    }
    assert_eq!(State::parse(b""), State::Unknown);
    assert_eq!(State::parse(b"9"), State::Unknown);
    assert_eq!(State::parse(b"4\0"), State::Unknown);
}

#[derive(Clone, Debug)]
enum Step {
    Print(Vec<u8>),
    Read(usize),
    Scribble(usize, u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..3000).prop_map(Step::Print),
        (0usize..4000).prop_map(Step::Read),
        (0usize..4, any::<u32>()).prop_map(|(index, value)| Step::Scribble(index, value)),
    ]
}

proptest! {
    /// Bytes come out in order and once, however reads and writes interleave.
    #[test]
    fn a_ring_is_a_queue(start: u32, steps in proptest::collection::vec(step(), 1..60)) {
        let page = Memory::new(1);
        page.store_u32(console_page::OUT_CONS, start);
        page.store_u32(console_page::OUT_PROD, start);
        let mut host = console::Host::attach(&page).unwrap();
        let mut guest = console::Guest::attach(&page).unwrap();
        let mut queue = std::collections::VecDeque::new();
        for step in steps {
            match step {
                Step::Print(bytes) => {
                    let count = guest.write(&page, &bytes).unwrap();
                    prop_assert_eq!(count, bytes.len().min(2048 - queue.len()));
                    queue.extend(&bytes[..count]);
                }
                Step::Read(len) => {
                    let mut buffer = vec![0; len];
                    let count = host.read(&page, &mut buffer).unwrap();
                    prop_assert_eq!(count, len.min(queue.len()));
                    let expected: Vec<u8> = queue.drain(..count).collect();
                    prop_assert_eq!(&buffer[..count], &expected[..]);
                }
                Step::Scribble(..) => {}
            }
        }
    }

    /// A guest that writes anything to the indices gets a fault or garbage of its own making, never a panic, and never
    /// more bytes than the ring holds.
    #[test]
    fn a_hostile_guest_is_contained(steps in proptest::collection::vec(step(), 1..60)) {
        let page = Memory::new(1);
        let mut host = console::Host::attach(&page).unwrap();
        let offsets = [console_page::IN_CONS, console_page::IN_PROD, console_page::OUT_CONS, console_page::OUT_PROD];
        for step in steps {
            match step {
                Step::Print(bytes) => prop_assert!(host.write(&page, &bytes).unwrap_or(0) <= 1024),
                Step::Read(len) => prop_assert!(host.read(&page, &mut vec![0; len]).unwrap_or(0) <= 2048),
                Step::Scribble(index, value) => page.store_u32(offsets[index], value),
            }
        }
    }
}

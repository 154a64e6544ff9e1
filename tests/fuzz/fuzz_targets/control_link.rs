//! The control line: whatever comes in on it, both ends find together again, and what they then say arrives.
#![no_main]
#![forbid(unsafe_code)]

use control_protocol::frame;
use control_protocol::link::{Event, Link};
use control_protocol::message::{Message, ToDom0, ToHost};
use libfuzzer_sys::fuzz_target;

/// Moves bytes between the ends until neither has any.
fn exchange(now: u64, ends: &mut [Link; 2], events: &mut [Vec<Event>; 2]) {
    loop {
        let mut moved = false;
        for from in 0..2 {
            let mut buffer = [0; 64];
            let count = ends[from].output(now, &mut buffer);
            ends[1 - from].receive(now, &buffer[..count], &mut events[1 - from]);
            moved |= count > 0;
        }
        if !moved {
            return;
        }
    }
}

fn pass(now: u64, ends: &mut [Link; 2], events: &mut [Vec<Event>; 2]) {
    for (end, events) in ends.iter_mut().zip(events.iter_mut()) {
        end.tick(now, events);
    }
    exchange(now, ends, events);
}

fuzz_target!(|data: &[u8]| {
    if let Some(message) = Message::<ToDom0>::decode(data) {
        assert_eq!(Message::decode(&message.encode()), Some(message));
    }
    if let Some(message) = Message::<ToHost>::decode(data) {
        assert_eq!(Message::decode(&message.encode()), Some(message));
    }
    // A number that the data does not contain: who knows it can speak for the other end.
    let mut ends =
        [Link::host(data.iter().fold(1, |seed: u32, byte| seed.rotate_left(5) ^ u32::from(*byte))), Link::dom0()];
    let mut events = [Vec::new(), Vec::new()];
    let mut framed = Vec::new();
    for packet in data.chunks(40) {
        frame::encode(packet, &mut framed);
    }
    // Before a session anything may come, packets too.
    for (end, events) in ends.iter_mut().zip(&mut events) {
        end.receive(0, data, events);
        end.receive(0, &framed, events);
    }
    let mut now = 0;
    for _ in 0..40 {
        now += 3_000_000_000;
        pass(now, &mut ends, &mut events);
    }
    assert!(ends.iter().all(Link::is_up), "they do not find together");
    let mut forged = false;
    frame::Decoder::default().push(data, |found| forged |= found.is_ok());
    if forged {
        return;
    }
    events.iter_mut().for_each(Vec::clear);
    for (end, events) in ends.iter_mut().zip(&mut events) {
        end.send(b"before".to_vec());
        end.receive(now, data, events);
        end.send(b"after".to_vec());
    }
    for _ in 0..8 {
        pass(now, &mut ends, &mut events);
        now += 500_000_000;
    }
    let said = [Event::Payload(b"before".to_vec()), Event::Payload(b"after".to_vec())];
    assert_eq!(events, [said.clone(), said], "it does not arrive");
});

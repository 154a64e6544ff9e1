//! Two ends of a link with a bad line between them.

use control_protocol::link::{Down, Event, Link};
use control_protocol::message::VERSION;
use proptest::prelude::*;

/// What happens to a byte of the line: most arrive.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Arrives,
    Lost,
    Spoiled(u8),
    Doubled,
}

struct Line {
    now: u64,
    ends: [Link; 2],
    events: [Vec<Event>; 2],
    fates: Vec<(usize, Fate)>,
    /// One of so many bytes is spoiled.
    every: Option<usize>,
    /// Bytes so far.
    count: usize,
}

impl Line {
    fn new(fates: Vec<(usize, Fate)>) -> Self {
        Self { now: 0, ends: [Link::host(7), Link::dom0()], events: [vec![], vec![]], fates, every: None, count: 0 }
    }

    fn fate(&mut self) -> Fate {
        self.count += 1;
        if self.every.is_some_and(|every| self.count.is_multiple_of(every)) {
            return Fate::Spoiled(0x41);
        }
        self.fates.iter().find(|(at, _)| *at == self.count).map_or(Fate::Arrives, |(_, fate)| *fate)
    }

    /// Moves what each end has to say, and then time to the next moment at which one has something to do.
    fn step(&mut self) -> bool {
        let mut moved = false;
        for from in 0..2 {
            let mut buffer = [0; 16];
            let count = self.ends[from].output(self.now, &mut buffer);
            let mut bytes = Vec::new();
            for &byte in &buffer[..count] {
                match self.fate() {
                    Fate::Arrives => bytes.push(byte),
                    Fate::Lost => {}
                    Fate::Spoiled(bits) => bytes.push(byte ^ bits),
                    Fate::Doubled => bytes.extend([byte, byte]),
                }
            }
            self.ends[1 - from].receive(self.now, &bytes, &mut self.events[1 - from]);
            moved |= count > 0;
        }
        if !moved {
            let next = self.ends.iter().filter_map(Link::deadline).min().unwrap_or(self.now);
            self.now = self.now.max(next);
        }
        for (end, events) in self.ends.iter_mut().zip(&mut self.events) {
            end.tick(self.now, events);
        }
        moved
    }

    fn run_until(&mut self, done: impl Fn(&Self) -> bool) {
        for _ in 0..200_000 {
            if done(self) {
                return;
            }
            self.step();
        }
        panic!("it never comes to that; events {:?}", self.events);
    }

    fn payloads(&self, end: usize) -> Vec<Vec<u8>> {
        let payload = |event: &Event| match event {
            Event::Payload(bytes) => Some(bytes.clone()),
            _ => None,
        };
        self.events[end].iter().filter_map(payload).collect()
    }

    fn up(&self) -> bool {
        self.ends.iter().all(Link::is_up)
    }
}

fn fates(count: usize) -> impl Strategy<Value = Vec<(usize, Fate)>> {
    let fate = prop_oneof![Just(Fate::Lost), (1..=255_u8).prop_map(Fate::Spoiled), Just(Fate::Doubled)];
    prop::collection::vec((40_usize..6000, fate), 0..count)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever happens to single bytes once the session is on, both directions arrive whole and in order.
    #[test]
    fn payloads_arrive(
        fates in fates(40),
        there in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..30),
        back in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..30),
    ) {
        let mut line = Line::new(fates);
        line.run_until(Line::up);
        for payload in &there {
            line.ends[0].send(payload.clone());
        }
        for payload in &back {
            line.ends[1].send(payload.clone());
        }
        line.run_until(|line| line.payloads(1).len() == there.len() && line.payloads(0).len() == back.len());
        prop_assert_eq!(line.payloads(1), there);
        prop_assert_eq!(line.payloads(0), back);
        line.run_until(|line| line.ends.iter().all(Link::is_idle));
    }

    /// Bytes from anywhere bring no end down that has no session, and none panics.
    #[test]
    fn garbage_is_nothing(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        for mut end in [Link::host(1), Link::dom0()] {
            let mut events = Vec::new();
            end.receive(0, &bytes, &mut events);
            prop_assert!(events.is_empty());
        }
    }
}

/// A line that spoils one byte of so many, whatever the number, costs no more than what is sent again: an end that waits
/// for a timer each time would take minutes for what a core dump moves.
#[test]
fn a_line_that_is_never_good_is_not_slow() {
    let payloads: Vec<Vec<u8>> = (0..100_u8).map(|n| vec![n; 1000 + usize::from(n % 7)]).collect();
    let mut worst = (0, 0);
    for period in (1500..6000).step_by(37) {
        let mut line = Line { every: Some(period), ..Line::new(vec![]) };
        line.run_until(Line::up);
        let begin = line.now;
        // `Event::Up`, and all of them.
        let mut rest = payloads.iter();
        while line.events[0].len() <= payloads.len() {
            while line.ends[1].has_room() {
                let Some(payload) = rest.next() else { break };
                line.ends[1].send(payload.clone());
            }
            line.step();
            assert!(line.now < 1_000_000_000_000, "one of {period} bytes: it does not end");
        }
        assert!(line.payloads(0) == payloads);
        worst = worst.max((line.now - begin, period));
    }
    assert!(worst.0 < 1_000_000_000, "one of {} bytes: {} ms", worst.1, worst.0 / 1_000_000);
}

#[test]
fn garbage_before_and_within_costs_nothing() {
    let mut line = Line::new(vec![]);
    let mut events = Vec::new();
    line.ends[1].receive(0, b"login: root\r\n", &mut events);
    line.run_until(Line::up);
    line.ends[0].send(b"one".to_vec());
    line.step();
    line.ends[1].receive(line.now, &[0x55; 4000], &mut events);
    line.ends[0].send(b"two".to_vec());
    line.run_until(|line| line.payloads(1).len() == 2);
    assert_eq!(line.payloads(1), [b"one", b"two"]);
    assert!(events.is_empty());
}

#[test]
fn a_dom0_that_starts_anew_is_noticed() {
    let mut line = Line::new(vec![]);
    line.run_until(Line::up);
    line.ends[1] = Link::dom0();
    line.run_until(|line| line.events[0].len() >= 3);
    assert_eq!(line.events[0], [Event::Up, Event::Down(Down::Restarted), Event::Up]);
    // Also when nobody hears it say so.
    let mut line = Line::new(vec![]);
    line.run_until(Line::up);
    line.ends[1] = Link::dom0();
    while line.ends[1].output(0, &mut [0; 64]) > 0 {}
    line.ends[0].send(b"lost".to_vec());
    line.run_until(|line| line.events[0].len() >= 3);
    assert_eq!(line.events[0], [Event::Up, Event::Down(Down::Restarted), Event::Up]);
    assert_eq!(line.payloads(1), Vec::<Vec<u8>>::new());
}

#[test]
fn a_host_that_goes_is_noticed() {
    let mut line = Line::new(vec![]);
    line.run_until(Line::up);
    // With a word ...
    line.ends[0].leave();
    line.run_until(|line| line.events[1].contains(&Event::Down(Down::Left)));
    // ... and without one.
    line.run_until(Line::up);
    line.events[1].clear();
    while line.events[1].is_empty() {
        line.now += 1_000_000_000;
        let now = line.now;
        line.ends[1].tick(now, &mut line.events[1]);
        assert!(now < 60_000_000_000);
    }
    assert_eq!(line.events[1], [Event::Down(Down::Silent)]);
    // Another host takes over.
    let mut line = Line::new(vec![]);
    line.run_until(Line::up);
    line.ends[0] = Link::host(99);
    line.run_until(|line| line.events[1].len() >= 3);
    assert_eq!(line.events[1], [Event::Up, Event::Down(Down::Left), Event::Up]);
}

#[test]
fn an_idle_link_stays_up() {
    let mut line = Line::new(vec![]);
    line.run_until(Line::up);
    line.run_until(|line| line.now > 3_600_000_000_000);
    assert_eq!(line.events, [vec![Event::Up], vec![Event::Up]]);
}

#[test]
fn other_versions_are_refused() {
    use control_protocol::frame;
    use control_protocol::link::Packet;
    let mut bytes = Vec::new();
    let packet = Packet::Welcome { version: VERSION + 1, session: 7 };
    frame::encode(&postcard::to_allocvec(&packet).unwrap(), &mut bytes);
    let mut events = Vec::new();
    Link::host(7).receive(0, &bytes, &mut events);
    assert_eq!(events, [Event::Down(Down::Version(VERSION + 1))]);
    bytes.clear();
    let packet = Packet::Hello { version: VERSION + 1, session: 7 };
    frame::encode(&postcard::to_allocvec(&packet).unwrap(), &mut bytes);
    events.clear();
    let mut dom0 = Link::dom0();
    dom0.receive(0, &bytes, &mut events);
    assert!(events.is_empty() && !dom0.is_up() && dom0.has_output(0));
}

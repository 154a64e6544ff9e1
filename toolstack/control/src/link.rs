//! The link: payloads arrive whole, once and in order, or the link goes down and says why.
//!
//! The host begins a session with a number of its own ([`Packet::Hello`]); a number that dom0 does not know is answered so,
//! and that is how the host learns that dom0 has started anew. Data packets are counted; the receiver keeps those that came too
//! early, says how far it is, and asks for the one that is missing when it sees that one is (selective repeat, with a timer
//! for the case that the question is lost, too: then all is sent again that nobody confirmed).
//!
//! Time is in nanoseconds of any clock.

use crate::frame::{self, Decoder};
use crate::message::VERSION;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// The longest payload.
pub const MAX_PAYLOAD: usize = 1024;
/// Data packets that may be under way.
pub const WINDOW: usize = 16;
/// Payloads that wait for their turn: beyond, [`Link::has_room`] says no.
const QUEUE: usize = WINDOW + 8;
/// Packets that are taken before the sender is told.
const ACK_EVERY: u32 = 4;
/// How long it is not told of fewer.
const ACK_DELAY: u64 = 5_000_000;
/// When data is sent again that nobody confirms: doubles each time, up to the most.
const RETRY: (u64, u64) = (400_000_000, 5_000_000_000);
/// How often a host calls for a dom0 that does not answer.
const CALL: u64 = 500_000_000;
/// How often both ends of an idle link look whether the other is still there.
const LOOK: u64 = 2_000_000_000;
/// Looks without a sign of life after which it is not: a host is patient with a dom0 that unpacks a kernel ...
const HOST_PATIENCE: u32 = 60;
/// ... dom0 is not with a host that went away without a word.
const DOM0_PATIENCE: u32 = 6;

/// What goes over the line. The first two keep their form in all versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Packet<'a> {
    /// From the host: a session begins.
    Hello {
        /// The host's version.
        version: u16,
        /// A number that dom0 has not seen before.
        session: u32,
    },
    /// From dom0: it did. Number 0: dom0 is there, and has no session.
    Welcome {
        /// dom0's version.
        version: u16,
        /// The session.
        session: u32,
    },
    /// A payload.
    Data {
        /// The session.
        session: u32,
        /// Its number.
        number: u32,
        /// The number that is expected from the other end.
        next: u32,
        /// The payload.
        payload: &'a [u8],
    },
    /// How far the sender of this is.
    Ack {
        /// The session.
        session: u32,
        /// The number that is expected.
        next: u32,
        /// It is missing: send it again.
        again: bool,
    },
    /// Is anybody there? Answered by an [`Packet::Ack`].
    Ping {
        /// The session.
        session: u32,
    },
    /// There is no such session.
    Unknown {
        /// The one that was named.
        session: u32,
    },
    /// The session ends.
    Bye {
        /// The session.
        session: u32,
    },
}

/// Which end this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Host,
    Dom0,
}

/// Why a link went down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Down {
    /// dom0 started anew, or somebody else has taken the line.
    Restarted,
    /// The other end said good-bye, or began anew.
    Left,
    /// Nothing is heard of it.
    Silent,
    /// It speaks another version.
    Version(u16),
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A session has begun.
    Up,
    /// It has ended; all that was under way is lost.
    Down(Down),
    /// A payload came.
    Payload(Vec<u8>),
}

/// One end of a link.
#[derive(Debug)]
pub struct Link {
    role: Role,
    /// The session: for a host also the one that it calls for.
    session: u32,
    up: bool,
    decoder: Decoder,
    /// Encoded bytes of the packet that is going out.
    out: VecDeque<u8>,
    /// Packets that go out before data.
    urgent: VecDeque<Packet<'static>>,
    /// Payloads that are not confirmed; the first has number `first`, the first `sent` of them were sent.
    queue: VecDeque<Vec<u8>>,
    first: u32,
    sent: usize,
    /// The number expected from the other end, and how many were taken since it was last told.
    next: u32,
    untold: u32,
    /// Payloads that came before their turn: the first of these places is that of number `next`, which is missing.
    early: VecDeque<Option<Vec<u8>>>,
    /// `next` is missing, and the other end is to be asked for it; and whether it was.
    ask: bool,
    asked: bool,
    /// The other end asked for the first of the queue.
    again: bool,
    retry: u64,
    retry_at: Option<u64>,
    ack_at: Option<u64>,
    look_at: u64,
    /// Looks without a sign of life, and whether there was one since the last.
    silent: u32,
    heard: bool,
}

impl Link {
    fn new(role: Role, session: u32) -> Self {
        Self {
            role,
            session,
            up: false,
            decoder: Decoder::default(),
            out: VecDeque::from([0]),
            urgent: VecDeque::new(),
            queue: VecDeque::new(),
            first: 0,
            sent: 0,
            next: 0,
            untold: 0,
            early: VecDeque::new(),
            ask: false,
            asked: false,
            again: false,
            retry: RETRY.0,
            retry_at: None,
            ack_at: None,
            look_at: 0,
            silent: 0,
            heard: false,
        }
    }

    /// The host's end. `seed` is to differ from that of earlier hosts.
    #[must_use]
    pub fn host(seed: u32) -> Self {
        Self::new(Role::Host, seed.max(1))
    }

    /// dom0's end. It says at once that it is there.
    #[must_use]
    pub fn dom0() -> Self {
        let mut link = Self::new(Role::Dom0, 0);
        link.urgent.push_back(Packet::Welcome { version: VERSION, session: 0 });
        link
    }

    /// Whether a session is on.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        self.up
    }

    /// Whether [`Link::send`] should be called: what is queued beyond cannot be stopped any more.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.up && self.queue.len() < QUEUE
    }

    /// Whether all that was sent has arrived.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Sends a payload, of [`MAX_PAYLOAD`] bytes at most. Without a session it is lost.
    pub fn send(&mut self, payload: Vec<u8>) {
        debug_assert!(payload.len() <= MAX_PAYLOAD, "a payload is not longer");
        if self.up {
            self.queue.push_back(payload);
        }
    }

    /// Says good-bye.
    pub fn leave(&mut self) {
        if self.up {
            self.urgent.push_back(Packet::Bye { session: self.session });
            self.reset();
        }
    }

    /// Nothing is left of the session.
    fn reset(&mut self) {
        let mut fresh = Self::new(self.role, self.session);
        fresh.decoder = core::mem::take(&mut self.decoder);
        fresh.out = core::mem::take(&mut self.out);
        fresh.urgent = core::mem::take(&mut self.urgent);
        *self = fresh;
    }

    fn begin(&mut self, now: u64, events: &mut Vec<Event>) {
        self.up = true;
        self.heard = true;
        self.look_at = now + LOOK;
        events.push(Event::Up);
    }

    /// Ends the session, if there is one; a host then calls for another.
    fn end(&mut self, why: Down, events: &mut Vec<Event>) {
        if self.up {
            events.push(Event::Down(why));
        }
        self.reset();
        if self.role == Role::Host {
            self.session = self.session.wrapping_add(1).max(1);
        } else {
            self.session = 0;
        }
    }

    /// Takes bytes from the line.
    pub fn receive(&mut self, now: u64, bytes: &[u8], events: &mut Vec<Event>) {
        let mut decoder = core::mem::take(&mut self.decoder);
        decoder.push(bytes, |found| match found.ok().and_then(|body| postcard::from_bytes(body).ok()) {
            Some(packet) => self.packet(now, packet, events),
            // The one that was asked for, perhaps.
            None => self.ask = self.up,
        });
        self.decoder = decoder;
    }

    fn packet(&mut self, now: u64, packet: Packet<'_>, events: &mut Vec<Event>) {
        match (self.role, packet) {
            (Role::Dom0, Packet::Hello { version, session }) => {
                if version == VERSION && !(self.up && session == self.session) {
                    self.end(Down::Left, events);
                    self.session = session;
                    self.begin(now, events);
                }
                self.urgent.push_back(Packet::Welcome { version: VERSION, session });
            }
            (Role::Host, Packet::Welcome { version, session }) => {
                if session == 0 || (self.up && session != self.session) {
                    self.end(Down::Restarted, events);
                    self.look_at = 0;
                } else if version != VERSION {
                    events.push(Event::Down(Down::Version(version)));
                } else if !self.up && session == self.session {
                    self.begin(now, events);
                }
            }
            (_, Packet::Data { session, number, next, payload }) if self.known(session) => {
                self.confirmed(now, next);
                self.data(now, number, payload, events);
            }
            (_, Packet::Ack { session, next, again }) if self.known(session) => {
                self.confirmed(now, next);
                self.again |= again && self.sent > 0;
            }
            (_, Packet::Ping { session }) if self.known(session) => self.ack_at = Some(now),
            (Role::Host, Packet::Unknown { session }) if session == self.session && self.up => {
                self.end(Down::Restarted, events);
            }
            (_, Packet::Bye { session }) if session == self.session && self.up => self.end(Down::Left, events),
            _ => {}
        }
    }

    /// Whether a packet belongs to the session. A host that speaks of another one is told.
    fn known(&mut self, session: u32) -> bool {
        let known = self.up && session == self.session;
        if known {
            self.heard = true;
        } else if self.role == Role::Dom0 && self.urgent.len() < QUEUE {
            self.urgent.push_back(Packet::Unknown { session });
        }
        known
    }

    fn data(&mut self, now: u64, number: u32, payload: &[u8], events: &mut Vec<Event>) {
        let place = number.wrapping_sub(self.next) as usize;
        if place >= WINDOW {
            // It came before; so the other end does not know.
            self.ack_at = Some(now);
            return;
        }
        if self.early.len() <= place {
            self.early.resize(place + 1, None);
        }
        if let Some(early) = self.early.get_mut(place) {
            early.get_or_insert_with(|| payload.to_vec());
        }
        while let Some(payload) = self.early.front_mut().and_then(Option::take) {
            self.early.pop_front();
            self.next = self.next.wrapping_add(1);
            (self.ask, self.asked) = (false, false);
            self.untold += 1;
            events.push(Event::Payload(payload));
        }
        if !self.early.is_empty() {
            self.ask |= !self.asked;
        }
        if self.untold > 0 {
            let told_at = if self.untold >= ACK_EVERY { now } else { now + ACK_DELAY };
            self.ack_at = Some(self.ack_at.map_or(told_at, |at| at.min(told_at)));
        }
    }

    fn confirmed(&mut self, now: u64, next: u32) {
        let count = next.wrapping_sub(self.first) as usize;
        // Neither what is not sent yet nor what was confirmed before.
        if count == 0 || count > self.queue.len() {
            return;
        }
        self.queue.drain(..count);
        self.first = next;
        self.sent = self.sent.saturating_sub(count);
        self.again = false;
        self.retry = RETRY.0;
        self.retry_at = (self.sent > 0).then_some(now + self.retry);
    }

    /// When [`Link::tick`] has something to do, if nothing else happens.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        let look = (self.up || self.role == Role::Host).then_some(self.look_at);
        [look, self.retry_at, self.ack_at].into_iter().flatten().min()
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: u64, events: &mut Vec<Event>) {
        if self.retry_at.is_some_and(|at| now >= at) {
            self.sent = 0;
            self.retry = (self.retry * 2).min(RETRY.1);
            self.retry_at = None;
        }
        if now < self.look_at {
            return;
        }
        if !self.up {
            if self.role == Role::Host {
                self.urgent.retain(|packet| !matches!(packet, Packet::Hello { .. }));
                self.urgent.push_back(Packet::Hello { version: VERSION, session: self.session });
                self.look_at = now + CALL;
            }
            return;
        }
        self.look_at = now + LOOK;
        self.silent = if self.heard { 0 } else { self.silent + 1 };
        self.heard = false;
        let patience = if self.role == Role::Host { HOST_PATIENCE } else { DOM0_PATIENCE };
        if self.silent > patience {
            self.end(Down::Silent, events);
        } else if self.role == Role::Host {
            self.urgent.push_back(Packet::Ping { session: self.session });
        }
    }

    /// Whether there is something to be sent now.
    #[must_use]
    pub fn has_output(&self, now: u64) -> bool {
        !self.out.is_empty()
            || !self.urgent.is_empty()
            || self.ask
            || self.again
            || self.sent < self.queue.len().min(WINDOW)
            || self.ack_at.is_some_and(|at| now >= at)
    }

    /// Fills `buffer` with bytes for the line; how many there were.
    pub fn output(&mut self, now: u64, buffer: &mut [u8]) -> usize {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            if self.out.is_empty() && !self.next_packet(now) {
                break;
            }
            let count = rest.len().min(self.out.len());
            for (place, byte) in rest.iter_mut().zip(self.out.drain(..count)) {
                *place = byte;
            }
            filled += count;
        }
        filled
    }

    /// Which payload of the queue goes out next: the one that was asked for, or the first that was not sent.
    fn next_place(&mut self, now: u64) -> Option<usize> {
        if core::mem::take(&mut self.again) {
            self.retry_at = Some(now + self.retry);
            return Some(0);
        }
        let place = self.sent;
        if place >= self.queue.len().min(WINDOW) {
            return None;
        }
        self.sent += 1;
        self.retry_at.get_or_insert(now + self.retry);
        Some(place)
    }

    /// Encodes the next packet, if there is one.
    fn next_packet(&mut self, now: u64) -> bool {
        let (session, next) = (self.session, self.next);
        let packet = if let Some(packet) = self.urgent.pop_front() {
            packet
        } else if core::mem::take(&mut self.ask) {
            (self.asked, self.ack_at, self.untold) = (true, None, 0);
            Packet::Ack { session, next, again: true }
        } else if let Some(place) = self.next_place(now) {
            (self.ack_at, self.untold) = (None, 0);
            let number = self.first.wrapping_add(u32::try_from(place).unwrap_or(0));
            let payload = self.queue.get(place).map_or(&[][..], Vec::as_slice);
            Packet::Data { session, number, next, payload }
        } else if self.ack_at.is_some_and(|at| now >= at) {
            (self.ack_at, self.untold) = (None, 0);
            Packet::Ack { session, next, again: false }
        } else {
            return false;
        };
        let mut bytes = Vec::new();
        // It fails only where there is no room, and a vector grows.
        frame::encode(&postcard::to_allocvec(&packet).unwrap_or_default(), &mut bytes);
        self.out = bytes.into();
        true
    }
}

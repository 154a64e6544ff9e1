//! Host control: programs on the host ask for commands over the machine's second serial port, several at a time.
//!
//! Each request runs in a fiber, so that a command that waits holds up nobody; what it does to dom0 is in
//! [`crate::client`].

use crate::dom0::Dom0;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use control_protocol::link::{Event, Link};
use control_protocol::message::{CREDIT, Id, MAX_PIECE, Message, Notices, Part, Stream, ToDom0, ToHost};
use guest_pv::fiber::{Fiber, State};
use guest_pv::mem;
use guest_pv::uart::{COM2, Uart};
use guest_pv::{println, time};
use xen_abi::ids::Port;

/// Output of a request that waits for the host, in bytes: with more the command waits, too.
const OUTPUT: usize = 64 << 10;
/// Requests at a time.
const REQUESTS: usize = 64;

/// A request's number within a session, and the session's own: hosts begin to count anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    session: u32,
    id: Id,
}

/// The service.
#[derive(Debug)]
pub struct Controld {
    /// The serial port, where there is one.
    uart: Option<Uart>,
    link: Link,
    session: u32,
    requests: BTreeMap<Key, Request>,
    /// It may outlive its request, as that of a command that ends the machine does.
    work: BTreeMap<Key, Work>,
    /// Files of the host's that a domain, or a running request, has been made from.
    pub uploads: BTreeMap<String, Vec<u8>>,
}

/// What waits to be said.
#[derive(Debug)]
enum Piece {
    Text(Stream, Vec<u8>),
    /// On the stream of the file.
    Zeros(u64),
}

/// What the host asked for.
#[derive(Debug)]
pub struct Request {
    notices: Notices,
    script: Vec<u8>,
    files: Vec<(String, Vec<u8>)>,
    /// What is being received, and how much of it is missing.
    part: Option<(Part, u64)>,
    /// What was typed.
    pub input: VecDeque<u8>,
    /// Nothing more will be typed.
    pub input_ended: bool,
    /// The user asked to stop.
    pub interrupted: bool,
    /// Nobody reads what it says any more.
    pub gone: bool,
    /// Lines for the user that it did not ask for.
    pub held_notices: Vec<String>,
    /// Where the cursor is, as far as it matters.
    pub fresh_line: bool,
    output: VecDeque<Piece>,
    waiting: usize,
    save: Option<String>,
    /// Bytes that the host may still be sent, and that it has not been told to have been read.
    credit: u32,
    owed: u32,
    end: Option<i32>,
    running: bool,
}

/// Work in a fiber of its own.
#[derive(Debug)]
struct Work {
    /// Taken while it runs.
    fiber: Option<Fiber<Dom0>>,
    /// Until then it has nothing to do, if nothing happens.
    wake: Option<u64>,
}

impl Request {
    fn new(notices: Notices) -> Self {
        Self {
            notices,
            script: Vec::new(),
            files: Vec::new(),
            part: None,
            input: VecDeque::new(),
            input_ended: false,
            interrupted: false,
            gone: false,
            held_notices: Vec::new(),
            fresh_line: true,
            output: VecDeque::new(),
            waiting: 0,
            save: None,
            credit: CREDIT,
            owed: 0,
            end: None,
            running: false,
        }
    }

    /// Says something; nothing is said to nobody.
    pub fn say(&mut self, stream: Stream, bytes: &[u8]) {
        if self.gone || bytes.is_empty() {
            return;
        }
        if stream != Stream::File {
            self.fresh_line = bytes.last() == Some(&b'\n');
        }
        self.waiting += bytes.len();
        match self.output.back_mut() {
            Some(Piece::Text(last, text)) if *last == stream => text.extend_from_slice(bytes),
            _ => self.output.push_back(Piece::Text(stream, bytes.to_vec())),
        }
    }

    /// Begins a file of the host's.
    pub fn save(&mut self, name: &str) {
        self.save = Some(name.to_string());
    }

    /// Adds zeros to it.
    pub fn say_zeros(&mut self, more: u64) {
        match self.output.back_mut() {
            Some(Piece::Zeros(count)) => *count += more,
            _ if self.gone => {}
            _ => self.output.push_back(Piece::Zeros(more)),
        }
    }

    /// Whether the host has to read first.
    pub fn is_full(&self) -> bool {
        self.waiting >= OUTPUT
    }

    /// It ends with this status.
    pub fn finish(&mut self, status: i32) {
        self.end.get_or_insert(status);
    }

    /// The next key.
    pub fn key(&mut self) -> Option<u8> {
        let key = self.input.pop_front()?;
        self.owed += 1;
        Some(key)
    }

    fn hang_up(&mut self) {
        (self.gone, self.interrupted, self.input_ended) = (true, true, true);
        self.output.clear();
        self.waiting = 0;
    }

    /// Takes bytes of a part; false when none were announced.
    fn receive(&mut self, bytes: &[u8]) -> bool {
        let Some((part, missing)) = &mut self.part else {
            return false;
        };
        let Some(rest) = missing.checked_sub(bytes.len() as u64) else {
            return false;
        };
        *missing = rest;
        self.owed += u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        match part {
            Part::Script => self.script.extend_from_slice(bytes),
            Part::File(_) => {
                if let Some((_, content)) = self.files.last_mut() {
                    content.extend_from_slice(bytes);
                }
            }
        }
        true
    }

    /// The next thing to tell the host.
    fn next(&mut self) -> Option<ToHost> {
        if self.owed >= CREDIT / 4 {
            return Some(ToHost::More(core::mem::take(&mut self.owed)));
        }
        if let Some(name) = self.save.take() {
            return Some(ToHost::Save(name));
        }
        let (stream, text) = match self.output.front_mut() {
            None => return self.end.map(ToHost::Done),
            Some(&mut Piece::Zeros(count)) => {
                self.output.pop_front();
                return Some(ToHost::Zeros(count));
            }
            Some(Piece::Text(stream, text)) => (stream, text),
        };
        let count = text.len().min(MAX_PIECE).min(usize::try_from(self.credit).unwrap_or(0));
        if count == 0 {
            return None;
        }
        let stream = *stream;
        let bytes: Vec<u8> = text.drain(..count).collect();
        if text.is_empty() {
            self.output.pop_front();
        }
        self.waiting -= count;
        self.credit -= u32::try_from(count).unwrap_or(0);
        Some(ToHost::Output { stream, bytes })
    }
}

impl Controld {
    /// Takes the second serial port, if the machine has one.
    pub fn open() -> Self {
        let uart = Uart::open(COM2).unwrap_or_else(|errno| {
            println!("control: the second serial port cannot be used: {errno}");
            None
        });
        let mut service = Self {
            uart,
            link: Link::dom0(),
            session: 0,
            requests: BTreeMap::new(),
            work: BTreeMap::new(),
            uploads: BTreeMap::new(),
        };
        service.transmit();
        service
    }

    /// Whether there is a serial port for it.
    pub fn is_open(&self) -> bool {
        self.uart.is_some()
    }

    /// The port of its interrupt.
    pub fn port(&self) -> Option<Port> {
        self.uart.as_ref().map(Uart::port)
    }

    /// When it has something to do, if nothing happens.
    pub fn deadline(&self) -> Option<u64> {
        self.uart.as_ref()?;
        self.work.values().filter_map(|work| work.wake).chain(self.link.deadline()).min()
    }

    /// A request that runs.
    pub fn request(&mut self, key: Key) -> Option<&mut Request> {
        self.requests.get_mut(&key)
    }

    /// Tells those who want to hear it.
    pub fn notice(&mut self, line: &str) {
        for request in self.requests.values_mut().filter(|request| request.notices == Notices::Shown && !request.gone) {
            request.held_notices.push(line.to_string());
        }
    }

    /// The interrupt came. Returns what is to be run.
    pub fn serve(&mut self) -> Vec<Key> {
        let now = time::now();
        let mut received = Vec::new();
        let (uart, link) = (&mut self.uart, &mut self.link);
        if let Some(uart) = uart {
            uart.serve(&mut received, |bytes| link.output(now, bytes));
        }
        let mut events = Vec::new();
        self.link.receive(now, &received, &mut events);
        self.react(events)
    }

    fn react(&mut self, events: Vec<Event>) -> Vec<Key> {
        let mut to_run = Vec::new();
        for event in events {
            match event {
                Event::Up => self.session = self.session.wrapping_add(1),
                Event::Down(_) => {
                    self.requests.retain(|_, request| request.running);
                    self.requests.values_mut().for_each(Request::hang_up);
                }
                Event::Payload(payload) => match Message::decode(&payload) {
                    Some(message) => to_run.extend(self.take(message)),
                    // The versions agree, so this is a host with a fault of its own.
                    None => println!("control: a message that is none"),
                },
            }
        }
        to_run
    }

    /// Takes a message; gives the request that is complete with it.
    fn take(&mut self, Message { id, body }: Message<ToDom0>) -> Option<Key> {
        let key = Key { session: self.session, id };
        if let ToDom0::Start(notices) = body {
            if self.requests.len() >= REQUESTS {
                self.fail(id, "too many commands at a time");
            } else {
                self.requests.insert(key, Request::new(notices));
            }
            return None;
        }
        // Without one it has ended, and the host will hear of it.
        let request = self.requests.get_mut(&key)?;
        match body {
            ToDom0::Start(_) => {}
            ToDom0::Part { part, size } => {
                // The rest is for what is made from it.
                let room = mem::frames::free() * mem::PAGE_SIZE / 3;
                let mut content = Vec::new();
                let is_file = matches!(part, Part::File(_));
                let fits = |size| !is_file || content.try_reserve_exact(size).is_ok();
                if size > room || !usize::try_from(size).is_ok_and(fits) {
                    self.requests.remove(&key);
                    self.fail(id, &format!("dom0 has no memory for {} KiB more", size >> 10));
                    return None;
                }
                if let Part::File(name) = &part {
                    request.files.push((name.clone(), content));
                }
                request.part = Some((part, size));
            }
            ToDom0::Bytes(bytes) => {
                if !request.receive(&bytes) {
                    self.requests.remove(&key);
                    self.fail(id, "more bytes than were announced");
                }
            }
            ToDom0::Run if !request.running => {
                request.running = true;
                self.uploads.extend(core::mem::take(&mut request.files));
                return Some(key);
            }
            ToDom0::Run => {}
            ToDom0::Input(bytes) => request.input.extend(bytes),
            ToDom0::InputEnd => request.input_ended = true,
            ToDom0::More(count) => request.credit = request.credit.saturating_add(count),
            ToDom0::Interrupt => request.interrupted = true,
            ToDom0::HangUp if request.running => request.hang_up(),
            ToDom0::HangUp => drop(self.requests.remove(&key)),
        }
        None
    }

    fn fail(&mut self, id: Id, why: &str) {
        self.link.send(Message { id, body: ToHost::Failed(why.to_string()) }.encode());
    }

    /// Gives a request the fiber that it runs in.
    pub fn begin(&mut self, key: Key, fiber: Option<Fiber<Dom0>>) {
        if fiber.is_some() {
            self.work.insert(key, Work { fiber, wake: None });
        } else {
            self.requests.remove(&key);
            self.fail(key.id, "dom0 has no memory for one more command");
        }
    }

    /// What a request is to run.
    pub fn script(&mut self, key: Key) -> Vec<u8> {
        self.request(key).map(|request| core::mem::take(&mut request.script)).unwrap_or_default()
    }

    /// All work that is in the middle.
    pub fn working(&self) -> Vec<Key> {
        self.work.keys().copied().collect()
    }

    /// Takes a fiber, to resume it.
    pub fn take_fiber(&mut self, key: Key) -> Option<Fiber<Dom0>> {
        self.work.get_mut(&key)?.fiber.take()
    }

    /// Puts it back, or drops it where it has ended.
    pub fn put_fiber(&mut self, key: Key, fiber: Fiber<Dom0>, state: State) {
        match (state, self.work.get_mut(&key)) {
            (State::Paused, Some(work)) => work.fiber = Some(fiber),
            _ => drop(self.work.remove(&key)),
        }
    }

    /// Says when work wants to be resumed if nothing happens before.
    pub fn wake_at(&mut self, key: Key, deadline: Option<u64>) {
        if let Some(work) = self.work.get_mut(&key) {
            work.wake = deadline;
        }
    }

    /// Lets time pass, and sends what there is to be sent. `used` says which files of the host's are still needed.
    pub fn catch_up(&mut self, used: impl Fn(&str) -> bool) {
        if self.uart.is_none() {
            return;
        }
        let mut events = Vec::new();
        self.link.tick(time::now(), &mut events);
        // It brings no payloads.
        self.react(events);
        let mut ended = false;
        let keys: Vec<Key> = self.requests.keys().copied().collect();
        for key in keys {
            while self.link.has_room() || key.session != self.session {
                let Some(request) = self.requests.get_mut(&key) else { break };
                if request.gone {
                    if request.end.is_some() {
                        self.requests.remove(&key);
                        ended = true;
                    }
                    break;
                }
                let Some(body) = request.next() else { break };
                if body.is_last() {
                    self.requests.remove(&key);
                    ended = true;
                }
                self.link.send(Message { id: key.id, body }.encode());
            }
        }
        if ended && self.requests.is_empty() {
            self.uploads.retain(|name, _| used(name));
        }
        self.transmit();
    }

    fn transmit(&mut self) {
        let now = time::now();
        if let Some(uart) = self.uart.as_mut().filter(|_| self.link.has_output(now)) {
            let link = &mut self.link;
            uart.send(|bytes| link.output(now, bytes));
        }
    }
}

//! The hub: has the line to dom0, and shares it among clients. Each client's requests get numbers of their own on the link;
//! a client that goes away hangs up all of its requests.
//!
//! A client and the hub speak [`ToDom0`] and [`FromHub`] in the frames of the control protocol.

use crate::line::Line;
use anyhow::{Context, Result, bail};
use control_protocol::frame::{self, Decoder};
use control_protocol::link::{Down, Event, Link};
use control_protocol::message::{CREDIT, Id, Message, ToDom0, ToHost, VERSION};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// From the hub to a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromHub {
    /// The first of all.
    Greeting {
        /// The hub's version.
        version: u16,
    },
    /// dom0 answers.
    Up,
    /// It does not any more: what was asked is lost.
    Lost(String),
    /// dom0 says something.
    Dom0(Message<ToHost>),
}

/// Messages of one request that wait for the link: more than its credit allows means a client that does not count.
const MOST_WAITING: usize = CREDIT as usize;
/// How long bytes are collected.
const COLLECT: Duration = Duration::from_micros(300);
/// How long a client may take to read what it asked for.
const PATIENCE: Duration = Duration::from_secs(5);

enum Input {
    Line(Vec<u8>),
    LineClosed,
    Client(UnixStream),
    Message(u64, Message<ToDom0>),
    Gone(u64),
    Stop,
}

/// A hub that runs. Dropped, it says good-bye to dom0.
pub struct Hub {
    input: Sender<Input>,
    thread: Option<std::thread::JoinHandle<()>>,
    socket: Option<PathBuf>,
}

impl Hub {
    /// Takes a line.
    pub fn start(line: Line) -> Self {
        let (input, inputs) = channel();
        let Line { from, to, lock } = line;
        read_line(from, input.clone());
        let state = State::new(to, input.clone());
        let thread = std::thread::spawn(move || {
            state.run(&inputs);
            drop(lock);
        });
        Self { input, thread: Some(thread), socket: None }
    }

    /// A connection of this program's own.
    ///
    /// # Errors
    /// Those of the system.
    pub fn connect(&self) -> Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        self.input.send(Input::Client(theirs)).context("the hub has ended")?;
        Ok(ours)
    }

    /// Lets other programs connect by a socket, which only this user can.
    ///
    /// # Errors
    /// There is such a socket and somebody answers on it, or those of the system.
    pub fn listen(&mut self, path: &Path) -> Result<()> {
        if UnixStream::connect(path).is_ok() {
            bail!("{} is in use by another hub", path.display());
        }
        // Left behind by a program that was killed.
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path).with_context(|| path.display().to_string())?;
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        self.socket = Some(path.to_owned());
        let input = self.input.clone();
        std::thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                if input.send(Input::Client(client)).is_err() {
                    break;
                }
            }
        });
        Ok(())
    }

    /// Waits for the line's end.
    pub fn wait(mut self) {
        if let Some(thread) = self.thread.take() {
            // A hub that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        if let Some(socket) = &self.socket {
            // It may be gone already.
            let _ = std::fs::remove_file(socket);
        }
        // It may have ended by itself.
        let _ = self.input.send(Input::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn read_line(mut from: Box<dyn Read + Send>, input: Sender<Input>) {
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let bytes = buffer.get(..count).unwrap_or_default().to_vec();
            if input.send(Input::Line(bytes)).is_err() {
                return;
            }
            // Serial bytes come one by one. To wake up for each costs more than all the rest.
            std::thread::sleep(COLLECT);
        }
        // The hub may have ended before the line did.
        let _ = input.send(Input::LineClosed);
    });
}

struct Client {
    stream: UnixStream,
    /// Its numbers of requests, and those on the link.
    requests: BTreeMap<Id, Id>,
}

impl Drop for Client {
    fn drop(&mut self) {
        // The thread that reads has the connection, too. It may be closed already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// A request on the link.
struct Request {
    client: u64,
    /// Its number there.
    id: Id,
    /// What waits for the link.
    waiting: VecDeque<ToDom0>,
    /// Whether dom0 has heard of it.
    begun: bool,
}

struct State {
    link: Link,
    line: Box<dyn Write + Send>,
    input: Sender<Input>,
    clients: BTreeMap<u64, Client>,
    requests: BTreeMap<Id, Request>,
    next_client: u64,
    next_request: Id,
    /// The request whose turn was last.
    turn: Id,
    began: Instant,
}

impl State {
    fn new(line: Box<dyn Write + Send>, input: Sender<Input>) -> Self {
        let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        // Sessions of earlier hubs had other numbers: the moment and the process tell them apart.
        let seed = clock.subsec_nanos() ^ std::process::id().rotate_left(16);
        Self {
            link: Link::host(seed),
            line,
            input,
            clients: BTreeMap::new(),
            requests: BTreeMap::new(),
            next_client: 0,
            next_request: 0,
            turn: 0,
            began: Instant::now(),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn run(mut self, inputs: &Receiver<Input>) {
        let mut goes_on = true;
        while goes_on {
            let now = self.now();
            let limit = match self.link.deadline() {
                Some(at) => Duration::from_nanos(at.saturating_sub(now)),
                None => Duration::from_secs(1),
            };
            let mut next = match inputs.recv_timeout(limit) {
                Ok(input) => Some(input),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            while let Some(input) = next {
                goes_on &= self.take(input);
                next = inputs.try_recv().ok();
            }
            let mut events = Vec::new();
            let now = self.now();
            self.link.tick(now, &mut events);
            self.react(events);
            self.feed();
            goes_on &= self.flush();
        }
        self.fail_all("the line to dom0 was closed");
        self.link.leave();
        // The line may be gone.
        self.flush();
    }

    /// False when the hub ends.
    fn take(&mut self, input: Input) -> bool {
        match input {
            Input::Stop => return false,
            Input::LineClosed => return false,
            Input::Line(bytes) => {
                let mut events = Vec::new();
                let now = self.now();
                self.link.receive(now, &bytes, &mut events);
                self.react(events);
            }
            Input::Client(stream) => self.welcome(stream),
            Input::Message(key, message) => self.asked(key, message),
            Input::Gone(key) => self.gone(key),
        }
        true
    }

    fn welcome(&mut self, stream: UnixStream) {
        self.next_client += 1;
        let key = self.next_client;
        let Ok(reading) = stream.try_clone() else { return };
        // On a socket that refuses this, a client that does not read holds up others: no more.
        let _ = stream.set_write_timeout(Some(PATIENCE));
        self.clients.insert(key, Client { stream, requests: BTreeMap::new() });
        read_client(reading, key, self.input.clone());
        self.tell(key, &FromHub::Greeting { version: VERSION });
        if self.link.is_up() {
            self.tell(key, &FromHub::Up);
        }
    }

    fn asked(&mut self, key: u64, Message { id, body }: Message<ToDom0>) {
        let Some(client) = self.clients.get_mut(&key) else { return };
        if let ToDom0::Start(_) = body {
            self.next_request = self.next_request.wrapping_add(1);
            client.requests.insert(id, self.next_request);
            let request = Request { client: key, id, waiting: VecDeque::new(), begun: false };
            self.requests.insert(self.next_request, request);
        }
        // A request that has ended: the client does not know yet.
        let Some(&on_link) = client.requests.get(&id) else { return };
        if let Some(request) = self.requests.get_mut(&on_link) {
            request.waiting.push_back(body);
            if request.waiting.len() > MOST_WAITING {
                self.gone(key);
            }
        }
    }

    fn gone(&mut self, key: u64) {
        let Some(mut client) = self.clients.remove(&key) else { return };
        for on_link in std::mem::take(&mut client.requests).into_values() {
            if let Some(request) = self.requests.get_mut(&on_link) {
                request.waiting.clear();
                if request.begun {
                    request.waiting.push_back(ToDom0::HangUp);
                } else {
                    self.requests.remove(&on_link);
                }
            }
        }
    }

    fn tell(&mut self, key: u64, message: &FromHub) {
        let Some(client) = self.clients.get_mut(&key) else { return };
        if write(&mut client.stream, message).is_err() {
            self.gone(key);
        }
    }

    fn tell_all(&mut self, message: &FromHub) {
        for key in self.clients.keys().copied().collect::<Vec<_>>() {
            self.tell(key, message);
        }
    }

    fn fail_all(&mut self, why: &str) {
        // What dom0 has not heard of yet goes to the next session.
        self.requests.retain(|_, request| !request.begun);
        self.tell_all(&FromHub::Lost(why.to_owned()));
    }

    fn react(&mut self, events: Vec<Event>) {
        for event in events {
            match event {
                Event::Up => self.tell_all(&FromHub::Up),
                Event::Down(why) => self.fail_all(&match why {
                    Down::Restarted => "dom0 has started anew, or another program has taken the line".to_owned(),
                    Down::Left => "dom0 has closed the line".to_owned(),
                    Down::Silent => "dom0 does not answer any more".to_owned(),
                    Down::Version(theirs) => {
                        format!("dom0 speaks version {theirs} of the control protocol, this program version {VERSION}")
                    }
                }),
                Event::Payload(payload) => {
                    // A dom0 of this version says nothing else.
                    if let Some(message) = Message::decode(&payload) {
                        self.heard(message);
                    }
                }
            }
        }
    }

    fn heard(&mut self, Message { id: on_link, body }: Message<ToHost>) {
        let last = body.is_last();
        let Some((key, id)) = self.requests.get(&on_link).map(|request| (request.client, request.id)) else { return };
        self.tell(key, &FromHub::Dom0(Message { id, body }));
        if last {
            self.requests.remove(&on_link);
            if let Some(client) = self.clients.get_mut(&key) {
                client.requests.remove(&id);
            }
        }
    }

    /// Gives the link what waits, one message of each request in turn.
    fn feed(&mut self) {
        while self.link.has_room() {
            let waits = |(_, request): &(&Id, &Request)| !request.waiting.is_empty();
            let after = self.requests.range(self.turn.saturating_add(1)..).find(waits);
            let Some((&id, _)) = after.or_else(|| self.requests.iter().find(waits)) else { return };
            self.turn = id;
            if let Some(request) = self.requests.get_mut(&id)
                && let Some(body) = request.waiting.pop_front()
            {
                request.begun = true;
                let last = matches!(body, ToDom0::HangUp);
                self.link.send(Message { id, body }.encode());
                if last {
                    self.requests.remove(&id);
                }
            }
        }
    }

    /// Writes what the link has to say; false when the line is closed.
    fn flush(&mut self) -> bool {
        let mut buffer = [0; 4096];
        loop {
            let now = self.now();
            let count = self.link.output(now, &mut buffer);
            if count == 0 {
                return true;
            }
            if self.line.write_all(buffer.get(..count).unwrap_or_default()).and_then(|()| self.line.flush()).is_err() {
                return false;
            }
        }
    }
}

/// Where a hub listens and its clients look for it if nothing else is said: a place that only this user can write to.
#[must_use]
pub fn default_socket() -> Option<String> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(|dir| PathBuf::from(dir).join("xrs.sock"));
    let path = runtime.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".xrs.sock")))?;
    Some(path.display().to_string())
}

/// Writes a message as a frame.
///
/// # Errors
/// The other end is gone, or does not read.
pub fn write(to: &mut impl Write, message: &impl Serialize) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    frame::encode(&postcard::to_allocvec(message).map_err(std::io::Error::other)?, &mut bytes);
    to.write_all(&bytes)
}

/// Reads messages until the other end closes or `take` returns false.
pub fn read<T: for<'de> Deserialize<'de>>(from: &mut impl Read, mut take: impl FnMut(T) -> bool) {
    let mut decoder = Decoder::default();
    let mut buffer = [0; 4096];
    let mut goes_on = true;
    while goes_on && let Ok(count @ 1..) = from.read(&mut buffer) {
        decoder.push(buffer.get(..count).unwrap_or_default(), |found| {
            let message = found.ok().and_then(|body| postcard::from_bytes(body).ok());
            goes_on &= message.is_some_and(&mut take);
        });
    }
}

fn read_client(mut from: UnixStream, key: u64, input: Sender<Input>) {
    std::thread::spawn(move || {
        read(&mut from, |message| input.send(Input::Message(key, message)).is_ok());
        // The hub may have ended before.
        let _ = input.send(Input::Gone(key));
    });
}

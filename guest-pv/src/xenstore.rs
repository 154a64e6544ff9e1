//! The xenstore client of a domain that has a ring page for it (any but the initial one).
//!
//! A request blocks until its answer is there; watch events that come in between are kept for [`Xenstore::event`].
//!
//! Unsafe: the ring page is shared with the store.

use crate::call::{event_channel, sched};
use crate::events;
use crate::mem::{self, PAGE_BYTES, SharedBytes};
use alloc::collections::VecDeque;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use ring_protocol::peer::Fault;
use ring_protocol::xenstore::Client;
use xen_abi::ids::Port;
use xen_abi::xs_wire::{
    XENSTORE_PAYLOAD_MAX, XS_DIRECTORY, XS_ERROR, XS_MKDIR, XS_READ, XS_RM, XS_TRANSACTION_END, XS_TRANSACTION_START,
    XS_UNWATCH, XS_WATCH, XS_WATCH_EVENT, XS_WRITE, XsdSockmsg,
};
use zerocopy::{FromBytes, IntoBytes};

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The store refused, by the name of an errno: "ENOENT".
    Refused(String),
    /// The other side does not follow the protocol.
    Protocol,
    /// The request is too long.
    TooLong,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(errno) => f.write_str(errno),
            Self::Protocol => f.write_str("the store broke the protocol"),
            Self::TooLong => f.write_str("the request is too long"),
        }
    }
}

impl From<Fault> for Error {
    fn from(_: Fault) -> Self {
        Self::Protocol
    }
}

/// A change under a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What changed.
    pub path: String,
    /// The token of the watch.
    pub token: String,
}

/// A transaction in progress; [`Transaction::NONE`] outside of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transaction(u32);

impl Transaction {
    /// No transaction: each request by itself.
    pub const NONE: Self = Self(0);
}

/// The connection.
pub struct Xenstore {
    page: SharedBytes,
    port: Port,
    client: Client,
    /// Bytes received that are not a whole message yet.
    partial: Vec<u8>,
    events: VecDeque<Event>,
    next_request: u32,
}

struct Message {
    kind: u32,
    request: u32,
    payload: Vec<u8>,
}

impl Xenstore {
    /// Connects. `None` without a ring page, and in the initial domain.
    pub fn connect() -> Option<Self> {
        let boot = crate::boot();
        let pfn = mem::m2p(boot.store_mfn).filter(|_| boot.store_mfn.0 != 0)?;
        // SAFETY: the builder reserved the page for this, and the direct map never loses it.
        let page = unsafe { SharedBytes::new(mem::address(pfn) as *mut u8, PAGE_BYTES) };
        let client = Client::attach(&page).ok()?;
        Some(Self {
            page,
            port: boot.store_evtchn,
            client,
            partial: Vec::new(),
            events: VecDeque::new(),
            next_request: 1,
        })
    }

    /// The port that becomes pending when something comes; unmasked by this call.
    pub fn port(&self) -> Port {
        events::unmask(self.port);
        self.port
    }

    fn notify(&self) {
        // Without anyone at the other end there is nobody to tell.
        let _ = event_channel::send(self.port);
    }

    /// Sleeps until the other end has done something since the port was cleared.
    fn wait(&self) {
        sched::poll(&[self.port], 0).expect("a vCPU can always sleep");
    }

    fn send(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            events::clear(self.port);
            let sent = self.client.write(&self.page, bytes)?;
            bytes = &bytes[sent..];
            if sent > 0 {
                self.notify();
            } else {
                self.wait();
            }
        }
        Ok(())
    }

    /// The next whole message, if it is there.
    fn receive(&mut self) -> Result<Option<Message>, Error> {
        let mut chunk = [0; 1024];
        loop {
            if let Ok((header, rest)) = XsdSockmsg::read_from_prefix(&self.partial) {
                let len = header.len as usize;
                if len > XENSTORE_PAYLOAD_MAX {
                    return Err(Error::Protocol);
                }
                if rest.len() >= len {
                    let payload = rest[..len].to_vec();
                    self.partial.drain(..size_of::<XsdSockmsg>() + len);
                    return Ok(Some(Message { kind: header.type_, request: header.req_id, payload }));
                }
            }
            let count = self.client.read(&self.page, &mut chunk)?;
            if count == 0 {
                return Ok(None);
            }
            self.notify();
            self.partial.extend_from_slice(&chunk[..count]);
        }
    }

    fn keep(&mut self, payload: &[u8]) {
        let mut parts = payload.split(|&byte| byte == 0).map(|part| String::from_utf8_lossy(part).into_owned());
        if let (Some(path), Some(token)) = (parts.next(), parts.next()) {
            self.events.push_back(Event { path, token });
        }
    }

    /// One request: its kind (`XS_*`) and the parts of its payload, as they are.
    ///
    /// # Errors
    /// What the store says, or a broken connection.
    pub fn request(&mut self, kind: u32, transaction: Transaction, parts: &[&[u8]]) -> Result<Vec<u8>, Error> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if len > XENSTORE_PAYLOAD_MAX {
            return Err(Error::TooLong);
        }
        let request = self.next_request;
        self.next_request = request.wrapping_add(1);
        let header = XsdSockmsg { type_: kind, req_id: request, tx_id: transaction.0, len: len as u32 };
        let mut message = header.as_bytes().to_vec();
        parts.iter().for_each(|part| message.extend_from_slice(part));
        self.send(&message)?;
        loop {
            events::clear(self.port);
            let Some(answer) = self.receive()? else {
                self.wait();
                continue;
            };
            match answer.kind {
                XS_WATCH_EVENT => self.keep(&answer.payload),
                _ if answer.request != request => return Err(Error::Protocol),
                XS_ERROR => {
                    let name = answer.payload.split(|&byte| byte == 0).next().unwrap_or_default();
                    return Err(Error::Refused(String::from_utf8_lossy(name).to_string()));
                }
                answered if answered == kind => return Ok(answer.payload),
                _ => return Err(Error::Protocol),
            }
        }
    }

    /// Reads a value.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn read(&mut self, transaction: Transaction, path: &str) -> Result<Vec<u8>, Error> {
        self.request(XS_READ, transaction, &[path.as_bytes(), &[0]])
    }

    /// Reads a value that is text.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn read_text(&mut self, transaction: Transaction, path: &str) -> Result<String, Error> {
        self.read(transaction, path).map(|value| String::from_utf8_lossy(&value).into_owned())
    }

    /// Writes a value.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn write(&mut self, transaction: Transaction, path: &str, value: &[u8]) -> Result<(), Error> {
        self.request(XS_WRITE, transaction, &[path.as_bytes(), &[0], value]).map(drop)
    }

    /// Makes an empty node.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn mkdir(&mut self, transaction: Transaction, path: &str) -> Result<(), Error> {
        self.request(XS_MKDIR, transaction, &[path.as_bytes(), &[0]]).map(drop)
    }

    /// Removes a node with all below it.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn remove(&mut self, transaction: Transaction, path: &str) -> Result<(), Error> {
        self.request(XS_RM, transaction, &[path.as_bytes(), &[0]]).map(drop)
    }

    /// The names below a node.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn directory(&mut self, transaction: Transaction, path: &str) -> Result<Vec<String>, Error> {
        let names = self.request(XS_DIRECTORY, transaction, &[path.as_bytes(), &[0]])?;
        let names = names.split(|&byte| byte == 0).filter(|name| !name.is_empty());
        Ok(names.map(|name| String::from_utf8_lossy(name).into_owned()).collect())
    }

    /// Watches a path and all below it. One event comes at once.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn watch(&mut self, path: &str, token: &str) -> Result<(), Error> {
        self.request(XS_WATCH, Transaction::NONE, &[path.as_bytes(), &[0], token.as_bytes(), &[0]]).map(drop)
    }

    /// Ends a watch.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn unwatch(&mut self, path: &str, token: &str) -> Result<(), Error> {
        self.request(XS_UNWATCH, Transaction::NONE, &[path.as_bytes(), &[0], token.as_bytes(), &[0]]).map(drop)
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn begin(&mut self) -> Result<Transaction, Error> {
        let id = self.request(XS_TRANSACTION_START, Transaction::NONE, &[&[0]])?;
        let digits = id.split(|&byte| byte == 0).next().unwrap_or_default();
        let number = core::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
        number.map(Transaction).ok_or(Error::Protocol)
    }

    /// Ends a transaction: what it wrote becomes visible, or nothing of it.
    ///
    /// # Errors
    /// As [`Self::request`]; `EAGAIN` when somebody else got in between.
    pub fn commit(&mut self, transaction: Transaction) -> Result<(), Error> {
        self.request(XS_TRANSACTION_END, transaction, &[b"T\0"]).map(drop)
    }

    /// Gives a transaction up.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn abort(&mut self, transaction: Transaction) -> Result<(), Error> {
        self.request(XS_TRANSACTION_END, transaction, &[b"F\0"]).map(drop)
    }

    /// The next watch event that is there.
    ///
    /// # Errors
    /// A broken connection.
    pub fn event(&mut self) -> Result<Option<Event>, Error> {
        while self.events.is_empty() {
            match self.receive()? {
                Some(message) if message.kind == XS_WATCH_EVENT => self.keep(&message.payload),
                Some(_) => return Err(Error::Protocol),
                None => return Ok(None),
            }
        }
        Ok(self.events.pop_front())
    }

    /// Waits for the next watch event.
    ///
    /// # Errors
    /// A broken connection.
    pub fn wait_event(&mut self) -> Result<Event, Error> {
        loop {
            events::clear(self.port);
            if let Some(event) = self.event()? {
                return Ok(event);
            }
            self.wait();
        }
    }
}

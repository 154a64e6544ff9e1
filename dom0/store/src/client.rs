//! A client: what it has open, the request that is coming in, the answers that wait to go out.

use crate::permission::Identity;
use crate::quota::Quota;
use crate::transaction::Transaction;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::fmt;
use xen_abi::xs_wire::{XENSTORE_PAYLOAD_MAX, XS_WATCH_EVENT, XsdSockmsg};
use zerocopy::{FromBytes, IntoBytes};

/// The client announced a payload that is too long: where its next request begins is unknown, so it cannot be served
/// any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Bytes it announced.
    pub len: u32,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a request with a payload of {} bytes", self.len)
    }
}

impl core::error::Error for Violation {}

const HEADER: usize = size_of::<XsdSockmsg>();

#[derive(Debug)]
pub(crate) struct Client {
    pub identity: Identity,
    pub transactions: BTreeMap<u32, Transaction>,
    pub last_transaction: u32,
    /// The request so far.
    request: Vec<u8>,
    /// Messages that are not sent yet; of the first one `sent` bytes are.
    out: VecDeque<Box<[u8]>>,
    sent: usize,
    /// Bytes in `out`.
    waiting: usize,
    /// The events in `out`: one that waits already is not added again.
    events: BTreeSet<Box<[u8]>>,
}

impl Client {
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            transactions: BTreeMap::new(),
            last_transaction: 0,
            request: Vec::new(),
            out: VecDeque::new(),
            sent: 0,
            waiting: 0,
            events: BTreeSet::new(),
        }
    }

    fn header(&self) -> Option<XsdSockmsg> {
        XsdSockmsg::read_from_prefix(&self.request).ok().map(|(header, _)| header)
    }

    /// Bytes missing from the request.
    pub fn missing(&self) -> usize {
        let whole = self.header().map_or(HEADER, |header| HEADER + header.len as usize);
        whole.saturating_sub(self.request.len())
    }

    /// How many bytes of requests may come now: none while too many answers wait.
    pub fn wanted(&self, quota: &Quota) -> usize {
        if self.waiting > quota.waiting_bytes { 0 } else { self.missing() }
    }

    /// Takes at most the missing bytes; gives the request once it is whole.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Option<(XsdSockmsg, Vec<u8>)>, Violation> {
        self.request.extend_from_slice(bytes);
        let Some(header) = self.header() else {
            return Ok(None);
        };
        if header.len as usize > XENSTORE_PAYLOAD_MAX {
            return Err(Violation { len: header.len });
        }
        if self.missing() > 0 {
            return Ok(None);
        }
        let payload = self.request.split_off(HEADER);
        self.request.clear();
        Ok(Some((header, payload)))
    }

    /// Queues an answer.
    pub fn answer(&mut self, header: XsdSockmsg, payload: &[u8]) {
        let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let mut message = Vec::with_capacity(HEADER + payload.len());
        message.extend_from_slice(XsdSockmsg { len, ..header }.as_bytes());
        message.extend_from_slice(payload);
        self.waiting += message.len();
        self.out.push_back(message.into());
    }

    /// Queues a watch event, unless the same waits already, it is too long to be sent, or too much waits.
    pub fn event(&mut self, path: &str, token: &[u8], quota: &Quota) {
        let payload = [path.as_bytes(), &[0], token, &[0]].concat();
        if payload.len() > XENSTORE_PAYLOAD_MAX || self.waiting + payload.len() > quota.waiting_bytes_hard {
            return;
        }
        let header = XsdSockmsg { type_: XS_WATCH_EVENT, ..Default::default() };
        if self.events.insert(payload.clone().into()) {
            self.answer(header, &payload);
        }
    }

    /// Bytes to be sent next; empty when there are none.
    pub fn output(&self) -> &[u8] {
        self.out.front().and_then(|message| message.get(self.sent..)).unwrap_or(&[])
    }

    /// Takes all that waits to be sent, as payloads.
    pub fn take_events(&mut self) -> Vec<Vec<u8>> {
        if self.out.is_empty() {
            return Vec::new();
        }
        self.events.clear();
        (self.sent, self.waiting) = (0, 0);
        let payload = |message: Box<[u8]>| message.get(HEADER..).unwrap_or_default().to_vec();
        self.out.drain(..).map(payload).collect()
    }

    /// So many bytes of the output have been sent.
    pub fn sent(&mut self, count: usize) {
        self.sent += count;
        while let Some(message) = self.out.front()
            && self.sent >= message.len()
        {
            self.sent -= message.len();
            self.waiting -= message.len();
            if let Some(payload) = message.get(HEADER..) {
                self.events.remove(payload);
            }
            self.out.pop_front();
        }
    }
}

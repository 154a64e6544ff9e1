//! Xenstore's page (`io/xs_wire.h`), from both ends.

use crate::page::Page;
use crate::peer::Fault;
use crate::ring::{Layout, Reader, Writer};
use xen_abi::xs_wire::{
    XENSTORE_CONNECTED, XENSTORE_ERROR_COMM, XENSTORE_ERROR_PROTO, XENSTORE_ERROR_RINGIDX, XENSTORE_RING_SIZE,
    XENSTORE_SERVER_FEATURE_ERROR, interface,
};

const REQUESTS: Layout = Layout::new(interface::REQ, XENSTORE_RING_SIZE, interface::REQ_CONS, interface::REQ_PROD);
const RESPONSES: Layout = Layout::new(interface::RSP, XENSTORE_RING_SIZE, interface::RSP_CONS, interface::RSP_PROD);

/// Why the server stops talking to a client, as the client can read it in the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Complaint {
    /// Something else.
    Communication,
    /// Its indices are impossible.
    Indices,
    /// It announced a payload that is too long.
    Protocol,
}

/// The end of the store.
#[derive(Debug)]
pub struct Server {
    requests: Reader,
    responses: Writer,
}

impl Server {
    /// Takes over a page. Its indices go on where they stand: a client may have written requests already.
    ///
    /// # Errors
    /// When the indices are impossible.
    pub fn attach(page: &impl Page) -> Result<Self, Fault> {
        let server = Self { requests: Reader::attach(REQUESTS, page)?, responses: Writer::attach(RESPONSES, page)? };
        page.store_u32(interface::SERVER_FEATURES, XENSTORE_SERVER_FEATURE_ERROR);
        page.store_u32(interface::CONNECTION, XENSTORE_CONNECTED);
        Ok(server)
    }

    /// Reads bytes of requests.
    ///
    /// # Errors
    /// When the client's indices are impossible.
    pub fn read(&mut self, page: &impl Page, to: &mut [u8]) -> Result<usize, Fault> {
        self.requests.read(page, to)
    }

    /// Writes bytes of responses and events.
    ///
    /// # Errors
    /// When the client's indices are impossible.
    pub fn write(&mut self, page: &impl Page, bytes: &[u8]) -> Result<usize, Fault> {
        self.responses.write(page, bytes)
    }

    /// Tells the client why it is not served any more.
    pub fn complain(page: &impl Page, complaint: Complaint) {
        let error = match complaint {
            Complaint::Communication => XENSTORE_ERROR_COMM,
            Complaint::Indices => XENSTORE_ERROR_RINGIDX,
            Complaint::Protocol => XENSTORE_ERROR_PROTO,
        };
        page.store_u32(interface::ERROR, error);
    }
}

/// The end of a guest.
#[derive(Debug)]
pub struct Client {
    requests: Writer,
    responses: Reader,
}

impl Client {
    /// Takes over a page: after a kernel's start its indices need not be 0.
    ///
    /// # Errors
    /// When the indices are impossible.
    pub fn attach(page: &impl Page) -> Result<Self, Fault> {
        Ok(Self { requests: Writer::attach(REQUESTS, page)?, responses: Reader::attach(RESPONSES, page)? })
    }

    /// Writes bytes of requests.
    ///
    /// # Errors
    /// When the server's indices are impossible.
    pub fn write(&mut self, page: &impl Page, bytes: &[u8]) -> Result<usize, Fault> {
        self.requests.write(page, bytes)
    }

    /// Reads bytes of responses and events.
    ///
    /// # Errors
    /// When the server's indices are impossible.
    pub fn read(&mut self, page: &impl Page, to: &mut [u8]) -> Result<usize, Fault> {
        self.responses.read(page, to)
    }
}

//! Xenstore's connections: moves bytes between the store and the guests' rings.

use super::Link;
use alloc::collections::{BTreeMap, BTreeSet};
use guest_pv::println;
use ring_protocol::peer::Fault;
use ring_protocol::xenstore::{Complaint, Server};
use xen_abi::errno::Errno;
use xen_abi::grant_table::GNTTAB_RESERVED_XENSTORE;
use xen_abi::ids::{DomId, Mfn, Port};
use xenstore::{Store, Violation};

/// Rounds of reading and writing that one guest gets before others have their turn.
const ROUNDS: usize = 64;

/// The store and who is connected to it.
#[derive(Debug, Default)]
pub struct Xenstored {
    /// The store itself.
    pub store: Store,
    connections: BTreeMap<DomId, Connection>,
    /// Guests whose turn was over before they were.
    busy: BTreeSet<DomId>,
}

#[derive(Debug)]
struct Connection {
    link: Link,
    ring: Server,
    /// The guest broke the protocol: nothing of it is looked at any more.
    broken: bool,
}

/// Why a guest is not served any more.
enum Broken {
    Ring(Fault),
    Request(Violation),
}

impl Xenstored {
    /// Begins to serve a guest; one that is served already starts from scratch.
    pub fn introduce(&mut self, dom: DomId, frame: Mfn, port: Port) -> Result<Port, Errno> {
        self.connections.remove(&dom);
        let link = Link::new(dom, GNTTAB_RESERVED_XENSTORE, frame, port)?;
        let ring = Server::attach(&*link.page).map_err(|_| Errno::EINVAL)?;
        let port = link.port;
        self.connections.insert(dom, Connection { link, ring, broken: false });
        self.store.introduce(dom);
        Ok(port)
    }

    /// Stops serving a guest; gives its port.
    pub fn release(&mut self, dom: DomId) -> Option<Port> {
        let connection = self.connections.remove(&dom)?;
        self.busy.remove(&dom);
        // It was introduced with the connection.
        let _ = self.store.release(dom);
        Some(connection.link.port)
    }

    /// All guests that are served.
    pub fn domains(&self) -> impl Iterator<Item = DomId> {
        self.connections.keys().copied()
    }

    /// Serves a guest whose event came.
    pub fn serve(&mut self, dom: DomId) {
        let Some(connection) = self.connections.get_mut(&dom).filter(|connection| !connection.broken) else {
            return;
        };
        match connection.exchange(&mut self.store, dom) {
            Ok(done) => {
                if done {
                    self.busy.remove(&dom);
                } else {
                    self.busy.insert(dom);
                }
            }
            Err(broken) => {
                connection.broken = true;
                self.busy.remove(&dom);
                let complaint = match broken {
                    Broken::Ring(fault) => {
                        println!("xenstore: domain {dom}: {fault}");
                        Complaint::Indices
                    }
                    Broken::Request(violation) => {
                        println!("xenstore: domain {dom}: {violation}");
                        Complaint::Protocol
                    }
                };
                Server::complain(&*connection.link.page, complaint);
                connection.link.notify();
            }
        }
    }

    /// Whether there is something to send, to go on with, or to be told of here.
    pub fn has_news(&self) -> bool {
        !self.busy.is_empty() || self.store.has_news(DomId(0))
    }

    /// Sends what requests and dom0's own changes have made to be sent, and goes on where turns were over. Returns
    /// whether there is more to do at once.
    pub fn catch_up(&mut self) -> bool {
        // Nearly always there is nothing, and taking nothing apart costs more than looking.
        if !self.busy.is_empty() {
            for dom in core::mem::take(&mut self.busy) {
                self.serve(dom);
            }
        }
        while let Some(dom) = self.store.next_ready() {
            self.serve(dom);
        }
        !self.busy.is_empty()
    }
}

impl Connection {
    /// Moves bytes both ways until nothing moves; false when the turn was over first.
    fn exchange(&mut self, store: &mut Store, dom: DomId) -> Result<bool, Broken> {
        let page = &*self.link.page;
        let mut buffer = [0; 1024];
        let mut moved = false;
        let mut done = false;
        for _ in 0..ROUNDS {
            let sent = self.ring.write(page, store.output(dom)).map_err(Broken::Ring)?;
            store.sent(dom, sent);
            let wanted = store.wanted(dom).min(buffer.len());
            let (buffer, _) = buffer.split_at_mut(wanted);
            let count = self.ring.read(page, buffer).map_err(Broken::Ring)?;
            let (bytes, _) = buffer.split_at(count);
            if count > 0 {
                store.receive(dom, bytes).map_err(Broken::Request)?;
            }
            if sent == 0 && count == 0 {
                done = true;
                break;
            }
            moved = true;
        }
        if moved {
            self.link.notify();
        }
        Ok(done)
    }
}

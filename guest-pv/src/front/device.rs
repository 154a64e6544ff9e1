//! What all front ends do alike: find their back end in xenstore, say what it needs to know, and follow its state.

use crate::events;
use crate::front::Buffer;
use crate::mem::Access;
use crate::xenstore::{self, Transaction, Xenstore};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use ring_protocol::xenbus::State;
use xen_abi::errno::Errno;
use xen_abi::ids::{DomId, Port};

/// Why a device does not work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The store refused.
    Store(xenstore::Error),
    /// The hypervisor refused.
    Hypercall(Errno),
    /// The back end went to a state from which it does not come back.
    Gone(State),
    /// The back end did not follow the protocol.
    Broken,
    /// The request cannot be made like that.
    Unfit,
    /// The back end answered a request with an error.
    Failed,
    /// The back end cannot do that.
    Unsupported,
}

impl From<xenstore::Error> for Error {
    fn from(error: xenstore::Error) -> Self {
        Self::Store(error)
    }
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Self::Hypercall(errno)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => write!(f, "xenstore: {error}"),
            Self::Hypercall(errno) => f.write_str(errno.name()),
            Self::Gone(state) => write!(f, "the back end is in state {state:?}"),
            Self::Broken => f.write_str("the back end broke the protocol"),
            Self::Unfit => f.write_str("no such request"),
            Self::Failed => f.write_str("the back end answered with an error"),
            Self::Unsupported => f.write_str("the back end cannot do that"),
        }
    }
}

const NONE: Transaction = Transaction::NONE;

/// A device's nodes in xenstore.
#[derive(Debug)]
pub struct Device {
    /// Our directory: `device/vbd/51712`.
    front: String,
    /// The back end's.
    back: String,
    /// The domain that serves it.
    dom: DomId,
}

impl Device {
    /// The device of a kind (`vbd`) with this number.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(store: &mut Xenstore, kind: &str, number: u32) -> Result<Self, Error> {
        let front = format!("device/{kind}/{number}");
        let back = store.read_text(NONE, &format!("{front}/backend"))?;
        let dom = store.read_text(NONE, &format!("{front}/backend-id"))?;
        Ok(Self { front, back, dom: DomId(dom.parse().map_err(|_| Error::Broken)?) })
    }

    /// The numbers of all devices of a kind, in ascending order.
    ///
    /// # Errors
    /// Those of the store.
    pub fn all(store: &mut Xenstore, kind: &str) -> Result<Vec<u32>, Error> {
        let names = match store.directory(NONE, &format!("device/{kind}")) {
            Ok(names) => names,
            Err(xenstore::Error::Refused(errno)) if errno == "ENOENT" => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let mut numbers: Vec<u32> = names.iter().filter_map(|name| name.parse().ok()).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The domain that serves it.
    pub fn dom(&self) -> DomId {
        self.dom
    }

    /// A number that the back end published; `None` where it did not.
    ///
    /// # Errors
    /// Those of the store.
    pub fn published(&self, store: &mut Xenstore, name: &str) -> Result<Option<u64>, Error> {
        match store.read_text(NONE, &format!("{}/{name}", self.back)) {
            Ok(text) => Ok(text.parse().ok()),
            Err(xenstore::Error::Refused(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Publishes something.
    ///
    /// # Errors
    /// Those of the store.
    pub fn publish(&self, store: &mut Xenstore, name: &str, value: &dyn ToString) -> Result<(), Error> {
        Ok(store.write(NONE, &format!("{}/{name}", self.front), value.to_string().as_bytes())?)
    }

    /// Takes something back that may have been published.
    ///
    /// # Errors
    /// Those of the store.
    pub fn withdraw(&self, store: &mut Xenstore, name: &str) -> Result<(), Error> {
        match store.remove(NONE, &format!("{}/{name}", self.front)) {
            Err(xenstore::Error::Refused(errno)) if errno == "ENOENT" => Ok(()),
            other => Ok(other?),
        }
    }

    /// Goes to a state.
    ///
    /// # Errors
    /// Those of the store.
    pub fn set_state(&self, store: &mut Xenstore, state: State) -> Result<(), Error> {
        self.publish(store, "state", &state.as_str())
    }

    /// The back end's state.
    ///
    /// # Errors
    /// Those of the store.
    pub fn peer(&self, store: &mut Xenstore) -> Result<State, Error> {
        match store.read(NONE, &format!("{}/state", self.back)) {
            Ok(value) => Ok(State::parse(&value)),
            Err(xenstore::Error::Refused(_)) => Ok(State::Unknown),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until the back end is in one of these states; which it is.
    ///
    /// # Errors
    /// Those of the store; [`Error::Gone`] when it is in one of the states `over`.
    pub fn wait_for(&self, store: &mut Xenstore, states: &[State], over: &[State]) -> Result<State, Error> {
        let path = format!("{}/state", self.back);
        store.watch(&path, "front")?;
        let result = loop {
            match self.peer(store) {
                Ok(state) if states.contains(&state) => break Ok(state),
                Ok(state) if over.contains(&state) => break Err(Error::Gone(state)),
                Ok(_) => {}
                Err(error) => break Err(error),
            }
            // What it says does not matter: the state is read anew.
            if let Err(error) = store.wait_event() {
                break Err(error.into());
            }
        };
        store.unwatch(&path, "front")?;
        result
    }
}

/// A ring's memory and the event channel beside it.
#[derive(Debug)]
pub struct Channel {
    /// The ring's pages.
    pub ring: Buffer,
    /// The event channel, masked: whoever waits for it polls.
    pub port: Port,
}

impl Channel {
    /// A ring of so many pages of zeros.
    ///
    /// # Errors
    /// Those of granting and of event channels.
    pub fn new(dom: DomId, pages: usize) -> Result<Self, Error> {
        let ring = Buffer::new(dom, pages, Access::ReadWrite)?;
        let port = crate::call::event_channel::alloc_unbound(DomId::SELF, dom)?;
        Ok(Self { ring, port })
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        let _ = events::close(self.port);
    }
}

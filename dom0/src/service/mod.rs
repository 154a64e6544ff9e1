//! What runs for the guests' sake.

pub mod consoled;
pub mod control;
pub mod log;
pub mod xenstored;

use guest_pv::mem::{Access, Mapping};
use guest_pv::{events, grants};
use xen_abi::errno::Errno;
use xen_abi::ids::{DomId, GrantRef, Mfn, Port};

/// A guest's ring page and our end of its event channel. Both are given back when it is dropped.
#[derive(Debug)]
struct Link {
    page: Mapping,
    port: Port,
}

impl Link {
    /// Maps the page by the grant that is reserved for it; a domain built by a toolstack that does not set those up
    /// is mapped by frame.
    fn new(dom: DomId, reserved: u32, frame: Mfn, remote: Port) -> Result<Self, Errno> {
        let page = grants::map(dom, &[GrantRef(reserved)], Access::ReadWrite)
            .or_else(|_| Mapping::foreign(dom, &[frame.0], Access::ReadWrite).map_err(|error| error.errno))?;
        let port = events::bind_interdomain(dom, remote)?;
        Ok(Self { page, port })
    }

    fn notify(&self) {
        // The other end may be closed already: then nobody listens any more.
        let _ = events::notify(self.port);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let closed = events::close(self.port);
        debug_assert!(closed.is_ok(), "a port of ours can be closed");
    }
}

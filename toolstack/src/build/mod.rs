//! The PV domain builder: from a kernel to a domain that could be unpaused.
//!
//! The order of the hypercalls is libxl's and libxenguest's of Xen 4.17, so that it does the same on real Xen. The
//! builder leaves nothing behind when it fails: whatever it did belongs to the new domain, and that is destroyed.

mod error;
mod memory;
mod pv;

pub use error::BuildError;
pub use pv::{Built, MAXMEM_SLACK_KIB, Request, build};

//! The domain builders: from a kernel to a domain that could be unpaused.
//!
//! The order of the hypercalls is libxl's and libxenguest's of Xen 4.17, so that it does the same on real Xen. The
//! builder leaves nothing behind when it fails: whatever it did belongs to the new domain, and that is destroyed.

mod cpuid;
mod domain;
mod error;
mod memory;
mod pv;
mod pvh;

use domain_image::{Kernel, Segment};
use xen_abi::ids::{DomId, Mfn, Port};

use crate::calls::XenCalls;
use crate::config::{DomainConfig, Uuid};

pub use domain::destroy;
pub use error::BuildError;

/// What libxl adds to a domain's maximum (LIBXL_MAXMEM_CONSTANT), KiB.
pub const MAXMEM_SLACK_KIB: u64 = 1024;
/// The domain that runs this: consoles and xenstore are served from here.
const SERVICE_DOMAIN: DomId = DomId(0);

/// The kernel of a domain to build, which says what kind of domain that is.
#[derive(Debug, Clone, Copy)]
pub enum Image<'a> {
    /// For a PV domain.
    Pv(&'a Kernel<'a>),
    /// For a PVH domain.
    Pvh(&'a domain_image::pvh::Kernel<'a>),
}

impl<'a> Image<'a> {
    /// What is to be loaded.
    fn segments(self) -> &'a [Segment<'a>] {
        match self {
            Self::Pv(kernel) => &kernel.segments,
            Self::Pvh(kernel) => &kernel.segments,
        }
    }
}

/// A domain to build.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// What was asked for.
    pub config: &'a DomainConfig,
    /// Its handle.
    pub uuid: Uuid,
    /// Its kernel.
    pub kernel: Image<'a>,
    /// Its ramdisk, possibly empty.
    pub ramdisk: &'a [u8],
    /// Its pool of CPUs.
    pub pool: u32,
}

/// What was built: the domain, paused, and where its rings are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Built {
    /// Its number.
    pub dom: DomId,
    /// The xenstore ring: a frame of the machine, or of a PVH domain's own memory.
    pub store_frame: Mfn,
    /// Its event channel.
    pub store_port: Port,
    /// The console ring, likewise.
    pub console_frame: Mfn,
    /// Its event channel.
    pub console_port: Port,
}

/// Builds a domain. It stays paused.
///
/// # Errors
/// What went wrong; the domain is gone again then.
pub fn build(xen: &mut dyn XenCalls, request: &Request<'_>) -> Result<Built, BuildError> {
    match request.kernel {
        Image::Pv(kernel) => pv::build(xen, request, kernel),
        Image::Pvh(kernel) => pvh::build(xen, request, kernel),
    }
}

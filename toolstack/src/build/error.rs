//! Why a domain could not be built.

use core::fmt;

use domain_image::{ImageError, LayoutError};
use xen_abi::errno::Errno;

/// Why a domain could not be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuildError {
    /// The kernel cannot be used.
    Image(ImageError),
    /// It does not fit the domain.
    Layout(LayoutError),
    /// The machine has too little free memory.
    NoMemory {
        /// MiB needed.
        need: u64,
        /// MiB free.
        free: u64,
    },
    /// The machine cannot run PVH domains.
    NoContainers,
    /// A hypercall failed.
    Call {
        /// What it was to do.
        what: &'static str,
        /// What it said.
        errno: Errno,
    },
}

impl From<ImageError> for BuildError {
    fn from(error: ImageError) -> Self {
        Self::Image(error)
    }
}

impl From<LayoutError> for BuildError {
    fn from(error: LayoutError) -> Self {
        Self::Layout(error)
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(error) => write!(f, "kernel: {error}"),
            Self::Layout(error) => error.fmt(f),
            Self::NoMemory { need, free } => {
                write!(f, "not enough free memory: {need} MiB needed, {free} MiB free")
            }
            Self::NoContainers => f.write_str(
                "the machine or the hypervisor has no hardware containers (VT-x or AMD-V), which type=\"pvh\" needs; \
                 type=\"pv\" does not",
            ),
            Self::Call { what, errno } => write!(f, "cannot {what}: {}", errno.name()),
        }
    }
}

impl core::error::Error for BuildError {}

/// Says what a hypercall was to do when it fails.
pub(super) trait Doing<T> {
    fn doing(self, what: &'static str) -> Result<T, BuildError>;
}

impl<T> Doing<T> for Result<T, Errno> {
    fn doing(self, what: &'static str) -> Result<T, BuildError> {
        self.map_err(|errno| BuildError::Call { what, errno })
    }
}

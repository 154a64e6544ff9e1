//! `console_io` (`xen.h`): the hypervisor's own console.

use crate::layout::constants;

constants! {
    /// Arguments: count in bytes, buffer. Returns 0.
    pub const CONSOLEIO_WRITE: u32 = 0;
    /// Arguments: room in bytes, buffer. Returns the count read.
    pub const CONSOLEIO_READ: u32 = 1;
}

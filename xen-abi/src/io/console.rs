//! The PV console's shared page (`io/console.h`).

use core::mem::offset_of;

use crate::layout::structures;

structures! {
    /// Two rings of bytes. Both sides write the page: address it by the offsets below.
    pub struct XenconsInterface = "struct xencons_interface" {
        /// Host to guest.
        pub in_: [u8; 1024] => "in",
        /// Guest to host.
        pub out: [u8; 2048],
        pub in_cons: u32,
        pub in_prod: u32,
        pub out_cons: u32,
        pub out_prod: u32,
    }
}

/// Offsets in bytes within the shared page ([`XenconsInterface`]).
pub mod interface {
    use super::{XenconsInterface, offset_of};

    /// Ring of [`IN_SIZE`] bytes, host to guest.
    pub const IN: usize = offset_of!(XenconsInterface, in_);
    /// Bytes.
    pub const IN_SIZE: usize = 1024;
    /// Ring of [`OUT_SIZE`] bytes, guest to host.
    pub const OUT: usize = offset_of!(XenconsInterface, out);
    /// Bytes.
    pub const OUT_SIZE: usize = 2048;
    /// u32, written by the guest.
    pub const IN_CONS: usize = offset_of!(XenconsInterface, in_cons);
    /// u32, written by the host.
    pub const IN_PROD: usize = offset_of!(XenconsInterface, in_prod);
    /// u32, written by the host.
    pub const OUT_CONS: usize = offset_of!(XenconsInterface, out_cons);
    /// u32, written by the guest.
    pub const OUT_PROD: usize = offset_of!(XenconsInterface, out_prod);
}

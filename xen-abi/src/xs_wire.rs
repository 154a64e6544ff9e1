//! Xenstore's wire protocol and shared page (`io/xs_wire.h`).

use core::mem::offset_of;

use crate::layout::{constants, structures};

constants! {
    /// [`XsdSockmsg::type_`].
    pub const XS_CONTROL: u32 = 0;
    pub const XS_DEBUG: u32 = XS_CONTROL;
    pub const XS_DIRECTORY: u32 = 1;
    pub const XS_READ: u32 = 2;
    pub const XS_GET_PERMS: u32 = 3;
    pub const XS_WATCH: u32 = 4;
    pub const XS_UNWATCH: u32 = 5;
    pub const XS_TRANSACTION_START: u32 = 6;
    pub const XS_TRANSACTION_END: u32 = 7;
    pub const XS_INTRODUCE: u32 = 8;
    pub const XS_RELEASE: u32 = 9;
    pub const XS_GET_DOMAIN_PATH: u32 = 10;
    pub const XS_WRITE: u32 = 11;
    pub const XS_MKDIR: u32 = 12;
    pub const XS_RM: u32 = 13;
    pub const XS_SET_PERMS: u32 = 14;
    pub const XS_WATCH_EVENT: u32 = 15;
    pub const XS_ERROR: u32 = 16;
    pub const XS_IS_DOMAIN_INTRODUCED: u32 = 17;
    pub const XS_RESUME: u32 = 18;
    pub const XS_SET_TARGET: u32 = 19;
    pub const XS_RESET_WATCHES: u32 = 21;
    pub const XS_DIRECTORY_PART: u32 = 22;
    pub const XS_TYPE_COUNT: u32 = 23;
    pub const XS_INVALID: u32 = 0xffff;

    /// Fields of a watch event, in order.
    pub const XS_WATCH_PATH: usize = 0;
    pub const XS_WATCH_TOKEN: usize = 1;

    /// Bytes of each ring.
    pub const XENSTORE_RING_SIZE: usize = 1024;
    /// Bytes of the longest payload.
    pub const XENSTORE_PAYLOAD_MAX: usize = 4096;
    /// Bytes of the longest paths, terminator included.
    pub const XENSTORE_ABS_PATH_MAX: usize = 3072;
    pub const XENSTORE_REL_PATH_MAX: usize = 2048;
    /// [`XenstoreDomainInterface::server_features`].
    pub const XENSTORE_SERVER_FEATURE_RECONNECTION: u32 = 1;
    pub const XENSTORE_SERVER_FEATURE_ERROR: u32 = 2;
    /// [`XenstoreDomainInterface::connection`].
    pub const XENSTORE_CONNECTED: u32 = 0;
    pub const XENSTORE_RECONNECT: u32 = 1;
    /// [`XenstoreDomainInterface::error`].
    pub const XENSTORE_ERROR_NONE: u32 = 0;
    pub const XENSTORE_ERROR_COMM: u32 = 1;
    pub const XENSTORE_ERROR_RINGIDX: u32 = 2;
    pub const XENSTORE_ERROR_PROTO: u32 = 3;
}

structures! {
    /// Header of each message; `len` bytes follow.
    pub struct XsdSockmsg = "struct xsd_sockmsg" {
        /// `XS_*`.
        pub type_: u32 => "type",
        /// Chosen by the client, repeated in the answer.
        pub req_id: u32,
        /// Transaction, or 0.
        pub tx_id: u32,
        /// Bytes, at most [`XENSTORE_PAYLOAD_MAX`].
        pub len: u32,
    }
    /// The shared page. Both sides write it: address it by the offsets below.
    pub struct XenstoreDomainInterface = "struct xenstore_domain_interface" {
        /// Client to server.
        pub req: [u8; XENSTORE_RING_SIZE],
        /// Server to client.
        pub rsp: [u8; XENSTORE_RING_SIZE],
        pub req_cons: u32,
        pub req_prod: u32,
        pub rsp_cons: u32,
        pub rsp_prod: u32,
        /// `XENSTORE_SERVER_FEATURE_*`, read-only for the client.
        pub server_features: u32,
        pub connection: u32,
        pub error: u32,
    }
}

/// Offsets in bytes within the shared page ([`XenstoreDomainInterface`]).
pub mod interface {
    use super::{XenstoreDomainInterface, offset_of};

    /// Ring of 1024 bytes.
    pub const REQ: usize = offset_of!(XenstoreDomainInterface, req);
    /// Ring of 1024 bytes.
    pub const RSP: usize = offset_of!(XenstoreDomainInterface, rsp);
    /// u32, written by the server.
    pub const REQ_CONS: usize = offset_of!(XenstoreDomainInterface, req_cons);
    /// u32, written by the client.
    pub const REQ_PROD: usize = offset_of!(XenstoreDomainInterface, req_prod);
    /// u32, written by the client.
    pub const RSP_CONS: usize = offset_of!(XenstoreDomainInterface, rsp_cons);
    /// u32, written by the server.
    pub const RSP_PROD: usize = offset_of!(XenstoreDomainInterface, rsp_prod);
    /// u32.
    pub const SERVER_FEATURES: usize = offset_of!(XenstoreDomainInterface, server_features);
    /// u32.
    pub const CONNECTION: usize = offset_of!(XenstoreDomainInterface, connection);
    /// u32.
    pub const ERROR: usize = offset_of!(XenstoreDomainInterface, error);
}

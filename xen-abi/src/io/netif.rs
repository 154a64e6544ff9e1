//! Network devices (`io/netif.h`): one ring each for packets sent and received, and an optional control ring.

use crate::ids::GrantRef;
use crate::layout::{constants, structures};

constants! {
    /// Slots of one packet every back end takes.
    pub const XEN_NETIF_NR_SLOTS_MIN: u32 = 18;
    /// Which packets are hashed.
    pub const XEN_NETIF_CTRL_HASH_TYPE_IPV4: u32 = 1;
    pub const XEN_NETIF_CTRL_HASH_TYPE_IPV4_TCP: u32 = 2;
    pub const XEN_NETIF_CTRL_HASH_TYPE_IPV6: u32 = 4;
    pub const XEN_NETIF_CTRL_HASH_TYPE_IPV6_TCP: u32 = 8;
    pub const XEN_NETIF_CTRL_HASH_ALGORITHM_NONE: u32 = 0;
    pub const XEN_NETIF_CTRL_HASH_ALGORITHM_TOEPLITZ: u32 = 1;
    /// [`NetifCtrlRequest::type_`].
    pub const XEN_NETIF_CTRL_TYPE_INVALID: u16 = 0;
    pub const XEN_NETIF_CTRL_TYPE_GET_HASH_FLAGS: u16 = 1;
    pub const XEN_NETIF_CTRL_TYPE_SET_HASH_FLAGS: u16 = 2;
    pub const XEN_NETIF_CTRL_TYPE_SET_HASH_KEY: u16 = 3;
    pub const XEN_NETIF_CTRL_TYPE_GET_HASH_MAPPING_SIZE: u16 = 4;
    pub const XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING_SIZE: u16 = 5;
    pub const XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING: u16 = 6;
    pub const XEN_NETIF_CTRL_TYPE_SET_HASH_ALGORITHM: u16 = 7;
    pub const XEN_NETIF_CTRL_TYPE_GET_GREF_MAPPING_SIZE: u16 = 8;
    pub const XEN_NETIF_CTRL_TYPE_ADD_GREF_MAPPING: u16 = 9;
    pub const XEN_NETIF_CTRL_TYPE_DEL_GREF_MAPPING: u16 = 10;
    /// [`NetifCtrlResponse::status`].
    pub const XEN_NETIF_CTRL_STATUS_SUCCESS: u32 = 0;
    pub const XEN_NETIF_CTRL_STATUS_NOT_SUPPORTED: u32 = 1;
    pub const XEN_NETIF_CTRL_STATUS_INVALID_PARAMETER: u32 = 2;
    pub const XEN_NETIF_CTRL_STATUS_BUFFER_OVERFLOW: u32 = 3;
    pub const XEN_NETIF_CTRLF_GREF_READONLY: u16 = 1;
    /// [`NetifTxRequest::flags`].
    pub const NETTXF_CSUM_BLANK: u16 = 1;
    pub const NETTXF_DATA_VALIDATED: u16 = 2;
    pub const NETTXF_MORE_DATA: u16 = 4;
    pub const NETTXF_EXTRA_INFO: u16 = 8;
    /// Bytes of one packet.
    pub const XEN_NETIF_MAX_TX_SIZE: u32 = 0xffff;
    /// [`NetifExtraInfo::type_`].
    pub const XEN_NETIF_EXTRA_TYPE_NONE: u8 = 0;
    pub const XEN_NETIF_EXTRA_TYPE_GSO: u8 = 1;
    pub const XEN_NETIF_EXTRA_TYPE_MCAST_ADD: u8 = 2;
    pub const XEN_NETIF_EXTRA_TYPE_MCAST_DEL: u8 = 3;
    pub const XEN_NETIF_EXTRA_TYPE_HASH: u8 = 4;
    pub const XEN_NETIF_EXTRA_TYPE_MAX: u8 = 5;
    /// [`NetifExtraInfo::flags`].
    pub const XEN_NETIF_EXTRA_FLAG_MORE: u8 = 1;
    /// [`NetifExtraGso::type_`].
    pub const XEN_NETIF_GSO_TYPE_NONE: u8 = 0;
    pub const XEN_NETIF_GSO_TYPE_TCPV4: u8 = 1;
    pub const XEN_NETIF_GSO_TYPE_TCPV6: u8 = 2;
    /// [`NetifRxResponse::flags`].
    pub const NETRXF_DATA_VALIDATED: u16 = 1;
    pub const NETRXF_CSUM_BLANK: u16 = 2;
    pub const NETRXF_MORE_DATA: u16 = 4;
    pub const NETRXF_EXTRA_INFO: u16 = 8;
    pub const NETRXF_GSO_PREFIX: u16 = 16;
    pub const NETIF_RSP_DROPPED: i16 = -2;
    pub const NETIF_RSP_ERROR: i16 = -1;
    pub const NETIF_RSP_OKAY: i16 = 0;
    /// Response to the slot of an extra info.
    pub const NETIF_RSP_NULL: i16 = 1;
}

/// Bytes of a slot of the transmit ring.
pub const TX_SLOT: usize = size_of::<NetifTxRequest>();
/// Bytes of a slot of the receive ring.
pub const RX_SLOT: usize = size_of::<NetifRxResponse>();

structures! {
    pub struct NetifTxRequest = "struct netif_tx_request" {
        pub gref: GrantRef,
        /// Bytes within the page.
        pub offset: u16,
        /// `NETTXF_*`.
        pub flags: u16,
        pub id: u16,
        /// Bytes: of the whole packet in its first request, else of this part.
        pub size: u16,
    }
    pub struct NetifTxResponse = "struct netif_tx_response" {
        pub id: u16,
        /// `NETIF_RSP_*`.
        pub status: i16,
    }
    pub struct NetifRxRequest = "struct netif_rx_request" {
        pub id: u16,
        pub pad: u16,
        pub gref: GrantRef,
    }
    pub struct NetifRxResponse = "struct netif_rx_response" {
        pub id: u16,
        /// Bytes within the page.
        pub offset: u16,
        /// `NETRXF_*`.
        pub flags: u16,
        /// Bytes received, or `NETIF_RSP_*` when negative.
        pub status: i16,
    }
    /// Takes the slot after a first request or response.
    pub struct NetifExtraInfo = "struct netif_extra_info" {
        /// `XEN_NETIF_EXTRA_TYPE_*`.
        pub type_: u8 => "type",
        /// `XEN_NETIF_EXTRA_FLAG_MORE`.
        pub flags: u8,
        /// [`NetifExtraGso`], a multicast address, or [`NetifExtraHash`].
        pub u: [u16; 3],
    }
    pub struct NetifExtraGso = "__typeof__(((struct netif_extra_info *)0)->u.gso)" {
        /// Segment payload, bytes.
        pub size: u16,
        /// `XEN_NETIF_GSO_TYPE_*`.
        pub type_: u8 => "type",
        pub pad: u8,
        pub features: u16,
    }
    pub struct NetifExtraHash = "__typeof__(((struct netif_extra_info *)0)->u.hash)" {
        pub type_: u8 => "type",
        pub algorithm: u8,
        pub value: [u8; 4],
    }
    pub struct NetifCtrlRequest = "struct xen_netif_ctrl_request" {
        pub id: u16,
        /// `XEN_NETIF_CTRL_TYPE_*`.
        pub type_: u16 => "type",
        pub data: [u32; 3],
    }
    pub struct NetifCtrlResponse = "struct xen_netif_ctrl_response" {
        pub id: u16,
        pub type_: u16 => "type",
        /// `XEN_NETIF_CTRL_STATUS_*`.
        pub status: u32,
        pub data: u32,
    }
    pub struct NetifGref = "struct xen_netif_gref" {
        pub ref_: GrantRef => "ref",
        pub flags: u16,
        pub status: u16,
    }
}

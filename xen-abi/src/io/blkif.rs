//! Block devices (`io/blkif.h`). Sectors are 512 bytes; requests lie in a ring ([`super::ring`]) of slots of [`SLOT`] bytes.

use crate::ids::GrantRef;
use crate::layout::{constants, structures};

constants! {
    /// Operations.
    pub const BLKIF_OP_READ: u8 = 0;
    pub const BLKIF_OP_WRITE: u8 = 1;
    pub const BLKIF_OP_WRITE_BARRIER: u8 = 2;
    pub const BLKIF_OP_FLUSH_DISKCACHE: u8 = 3;
    pub const BLKIF_OP_RESERVED_1: u8 = 4;
    pub const BLKIF_OP_DISCARD: u8 = 5;
    /// The segments are in further granted pages ([`BlkifRequestIndirect`]).
    pub const BLKIF_OP_INDIRECT: u8 = 6;
    pub const BLKIF_MAX_SEGMENTS_PER_REQUEST: usize = 11;
    pub const BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST: usize = 8;
    /// [`BlkifRequestDiscard::flag`].
    pub const BLKIF_DISCARD_SECURE: u8 = 1;
    /// Bits of the `info` node.
    pub const VDISK_CDROM: u32 = 1;
    pub const VDISK_REMOVABLE: u32 = 2;
    pub const VDISK_READONLY: u32 = 4;
    pub const BLKIF_RSP_EOPNOTSUPP: i16 = -2;
    pub const BLKIF_RSP_ERROR: i16 = -1;
    pub const BLKIF_RSP_OKAY: i16 = 0;
}

/// Bytes of a ring slot in the 64-bit layout (`x86_64-abi`).
pub const SLOT: usize = size_of::<BlkifRequest>();

structures! {
    pub struct BlkifRequestSegment = "struct blkif_request_segment" {
        pub gref: GrantRef,
        /// Sectors 0..=7 within the page.
        pub first_sect: u8,
        /// Included.
        pub last_sect: u8,
        pub _pad: u16,
    }
    pub struct BlkifRequest = "struct blkif_request" {
        /// `BLKIF_OP_*`.
        pub operation: u8,
        pub nr_segments: u8,
        /// Virtual device.
        pub handle: u16,
        pub _pad: u32,
        /// Repeated in the response.
        pub id: u64,
        pub sector_number: u64,
        pub seg: [BlkifRequestSegment; BLKIF_MAX_SEGMENTS_PER_REQUEST],
    }
    pub struct BlkifRequestDiscard = "struct blkif_request_discard" {
        /// `BLKIF_OP_DISCARD`.
        pub operation: u8,
        pub flag: u8,
        pub handle: u16,
        pub _pad: u32,
        pub id: u64,
        pub sector_number: u64,
        pub nr_sectors: u64,
    }
    pub struct BlkifRequestIndirect = "struct blkif_request_indirect" {
        /// `BLKIF_OP_INDIRECT`.
        pub operation: u8,
        /// Read or write.
        pub indirect_op: u8,
        pub nr_segments: u16,
        pub _pad0: u32,
        pub id: u64,
        pub sector_number: u64,
        pub handle: u16,
        pub _pad1: u16,
        /// Pages of [`BlkifRequestSegment`], 512 each.
        pub indirect_grefs: [GrantRef; BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST],
        pub _pad2: u32,
    }
    pub struct BlkifResponse = "struct blkif_response" {
        pub id: u64,
        pub operation: u8,
        pub _pad0: u8,
        /// `BLKIF_RSP_*`.
        pub status: i16,
        pub _pad1: u32,
    }
}

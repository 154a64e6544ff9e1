//! `grant_table_op` and the tables of both versions (`grant_table.h`).
//!
//! The tables are shared memory: a domain's own entries are written by it at any time. Access them as atomics by offset.

use crate::ids::{DomId, GrantHandle, GrantRef};
use crate::layout::{constants, structures};

constants! {
    /// Entries at the table's start that belong to the tools.
    pub const GNTTAB_NR_RESERVED_ENTRIES: u32 = 8;
    pub const GNTTAB_RESERVED_CONSOLE: u32 = 0;
    pub const GNTTAB_RESERVED_XENSTORE: u32 = 1;

    /// Entry flags: type.
    pub const GTF_INVALID: u16 = 0;
    /// The named domain may map or copy the frame.
    pub const GTF_PERMIT_ACCESS: u16 = 1;
    /// The named domain may transfer a frame here.
    pub const GTF_ACCEPT_TRANSFER: u16 = 2;
    /// Version 2: the named domain may use a grant made to this domain.
    pub const GTF_TRANSITIVE: u16 = 3;
    pub const GTF_TYPE_MASK: u16 = 3;
    /// Entry flags of `GTF_PERMIT_ACCESS`; `READING` and `WRITING` are set by the hypervisor while in use.
    pub const GTF_READONLY: u16 = 1 << 2;
    pub const GTF_READING: u16 = 1 << 3;
    pub const GTF_WRITING: u16 = 1 << 4;
    pub const GTF_PWT: u16 = 1 << 5;
    pub const GTF_PCD: u16 = 1 << 6;
    pub const GTF_PAT: u16 = 1 << 7;
    /// Version 2: only part of the frame, for copies.
    pub const GTF_SUB_PAGE: u16 = 1 << 8;
    /// Entry flags of `GTF_ACCEPT_TRANSFER`.
    pub const GTF_TRANSFER_COMMITTED: u16 = 1 << 2;
    pub const GTF_TRANSFER_COMPLETED: u16 = 1 << 3;

    pub const GNTTABOP_MAP_GRANT_REF: u32 = 0;
    pub const GNTTABOP_UNMAP_GRANT_REF: u32 = 1;
    pub const GNTTABOP_SETUP_TABLE: u32 = 2;
    pub const GNTTABOP_DUMP_TABLE: u32 = 3;
    pub const GNTTABOP_TRANSFER: u32 = 4;
    pub const GNTTABOP_COPY: u32 = 5;
    pub const GNTTABOP_QUERY_SIZE: u32 = 6;
    pub const GNTTABOP_UNMAP_AND_REPLACE: u32 = 7;
    pub const GNTTABOP_SET_VERSION: u32 = 8;
    pub const GNTTABOP_GET_STATUS_FRAMES: u32 = 9;
    pub const GNTTABOP_GET_VERSION: u32 = 10;
    pub const GNTTABOP_SWAP_GRANT_REF: u32 = 11;
    pub const GNTTABOP_CACHE_FLUSH: u32 = 12;

    /// Map flags: for the IOMMU.
    pub const GNTMAP_DEVICE_MAP: u32 = 1 << 0;
    /// For the CPU.
    pub const GNTMAP_HOST_MAP: u32 = 1 << 1;
    pub const GNTMAP_READONLY: u32 = 1 << 2;
    /// Reachable from user mode.
    pub const GNTMAP_APPLICATION_MAP: u32 = 1 << 3;
    /// `host_addr` is the machine address of a page-table entry.
    pub const GNTMAP_CONTAINS_PTE: u32 = 1 << 4;
    /// Bits copied to the entry's software bits.
    pub const GNTMAP_GUEST_AVAIL_MASK: u32 = 0xffff_0000;

    /// Copy flags: the source, the destination is a grant rather than a frame.
    pub const GNTCOPY_SOURCE_GREF: u16 = 1 << 0;
    pub const GNTCOPY_DEST_GREF: u16 = 1 << 1;

    /// Cache flush operations.
    pub const GNTTAB_CACHE_CLEAN: u32 = 1 << 0;
    pub const GNTTAB_CACHE_INVAL: u32 = 1 << 1;
    pub const GNTTAB_CACHE_SOURCE_GREF: u32 = 1 << 31;

    /// Status of one operation.
    pub const GNTST_OKAY: i16 = 0;
    pub const GNTST_GENERAL_ERROR: i16 = -1;
    pub const GNTST_BAD_DOMAIN: i16 = -2;
    pub const GNTST_BAD_GNTREF: i16 = -3;
    pub const GNTST_BAD_HANDLE: i16 = -4;
    pub const GNTST_BAD_VIRT_ADDR: i16 = -5;
    pub const GNTST_BAD_DEV_ADDR: i16 = -6;
    pub const GNTST_NO_DEVICE_SPACE: i16 = -7;
    pub const GNTST_PERMISSION_DENIED: i16 = -8;
    pub const GNTST_BAD_PAGE: i16 = -9;
    pub const GNTST_BAD_COPY_ARG: i16 = -10;
    pub const GNTST_ADDRESS_TOO_BIG: i16 = -11;
    pub const GNTST_EAGAIN: i16 = -12;
    pub const GNTST_NO_SPACE: i16 = -13;
}

/// Bit number of the first software bit in map flags (`_GNTMAP_guest_avail0`).
pub const GNTMAP_GUEST_AVAIL0: u32 = 16;

structures! {
    /// Version 1 table entry. 8 bytes.
    pub struct GrantEntryV1 = "struct grant_entry_v1" {
        /// `GTF_*`.
        pub flags: u16,
        /// Whom the grant is for.
        pub domid: DomId,
        /// Guest frame.
        pub frame: u32,
    }
    /// Start of each version 2 entry.
    pub struct GrantEntryHeader = "struct grant_entry_header" {
        /// `GTF_*`, without `READING` and `WRITING`: those are in the status array.
        pub flags: u16,
        pub domid: DomId,
    }
    /// Version 2 table entry, a whole page. 16 bytes.
    pub struct GrantEntryV2FullPage = "__typeof__(((union grant_entry_v2 *)0)->full_page)" {
        pub hdr: GrantEntryHeader,
        pub pad0: u32,
        pub frame: u64,
    }
    /// Version 2 table entry, part of a page.
    pub struct GrantEntryV2SubPage = "__typeof__(((union grant_entry_v2 *)0)->sub_page)" {
        pub hdr: GrantEntryHeader,
        /// Bytes.
        pub page_off: u16,
        /// Bytes.
        pub length: u16,
        pub frame: u64,
    }
    /// Version 2 table entry, on top of another domain's grant (12 of the 16 bytes).
    pub struct GrantEntryV2Transitive = "__typeof__(((union grant_entry_v2 *)0)->transitive)" {
        pub hdr: GrantEntryHeader,
        pub trans_domid: DomId,
        pub pad0: u16,
        pub gref: GrantRef,
    }
    /// Version 2 table entry, raw.
    pub struct GrantEntryV2 = "union grant_entry_v2" {
        pub hdr: GrantEntryHeader,
        /// The rest, as in one of the three views.
        pub _pad: [u32; 3],
    }
    pub struct GnttabMapGrantRef = "struct gnttab_map_grant_ref" {
        /// Virtual address to map at, or machine address of the entry to write.
        pub host_addr: u64,
        /// `GNTMAP_*`.
        pub flags: u32,
        /// Within `dom`'s table.
        pub ref_: GrantRef => "ref",
        pub dom: DomId,
        /// Out: `GNTST_*`.
        pub status: i16,
        /// Out.
        pub handle: GrantHandle,
        /// Out: machine address for devices.
        pub dev_bus_addr: u64,
    }
    pub struct GnttabUnmapGrantRef = "struct gnttab_unmap_grant_ref" {
        pub host_addr: u64,
        pub dev_bus_addr: u64,
        pub handle: GrantHandle,
        /// Out: `GNTST_*`.
        pub status: i16,
        pub _pad: u16,
    }
    pub struct GnttabSetupTable = "struct gnttab_setup_table" {
        pub dom: DomId,
        pub _pad0: u16,
        /// Frames wanted.
        pub nr_frames: u32,
        /// Out: `GNTST_*`.
        pub status: i16,
        pub _pad1: [u16; 3],
        /// Virtual address of `nr_frames` u64, written.
        pub frame_list: u64,
    }
    pub struct GnttabDumpTable = "struct gnttab_dump_table" {
        pub dom: DomId,
        /// Out: `GNTST_*`.
        pub status: i16,
    }
    pub struct GnttabTransfer = "struct gnttab_transfer" {
        pub mfn: u64,
        pub domid: DomId,
        pub _pad0: u16,
        pub ref_: GrantRef => "ref",
        /// Out: `GNTST_*`.
        pub status: i16,
        pub _pad1: [u16; 3],
    }
    /// One side of a copy.
    pub struct GnttabCopyPtr = "struct gnttab_copy_ptr" {
        /// Grant reference (low half) or guest frame.
        pub u: u64,
        pub domid: DomId,
        /// Bytes within the frame.
        pub offset: u16,
        pub _pad: u32,
    }
    pub struct GnttabCopy = "struct gnttab_copy" {
        pub source: GnttabCopyPtr,
        pub dest: GnttabCopyPtr,
        /// Bytes.
        pub len: u16,
        /// `GNTCOPY_*`.
        pub flags: u16,
        /// Out: `GNTST_*`.
        pub status: i16,
        pub _pad: u16,
    }
    pub struct GnttabQuerySize = "struct gnttab_query_size" {
        pub dom: DomId,
        pub _pad0: u16,
        /// Out.
        pub nr_frames: u32,
        /// Out.
        pub max_nr_frames: u32,
        /// Out: `GNTST_*`.
        pub status: i16,
        pub _pad1: u16,
    }
    pub struct GnttabUnmapAndReplace = "struct gnttab_unmap_and_replace" {
        pub host_addr: u64,
        /// Its mapping takes the grant's place.
        pub new_addr: u64,
        pub handle: GrantHandle,
        /// Out: `GNTST_*`.
        pub status: i16,
        pub _pad: u16,
    }
    pub struct GnttabSetVersion = "struct gnttab_set_version" {
        /// In: 1 or 2. Out: the version in force.
        pub version: u32,
    }
    pub struct GnttabGetStatusFrames = "struct gnttab_get_status_frames" {
        pub nr_frames: u32,
        pub dom: DomId,
        /// Out: `GNTST_*`.
        pub status: i16,
        /// Virtual address of `nr_frames` u64, written.
        pub frame_list: u64,
    }
    pub struct GnttabGetVersion = "struct gnttab_get_version" {
        pub dom: DomId,
        pub pad: u16,
        /// Out.
        pub version: u32,
    }
    pub struct GnttabSwapGrantRef = "struct gnttab_swap_grant_ref" {
        pub ref_a: GrantRef,
        pub ref_b: GrantRef,
        /// Out: `GNTST_*`.
        pub status: i16,
        pub _pad: u16,
    }
    pub struct GnttabCacheFlush = "struct gnttab_cache_flush" {
        /// Machine address, or grant reference (low half).
        pub a: u64,
        /// Bytes.
        pub offset: u16,
        /// Bytes.
        pub length: u16,
        /// `GNTTAB_CACHE_*`.
        pub op: u32,
    }
}

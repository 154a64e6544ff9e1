//! `memory_op` (`memory.h`).
//!
//! The command register holds the command in its low [`MEMOP_EXTENT_SHIFT`] bits; the bits above carry the extent a continued
//! call starts from.

use crate::ids::DomId;
use crate::layout::{constants, structures};

constants! {
    /// [`MemoryReservation`]: give the domain new machine frames; returns the count done.
    pub const XENMEM_INCREASE_RESERVATION: u32 = 0;
    /// [`MemoryReservation`]: take frames back; returns the count done.
    pub const XENMEM_DECREASE_RESERVATION: u32 = 1;
    /// Returns the highest machine frame.
    pub const XENMEM_MAXIMUM_RAM_PAGE: u32 = 2;
    /// [`MemoryDomain`]: returns the frames it has.
    pub const XENMEM_CURRENT_RESERVATION: u32 = 3;
    /// [`MemoryDomain`]: returns the frames it may have.
    pub const XENMEM_MAXIMUM_RESERVATION: u32 = 4;
    /// [`MachphysMfnList`].
    pub const XENMEM_MACHPHYS_MFN_LIST: u32 = 5;
    /// [`MemoryReservation`]: give the domain frames at the guest frames listed; returns the count done.
    pub const XENMEM_POPULATE_PHYSMAP: u32 = 6;
    /// [`AddToPhysmap`].
    pub const XENMEM_ADD_TO_PHYSMAP: u32 = 7;
    /// [`MemoryMap`]: the caller's own.
    pub const XENMEM_MEMORY_MAP: u32 = 9;
    /// [`MemoryMap`]: the machine's.
    pub const XENMEM_MACHINE_MEMORY_MAP: u32 = 10;
    /// [`MemoryExchange`].
    pub const XENMEM_EXCHANGE: u32 = 11;
    /// [`MachphysMapping`].
    pub const XENMEM_MACHPHYS_MAPPING: u32 = 12;
    /// [`ForeignMemoryMap`].
    pub const XENMEM_SET_MEMORY_MAP: u32 = 13;
    /// [`MemoryDomain`]: returns the highest guest frame.
    pub const XENMEM_MAXIMUM_GPFN: u32 = 14;
    /// [`RemoveFromPhysmap`].
    pub const XENMEM_REMOVE_FROM_PHYSMAP: u32 = 15;
    /// [`PodTarget`].
    pub const XENMEM_SET_POD_TARGET: u32 = 16;
    pub const XENMEM_GET_POD_TARGET: u32 = 17;
    pub const XENMEM_GET_SHARING_FREED_PAGES: u32 = 18;
    pub const XENMEM_GET_SHARING_SHARED_PAGES: u32 = 19;
    pub const XENMEM_PAGING_OP: u32 = 20;
    pub const XENMEM_ACCESS_OP: u32 = 21;
    pub const XENMEM_SHARING_OP: u32 = 22;
    /// [`AddToPhysmapBatch`].
    pub const XENMEM_ADD_TO_PHYSMAP_BATCH: u32 = 23;
    /// [`MemoryReservation`]: set the claim of a domain to `nr_extents` frames.
    pub const XENMEM_CLAIM_PAGES: u32 = 24;
    /// [`MachphysMfnList`] of the 32-bit table.
    pub const XENMEM_MACHPHYS_COMPAT_MFN_LIST: u32 = 25;
    /// [`VnumaTopologyInfo`].
    pub const XENMEM_GET_VNUMAINFO: u32 = 26;
    /// [`ReservedDeviceMemoryMap`].
    pub const XENMEM_RESERVED_DEVICE_MEMORY_MAP: u32 = 27;
    /// [`MemAcquireResource`].
    pub const XENMEM_ACQUIRE_RESOURCE: u32 = 28;

    /// [`MemoryReservation::mem_flags`]: low 8 bits are the address width; 8 bits above hold the node plus one.
    pub const XENMEMF_POPULATE_ON_DEMAND: u32 = 1 << 16;
    pub const XENMEMF_EXACT_NODE_REQUEST: u32 = 1 << 17;
    pub const XENMEMF_VNODE: u32 = 1 << 18;

    /// [`AddToPhysmap::space`].
    pub const XENMAPSPACE_SHARED_INFO: u32 = 0;
    pub const XENMAPSPACE_GRANT_TABLE: u32 = 1;
    pub const XENMAPSPACE_GMFN: u32 = 2;
    pub const XENMAPSPACE_GMFN_RANGE: u32 = 3;
    pub const XENMAPSPACE_GMFN_FOREIGN: u32 = 4;
    pub const XENMAPSPACE_DEV_MMIO: u32 = 5;
    /// In [`AddToPhysmap::idx`] of the grant table: the status frames.
    pub const XENMAPIDX_GRANT_TABLE_STATUS: u64 = 0x8000_0000;

    /// [`ReservedDeviceMemoryMap::flags`]: of all devices.
    pub const XENMEM_RDM_ALL: u32 = 1;

    /// [`MemAcquireResource::type_`].
    pub const XENMEM_RESOURCE_IOREQ_SERVER: u16 = 0;
    pub const XENMEM_RESOURCE_GRANT_TABLE: u16 = 1;
    pub const XENMEM_RESOURCE_VMTRACE_BUF: u16 = 2;
    /// [`MemAcquireResource::id`] of the grant table.
    pub const XENMEM_RESOURCE_GRANT_TABLE_ID_SHARED: u32 = 0;
    pub const XENMEM_RESOURCE_GRANT_TABLE_ID_STATUS: u32 = 1;
    pub const XENMEM_RESOURCE_IOREQ_SERVER_FRAME_BUFIOREQ: u64 = 0;
}

/// Bits of the command register that hold the command; the rest is the extent to continue from.
pub const MEMOP_EXTENT_SHIFT: u32 = 6;

/// Entry types of a [`MemoryMap`] buffer (ACPI, address range types).
pub mod e820 {
    /// Memory.
    pub const RAM: u32 = 1;
    /// Reserved.
    pub const RESERVED: u32 = 2;
    /// ACPI tables, reclaimable.
    pub const ACPI: u32 = 3;
    /// ACPI non-volatile storage.
    pub const NVS: u32 = 4;
    /// Unusable.
    pub const UNUSABLE: u32 = 5;
}

/// One entry of a [`MemoryMap`] buffer: 20 bytes, packed, as the BIOS call of that name returns it.
#[repr(C, packed)]
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::Immutable,
    zerocopy::KnownLayout,
)]
pub struct E820Entry {
    /// First byte.
    pub addr: u64,
    /// Bytes.
    pub size: u64,
    /// One of [`e820`].
    pub type_: u32,
}

structures! {
    /// Which extents of which domain.
    pub struct MemoryReservation = "struct xen_memory_reservation" {
        /// Virtual address of an array of frame numbers, one per extent.
        pub extent_start: u64,
        pub nr_extents: u64,
        /// Each extent is `1 << extent_order` pages.
        pub extent_order: u32,
        /// `XENMEMF_*`.
        pub mem_flags: u32,
        pub domid: DomId,
        pub _pad: [u16; 3],
    }
    /// Trade frames for others.
    pub struct MemoryExchange = "struct xen_memory_exchange" {
        /// Frames given.
        pub in_: MemoryReservation => "in",
        /// Frames wanted.
        pub out: MemoryReservation,
        /// In: 0. Out: input extents done.
        pub nr_exchanged: u64,
    }
    /// A domain.
    pub struct MemoryDomain = "struct xen_memory_domain" {
        pub domid: DomId,
    }
    /// Frames of the M2P table, one per 2 MiB of it.
    pub struct MachphysMfnList = "struct xen_machphys_mfn_list" {
        /// Room in the array.
        pub max_extents: u32,
        pub _pad0: u32,
        /// Virtual address of an array of frame numbers.
        pub extent_start: u64,
        /// Out: entries written.
        pub nr_extents: u32,
        pub _pad1: u32,
    }
    /// Where the M2P table is mapped.
    pub struct MachphysMapping = "struct xen_machphys_mapping" {
        pub v_start: u64,
        pub v_end: u64,
        pub max_mfn: u64,
    }
    /// Put one frame into a translated guest's physical map.
    pub struct AddToPhysmap = "struct xen_add_to_physmap" {
        pub domid: DomId,
        /// Frames, for `XENMAPSPACE_GMFN_RANGE`.
        pub size: u16,
        /// `XENMAPSPACE_*`.
        pub space: u32,
        /// Index into the space.
        pub idx: u64,
        /// Guest frame to place it at.
        pub gpfn: u64,
    }
    /// Put several frames there.
    pub struct AddToPhysmapBatch = "struct xen_add_to_physmap_batch" {
        pub domid: DomId,
        /// `XENMAPSPACE_*`.
        pub space: u16,
        pub size: u16,
        /// Owner of the frames, for `XENMAPSPACE_GMFN_FOREIGN`; otherwise 0.
        pub foreign_domid: DomId => "u.foreign_domid",
        /// Virtual address of `size` u64.
        pub idxs: u64,
        /// Virtual address of `size` u64.
        pub gpfns: u64,
        /// Virtual address of `size` i32: negated errors, or 0.
        pub errs: u64,
    }
    /// Take one frame out.
    pub struct RemoveFromPhysmap = "struct xen_remove_from_physmap" {
        pub domid: DomId,
        pub _pad: [u16; 3],
        pub gpfn: u64,
    }
    /// A buffer of [`E820Entry`].
    pub struct MemoryMap = "struct xen_memory_map" {
        /// In: room. Out: entries.
        pub nr_entries: u32,
        pub _pad: u32,
        /// Virtual address.
        pub buffer: u64,
    }
    /// Another domain's memory map.
    pub struct ForeignMemoryMap = "struct xen_foreign_memory_map" {
        pub domid: DomId,
        pub _pad: [u16; 3],
        pub map: MemoryMap,
    }
    /// Populate-on-demand state, pages.
    pub struct PodTarget = "struct xen_pod_target" {
        pub target_pages: u64,
        pub tot_pages: u64,
        pub pod_cache_pages: u64,
        pub pod_entries: u64,
        pub domid: DomId,
        pub _pad: [u16; 3],
    }
    /// One range of [`ReservedDeviceMemoryMap`].
    pub struct ReservedDeviceMemory = "struct xen_reserved_device_memory" {
        pub start_pfn: u64,
        pub nr_pages: u64,
    }
    /// Ranges devices need mapped one to one.
    pub struct ReservedDeviceMemoryMap = "struct xen_reserved_device_memory_map" {
        /// [`XENMEM_RDM_ALL`].
        pub flags: u32,
        /// In: room. Out: entries.
        pub nr_entries: u32,
        /// Virtual address of [`ReservedDeviceMemory`] entries.
        pub buffer: u64,
        pub seg: u16 => "dev.pci.seg",
        pub bus: u8 => "dev.pci.bus",
        pub devfn: u8 => "dev.pci.devfn",
        pub _pad: u32,
    }
    /// Map frames the hypervisor keeps for a domain.
    pub struct MemAcquireResource = "struct xen_mem_acquire_resource" {
        pub domid: DomId,
        /// `XENMEM_RESOURCE_*`.
        pub type_: u16 => "type",
        /// Which of that type.
        pub id: u32,
        /// In: frames wanted. Out, when `frame_list` is null: frames there are.
        pub nr_frames: u32,
        /// Zero.
        pub pad: u32,
        /// First frame within the resource.
        pub frame: u64,
        /// Virtual address of `nr_frames` u64: out for PV (machine frames), in for translated callers (where to place them).
        pub frame_list: u64,
    }
    /// A range of a virtual NUMA node.
    pub struct Vmemrange = "struct xen_vmemrange" {
        pub start: u64,
        pub end: u64,
        pub flags: u32,
        pub nid: u32,
    }
    /// Virtual NUMA topology.
    pub struct VnumaTopologyInfo = "struct xen_vnuma_topology_info" {
        pub domid: DomId,
        pub pad: u16,
        pub nr_vnodes: u32,
        pub nr_vcpus: u32,
        pub nr_vmemranges: u32,
        /// Virtual address of u32 distances.
        pub vdistance: u64,
        /// Virtual address of u32 node numbers.
        pub vcpu_to_vnode: u64,
        /// Virtual address of [`Vmemrange`] entries.
        pub vmemrange: u64,
    }
}

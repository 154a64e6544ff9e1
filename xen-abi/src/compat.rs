//! Structures as 32-bit code hands them over in hypercalls from a container, where they differ: pointers, frame numbers and
//! `unsigned long` have 32 bits, and 64-bit numbers are aligned to 4 bytes.

use crate::arch_x86::{VcpuTimeInfo, XEN_LEGACY_MAX_VCPUS};
use crate::ids::DomId;
use crate::layout::structures;

structures! {
    pub struct SchedPoll = "struct sched_poll" {
        /// Address of u32 ports.
        pub ports: u32,
        pub nr_ports: u32,
        /// System time in nanoseconds, low half first; 0: none.
        pub timeout: [u32; 2],
    }
    pub struct MemoryReservation = "struct xen_memory_reservation" {
        /// Address of an array of u32 frame numbers, one per extent.
        pub extent_start: u32,
        pub nr_extents: u32,
        /// Each extent is `1 << extent_order` pages.
        pub extent_order: u32,
        /// `XENMEMF_*`.
        pub mem_flags: u32,
        pub domid: DomId,
        pub _pad: u16,
    }
    pub struct AddToPhysmap = "struct xen_add_to_physmap" {
        pub domid: DomId,
        /// Frames, for `XENMAPSPACE_GMFN_RANGE`.
        pub size: u16,
        /// `XENMAPSPACE_*`.
        pub space: u32,
        /// Index into the space.
        pub idx: u32,
        /// Guest frame to place it at.
        pub gpfn: u32,
    }
    pub struct AddToPhysmapBatch = "struct xen_add_to_physmap_batch" {
        pub domid: DomId,
        /// `XENMAPSPACE_*`.
        pub space: u16,
        pub size: u16,
        /// Owner of the frames, for `XENMAPSPACE_GMFN_FOREIGN`; otherwise 0.
        pub foreign_domid: DomId => "u.foreign_domid",
        /// Address of `size` u32.
        pub idxs: u32,
        /// Address of `size` u32.
        pub gpfns: u32,
        /// Address of `size` i32: negated errors, or 0.
        pub errs: u32,
    }
    pub struct MemoryExchange = "struct xen_memory_exchange" {
        /// Frames given.
        pub in_: MemoryReservation => "in",
        /// Frames wanted.
        pub out: MemoryReservation,
        /// In: 0. Out: input extents done.
        pub nr_exchanged: u32,
    }
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
        pub frame: [u32; 2],
        /// Address of `nr_frames` u32: where to place them.
        pub frame_list: u32,
    }
    pub struct MapPirq = "struct physdev_map_pirq" {
        pub domid: DomId,
        pub _pad: u16,
        /// `MAP_PIRQ_TYPE_*`.
        pub type_: i32 => "type",
        /// GSI; ignored for MSI.
        pub index: i32,
        /// In: wanted, negative: any. Out: given.
        pub pirq: i32,
        /// Bus, and segment `<< 16`.
        pub bus: i32,
        pub devfn: i32,
        /// MSI-X entry, or in and out: number of MSI vectors.
        pub entry_nr: i32,
        /// Physical address of the MSI-X table; 0: MSI.
        pub table_base: [u32; 2],
    }
    /// One operation of `mmuext_op`.
    pub struct MmuextOp = "struct mmuext_op" {
        /// `MMUEXT_*`.
        pub cmd: u32,
        /// `mfn` or `linear_addr`.
        pub arg1: u32,
        /// `nr_ents`, `vcpumask` or `src_mfn`.
        pub arg2: u32,
    }
    pub struct RemoveFromPhysmap = "struct xen_remove_from_physmap" {
        pub domid: DomId,
        pub _pad: u16,
        pub gpfn: u32,
    }
    /// A buffer of [`crate::memory::E820Entry`].
    pub struct MemoryMap = "struct xen_memory_map" {
        /// In: room. Out: entries.
        pub nr_entries: u32,
        /// Address.
        pub buffer: u32,
    }
    pub struct VcpuRunstateInfo = "struct vcpu_runstate_info" {
        /// `RUNSTATE_*`.
        pub state: u32,
        /// System time in nanoseconds, low half first.
        pub state_entry_time: [u32; 2],
        /// Nanoseconds in each state.
        pub time: [[u32; 2]; 4],
    }
    pub struct VcpuRegisterRunstateMemoryArea = "struct vcpu_register_runstate_memory_area" {
        /// Address of a [`VcpuRunstateInfo`].
        pub addr: u32 => "addr.v",
        pub _pad: u32,
    }
    pub struct VcpuSetSingleshotTimer = "struct vcpu_set_singleshot_timer" {
        /// System time in nanoseconds, low half first.
        pub timeout_abs_ns: [u32; 2],
        /// [`crate::vcpu::VCPU_SSHOTTMR_FUTURE`].
        pub flags: u32,
    }
    pub struct VcpuRegisterTimeMemoryArea = "struct vcpu_register_time_memory_area" {
        /// Address of a [`crate::arch_x86::VcpuTimeInfo`].
        pub addr: u32 => "addr.v",
        pub _pad: u32,
    }
    pub struct GnttabSetupTable = "struct gnttab_setup_table" {
        pub dom: DomId,
        pub _pad0: u16,
        /// Frames wanted.
        pub nr_frames: u32,
        /// Out: `GNTST_*`.
        pub status: i16,
        pub _pad1: u16,
        /// Address of `nr_frames` u32, written.
        pub frame_list: u32,
    }
    /// One side of a copy.
    pub struct GnttabCopyPtr = "struct gnttab_copy_ptr" {
        /// Grant reference or guest frame.
        pub u: u32,
        pub domid: DomId,
        /// Bytes within the frame.
        pub offset: u16,
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
    /// One call of a batch.
    pub struct MulticallEntry = "struct multicall_entry" {
        /// Hypercall number.
        pub op: u32,
        /// Out: its return value.
        pub result: u32,
        pub args: [u32; 6],
    }
    /// The x86 part of [`VcpuInfo`].
    pub struct ArchVcpuInfo = "struct arch_vcpu_info" {
        /// Faulting address of the last page fault of a PV guest.
        pub cr2: u32,
        pub pad: [u32; 5],
    }
    /// Per-vCPU part of the shared page, or of the page registered by `VCPUOP_register_vcpu_info`. 64 bytes.
    pub struct VcpuInfo = "struct vcpu_info" {
        pub evtchn_upcall_pending: u8,
        pub evtchn_upcall_mask: u8,
        pub _pad: [u8; 2],
        /// Bit n: word n of `evtchn_pending` has work.
        pub evtchn_pending_sel: u32,
        pub arch: ArchVcpuInfo,
        pub time: VcpuTimeInfo,
    }
    /// The x86 part of the shared page.
    pub struct ArchSharedInfo = "struct arch_shared_info" {
        /// Entries of a PV guest's P2M, and the frame of its list.
        pub max_pfn: u32,
        pub pfn_to_mfn_frame_list_list: u32,
        /// `XEN_NMIREASON_*`.
        pub nmi_reason: u32,
        pub p2m_cr3: u32,
        pub p2m_vaddr: u32,
        pub p2m_generation: u32,
        /// Unix time of system time 0, seconds, high half.
        pub wc_sec_hi: u32,
    }
    /// The shared page.
    pub struct SharedInfo = "struct shared_info" {
        pub vcpu_info: [VcpuInfo; XEN_LEGACY_MAX_VCPUS],
        pub evtchn_pending: [u32; 32],
        pub evtchn_mask: [u32; 32],
        /// Odd while the wall clock is being written.
        pub wc_version: u32,
        /// Unix time of system time 0, seconds, low half.
        pub wc_sec: u32,
        pub wc_nsec: u32,
        pub arch: ArchSharedInfo,
    }
    pub struct PlatformParameters = "struct xen_platform_parameters" {
        pub virt_start: u32,
    }
}

//! Structures as 32-bit code hands them over in hypercalls from a container, where they differ: pointers, frame numbers and
//! `unsigned long` have 32 bits, and 64-bit numbers are aligned to 4 bytes.

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
    pub struct PlatformParameters = "struct xen_platform_parameters" {
        pub virt_start: u32,
    }
}

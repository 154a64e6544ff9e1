//! `domctl` (`domctl.h`, interface version 0x15): building and ruling other domains.
//!
//! [`Domctl`] is the argument: a header and 128 bytes, whose start is one of the payloads below. Read one by
//! `T::read_from_prefix(&op.u)` and write it back by `value.write_to_prefix(&mut op.u)` (zerocopy).

use crate::arch_x86::ArchDomainConfig;
use crate::ids::{DomId, VcpuId};
use crate::layout::structures;

mod numbers;

pub use numbers::*;

/// `xen_domain_handle_t`: a UUID.
pub type DomainHandle = [u8; 16];

structures! {
    /// The argument.
    #[repr(align(8))]
    pub struct Domctl = "struct xen_domctl" {
        /// `XEN_DOMCTL_*`.
        pub cmd: u32,
        /// [`XEN_DOMCTL_INTERFACE_VERSION`].
        pub interface_version: u32,
        pub domain: DomId,
        pub _pad: [u16; 3],
        /// The payload.
        pub u: [u8; 128],
    }
    /// A bitmap in the caller's memory.
    pub struct Bitmap = "struct xenctl_bitmap" {
        /// Virtual address of its bytes.
        pub bitmap: u64,
        /// Bits.
        pub nr_bits: u32,
        pub _pad: u32,
    }
    pub struct CreateDomain = "struct xen_domctl_createdomain" {
        pub ssidref: u32,
        pub handle: DomainHandle,
        /// `XEN_DOMCTL_CDF_*`.
        pub flags: u32,
        /// `XEN_DOMCTL_IOMMU_*`.
        pub iommu_opts: u32,
        pub max_vcpus: u32,
        pub max_evtchn_port: u32,
        /// Negative: the default.
        pub max_grant_frames: i32,
        /// Negative: the default.
        pub max_maptrack_frames: i32,
        /// Highest grant version.
        pub grant_opts: u32,
        /// Bytes per vCPU; 0: none.
        pub vmtrace_size: u32,
        pub cpupool_id: u32,
        pub arch: ArchDomainConfig,
    }
    pub struct GetDomainInfo = "struct xen_domctl_getdomaininfo" {
        pub domain: DomId,
        pub pad1: u16,
        /// `XEN_DOMINF_*`, and the shutdown reason above `XEN_DOMINF_SHUTDOWNSHIFT`.
        pub flags: u32,
        pub tot_pages: u64,
        pub max_pages: u64,
        /// Claimed and not yet allocated.
        pub outstanding_pages: u64,
        pub shr_pages: u64,
        pub paged_pages: u64,
        /// Guest frame of the shared page.
        pub shared_info_frame: u64,
        /// Nanoseconds.
        pub cpu_time: u64,
        pub nr_online_vcpus: u32,
        pub max_vcpu_id: u32,
        pub ssidref: u32,
        pub handle: DomainHandle,
        pub cpupool: u32,
        /// Width of guest-physical addresses.
        pub gpaddr_bits: u8,
        pub pad2: [u8; 7],
        pub arch_config: ArchDomainConfig,
    }
    pub struct GetPageFrameInfo3 = "struct xen_domctl_getpageframeinfo3" {
        /// Entries.
        pub num: u64,
        /// Virtual address of u64: in frames, out `XEN_DOMCTL_PFINFO_*`.
        pub array: u64,
    }
    pub struct NodeAffinity = "struct xen_domctl_nodeaffinity" {
        pub nodemap: Bitmap,
    }
    pub struct VcpuAffinity = "struct xen_domctl_vcpuaffinity" {
        pub vcpu: VcpuId,
        /// `XEN_VCPUAFFINITY_*`.
        pub flags: u32,
        pub cpumap_hard: Bitmap,
        pub cpumap_soft: Bitmap,
    }
    pub struct ShadowOpStats = "struct xen_domctl_shadow_op_stats" {
        pub fault_count: u32,
        pub dirty_count: u32,
    }
    pub struct ShadowOp = "struct xen_domctl_shadow_op" {
        /// `XEN_DOMCTL_SHADOW_OP_*`.
        pub op: u32,
        /// `XEN_DOMCTL_SHADOW_ENABLE_*` or `XEN_DOMCTL_SHADOW_LOGDIRTY_FINAL`.
        pub mode: u32,
        /// MiB.
        pub mb: u32,
        pub _pad: u32,
        /// Virtual address.
        pub dirty_bitmap: u64,
        pub pages: u64,
        pub stats: ShadowOpStats,
    }
    pub struct MaxMem = "struct xen_domctl_max_mem" {
        /// KiB.
        pub max_memkb: u64,
    }
    pub struct VcpuContext = "struct xen_domctl_vcpucontext" {
        pub vcpu: VcpuId,
        pub _pad: u32,
        /// Virtual address of a [`crate::arch_x86::VcpuGuestContext`].
        pub ctxt: u64,
    }
    pub struct GetVcpuInfo = "struct xen_domctl_getvcpuinfo" {
        pub vcpu: VcpuId,
        pub online: u8,
        pub blocked: u8,
        pub running: u8,
        pub _pad0: u8,
        /// Nanoseconds.
        pub cpu_time: u64,
        /// Physical CPU.
        pub cpu: u32,
        pub _pad1: u32,
    }
    pub struct MaxVcpus = "struct xen_domctl_max_vcpus" {
        pub max: u32,
    }
    pub struct SchedCredit = "struct xen_domctl_sched_credit" {
        pub weight: u16,
        /// Percent of one CPU; 0: none.
        pub cap: u16,
    }
    pub struct SchedCredit2 = "struct xen_domctl_sched_credit2" {
        pub weight: u16,
        /// Percent of one CPU; 0: none.
        pub cap: u16,
    }
    pub struct SchedRtds = "struct xen_domctl_sched_rtds" {
        /// Microseconds.
        pub period: u32,
        /// Microseconds.
        pub budget: u32,
        pub flags: u32,
    }
    pub struct SchedParamVcpu = "xen_domctl_schedparam_vcpu_t" {
        /// [`SchedCredit`], [`SchedCredit2`] or [`SchedRtds`].
        pub u: [u32; 3],
        pub vcpuid: VcpuId,
    }
    pub struct SchedulerOp = "struct xen_domctl_scheduler_op" {
        /// `XEN_SCHEDULER_*`.
        pub sched_id: u32,
        /// `XEN_DOMCTL_SCHEDOP_*`.
        pub cmd: u32,
        /// [`SchedCredit`], [`SchedCredit2`], [`SchedRtds`] or [`SchedulerVcpus`].
        pub u: [u64; 2],
    }
    /// Per-vCPU form of [`SchedulerOp`].
    pub struct SchedulerVcpus = "__typeof__(((struct xen_domctl_scheduler_op *)0)->u.v)" {
        /// Virtual address of [`SchedParamVcpu`].
        pub vcpus: u64,
        pub nr_vcpus: u32,
        pub padding: u32,
    }
    pub struct SetDomainHandle = "struct xen_domctl_setdomainhandle" {
        pub handle: DomainHandle,
    }
    pub struct SetDebugging = "struct xen_domctl_setdebugging" {
        pub enable: u8,
    }
    pub struct IrqPermission = "struct xen_domctl_irq_permission" {
        pub pirq: u32,
        pub allow_access: u8,
        pub pad: [u8; 3],
    }
    pub struct IomemPermission = "struct xen_domctl_iomem_permission" {
        pub first_mfn: u64,
        pub nr_mfns: u64,
        pub allow_access: u8,
        pub _pad: [u8; 7],
    }
    pub struct IoportPermission = "struct xen_domctl_ioport_permission" {
        pub first_port: u32,
        pub nr_ports: u32,
        pub allow_access: u8,
        pub _pad: [u8; 3],
    }
    pub struct HypercallInit = "struct xen_domctl_hypercall_init" {
        /// Frame to become the hypercall page.
        pub gmfn: u64,
    }
    pub struct SetTimeOffset = "struct xen_domctl_settimeoffset" {
        pub time_offset_seconds: i64,
    }
    pub struct TscInfo = "struct xen_domctl_tsc_info" {
        /// 0: default, 1: always emulate, 2: never emulate.
        pub tsc_mode: u32,
        pub gtsc_khz: u32,
        pub incarnation: u32,
        pub pad: u32,
        pub elapsed_nsec: u64,
    }
    pub struct HvmContext = "struct xen_domctl_hvmcontext" {
        /// In: bytes of the buffer. Out: bytes used, or needed when the buffer is null.
        pub size: u32,
        pub _pad: u32,
        /// Virtual address.
        pub buffer: u64,
    }
    pub struct HvmContextPartial = "struct xen_domctl_hvmcontext_partial" {
        /// `HVM_SAVE_CODE_*`.
        pub type_: u32 => "type",
        pub instance: u32,
        /// Bytes.
        pub bufsz: u64,
        /// Virtual address.
        pub buffer: u64,
    }
    pub struct AddressSize = "struct xen_domctl_address_size" {
        /// 32 or 64.
        pub size: u32,
    }
    pub struct SendTrigger = "struct xen_domctl_sendtrigger" {
        /// `XEN_DOMCTL_SENDTRIGGER_*`.
        pub trigger: u32,
        pub vcpu: VcpuId,
    }
    pub struct AssignDevice = "struct xen_domctl_assign_device" {
        /// `XEN_DOMCTL_DEV_*`.
        pub dev: u32,
        /// `XEN_DOMCTL_DEV_RDM_RELAXED`.
        pub flags: u32,
        /// PCI: segment, bus, device and function.
        pub machine_sbdf: u32 => "u.pci.machine_sbdf",
        pub _pad: u32,
        /// Device tree: virtual address of the path.
        pub path: u64 => "u.dt.path",
    }
    pub struct GetDeviceGroup = "struct xen_domctl_get_device_group" {
        pub machine_sbdf: u32,
        pub max_sdevs: u32,
        pub num_sdevs: u32,
        pub _pad: u32,
        /// Virtual address of u32.
        pub sdev_array: u64,
    }
    pub struct BindPtIrq = "struct xen_domctl_bind_pt_irq" {
        pub machine_irq: u32,
        /// 0 PCI, 1 ISA, 2 MSI, 3 translated MSI.
        pub irq_type: u32,
        /// By type: ISA irq; bus, device and pin; MSI vector, flags (`XEN_DOMCTL_VMSI_X86_*`) and table.
        pub u: [u64; 2],
    }
    pub struct MemoryMapping = "struct xen_domctl_memory_mapping" {
        pub first_gfn: u64,
        pub first_mfn: u64,
        pub nr_mfns: u64,
        /// `DPCI_*`.
        pub add_mapping: u32,
        pub padding: u32,
    }
    pub struct IoportMapping = "struct xen_domctl_ioport_mapping" {
        pub first_gport: u32,
        pub first_mport: u32,
        pub nr_ports: u32,
        /// `DPCI_*`.
        pub add_mapping: u32,
    }
    pub struct ExtVcpuContext = "struct xen_domctl_ext_vcpucontext" {
        pub vcpu: VcpuId,
        /// Bytes of this structure.
        pub size: u32,
        pub syscall32_callback_eip: u64,
        pub sysenter_callback_eip: u64,
        pub syscall32_callback_cs: u16,
        pub sysenter_callback_cs: u16,
        pub syscall32_disables_events: u8,
        pub sysenter_disables_events: u8,
        pub _pad: u16,
        /// Machine-check state: capabilities, control of banks 0 and 1, extended control.
        pub vmce: [u64; 4],
    }
    pub struct SetTarget = "struct xen_domctl_set_target" {
        pub target: DomId,
    }
    pub struct CpuPolicy = "struct xen_domctl_cpu_policy" {
        /// In: room. Out: entries.
        pub nr_leaves: u32,
        /// In: room. Out: entries.
        pub nr_msrs: u32,
        /// Virtual address of [`crate::arch_x86::CpuidLeaf`].
        pub leaves: u64,
        /// Virtual address of [`crate::arch_x86::MsrEntry`].
        pub msrs: u64,
        /// Out, on failure: the culprit, or all ones.
        pub err_leaf: u32,
        pub err_subleaf: u32,
        pub err_msr: u32,
        pub _pad: u32,
    }
    pub struct VcpuExtState = "struct xen_domctl_vcpuextstate" {
        pub vcpu: VcpuId,
        pub _pad: u32,
        pub xfeature_mask: u64,
        /// Bytes: room, or what is needed when the buffer is null.
        pub size: u64,
        /// Virtual address.
        pub buffer: u64,
    }
    pub struct VcpuMsr = "struct xen_domctl_vcpu_msr" {
        pub index: u32,
        pub reserved: u32,
        pub value: u64,
    }
    pub struct VcpuMsrs = "struct xen_domctl_vcpu_msrs" {
        pub vcpu: VcpuId,
        /// In: room. Out: entries.
        pub msr_count: u32,
        /// Virtual address of [`VcpuMsr`].
        pub msrs: u64,
    }
    pub struct SetVirqHandler = "struct xen_domctl_set_virq_handler" {
        /// `VIRQ_*`.
        pub virq: u32,
    }
    pub struct CacheFlush = "struct xen_domctl_cacheflush" {
        pub start_pfn: u64,
        pub nr_pfns: u64,
    }
    pub struct PagingMempool = "struct xen_domctl_paging_mempool" {
        /// Bytes, a multiple of 4 KiB.
        pub size: u64,
    }
    pub struct Vnuma = "struct xen_domctl_vnuma" {
        pub nr_vnodes: u32,
        pub nr_vmemranges: u32,
        pub nr_vcpus: u32,
        pub pad: u32,
        /// Virtual addresses of arrays of u32.
        pub vdistance: u64,
        pub vcpu_to_vnode: u64,
        pub vnode_to_pnode: u64,
        /// Virtual address of [`crate::memory::Vmemrange`].
        pub vmemrange: u64,
    }
}

//! `domctl` (`domctl.h`, interface version 0x15): building and ruling other domains.
//!
//! [`Domctl`] is the argument: a header and 128 bytes, whose start is one of the payloads below. Read one by
//! `T::read_from_prefix(&op.u)` and write it back by `value.write_to_prefix(&mut op.u)` (zerocopy).

use crate::arch_x86::ArchDomainConfig;
use crate::ids::{DomId, VcpuId};
use crate::layout::{constants, structures};

constants! {
    /// What callers must put into [`Domctl::interface_version`], else EACCES.
    pub const XEN_DOMCTL_INTERFACE_VERSION: u32 = 0x15;
    /// [`CreateDomain::flags`].
    pub const XEN_DOMCTL_CDF_HVM: u32 = 1;
    pub const XEN_DOMCTL_CDF_HAP: u32 = 2;
    pub const XEN_DOMCTL_CDF_S3_INTEGRITY: u32 = 4;
    pub const XEN_DOMCTL_CDF_OOS_OFF: u32 = 8;
    pub const XEN_DOMCTL_CDF_XS_DOMAIN: u32 = 16;
    pub const XEN_DOMCTL_CDF_IOMMU: u32 = 32;
    pub const XEN_DOMCTL_CDF_NESTED_VIRT: u32 = 64;
    pub const XEN_DOMCTL_CDF_VPMU: u32 = 128;
    pub const XEN_DOMCTL_CDF_MAX: u32 = 128;
    /// [`CreateDomain::iommu_opts`].
    pub const XEN_DOMCTL_IOMMU_NO_SHAREPT: u32 = 1;
    pub const XEN_DOMCTL_IOMMU_MAX: u32 = 1;
    /// [`CreateDomain::grant_opts`]: highest grant table version.
    pub const XEN_DOMCTL_GRANT_VERSION_MASK: u32 = 15;
    /// [`GetDomainInfo::flags`].
    pub const XEN_DOMINF_DYING: u32 = 1;
    pub const XEN_DOMINF_HVM_GUEST: u32 = 2;
    pub const XEN_DOMINF_SHUTDOWN: u32 = 4;
    pub const XEN_DOMINF_PAUSED: u32 = 8;
    pub const XEN_DOMINF_BLOCKED: u32 = 16;
    pub const XEN_DOMINF_RUNNING: u32 = 32;
    pub const XEN_DOMINF_DEBUGGED: u32 = 64;
    pub const XEN_DOMINF_XS_DOMAIN: u32 = 128;
    pub const XEN_DOMINF_HAP: u32 = 256;
    /// `SHUTDOWN_*` reason within the flags, after shifting.
    pub const XEN_DOMINF_SHUTDOWNMASK: u32 = 255;
    pub const XEN_DOMINF_SHUTDOWNSHIFT: u32 = 16;
    /// [`GetDomainInfo::max_vcpu_id`] of a domain without vCPUs.
    pub const XEN_INVALID_MAX_VCPU_ID: u32 = 0xffffffff;
    /// Types of frames of [`GetPageFrameInfo3`].
    pub const XEN_DOMCTL_PFINFO_LTAB_SHIFT: u32 = 28;
    pub const XEN_DOMCTL_PFINFO_NOTAB: u32 = 0;
    pub const XEN_DOMCTL_PFINFO_L1TAB: u32 = 1 << 28;
    pub const XEN_DOMCTL_PFINFO_L2TAB: u32 = 1 << 29;
    pub const XEN_DOMCTL_PFINFO_L3TAB: u32 = 0x30000000;
    pub const XEN_DOMCTL_PFINFO_L4TAB: u32 = 1 << 30;
    pub const XEN_DOMCTL_PFINFO_LTABTYPE_MASK: u32 = 0x70000000;
    pub const XEN_DOMCTL_PFINFO_LPINTAB: u32 = 1 << 31;
    pub const XEN_DOMCTL_PFINFO_XTAB: u32 = 0xf0000000;
    pub const XEN_DOMCTL_PFINFO_XALLOC: u32 = 0xe0000000;
    pub const XEN_DOMCTL_PFINFO_BROKEN: u32 = 0xd0000000;
    pub const XEN_DOMCTL_PFINFO_LTAB_MASK: u32 = 0xf0000000;
    /// [`ShadowOp::op`].
    pub const XEN_DOMCTL_SHADOW_OP_OFF: u32 = 0;
    pub const XEN_DOMCTL_SHADOW_OP_ENABLE: u32 = 32;
    pub const XEN_DOMCTL_SHADOW_OP_CLEAN: u32 = 11;
    pub const XEN_DOMCTL_SHADOW_OP_PEEK: u32 = 12;
    pub const XEN_DOMCTL_SHADOW_OP_GET_ALLOCATION: u32 = 30;
    pub const XEN_DOMCTL_SHADOW_OP_SET_ALLOCATION: u32 = 31;
    pub const XEN_DOMCTL_SHADOW_OP_ENABLE_TEST: u32 = 1;
    pub const XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY: u32 = 2;
    pub const XEN_DOMCTL_SHADOW_ENABLE_REFCOUNT: u32 = 2;
    pub const XEN_DOMCTL_SHADOW_ENABLE_LOG_DIRTY: u32 = 4;
    pub const XEN_DOMCTL_SHADOW_ENABLE_TRANSLATE: u32 = 8;
    pub const XEN_DOMCTL_SHADOW_ENABLE_EXTERNAL: u32 = 16;
    pub const XEN_DOMCTL_SHADOW_LOGDIRTY_FINAL: u32 = 1;
    pub const XEN_VCPUAFFINITY_SOFT: u32 = 2;
    pub const XEN_VCPUAFFINITY_FORCE: u32 = 4;
    /// Scheduler identifiers.
    pub const XEN_SCHEDULER_CREDIT: u32 = 5;
    pub const XEN_SCHEDULER_CREDIT2: u32 = 6;
    pub const XEN_SCHEDULER_ARINC653: u32 = 7;
    pub const XEN_SCHEDULER_RTDS: u32 = 8;
    pub const XEN_SCHEDULER_NULL: u32 = 9;
    pub const XEN_DOMCTL_SCHEDRT_EXTRA: u32 = 1;
    /// [`SchedulerOp::cmd`].
    pub const XEN_DOMCTL_SCHEDOP_PUTINFO: u32 = 0;
    pub const XEN_DOMCTL_SCHEDOP_GETINFO: u32 = 1;
    pub const XEN_DOMCTL_SCHEDOP_PUTVCPUINFO: u32 = 2;
    pub const XEN_DOMCTL_SCHEDOP_GETVCPUINFO: u32 = 3;
    pub const XEN_DOMCTL_SENDTRIGGER_NMI: u32 = 0;
    pub const XEN_DOMCTL_SENDTRIGGER_RESET: u32 = 1;
    pub const XEN_DOMCTL_SENDTRIGGER_INIT: u32 = 2;
    pub const XEN_DOMCTL_SENDTRIGGER_POWER: u32 = 3;
    pub const XEN_DOMCTL_SENDTRIGGER_SLEEP: u32 = 4;
    pub const XEN_DOMCTL_DEV_PCI: u32 = 0;
    pub const XEN_DOMCTL_DEV_DT: u32 = 1;
    pub const XEN_DOMCTL_DEV_RDM_RELAXED: u32 = 1;
    pub const XEN_DOMCTL_VMSI_X86_DEST_ID_MASK: u32 = 255;
    pub const XEN_DOMCTL_VMSI_X86_RH_MASK: u32 = 256;
    pub const XEN_DOMCTL_VMSI_X86_DM_MASK: u32 = 512;
    pub const XEN_DOMCTL_VMSI_X86_DELIV_MASK: u32 = 0x7000;
    pub const XEN_DOMCTL_VMSI_X86_TRIG_MASK: u32 = 0x8000;
    pub const XEN_DOMCTL_VMSI_X86_UNMASKED: u32 = 1 << 16;
    pub const DPCI_ADD_MAPPING: u32 = 1;
    pub const DPCI_REMOVE_MAPPING: u32 = 0;
    pub const XEN_DOMCTL_MEM_CACHEATTR_UC: u32 = 0;
    pub const XEN_DOMCTL_MEM_CACHEATTR_WC: u32 = 1;
    pub const XEN_DOMCTL_MEM_CACHEATTR_WT: u32 = 4;
    pub const XEN_DOMCTL_MEM_CACHEATTR_WP: u32 = 5;
    pub const XEN_DOMCTL_MEM_CACHEATTR_WB: u32 = 6;
    pub const XEN_DOMCTL_MEM_CACHEATTR_UCM: u32 = 7;
    pub const XEN_DOMCTL_DELETE_MEM_CACHEATTR: u32 = 0xffffffff;
    pub const XEN_CPUID_INPUT_UNUSED: u32 = 0xffffffff;
    pub const XEN_DOMCTL_DEBUG_OP_SINGLE_STEP_OFF: u32 = 0;
    pub const XEN_DOMCTL_DEBUG_OP_SINGLE_STEP_ON: u32 = 1;
    pub const XEN_DOMCTL_VM_EVENT_OP_PAGING: u32 = 1;
    pub const XEN_DOMCTL_VM_EVENT_OP_MONITOR: u32 = 2;
    pub const XEN_DOMCTL_VM_EVENT_OP_SHARING: u32 = 3;
    pub const XEN_DOMCTL_MEM_SHARING_CONTROL: u32 = 0;
    pub const XEN_DOMCTL_PSR_CMT_OP_DETACH: u32 = 0;
    pub const XEN_DOMCTL_PSR_CMT_OP_ATTACH: u32 = 1;
    pub const XEN_DOMCTL_PSR_CMT_OP_QUERY_RMID: u32 = 2;
    pub const XEN_DOMCTL_MONITOR_OP_ENABLE: u32 = 0;
    pub const XEN_DOMCTL_MONITOR_OP_DISABLE: u32 = 1;
    pub const XEN_DOMCTL_MONITOR_OP_GET_CAPABILITIES: u32 = 2;
    pub const XEN_DOMCTL_MONITOR_OP_EMULATE_EACH_REP: u32 = 3;
    pub const XEN_DOMCTL_MONITOR_OP_CONTROL_REGISTERS: u32 = 4;
    pub const XEN_DOMCTL_MONITOR_EVENT_WRITE_CTRLREG: u32 = 0;
    pub const XEN_DOMCTL_MONITOR_EVENT_MOV_TO_MSR: u32 = 1;
    pub const XEN_DOMCTL_MONITOR_EVENT_SINGLESTEP: u32 = 2;
    pub const XEN_DOMCTL_MONITOR_EVENT_SOFTWARE_BREAKPOINT: u32 = 3;
    pub const XEN_DOMCTL_MONITOR_EVENT_GUEST_REQUEST: u32 = 4;
    pub const XEN_DOMCTL_MONITOR_EVENT_DEBUG_EXCEPTION: u32 = 5;
    pub const XEN_DOMCTL_MONITOR_EVENT_CPUID: u32 = 6;
    pub const XEN_DOMCTL_MONITOR_EVENT_PRIVILEGED_CALL: u32 = 7;
    pub const XEN_DOMCTL_MONITOR_EVENT_INTERRUPT: u32 = 8;
    pub const XEN_DOMCTL_MONITOR_EVENT_DESC_ACCESS: u32 = 9;
    pub const XEN_DOMCTL_MONITOR_EVENT_EMUL_UNIMPLEMENTED: u32 = 10;
    pub const XEN_DOMCTL_MONITOR_EVENT_INGUEST_PAGEFAULT: u32 = 11;
    pub const XEN_DOMCTL_MONITOR_EVENT_VMEXIT: u32 = 12;
    pub const XEN_DOMCTL_PSR_SET_L3_CBM: u32 = 0;
    pub const XEN_DOMCTL_PSR_GET_L3_CBM: u32 = 1;
    pub const XEN_DOMCTL_PSR_SET_L3_CODE: u32 = 2;
    pub const XEN_DOMCTL_PSR_SET_L3_DATA: u32 = 3;
    pub const XEN_DOMCTL_PSR_GET_L3_CODE: u32 = 4;
    pub const XEN_DOMCTL_PSR_GET_L3_DATA: u32 = 5;
    pub const XEN_DOMCTL_PSR_SET_L2_CBM: u32 = 6;
    pub const XEN_DOMCTL_PSR_GET_L2_CBM: u32 = 7;
    pub const XEN_DOMCTL_PSR_SET_MBA_THRTL: u32 = 8;
    pub const XEN_DOMCTL_PSR_GET_MBA_THRTL: u32 = 9;
    pub const XEN_DOMCTL_VUART_OP_INIT: u32 = 0;
    pub const XEN_DOMCTL_VUART_TYPE_VPL011: u32 = 0;
    pub const XEN_DOMCTL_VMTRACE_ENABLE: u32 = 1;
    pub const XEN_DOMCTL_VMTRACE_DISABLE: u32 = 2;
    pub const XEN_DOMCTL_VMTRACE_RESET_AND_ENABLE: u32 = 3;
    pub const XEN_DOMCTL_VMTRACE_OUTPUT_POSITION: u32 = 4;
    pub const XEN_DOMCTL_VMTRACE_GET_OPTION: u32 = 5;
    pub const XEN_DOMCTL_VMTRACE_SET_OPTION: u32 = 6;
    /// [`Domctl::cmd`]. [`CreateDomain`]; `domain` in: wanted or 0, out: given.
    pub const XEN_DOMCTL_CREATEDOMAIN: u32 = 1;
    /// No payload; EAGAIN or a continuation until done.
    pub const XEN_DOMCTL_DESTROYDOMAIN: u32 = 2;
    pub const XEN_DOMCTL_PAUSEDOMAIN: u32 = 3;
    pub const XEN_DOMCTL_UNPAUSEDOMAIN: u32 = 4;
    /// [`GetDomainInfo`]; `domain` out.
    pub const XEN_DOMCTL_GETDOMAININFO: u32 = 5;
    /// [`VcpuAffinity`].
    pub const XEN_DOMCTL_SETVCPUAFFINITY: u32 = 9;
    /// [`ShadowOp`].
    pub const XEN_DOMCTL_SHADOW_OP: u32 = 10;
    /// [`MaxMem`].
    pub const XEN_DOMCTL_MAX_MEM: u32 = 11;
    /// [`VcpuContext`].
    pub const XEN_DOMCTL_SETVCPUCONTEXT: u32 = 12;
    /// [`VcpuContext`].
    pub const XEN_DOMCTL_GETVCPUCONTEXT: u32 = 13;
    /// [`GetVcpuInfo`].
    pub const XEN_DOMCTL_GETVCPUINFO: u32 = 14;
    /// [`MaxVcpus`].
    pub const XEN_DOMCTL_MAX_VCPUS: u32 = 15;
    /// [`SchedulerOp`].
    pub const XEN_DOMCTL_SCHEDULER_OP: u32 = 16;
    /// [`SetDomainHandle`].
    pub const XEN_DOMCTL_SETDOMAINHANDLE: u32 = 17;
    /// [`SetDebugging`].
    pub const XEN_DOMCTL_SETDEBUGGING: u32 = 18;
    /// [`IrqPermission`].
    pub const XEN_DOMCTL_IRQ_PERMISSION: u32 = 19;
    /// [`IomemPermission`].
    pub const XEN_DOMCTL_IOMEM_PERMISSION: u32 = 20;
    /// [`IoportPermission`].
    pub const XEN_DOMCTL_IOPORT_PERMISSION: u32 = 21;
    /// [`HypercallInit`].
    pub const XEN_DOMCTL_HYPERCALL_INIT: u32 = 22;
    /// [`SetTimeOffset`].
    pub const XEN_DOMCTL_SETTIMEOFFSET: u32 = 24;
    /// [`VcpuAffinity`].
    pub const XEN_DOMCTL_GETVCPUAFFINITY: u32 = 25;
    pub const XEN_DOMCTL_REAL_MODE_AREA: u32 = 26;
    pub const XEN_DOMCTL_RESUMEDOMAIN: u32 = 27;
    /// [`SendTrigger`].
    pub const XEN_DOMCTL_SENDTRIGGER: u32 = 28;
    pub const XEN_DOMCTL_SUBSCRIBE: u32 = 29;
    /// [`HvmContext`].
    pub const XEN_DOMCTL_GETHVMCONTEXT: u32 = 33;
    /// [`HvmContext`].
    pub const XEN_DOMCTL_SETHVMCONTEXT: u32 = 34;
    /// [`AddressSize`].
    pub const XEN_DOMCTL_SET_ADDRESS_SIZE: u32 = 35;
    /// [`AddressSize`].
    pub const XEN_DOMCTL_GET_ADDRESS_SIZE: u32 = 36;
    /// [`AssignDevice`].
    pub const XEN_DOMCTL_ASSIGN_DEVICE: u32 = 37;
    /// [`BindPtIrq`].
    pub const XEN_DOMCTL_BIND_PT_IRQ: u32 = 38;
    /// [`MemoryMapping`].
    pub const XEN_DOMCTL_MEMORY_MAPPING: u32 = 39;
    /// [`IoportMapping`].
    pub const XEN_DOMCTL_IOPORT_MAPPING: u32 = 40;
    /// [`ExtVcpuContext`].
    pub const XEN_DOMCTL_SET_EXT_VCPUCONTEXT: u32 = 42;
    /// [`ExtVcpuContext`].
    pub const XEN_DOMCTL_GET_EXT_VCPUCONTEXT: u32 = 43;
    pub const XEN_DOMCTL_SET_OPT_FEATURE: u32 = 44;
    pub const XEN_DOMCTL_TEST_ASSIGN_DEVICE: u32 = 45;
    /// [`SetTarget`].
    pub const XEN_DOMCTL_SET_TARGET: u32 = 46;
    pub const XEN_DOMCTL_DEASSIGN_DEVICE: u32 = 47;
    /// [`BindPtIrq`].
    pub const XEN_DOMCTL_UNBIND_PT_IRQ: u32 = 48;
    /// [`GetDeviceGroup`].
    pub const XEN_DOMCTL_GET_DEVICE_GROUP: u32 = 50;
    pub const XEN_DOMCTL_DEBUG_OP: u32 = 54;
    /// [`HvmContextPartial`].
    pub const XEN_DOMCTL_GETHVMCONTEXT_PARTIAL: u32 = 55;
    pub const XEN_DOMCTL_VM_EVENT_OP: u32 = 56;
    pub const XEN_DOMCTL_MEM_SHARING_OP: u32 = 57;
    /// [`TscInfo`].
    pub const XEN_DOMCTL_GETTSCINFO: u32 = 59;
    /// [`TscInfo`].
    pub const XEN_DOMCTL_SETTSCINFO: u32 = 60;
    /// [`GetPageFrameInfo3`].
    pub const XEN_DOMCTL_GETPAGEFRAMEINFO3: u32 = 61;
    /// [`VcpuExtState`].
    pub const XEN_DOMCTL_SETVCPUEXTSTATE: u32 = 62;
    /// [`VcpuExtState`].
    pub const XEN_DOMCTL_GETVCPUEXTSTATE: u32 = 63;
    pub const XEN_DOMCTL_SET_ACCESS_REQUIRED: u32 = 64;
    pub const XEN_DOMCTL_AUDIT_P2M: u32 = 65;
    /// [`SetVirqHandler`].
    pub const XEN_DOMCTL_SET_VIRQ_HANDLER: u32 = 66;
    pub const XEN_DOMCTL_SET_BROKEN_PAGE_P2M: u32 = 67;
    /// [`NodeAffinity`].
    pub const XEN_DOMCTL_SETNODEAFFINITY: u32 = 68;
    /// [`NodeAffinity`].
    pub const XEN_DOMCTL_GETNODEAFFINITY: u32 = 69;
    /// [`CacheFlush`].
    pub const XEN_DOMCTL_CACHEFLUSH: u32 = 71;
    /// [`VcpuMsrs`].
    pub const XEN_DOMCTL_GET_VCPU_MSRS: u32 = 72;
    /// [`VcpuMsrs`].
    pub const XEN_DOMCTL_SET_VCPU_MSRS: u32 = 73;
    /// [`Vnuma`].
    pub const XEN_DOMCTL_SETVNUMAINFO: u32 = 74;
    pub const XEN_DOMCTL_PSR_CMT_OP: u32 = 75;
    pub const XEN_DOMCTL_MONITOR_OP: u32 = 77;
    pub const XEN_DOMCTL_PSR_ALLOC: u32 = 78;
    pub const XEN_DOMCTL_SOFT_RESET: u32 = 79;
    pub const XEN_DOMCTL_VUART_OP: u32 = 81;
    /// [`CpuPolicy`].
    pub const XEN_DOMCTL_GET_CPU_POLICY: u32 = 82;
    /// [`CpuPolicy`].
    pub const XEN_DOMCTL_SET_CPU_POLICY: u32 = 83;
    pub const XEN_DOMCTL_VMTRACE_OP: u32 = 84;
    /// [`PagingMempool`].
    pub const XEN_DOMCTL_GET_PAGING_MEMPOOL_SIZE: u32 = 85;
    /// [`PagingMempool`].
    pub const XEN_DOMCTL_SET_PAGING_MEMPOOL_SIZE: u32 = 86;
    pub const XEN_DOMCTL_GDBSX_GUESTMEMIO: u32 = 1000;
    pub const XEN_DOMCTL_GDBSX_PAUSEVCPU: u32 = 1001;
    pub const XEN_DOMCTL_GDBSX_UNPAUSEVCPU: u32 = 1002;
    pub const XEN_DOMCTL_GDBSX_DOMSTATUS: u32 = 1003;
}

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

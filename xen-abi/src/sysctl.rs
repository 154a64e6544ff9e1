//! `sysctl` (`sysctl.h`, interface version 0x15): looking at and ruling the machine.
//!
//! [`Sysctl`] is the argument: a header and 128 bytes, whose start is one of the payloads below, read and written as in
//! [`crate::domctl`].

use crate::domctl::Bitmap;
use crate::ids::DomId;
use crate::layout::{constants, structures};

constants! {
    /// What callers must put into [`Sysctl::interface_version`], else EACCES.
    pub const XEN_SYSCTL_INTERFACE_VERSION: u32 = 0x15;
    /// [`PhysInfo::capabilities`].
    pub const XEN_SYSCTL_PHYSCAP_HVM: u32 = 1;
    pub const XEN_SYSCTL_PHYSCAP_PV: u32 = 2;
    pub const XEN_SYSCTL_PHYSCAP_DIRECTIO: u32 = 4;
    pub const XEN_SYSCTL_PHYSCAP_HAP: u32 = 8;
    pub const XEN_SYSCTL_PHYSCAP_SHADOW: u32 = 16;
    pub const XEN_SYSCTL_PHYSCAP_IOMMU_HAP_PT_SHARE: u32 = 32;
    pub const XEN_SYSCTL_PHYSCAP_VMTRACE: u32 = 64;
    pub const XEN_SYSCTL_PHYSCAP_VPMU: u32 = 128;
    pub const XEN_SYSCTL_PHYSCAP_GNTTAB_V1: u32 = 256;
    pub const XEN_SYSCTL_PHYSCAP_GNTTAB_V2: u32 = 512;
    pub const XEN_SYSCTL_PHYSCAP_MAX: u32 = 512;
    /// [`CpuHotplug::op`].
    pub const XEN_SYSCTL_CPU_HOTPLUG_ONLINE: u32 = 0;
    pub const XEN_SYSCTL_CPU_HOTPLUG_OFFLINE: u32 = 1;
    pub const XEN_SYSCTL_CPU_HOTPLUG_SMT_ENABLE: u32 = 2;
    pub const XEN_SYSCTL_CPU_HOTPLUG_SMT_DISABLE: u32 = 3;
    /// Not known.
    pub const XEN_INVALID_CORE_ID: u32 = 0xffffffff;
    pub const XEN_INVALID_SOCKET_ID: u32 = 0xffffffff;
    pub const XEN_INVALID_NODE_ID: u32 = 0xffffffff;
    pub const XEN_INVALID_MEM_SZ: u32 = 0xffffffff;
    pub const XEN_INVALID_NODE_DIST: u32 = 0xffffffff;
    /// [`CpupoolOp::op`].
    pub const XEN_SYSCTL_CPUPOOL_OP_CREATE: u32 = 1;
    pub const XEN_SYSCTL_CPUPOOL_OP_DESTROY: u32 = 2;
    pub const XEN_SYSCTL_CPUPOOL_OP_INFO: u32 = 3;
    pub const XEN_SYSCTL_CPUPOOL_OP_ADDCPU: u32 = 4;
    pub const XEN_SYSCTL_CPUPOOL_OP_RMCPU: u32 = 5;
    pub const XEN_SYSCTL_CPUPOOL_OP_MOVEDOMAIN: u32 = 6;
    pub const XEN_SYSCTL_CPUPOOL_OP_FREEINFO: u32 = 7;
    /// Any pool, any CPU.
    pub const XEN_SYSCTL_CPUPOOL_PAR_ANY: u32 = 0xffffffff;
    pub const XEN_SYSCTL_SCHED_RATELIMIT_MAX: u32 = 0x7a120;
    pub const XEN_SYSCTL_SCHED_RATELIMIT_MIN: u32 = 100;
    pub const XEN_SYSCTL_CSCHED_TSLICE_MAX: u32 = 1000;
    pub const XEN_SYSCTL_CSCHED_TSLICE_MIN: u32 = 1;
    pub const XEN_SYSCTL_CSCHED_MGR_DLY_MAX_US: u32 = 0x186a0;
    /// [`SchedulerOp::cmd`].
    pub const XEN_SYSCTL_SCHEDOP_PUTINFO: u32 = 0;
    pub const XEN_SYSCTL_SCHEDOP_GETINFO: u32 = 1;
    /// No such device.
    pub const XEN_INVALID_DEV: u32 = 0xfffffffe;
    /// [`CpuLevellingCaps::caps`].
    pub const XEN_SYSCTL_CPU_LEVELCAP_FAULTING: u32 = 1;
    pub const XEN_SYSCTL_CPU_LEVELCAP_ECX: u32 = 2;
    pub const XEN_SYSCTL_CPU_LEVELCAP_EDX: u32 = 4;
    pub const XEN_SYSCTL_CPU_LEVELCAP_EXTD_ECX: u32 = 8;
    pub const XEN_SYSCTL_CPU_LEVELCAP_EXTD_EDX: u32 = 16;
    pub const XEN_SYSCTL_CPU_LEVELCAP_XSAVE_EAX: u32 = 32;
    pub const XEN_SYSCTL_CPU_LEVELCAP_THERMAL_ECX: u32 = 64;
    pub const XEN_SYSCTL_CPU_LEVELCAP_L7S0_EAX: u32 = 128;
    pub const XEN_SYSCTL_CPU_LEVELCAP_L7S0_EBX: u32 = 256;
    /// [`CpuFeatureset::index`].
    pub const XEN_SYSCTL_CPU_FEATURESET_RAW: u32 = 0;
    pub const XEN_SYSCTL_CPU_FEATURESET_HOST: u32 = 1;
    pub const XEN_SYSCTL_CPU_FEATURESET_PV: u32 = 2;
    pub const XEN_SYSCTL_CPU_FEATURESET_HVM: u32 = 3;
    pub const XEN_SYSCTL_CPU_FEATURESET_PV_MAX: u32 = 4;
    pub const XEN_SYSCTL_CPU_FEATURESET_HVM_MAX: u32 = 5;
    /// [`CpuPolicy::index`].
    pub const XEN_SYSCTL_CPU_POLICY_RAW: u32 = 0;
    pub const XEN_SYSCTL_CPU_POLICY_HOST: u32 = 1;
    pub const XEN_SYSCTL_CPU_POLICY_PV_MAX: u32 = 2;
    pub const XEN_SYSCTL_CPU_POLICY_HVM_MAX: u32 = 3;
    pub const XEN_SYSCTL_CPU_POLICY_PV_DEFAULT: u32 = 4;
    pub const XEN_SYSCTL_CPU_POLICY_HVM_DEFAULT: u32 = 5;
    /// [`TbufOp::cmd`]: event mask, frame and size of the table.
    pub const XEN_SYSCTL_TBUFOP_GET_INFO: u32 = 0;
    pub const XEN_SYSCTL_TBUFOP_SET_CPU_MASK: u32 = 1;
    pub const XEN_SYSCTL_TBUFOP_SET_EVT_MASK: u32 = 2;
    /// Pages of each CPU's buffer; once.
    pub const XEN_SYSCTL_TBUFOP_SET_SIZE: u32 = 3;
    pub const XEN_SYSCTL_TBUFOP_ENABLE: u32 = 4;
    pub const XEN_SYSCTL_TBUFOP_DISABLE: u32 = 5;
    /// [`Sysctl::cmd`]. [`ReadConsole`].
    pub const XEN_SYSCTL_READCONSOLE: u32 = 1;
    /// [`TbufOp`].
    pub const XEN_SYSCTL_TBUF_OP: u32 = 2;
    /// [`PhysInfo`].
    pub const XEN_SYSCTL_PHYSINFO: u32 = 3;
    /// [`SchedId`].
    pub const XEN_SYSCTL_SCHED_ID: u32 = 4;
    pub const XEN_SYSCTL_PERFC_OP: u32 = 5;
    /// [`GetDomainInfoList`].
    pub const XEN_SYSCTL_GETDOMAININFOLIST: u32 = 6;
    /// [`DebugKeys`].
    pub const XEN_SYSCTL_DEBUG_KEYS: u32 = 7;
    /// [`GetCpuInfo`].
    pub const XEN_SYSCTL_GETCPUINFO: u32 = 8;
    /// [`AvailHeap`].
    pub const XEN_SYSCTL_AVAILHEAP: u32 = 9;
    pub const XEN_SYSCTL_GET_PMSTAT: u32 = 10;
    /// [`CpuHotplug`].
    pub const XEN_SYSCTL_CPU_HOTPLUG: u32 = 11;
    pub const XEN_SYSCTL_PM_OP: u32 = 12;
    pub const XEN_SYSCTL_PAGE_OFFLINE_OP: u32 = 14;
    pub const XEN_SYSCTL_LOCKPROF_OP: u32 = 15;
    /// [`CpuTopoInfo`].
    pub const XEN_SYSCTL_CPUTOPOINFO: u32 = 16;
    /// [`NumaInfo`].
    pub const XEN_SYSCTL_NUMAINFO: u32 = 17;
    /// [`CpupoolOp`].
    pub const XEN_SYSCTL_CPUPOOL_OP: u32 = 18;
    /// [`SchedulerOp`].
    pub const XEN_SYSCTL_SCHEDULER_OP: u32 = 19;
    pub const XEN_SYSCTL_COVERAGE_OP: u32 = 20;
    pub const XEN_SYSCTL_PSR_CMT_OP: u32 = 21;
    /// [`PciTopoInfo`].
    pub const XEN_SYSCTL_PCITOPOINFO: u32 = 22;
    pub const XEN_SYSCTL_PSR_ALLOC: u32 = 23;
    /// [`CpuLevellingCaps`].
    pub const XEN_SYSCTL_GET_CPU_LEVELLING_CAPS: u32 = 25;
    /// [`CpuFeatureset`].
    pub const XEN_SYSCTL_GET_CPU_FEATURESET: u32 = 26;
    pub const XEN_SYSCTL_LIVEPATCH_OP: u32 = 27;
    /// [`CpuPolicy`].
    pub const XEN_SYSCTL_GET_CPU_POLICY: u32 = 29;
}

structures! {
    /// The argument.
    #[repr(align(8))]
    pub struct Sysctl = "struct xen_sysctl" {
        /// `XEN_SYSCTL_*`.
        pub cmd: u32,
        /// [`XEN_SYSCTL_INTERFACE_VERSION`].
        pub interface_version: u32,
        /// The payload.
        pub u: [u8; 128],
    }
    pub struct TbufOp = "struct xen_sysctl_tbuf_op" {
        /// `XEN_SYSCTL_TBUFOP_*`.
        pub cmd: u32,
        pub _pad0: u32,
        /// CPUs that write records.
        pub cpu_mask: Bitmap,
        /// Classes and subclasses of events that are recorded.
        pub evt_mask: u32,
        pub _pad1: u32,
        /// Out: first frame of the `t_info` table, 0 without buffers.
        pub buffer_mfn: u64,
        /// Bytes of the table; in: pages of each buffer.
        pub size: u32,
        pub _pad2: u32,
    }
    pub struct ReadConsole = "struct xen_sysctl_readconsole" {
        /// Empty the ring.
        pub clear: u8,
        /// Start at `index`.
        pub incremental: u8,
        pub pad0: u8,
        pub pad1: u8,
        /// In and out: position.
        pub index: u32,
        /// Virtual address.
        pub buffer: u64,
        /// In: room. Out: bytes.
        pub count: u32,
        pub _pad: u32,
    }
    pub struct PhysInfo = "struct xen_sysctl_physinfo" {
        pub threads_per_core: u32,
        pub cores_per_socket: u32,
        pub nr_cpus: u32,
        pub max_cpu_id: u32,
        pub nr_nodes: u32,
        pub max_node_id: u32,
        pub cpu_khz: u32,
        /// `XEN_SYSCTL_PHYSCAP_*`.
        pub capabilities: u32,
        pub arch_capabilities: u32,
        pub pad: u32,
        pub total_pages: u64,
        pub free_pages: u64,
        pub scrub_pages: u64,
        pub outstanding_pages: u64,
        pub max_mfn: u64,
        /// Host feature words: CPUID 1 edx, 0x80000001 edx, Linux 3, Linux 4 (CPUID 1 ecx), ...
        pub hw_cap: [u32; 8],
    }
    pub struct CpuTopo = "struct xen_sysctl_cputopo" {
        pub core: u32,
        pub socket: u32,
        pub node: u32,
    }
    pub struct CpuTopoInfo = "struct xen_sysctl_cputopoinfo" {
        /// In: room. Out: CPUs.
        pub num_cpus: u32,
        pub _pad: u32,
        /// Virtual address of [`CpuTopo`].
        pub cputopo: u64,
    }
    pub struct PciTopoInfo = "struct xen_sysctl_pcitopoinfo" {
        pub num_devs: u32,
        pub _pad: u32,
        /// Virtual address of [`crate::physdev::PciDevice`].
        pub devs: u64,
        /// Virtual address of u32.
        pub nodes: u64,
    }
    /// Bytes of one node.
    pub struct MemInfo = "struct xen_sysctl_meminfo" {
        pub memsize: u64,
        pub memfree: u64,
    }
    pub struct NumaInfo = "struct xen_sysctl_numainfo" {
        /// In: room. Out: nodes.
        pub num_nodes: u32,
        pub _pad: u32,
        /// Virtual address of [`MemInfo`].
        pub meminfo: u64,
        /// Virtual address of u32, nodes by nodes.
        pub distance: u64,
    }
    pub struct SchedId = "struct xen_sysctl_sched_id" {
        /// `XEN_SCHEDULER_*`.
        pub sched_id: u32,
    }
    pub struct GetDomainInfoList = "struct xen_sysctl_getdomaininfolist" {
        pub first_domain: DomId,
        pub _pad0: u16,
        pub max_domains: u32,
        /// Virtual address of [`crate::domctl::GetDomainInfo`].
        pub buffer: u64,
        /// Out.
        pub num_domains: u32,
        pub _pad1: u32,
    }
    pub struct DebugKeys = "struct xen_sysctl_debug_keys" {
        /// Virtual address.
        pub keys: u64,
        pub nr_keys: u32,
        pub _pad: u32,
    }
    pub struct CpuInfo = "struct xen_sysctl_cpuinfo" {
        /// Nanoseconds.
        pub idletime: u64,
    }
    pub struct GetCpuInfo = "struct xen_sysctl_getcpuinfo" {
        pub max_cpus: u32,
        pub _pad0: u32,
        /// Virtual address of [`CpuInfo`].
        pub info: u64,
        /// Out.
        pub nr_cpus: u32,
        pub _pad1: u32,
    }
    pub struct AvailHeap = "struct xen_sysctl_availheap" {
        pub min_bitwidth: u32,
        pub max_bitwidth: u32,
        /// Negative: all.
        pub node: i32,
        pub _pad: u32,
        pub avail_bytes: u64,
    }
    pub struct CpuHotplug = "struct xen_sysctl_cpu_hotplug" {
        pub cpu: u32,
        /// `XEN_SYSCTL_CPU_HOTPLUG_*`.
        pub op: u32,
    }
    pub struct CpupoolOp = "struct xen_sysctl_cpupool_op" {
        /// `XEN_SYSCTL_CPUPOOL_OP_*`.
        pub op: u32,
        pub cpupool_id: u32,
        /// `XEN_SCHEDULER_*`.
        pub sched_id: u32,
        pub domid: u32,
        pub cpu: u32,
        /// Out: domains in it.
        pub n_dom: u32,
        pub cpumap: Bitmap,
    }
    pub struct CreditSchedule = "struct xen_sysctl_credit_schedule" {
        pub tslice_ms: u32,
        pub ratelimit_us: u32,
        pub vcpu_migr_delay_us: u32,
    }
    pub struct Credit2Schedule = "struct xen_sysctl_credit2_schedule" {
        pub ratelimit_us: u32,
    }
    pub struct SchedulerOp = "struct xen_sysctl_scheduler_op" {
        pub cpupool_id: u32,
        /// `XEN_SCHEDULER_*`.
        pub sched_id: u32,
        /// `XEN_SYSCTL_SCHEDOP_*`.
        pub cmd: u32,
        pub _pad: u32,
        /// [`CreditSchedule`] or [`Credit2Schedule`].
        pub u: [u64; 2],
    }
    pub struct CpuLevellingCaps = "struct xen_sysctl_cpu_levelling_caps" {
        /// `XEN_SYSCTL_CPU_LEVELCAP_*`.
        pub caps: u32,
    }
    pub struct CpuFeatureset = "struct xen_sysctl_cpu_featureset" {
        /// `XEN_SYSCTL_CPU_FEATURESET_*`.
        pub index: u32,
        /// In: room. Out: words.
        pub nr_features: u32,
        /// Virtual address of u32.
        pub features: u64,
    }
    pub struct CpuPolicy = "struct xen_sysctl_cpu_policy" {
        /// `XEN_SYSCTL_CPU_POLICY_*`.
        pub index: u32,
        /// In: room. Out: entries.
        pub nr_leaves: u32,
        /// In: room. Out: entries.
        pub nr_msrs: u32,
        pub _rsvd: u32,
        /// Virtual address of [`crate::arch_x86::CpuidLeaf`].
        pub leaves: u64,
        /// Virtual address of [`crate::arch_x86::MsrEntry`].
        pub msrs: u64,
    }
}

//! Commands, flags and other numbers of `domctl.h`.

use crate::layout::constants;

constants! {
    /// What callers must put into [`Domctl::interface_version`](super::Domctl::interface_version), else EACCES.
    pub const XEN_DOMCTL_INTERFACE_VERSION: u32 = 0x15;
    /// [`CreateDomain::flags`](super::CreateDomain::flags).
    pub const XEN_DOMCTL_CDF_HVM: u32 = 1;
    pub const XEN_DOMCTL_CDF_HAP: u32 = 2;
    pub const XEN_DOMCTL_CDF_S3_INTEGRITY: u32 = 4;
    pub const XEN_DOMCTL_CDF_OOS_OFF: u32 = 8;
    pub const XEN_DOMCTL_CDF_XS_DOMAIN: u32 = 16;
    pub const XEN_DOMCTL_CDF_IOMMU: u32 = 32;
    pub const XEN_DOMCTL_CDF_NESTED_VIRT: u32 = 64;
    pub const XEN_DOMCTL_CDF_VPMU: u32 = 128;
    pub const XEN_DOMCTL_CDF_MAX: u32 = 128;
    /// [`CreateDomain::iommu_opts`](super::CreateDomain::iommu_opts).
    pub const XEN_DOMCTL_IOMMU_NO_SHAREPT: u32 = 1;
    pub const XEN_DOMCTL_IOMMU_MAX: u32 = 1;
    /// [`CreateDomain::grant_opts`](super::CreateDomain::grant_opts): highest grant table version.
    pub const XEN_DOMCTL_GRANT_VERSION_MASK: u32 = 15;
    /// [`GetDomainInfo::flags`](super::GetDomainInfo::flags).
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
    /// [`GetDomainInfo::max_vcpu_id`](super::GetDomainInfo::max_vcpu_id) of a domain without vCPUs.
    pub const XEN_INVALID_MAX_VCPU_ID: u32 = 0xffffffff;
    /// Types of frames of [`GetPageFrameInfo3`](super::GetPageFrameInfo3).
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
    /// [`ShadowOp::op`](super::ShadowOp::op).
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
    pub const XEN_VCPUAFFINITY_HARD: u32 = 1;
    pub const XEN_VCPUAFFINITY_SOFT: u32 = 2;
    pub const XEN_VCPUAFFINITY_FORCE: u32 = 4;
    /// Scheduler identifiers.
    pub const XEN_SCHEDULER_CREDIT: u32 = 5;
    pub const XEN_SCHEDULER_CREDIT2: u32 = 6;
    pub const XEN_SCHEDULER_ARINC653: u32 = 7;
    pub const XEN_SCHEDULER_RTDS: u32 = 8;
    pub const XEN_SCHEDULER_NULL: u32 = 9;
    pub const XEN_DOMCTL_SCHEDRT_EXTRA: u32 = 1;
    /// [`SchedulerOp::cmd`](super::SchedulerOp::cmd).
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
    /// [`Domctl::cmd`](super::Domctl::cmd). [`CreateDomain`](super::CreateDomain); `domain` in: wanted or 0, out: given.
    pub const XEN_DOMCTL_CREATEDOMAIN: u32 = 1;
    /// No payload; EAGAIN or a continuation until done.
    pub const XEN_DOMCTL_DESTROYDOMAIN: u32 = 2;
    pub const XEN_DOMCTL_PAUSEDOMAIN: u32 = 3;
    pub const XEN_DOMCTL_UNPAUSEDOMAIN: u32 = 4;
    /// [`GetDomainInfo`](super::GetDomainInfo); `domain` out.
    pub const XEN_DOMCTL_GETDOMAININFO: u32 = 5;
    /// [`VcpuAffinity`](super::VcpuAffinity).
    pub const XEN_DOMCTL_SETVCPUAFFINITY: u32 = 9;
    /// [`ShadowOp`](super::ShadowOp).
    pub const XEN_DOMCTL_SHADOW_OP: u32 = 10;
    /// [`MaxMem`](super::MaxMem).
    pub const XEN_DOMCTL_MAX_MEM: u32 = 11;
    /// [`VcpuContext`](super::VcpuContext).
    pub const XEN_DOMCTL_SETVCPUCONTEXT: u32 = 12;
    /// [`VcpuContext`](super::VcpuContext).
    pub const XEN_DOMCTL_GETVCPUCONTEXT: u32 = 13;
    /// [`GetVcpuInfo`](super::GetVcpuInfo).
    pub const XEN_DOMCTL_GETVCPUINFO: u32 = 14;
    /// [`MaxVcpus`](super::MaxVcpus).
    pub const XEN_DOMCTL_MAX_VCPUS: u32 = 15;
    /// [`SchedulerOp`](super::SchedulerOp).
    pub const XEN_DOMCTL_SCHEDULER_OP: u32 = 16;
    /// [`SetDomainHandle`](super::SetDomainHandle).
    pub const XEN_DOMCTL_SETDOMAINHANDLE: u32 = 17;
    /// [`SetDebugging`](super::SetDebugging).
    pub const XEN_DOMCTL_SETDEBUGGING: u32 = 18;
    /// [`IrqPermission`](super::IrqPermission).
    pub const XEN_DOMCTL_IRQ_PERMISSION: u32 = 19;
    /// [`IomemPermission`](super::IomemPermission).
    pub const XEN_DOMCTL_IOMEM_PERMISSION: u32 = 20;
    /// [`IoportPermission`](super::IoportPermission).
    pub const XEN_DOMCTL_IOPORT_PERMISSION: u32 = 21;
    /// [`HypercallInit`](super::HypercallInit).
    pub const XEN_DOMCTL_HYPERCALL_INIT: u32 = 22;
    /// [`SetTimeOffset`](super::SetTimeOffset).
    pub const XEN_DOMCTL_SETTIMEOFFSET: u32 = 24;
    /// [`VcpuAffinity`](super::VcpuAffinity).
    pub const XEN_DOMCTL_GETVCPUAFFINITY: u32 = 25;
    pub const XEN_DOMCTL_REAL_MODE_AREA: u32 = 26;
    pub const XEN_DOMCTL_RESUMEDOMAIN: u32 = 27;
    /// [`SendTrigger`](super::SendTrigger).
    pub const XEN_DOMCTL_SENDTRIGGER: u32 = 28;
    pub const XEN_DOMCTL_SUBSCRIBE: u32 = 29;
    /// [`HvmContext`](super::HvmContext).
    pub const XEN_DOMCTL_GETHVMCONTEXT: u32 = 33;
    /// [`HvmContext`](super::HvmContext).
    pub const XEN_DOMCTL_SETHVMCONTEXT: u32 = 34;
    /// [`AddressSize`](super::AddressSize).
    pub const XEN_DOMCTL_SET_ADDRESS_SIZE: u32 = 35;
    /// [`AddressSize`](super::AddressSize).
    pub const XEN_DOMCTL_GET_ADDRESS_SIZE: u32 = 36;
    /// [`AssignDevice`](super::AssignDevice).
    pub const XEN_DOMCTL_ASSIGN_DEVICE: u32 = 37;
    /// [`BindPtIrq`](super::BindPtIrq).
    pub const XEN_DOMCTL_BIND_PT_IRQ: u32 = 38;
    /// [`MemoryMapping`](super::MemoryMapping).
    pub const XEN_DOMCTL_MEMORY_MAPPING: u32 = 39;
    /// [`IoportMapping`](super::IoportMapping).
    pub const XEN_DOMCTL_IOPORT_MAPPING: u32 = 40;
    /// [`ExtVcpuContext`](super::ExtVcpuContext).
    pub const XEN_DOMCTL_SET_EXT_VCPUCONTEXT: u32 = 42;
    /// [`ExtVcpuContext`](super::ExtVcpuContext).
    pub const XEN_DOMCTL_GET_EXT_VCPUCONTEXT: u32 = 43;
    pub const XEN_DOMCTL_SET_OPT_FEATURE: u32 = 44;
    pub const XEN_DOMCTL_TEST_ASSIGN_DEVICE: u32 = 45;
    /// [`SetTarget`](super::SetTarget).
    pub const XEN_DOMCTL_SET_TARGET: u32 = 46;
    pub const XEN_DOMCTL_DEASSIGN_DEVICE: u32 = 47;
    /// [`BindPtIrq`](super::BindPtIrq).
    pub const XEN_DOMCTL_UNBIND_PT_IRQ: u32 = 48;
    /// [`GetDeviceGroup`](super::GetDeviceGroup).
    pub const XEN_DOMCTL_GET_DEVICE_GROUP: u32 = 50;
    pub const XEN_DOMCTL_DEBUG_OP: u32 = 54;
    /// [`HvmContextPartial`](super::HvmContextPartial).
    pub const XEN_DOMCTL_GETHVMCONTEXT_PARTIAL: u32 = 55;
    pub const XEN_DOMCTL_VM_EVENT_OP: u32 = 56;
    pub const XEN_DOMCTL_MEM_SHARING_OP: u32 = 57;
    /// [`TscInfo`](super::TscInfo).
    pub const XEN_DOMCTL_GETTSCINFO: u32 = 59;
    /// [`TscInfo`](super::TscInfo).
    pub const XEN_DOMCTL_SETTSCINFO: u32 = 60;
    /// [`GetPageFrameInfo3`](super::GetPageFrameInfo3).
    pub const XEN_DOMCTL_GETPAGEFRAMEINFO3: u32 = 61;
    /// [`VcpuExtState`](super::VcpuExtState).
    pub const XEN_DOMCTL_SETVCPUEXTSTATE: u32 = 62;
    /// [`VcpuExtState`](super::VcpuExtState).
    pub const XEN_DOMCTL_GETVCPUEXTSTATE: u32 = 63;
    pub const XEN_DOMCTL_SET_ACCESS_REQUIRED: u32 = 64;
    pub const XEN_DOMCTL_AUDIT_P2M: u32 = 65;
    /// [`SetVirqHandler`](super::SetVirqHandler).
    pub const XEN_DOMCTL_SET_VIRQ_HANDLER: u32 = 66;
    pub const XEN_DOMCTL_SET_BROKEN_PAGE_P2M: u32 = 67;
    /// [`NodeAffinity`](super::NodeAffinity).
    pub const XEN_DOMCTL_SETNODEAFFINITY: u32 = 68;
    /// [`NodeAffinity`](super::NodeAffinity).
    pub const XEN_DOMCTL_GETNODEAFFINITY: u32 = 69;
    /// [`CacheFlush`](super::CacheFlush).
    pub const XEN_DOMCTL_CACHEFLUSH: u32 = 71;
    /// [`VcpuMsrs`](super::VcpuMsrs).
    pub const XEN_DOMCTL_GET_VCPU_MSRS: u32 = 72;
    /// [`VcpuMsrs`](super::VcpuMsrs).
    pub const XEN_DOMCTL_SET_VCPU_MSRS: u32 = 73;
    /// [`Vnuma`](super::Vnuma).
    pub const XEN_DOMCTL_SETVNUMAINFO: u32 = 74;
    pub const XEN_DOMCTL_PSR_CMT_OP: u32 = 75;
    pub const XEN_DOMCTL_MONITOR_OP: u32 = 77;
    pub const XEN_DOMCTL_PSR_ALLOC: u32 = 78;
    pub const XEN_DOMCTL_SOFT_RESET: u32 = 79;
    pub const XEN_DOMCTL_VUART_OP: u32 = 81;
    /// [`CpuPolicy`](super::CpuPolicy).
    pub const XEN_DOMCTL_GET_CPU_POLICY: u32 = 82;
    /// [`CpuPolicy`](super::CpuPolicy).
    pub const XEN_DOMCTL_SET_CPU_POLICY: u32 = 83;
    pub const XEN_DOMCTL_VMTRACE_OP: u32 = 84;
    /// [`PagingMempool`](super::PagingMempool).
    pub const XEN_DOMCTL_GET_PAGING_MEMPOOL_SIZE: u32 = 85;
    /// [`PagingMempool`](super::PagingMempool).
    pub const XEN_DOMCTL_SET_PAGING_MEMPOOL_SIZE: u32 = 86;
    pub const XEN_DOMCTL_GDBSX_GUESTMEMIO: u32 = 1000;
    pub const XEN_DOMCTL_GDBSX_PAUSEVCPU: u32 = 1001;
    pub const XEN_DOMCTL_GDBSX_UNPAUSEVCPU: u32 = 1002;
    pub const XEN_DOMCTL_GDBSX_DOMSTATUS: u32 = 1003;
}

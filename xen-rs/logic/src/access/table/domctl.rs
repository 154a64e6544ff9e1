//! `domctl`: which operations there are. All are the control domain's (Xen's default policy).

use xen_abi::domctl::*;

operations! {
    /// An operation on one domain.
    DomctlOp = "domctl" in "domctl.h", others: Control ENOSYS;
    served {
        CreateDomain = XEN_DOMCTL_CREATEDOMAIN, Control;
        DestroyDomain = XEN_DOMCTL_DESTROYDOMAIN, Control;
        PauseDomain = XEN_DOMCTL_PAUSEDOMAIN, Control;
        UnpauseDomain = XEN_DOMCTL_UNPAUSEDOMAIN, Control;
        GetDomainInfo = XEN_DOMCTL_GETDOMAININFO, Control;
        SetVcpuAffinity = XEN_DOMCTL_SETVCPUAFFINITY, Control;
        MaxMem = XEN_DOMCTL_MAX_MEM, Control;
        SetVcpuContext = XEN_DOMCTL_SETVCPUCONTEXT, Control;
        GetVcpuContext = XEN_DOMCTL_GETVCPUCONTEXT, Control;
        GetVcpuInfo = XEN_DOMCTL_GETVCPUINFO, Control;
        GetPageFrameInfo3 = XEN_DOMCTL_GETPAGEFRAMEINFO3, Control;
        MaxVcpus = XEN_DOMCTL_MAX_VCPUS, Control;
        SchedulerOp = XEN_DOMCTL_SCHEDULER_OP, Control;
        SetDomainHandle = XEN_DOMCTL_SETDOMAINHANDLE, Control;
        IrqPermission = XEN_DOMCTL_IRQ_PERMISSION, Control, "of what the caller has";
        IomemPermission = XEN_DOMCTL_IOMEM_PERMISSION, Control, "of what the caller has";
        IoportPermission = XEN_DOMCTL_IOPORT_PERMISSION, Control, "of what the caller has";
        HypercallInit = XEN_DOMCTL_HYPERCALL_INIT, Control;
        GetHvmContext = XEN_DOMCTL_GETHVMCONTEXT, ControlOfOther;
        SetHvmContext = XEN_DOMCTL_SETHVMCONTEXT, ControlOfOther;
        GetVcpuAffinity = XEN_DOMCTL_GETVCPUAFFINITY, Control;
        SendTrigger = XEN_DOMCTL_SENDTRIGGER, Control, "NMI; no domain has buttons, which are `EINVAL`";
        SetAddressSize = XEN_DOMCTL_SET_ADDRESS_SIZE, Control, "64 only: there are no 32-bit PV guests";
        GetAddressSize = XEN_DOMCTL_GET_ADDRESS_SIZE, Control;
        GetTscInfo = XEN_DOMCTL_GETTSCINFO, Control;
        SetTscInfo = XEN_DOMCTL_SETTSCINFO, Control;
        SetTimeOffset = XEN_DOMCTL_SETTIMEOFFSET, Control;
        SetNodeAffinity = XEN_DOMCTL_SETNODEAFFINITY, Control, "accepted; there is one node";
        GetNodeAffinity = XEN_DOMCTL_GETNODEAFFINITY, Control, "the one node";
        GetCpuPolicy = XEN_DOMCTL_GET_CPU_POLICY, Control;
        GetPagingMempoolSize = XEN_DOMCTL_GET_PAGING_MEMPOOL_SIZE, Control, "of PVH domains";
        SetPagingMempoolSize = XEN_DOMCTL_SET_PAGING_MEMPOOL_SIZE, Control, "of PVH domains";
        SetCpuPolicy = XEN_DOMCTL_SET_CPU_POLICY, Control, "before the domain runs";
    }
    refused {
        XEN_DOMCTL_RESUMEDOMAIN, Control, EOPNOTSUPP, "not yet";
        XEN_DOMCTL_SHADOW_OP, Control, ENOSYS, "for migration";
        XEN_DOMCTL_SETDEBUGGING, Control, ENOSYS, "no debugger";
        XEN_DOMCTL_REAL_MODE_AREA, Control, ENOSYS, "obsolete in Xen";
        XEN_DOMCTL_SUBSCRIBE, Control, ENOSYS, "no suspend event";
        XEN_DOMCTL_ASSIGN_DEVICE, Control, ENOSYS, "no IOMMU";
        XEN_DOMCTL_BIND_PT_IRQ, Control, ENOSYS, "no HVM domains";
        XEN_DOMCTL_MEMORY_MAPPING, Control, ENOSYS, "no HVM domains";
        XEN_DOMCTL_IOPORT_MAPPING, Control, ENOSYS, "no HVM domains";
        XEN_DOMCTL_SET_EXT_VCPUCONTEXT, Control, ENOSYS, "not yet";
        XEN_DOMCTL_GET_EXT_VCPUCONTEXT, Control, ENOSYS, "not yet";
        XEN_DOMCTL_SET_OPT_FEATURE, Control, ENOSYS, "obsolete in Xen";
        XEN_DOMCTL_TEST_ASSIGN_DEVICE, Control, ENOSYS, "no IOMMU";
        XEN_DOMCTL_SET_TARGET, Control, ENOSYS, "no stub domains";
        XEN_DOMCTL_DEASSIGN_DEVICE, Control, ENOSYS, "no IOMMU";
        XEN_DOMCTL_UNBIND_PT_IRQ, Control, ENOSYS, "no HVM domains";
        XEN_DOMCTL_GET_DEVICE_GROUP, Control, ENOSYS, "no IOMMU";
        XEN_DOMCTL_DEBUG_OP, Control, ENOSYS, "no debugger";
        XEN_DOMCTL_GETHVMCONTEXT_PARTIAL, Control, ENOSYS, "no HVM domains";
        XEN_DOMCTL_VM_EVENT_OP, Control, ENOSYS, "no HVM domains";
        XEN_DOMCTL_MEM_SHARING_OP, Control, ENOSYS, "no HVM domains";
        XEN_DOMCTL_SETVCPUEXTSTATE, Control, ENOSYS, "not yet";
        XEN_DOMCTL_GETVCPUEXTSTATE, Control, ENOSYS, "not yet";
        XEN_DOMCTL_SET_ACCESS_REQUIRED, Control, ENOSYS, "no HVM domains";
        XEN_DOMCTL_AUDIT_P2M, Control, ENOSYS, "no HVM domains";
        XEN_DOMCTL_SET_VIRQ_HANDLER, Control, ENOSYS, "not yet";
        XEN_DOMCTL_SET_BROKEN_PAGE_P2M, Control, ENOSYS, "no HVM domains";
        XEN_DOMCTL_CACHEFLUSH, Control, ENOSYS, "for Arm";
        XEN_DOMCTL_GET_VCPU_MSRS, Control, ENOSYS, "not yet";
        XEN_DOMCTL_SET_VCPU_MSRS, Control, ENOSYS, "not yet";
        XEN_DOMCTL_SETVNUMAINFO, Control, ENOSYS, "no virtual NUMA";
        XEN_DOMCTL_PSR_CMT_OP, Control, ENOSYS, "no cache allocation";
        XEN_DOMCTL_MONITOR_OP, Control, ENOSYS, "no HVM domains";
        XEN_DOMCTL_PSR_ALLOC, Control, ENOSYS, "no cache allocation";
        XEN_DOMCTL_SOFT_RESET, Control, ENOSYS, "not yet";
        XEN_DOMCTL_VUART_OP, Control, ENOSYS, "for Arm";
        XEN_DOMCTL_VMTRACE_OP, Control, ENOSYS, "no processor trace";
        XEN_DOMCTL_GDBSX_GUESTMEMIO, Control, ENOSYS, "no debugger";
        XEN_DOMCTL_GDBSX_PAUSEVCPU, Control, ENOSYS, "no debugger";
        XEN_DOMCTL_GDBSX_UNPAUSEVCPU, Control, ENOSYS, "no debugger";
        XEN_DOMCTL_GDBSX_DOMSTATUS, Control, ENOSYS, "no debugger";
    }
}

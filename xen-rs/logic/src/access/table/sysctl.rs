//! `sysctl`: which operations there are. All are the control domain's (Xen's default policy).

use xen_abi::sysctl::*;

operations! {
    /// An operation on the host.
    SysctlOp = "sysctl" in "sysctl.h", others: Control ENOSYS;
    served {
        ReadConsole = XEN_SYSCTL_READCONSOLE, Control;
        Tbuf = XEN_SYSCTL_TBUF_OP, Control;
        DebugKeys = XEN_SYSCTL_DEBUG_KEYS, Control;
        PhysInfo = XEN_SYSCTL_PHYSINFO, Control;
        SchedId = XEN_SYSCTL_SCHED_ID, Control;
        SchedulerOp = XEN_SYSCTL_SCHEDULER_OP, Control;
        GetDomainInfoList = XEN_SYSCTL_GETDOMAININFOLIST, Control;
        CpuTopoInfo = XEN_SYSCTL_CPUTOPOINFO, Control;
        NumaInfo = XEN_SYSCTL_NUMAINFO, Control, "one node";
        PciTopoInfo = XEN_SYSCTL_PCITOPOINFO, Control, "no device's node is known";
        GetCpuInfo = XEN_SYSCTL_GETCPUINFO, Control;
        AvailHeap = XEN_SYSCTL_AVAILHEAP, Control, "one node";
        CpupoolOp = XEN_SYSCTL_CPUPOOL_OP, Control;
        GetCpuFeatureset = XEN_SYSCTL_GET_CPU_FEATURESET, Control;
        GetCpuPolicy = XEN_SYSCTL_GET_CPU_POLICY, Control;
    }
    refused {
        XEN_SYSCTL_PERFC_OP, Control, ENOSYS, "only in debug builds of Xen";
        XEN_SYSCTL_GET_PMSTAT, Control, ENOSYS, "no power management";
        XEN_SYSCTL_CPU_HOTPLUG, Control, ENOSYS, "no CPU hotplug";
        XEN_SYSCTL_PM_OP, Control, ENOSYS, "no power management";
        XEN_SYSCTL_PAGE_OFFLINE_OP, Control, ENOSYS, "no page offlining";
        XEN_SYSCTL_LOCKPROF_OP, Control, ENOSYS, "only in debug builds of Xen";
        XEN_SYSCTL_COVERAGE_OP, Control, ENOSYS, "only in debug builds of Xen";
        XEN_SYSCTL_PSR_CMT_OP, Control, ENOSYS, "no cache allocation";
        XEN_SYSCTL_PSR_ALLOC, Control, ENOSYS, "no cache allocation";
        XEN_SYSCTL_GET_CPU_LEVELLING_CAPS, Control, ENOSYS, "not yet";
        XEN_SYSCTL_LIVEPATCH_OP, Control, ENOSYS, "no live patching";
    }
}

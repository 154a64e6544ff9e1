//! The hypercalls: which there are. Those with sub-operations have a table of their own.

use xen_abi::hypercall::*;

operations! {
    /// A hypercall.
    Hypercall = "hypercalls" in "xen.h", others: Anyone ENOSYS;
    served {
        SetTrapTable = HYPERVISOR_SET_TRAP_TABLE, Anyone;
        SetCallbacks = HYPERVISOR_SET_CALLBACKS, Anyone;
        SchedOpCompat = HYPERVISOR_SCHED_OP_COMPAT, Anyone;
        EventChannelOpCompat = HYPERVISOR_EVENT_CHANNEL_OP_COMPAT, Offered;
        PhysdevOpCompat = HYPERVISOR_PHYSDEV_OP_COMPAT, Anyone;
        NmiOp = HYPERVISOR_NMI_OP, Anyone;
        MmuUpdate = HYPERVISOR_MMU_UPDATE, TargetOrControl;
        SetGdt = HYPERVISOR_SET_GDT, Anyone;
        StackSwitch = HYPERVISOR_STACK_SWITCH, Anyone;
        FpuTaskswitch = HYPERVISOR_FPU_TASKSWITCH, Anyone;
        PlatformOp = HYPERVISOR_PLATFORM_OP, Control;
        SetDebugreg = HYPERVISOR_SET_DEBUGREG, Anyone;
        GetDebugreg = HYPERVISOR_GET_DEBUGREG, Anyone;
        UpdateDescriptor = HYPERVISOR_UPDATE_DESCRIPTOR, Anyone;
        MemoryOp = HYPERVISOR_MEMORY_OP, TargetOrControl;
        Multicall = HYPERVISOR_MULTICALL, Anyone;
        UpdateVaMapping = HYPERVISOR_UPDATE_VA_MAPPING, Anyone;
        SetTimerOp = HYPERVISOR_SET_TIMER_OP, Anyone;
        XenVersion = HYPERVISOR_XEN_VERSION, Anyone;
        ConsoleIo = HYPERVISOR_CONSOLE_IO, Anyone;
        GrantTableOp = HYPERVISOR_GRANT_TABLE_OP, Offered;
        VmAssist = HYPERVISOR_VM_ASSIST, Anyone;
        UpdateVaMappingOtherdomain = HYPERVISOR_UPDATE_VA_MAPPING_OTHERDOMAIN, TargetOrControl;
        Iret = HYPERVISOR_IRET, Anyone;
        VcpuOp = HYPERVISOR_VCPU_OP, Anyone;
        SetSegmentBase = HYPERVISOR_SET_SEGMENT_BASE, Anyone;
        MmuextOp = HYPERVISOR_MMUEXT_OP, TargetOrControl;
        SchedOp = HYPERVISOR_SCHED_OP, Anyone;
        CallbackOp = HYPERVISOR_CALLBACK_OP, Anyone;
        EventChannelOp = HYPERVISOR_EVENT_CHANNEL_OP, Offered;
        PhysdevOp = HYPERVISOR_PHYSDEV_OP, Anyone;
        HvmOp = HYPERVISOR_HVM_OP, TargetOrControl;
        Sysctl = HYPERVISOR_SYSCTL, Control;
        Domctl = HYPERVISOR_DOMCTL, Control;
        Mca = HYPERVISOR_MCA, Control;
    }
    refused {
        HYPERVISOR_XSM_OP, Anyone, ENOSYS, "no XSM policy";
        HYPERVISOR_XENOPROF_OP, Anyone, ENOSYS, "no profiling";
        HYPERVISOR_KEXEC_OP, Anyone, ENOSYS, "no kexec";
        HYPERVISOR_TMEM_OP, Anyone, ENOSYS, "removed from Xen";
        HYPERVISOR_ARGO_OP, Anyone, ENOSYS, "no Argo";
        HYPERVISOR_XENPMU_OP, Anyone, ENOSYS, "no virtual PMU";
        HYPERVISOR_DM_OP, Anyone, ENOSYS, "no device models";
        HYPERVISOR_HYPFS_OP, Anyone, ENOSYS, "no hypfs";
        HYPERVISOR_ARCH_1, Anyone, ENOSYS, "`HYPERVISOR_paging_domctl_cont`: for Xen itself";
    }
}

//! `memory_op`: which operations there are, and whose they are.

use xen_abi::memory::*;

operations! {
    /// An operation on memory reservations and maps.
    MemoryOp = "memory_op" in "memory.h", others: Anyone ENOSYS;
    served {
        IncreaseReservation = XENMEM_INCREASE_RESERVATION, TargetOrControl;
        DecreaseReservation = XENMEM_DECREASE_RESERVATION, TargetOrControl;
        PopulatePhysmap = XENMEM_POPULATE_PHYSMAP, TargetOrControl;
        MaximumRamPage = XENMEM_MAXIMUM_RAM_PAGE, Anyone;
        CurrentReservation = XENMEM_CURRENT_RESERVATION, TargetOrControl;
        MaximumReservation = XENMEM_MAXIMUM_RESERVATION, TargetOrControl;
        MaximumGpfn = XENMEM_MAXIMUM_GPFN, TargetOrControl;
        MachphysMfnList = XENMEM_MACHPHYS_MFN_LIST, Anyone;
        MachphysMapping = XENMEM_MACHPHYS_MAPPING, Anyone;
        MemoryMap = XENMEM_MEMORY_MAP, Anyone;
        MachineMemoryMap = XENMEM_MACHINE_MEMORY_MAP, Control;
        SetMemoryMap = XENMEM_SET_MEMORY_MAP, TargetOrControl;
        AddToPhysmap = XENMEM_ADD_TO_PHYSMAP, TargetOrControl, "PV domains have no translation: `EACCES`";
        GetSharingFreedPages = XENMEM_GET_SHARING_FREED_PAGES, Anyone, "always 0: nothing is shared copy-on-write";
        GetSharingSharedPages = XENMEM_GET_SHARING_SHARED_PAGES, Anyone, "always 0";
    }
    refused {
        XENMEM_EXCHANGE, TargetOrControl, ENOSYS, "not yet";
        XENMEM_CLAIM_PAGES, Control, ENOSYS, "not yet";
        XENMEM_ACQUIRE_RESOURCE, TargetOrControl, ENOSYS, "not yet";
        XENMEM_ADD_TO_PHYSMAP_BATCH, TargetOrControl, ENOSYS, "for translated domains";
        XENMEM_REMOVE_FROM_PHYSMAP, TargetOrControl, ENOSYS, "for translated domains";
        XENMEM_SET_POD_TARGET, Control, ENOSYS, "for translated domains";
        XENMEM_GET_POD_TARGET, Control, ENOSYS, "for translated domains";
        XENMEM_PAGING_OP, Control, ENOSYS, "for translated domains";
        XENMEM_ACCESS_OP, Control, ENOSYS, "for translated domains";
        XENMEM_SHARING_OP, Control, ENOSYS, "for translated domains";
        XENMEM_MACHPHYS_COMPAT_MFN_LIST, Anyone, ENOSYS, "for 32-bit guests";
        XENMEM_GET_VNUMAINFO, TargetOrControl, ENOSYS, "no virtual NUMA";
        XENMEM_RESERVED_DEVICE_MEMORY_MAP, Anyone, ENOSYS, "no IOMMU";
    }
}

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
        Exchange = XENMEM_EXCHANGE, TargetOrControl, "not of PVH domains: `EOPNOTSUPP`";
        ClaimPages = XENMEM_CLAIM_PAGES, Control;
        AcquireResource = XENMEM_ACQUIRE_RESOURCE, ControlOfOther, "the frames of grant tables";
        ReservedDeviceMemoryMap = XENMEM_RESERVED_DEVICE_MEMORY_MAP, Anyone, "always empty: there is no IOMMU";
        AddToPhysmap = XENMEM_ADD_TO_PHYSMAP, TargetOrControl, "PV domains have no translation: `EACCES`";
        AddToPhysmapBatch = XENMEM_ADD_TO_PHYSMAP_BATCH, TargetOrControl, "the same";
        RemoveFromPhysmap = XENMEM_REMOVE_FROM_PHYSMAP, TargetOrControl, "the same";
        SetPodTarget = XENMEM_SET_POD_TARGET, Control, "of PVH domains, which are never populated on demand; `EINVAL` of others";
        GetPodTarget = XENMEM_GET_POD_TARGET, Control, "the same";
        AccessOp = XENMEM_ACCESS_OP, Anyone, "PV domains have no rights per page: `EINVAL`";
        GetVnumaInfo = XENMEM_GET_VNUMAINFO, TargetOrControl, "there are no virtual nodes: `EOPNOTSUPP`";
        GetSharingFreedPages = XENMEM_GET_SHARING_FREED_PAGES, Anyone, "always 0: nothing is shared copy-on-write";
        GetSharingSharedPages = XENMEM_GET_SHARING_SHARED_PAGES, Anyone, "always 0";
    }
    refused {
        XENMEM_PAGING_OP, Anyone, ENOSYS, "for translated domains, and not in Debian's Xen";
        XENMEM_SHARING_OP, Anyone, ENOSYS, "for translated domains, and not in Debian's Xen";
        XENMEM_MACHPHYS_COMPAT_MFN_LIST, Anyone, EOPNOTSUPP, "for 32-bit guests";
    }
}

//! `physdev_op`: which operations there are, and whose they are.

use xen_abi::physdev::*;

operations! {
    /// An operation on I/O privilege, interrupts and PCI devices.
    PhysdevOp = "physdev_op" in "physdev.h", others: Anyone ENOSYS;
    served {
        Eoi = PHYSDEVOP_EOI, Anyone;
        PirqEoiGmfnV1 = PHYSDEVOP_PIRQ_EOI_GMFN_V1, Anyone;
        PirqEoiGmfnV2 = PHYSDEVOP_PIRQ_EOI_GMFN_V2, Anyone;
        IrqStatusQuery = PHYSDEVOP_IRQ_STATUS_QUERY, Anyone;
        SetIopl = PHYSDEVOP_SET_IOPL, Anyone;
        SetIobitmap = PHYSDEVOP_SET_IOBITMAP, Anyone;
        ApicRead = PHYSDEVOP_APIC_READ, Control;
        ApicWrite = PHYSDEVOP_APIC_WRITE, Control, "only how a line signals has an effect, as in Xen";
        AllocIrqVector = PHYSDEVOP_ALLOC_IRQ_VECTOR, Control, "answers the interrupt's own number, as in Xen";
        MapPirq = PHYSDEVOP_MAP_PIRQ, Control, "several messages of one MSI capability: `EOPNOTSUPP`, as in Xen without interrupt remapping";
        UnmapPirq = PHYSDEVOP_UNMAP_PIRQ, Control;
        ManagePciAdd = PHYSDEVOP_MANAGE_PCI_ADD, Control;
        ManagePciRemove = PHYSDEVOP_MANAGE_PCI_REMOVE, Control;
        RestoreMsi = PHYSDEVOP_RESTORE_MSI, Control;
        ManagePciAddExt = PHYSDEVOP_MANAGE_PCI_ADD_EXT, Control;
        SetupGsi = PHYSDEVOP_SETUP_GSI, Control;
        GetFreePirq = PHYSDEVOP_GET_FREE_PIRQ, Anyone;
        PciMmcfgReserved = PHYSDEVOP_PCI_MMCFG_RESERVED, Control;
        PciDeviceAdd = PHYSDEVOP_PCI_DEVICE_ADD, Control;
        PciDeviceRemove = PHYSDEVOP_PCI_DEVICE_REMOVE, Control;
        RestoreMsiExt = PHYSDEVOP_RESTORE_MSI_EXT, Control;
        PrepareMsix = PHYSDEVOP_PREPARE_MSIX, Control;
        ReleaseMsix = PHYSDEVOP_RELEASE_MSIX, Control;
        DbgpOp = PHYSDEVOP_DBGP_OP, Control, "no console is behind a debug port, so there is nothing to save";
    }
    refused {
        PHYSDEVOP_FREE_IRQ_VECTOR, Anyone, ENOSYS, "obsolete in Xen";
    }
}

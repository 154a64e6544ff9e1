//! `physdev_op`: which operations there are, and whose they are.

use xen_abi::physdev::*;

operations! {
    /// An operation on I/O privilege, interrupts and PCI devices.
    PhysdevOp = "physdev_op" in "physdev.h", others: Anyone ENOSYS;
    served {
        SetIopl = PHYSDEVOP_SET_IOPL, Anyone;
        SetIobitmap = PHYSDEVOP_SET_IOBITMAP, Anyone;
    }
    refused {
        PHYSDEVOP_EOI, Anyone, ENOSYS, "not yet";
        PHYSDEVOP_PIRQ_EOI_GMFN_V1, Anyone, ENOSYS, "not yet";
        PHYSDEVOP_PIRQ_EOI_GMFN_V2, Anyone, ENOSYS, "not yet";
        PHYSDEVOP_IRQ_STATUS_QUERY, Anyone, ENOSYS, "not yet";
        PHYSDEVOP_APIC_READ, Control, ENOSYS, "not yet";
        PHYSDEVOP_APIC_WRITE, Control, ENOSYS, "not yet";
        PHYSDEVOP_ALLOC_IRQ_VECTOR, Control, ENOSYS, "not yet";
        PHYSDEVOP_FREE_IRQ_VECTOR, Control, ENOSYS, "not yet";
        PHYSDEVOP_MAP_PIRQ, Anyone, ENOSYS, "not yet";
        PHYSDEVOP_UNMAP_PIRQ, Anyone, ENOSYS, "not yet";
        PHYSDEVOP_MANAGE_PCI_ADD, Control, ENOSYS, "not yet";
        PHYSDEVOP_MANAGE_PCI_REMOVE, Control, ENOSYS, "not yet";
        PHYSDEVOP_RESTORE_MSI, Control, ENOSYS, "not yet";
        PHYSDEVOP_MANAGE_PCI_ADD_EXT, Control, ENOSYS, "not yet";
        PHYSDEVOP_SETUP_GSI, Control, ENOSYS, "not yet";
        PHYSDEVOP_GET_FREE_PIRQ, Anyone, ENOSYS, "not yet";
        PHYSDEVOP_PCI_MMCFG_RESERVED, Control, ENOSYS, "not yet";
        PHYSDEVOP_PCI_DEVICE_ADD, Control, ENOSYS, "not yet";
        PHYSDEVOP_PCI_DEVICE_REMOVE, Control, ENOSYS, "not yet";
        PHYSDEVOP_RESTORE_MSI_EXT, Control, ENOSYS, "not yet";
        PHYSDEVOP_PREPARE_MSIX, Control, ENOSYS, "not yet";
        PHYSDEVOP_RELEASE_MSIX, Control, ENOSYS, "not yet";
        PHYSDEVOP_DBGP_OP, Control, ENOSYS, "not yet";
    }
}

//! `physdev_op` (`physdev.h`): interrupts and PCI devices, and a PV guest's I/O privilege.

use crate::ids::DomId;
use crate::layout::{constants, structures};

constants! {
    /// [`Eoi`].
    pub const PHYSDEVOP_EOI: u32 = 12;
    /// [`PirqEoiGmfn`].
    pub const PHYSDEVOP_PIRQ_EOI_GMFN_V1: u32 = 17;
    /// [`PirqEoiGmfn`].
    pub const PHYSDEVOP_PIRQ_EOI_GMFN_V2: u32 = 28;
    /// [`IrqStatusQuery`].
    pub const PHYSDEVOP_IRQ_STATUS_QUERY: u32 = 5;
    /// [`IrqStatusQuery::flags`].
    pub const XENIRQSTAT_NEEDS_EOI: u32 = 1;
    pub const XENIRQSTAT_SHARED: u32 = 2;
    /// [`SetIopl`].
    pub const PHYSDEVOP_SET_IOPL: u32 = 6;
    /// [`SetIobitmap`].
    pub const PHYSDEVOP_SET_IOBITMAP: u32 = 7;
    /// [`Apic`].
    pub const PHYSDEVOP_APIC_READ: u32 = 8;
    /// [`Apic`].
    pub const PHYSDEVOP_APIC_WRITE: u32 = 9;
    /// [`Irq`].
    pub const PHYSDEVOP_ALLOC_IRQ_VECTOR: u32 = 10;
    pub const PHYSDEVOP_FREE_IRQ_VECTOR: u32 = 11;
    /// [`MapPirq::type_`].
    pub const MAP_PIRQ_TYPE_MSI: u32 = 0;
    pub const MAP_PIRQ_TYPE_GSI: u32 = 1;
    pub const MAP_PIRQ_TYPE_UNKNOWN: u32 = 2;
    pub const MAP_PIRQ_TYPE_MSI_SEG: u32 = 3;
    pub const MAP_PIRQ_TYPE_MULTI_MSI: u32 = 4;
    /// [`MapPirq`].
    pub const PHYSDEVOP_MAP_PIRQ: u32 = 13;
    /// [`UnmapPirq`].
    pub const PHYSDEVOP_UNMAP_PIRQ: u32 = 14;
    /// [`ManagePci`].
    pub const PHYSDEVOP_MANAGE_PCI_ADD: u32 = 15;
    /// [`ManagePci`].
    pub const PHYSDEVOP_MANAGE_PCI_REMOVE: u32 = 16;
    /// [`ManagePci`].
    pub const PHYSDEVOP_RESTORE_MSI: u32 = 19;
    /// [`ManagePciExt`].
    pub const PHYSDEVOP_MANAGE_PCI_ADD_EXT: u32 = 20;
    /// [`SetupGsi`].
    pub const PHYSDEVOP_SETUP_GSI: u32 = 21;
    /// [`GetFreePirq`].
    pub const PHYSDEVOP_GET_FREE_PIRQ: u32 = 23;
    /// [`PciMmcfgReserved::flags`].
    pub const XEN_PCI_MMCFG_RESERVED: u32 = 1;
    /// [`PciMmcfgReserved`].
    pub const PHYSDEVOP_PCI_MMCFG_RESERVED: u32 = 24;
    /// [`PciDeviceAdd::flags`].
    pub const XEN_PCI_DEV_EXTFN: u32 = 1;
    pub const XEN_PCI_DEV_VIRTFN: u32 = 2;
    pub const XEN_PCI_DEV_PXM: u32 = 4;
    /// [`PciDeviceAdd`].
    pub const PHYSDEVOP_PCI_DEVICE_ADD: u32 = 25;
    /// [`PciDevice`].
    pub const PHYSDEVOP_PCI_DEVICE_REMOVE: u32 = 26;
    /// [`PciDevice`].
    pub const PHYSDEVOP_RESTORE_MSI_EXT: u32 = 27;
    /// [`PciDevice`].
    pub const PHYSDEVOP_PREPARE_MSIX: u32 = 30;
    /// [`PciDevice`].
    pub const PHYSDEVOP_RELEASE_MSIX: u32 = 31;
    pub const PHYSDEVOP_DBGP_RESET_PREPARE: u32 = 1;
    pub const PHYSDEVOP_DBGP_RESET_DONE: u32 = 2;
    pub const PHYSDEVOP_DBGP_BUS_UNKNOWN: u32 = 0;
    pub const PHYSDEVOP_DBGP_BUS_PCI: u32 = 1;
    /// [`DbgpOp`].
    pub const PHYSDEVOP_DBGP_OP: u32 = 29;
    pub const PHYSDEVOP_PIRQ_EOI_GMFN: u32 = 28;
}

structures! {
    pub struct Eoi = "struct physdev_eoi" {
        pub irq: u32,
    }
    pub struct PirqEoiGmfn = "struct physdev_pirq_eoi_gmfn" {
        /// Frame of the bitmap of pirqs that need an EOI.
        pub gmfn: u64,
    }
    pub struct IrqStatusQuery = "struct physdev_irq_status_query" {
        pub irq: u32,
        /// Out: `XENIRQSTAT_*`.
        pub flags: u32,
    }
    pub struct SetIopl = "struct physdev_set_iopl" {
        pub iopl: u32,
    }
    pub struct SetIobitmap = "struct physdev_set_iobitmap" {
        /// Virtual address; a clear bit permits.
        pub bitmap: u64,
        pub nr_ports: u32,
        pub _pad: u32,
    }
    pub struct Apic = "struct physdev_apic" {
        pub apic_physbase: u64,
        pub reg: u32,
        pub value: u32,
    }
    pub struct Irq = "struct physdev_irq" {
        pub irq: u32,
        pub vector: u32,
    }
    pub struct MapPirq = "struct physdev_map_pirq" {
        pub domid: DomId,
        pub _pad0: u16,
        /// `MAP_PIRQ_TYPE_*`.
        pub type_: i32 => "type",
        /// GSI; ignored for MSI.
        pub index: i32,
        /// In: wanted, negative: any. Out: given.
        pub pirq: i32,
        /// Bus, and segment `<< 16`.
        pub bus: i32,
        pub devfn: i32,
        /// MSI-X entry, or in and out: number of MSI vectors.
        pub entry_nr: i32,
        pub _pad1: u32,
        /// MSI-X: machine address of the table; 0 for MSI.
        pub table_base: u64,
    }
    pub struct UnmapPirq = "struct physdev_unmap_pirq" {
        pub domid: DomId,
        pub _pad: u16,
        pub pirq: i32,
    }
    pub struct ManagePci = "struct physdev_manage_pci" {
        pub bus: u8,
        pub devfn: u8,
    }
    pub struct ManagePciExt = "struct physdev_manage_pci_ext" {
        pub bus: u8,
        pub devfn: u8,
        pub _pad0: u16,
        pub is_extfn: u32,
        pub is_virtfn: u32,
        pub physfn_bus: u8 => "physfn.bus",
        pub physfn_devfn: u8 => "physfn.devfn",
        pub _pad1: u16,
    }
    /// Argument of the older `physdev_op_compat`.
    pub struct PhysdevOp = "struct physdev_op" {
        /// `PHYSDEVOP_*`.
        pub cmd: u32,
        pub _pad: u32,
        /// The operation's own structure.
        pub u: [u64; 2],
    }
    pub struct SetupGsi = "struct physdev_setup_gsi" {
        pub gsi: i32,
        /// 0 edge, 1 level.
        pub triggering: u8,
        /// 0 active high, 1 active low.
        pub polarity: u8,
        pub _pad: u16,
    }
    pub struct GetFreePirq = "struct physdev_get_free_pirq" {
        /// `MAP_PIRQ_TYPE_*`.
        pub type_: i32 => "type",
        /// Out.
        pub pirq: u32,
    }
    pub struct PciMmcfgReserved = "struct physdev_pci_mmcfg_reserved" {
        pub address: u64,
        pub segment: u16,
        pub start_bus: u8,
        pub end_bus: u8,
        /// [`XEN_PCI_MMCFG_RESERVED`].
        pub flags: u32,
    }
    /// Optional words follow: the proximity domain with `XEN_PCI_DEV_PXM`.
    pub struct PciDeviceAdd = "struct physdev_pci_device_add" {
        pub seg: u16,
        pub bus: u8,
        pub devfn: u8,
        /// `XEN_PCI_DEV_*`.
        pub flags: u32,
        pub physfn_bus: u8 => "physfn.bus",
        pub physfn_devfn: u8 => "physfn.devfn",
        pub _pad: u16,
    }
    pub struct PciDevice = "struct physdev_pci_device" {
        pub seg: u16,
        pub bus: u8,
        pub devfn: u8,
    }
    pub struct DbgpOp = "struct physdev_dbgp_op" {
        pub op: u8,
        /// `PHYSDEVOP_DBGP_BUS_*`.
        pub bus: u8,
        pub pci: PciDevice => "u.pci",
    }
}

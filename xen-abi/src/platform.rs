//! `platform_op` (`platform.h`, interface version 0x03000001): dom0's view of the firmware and the CPUs.

use crate::layout::{constants, structures};

constants! {
    /// What callers must put into [`PlatformOp::interface_version`].
    pub const XENPF_INTERFACE_VERSION: u32 = 0x0300_0001;
    /// [`SetTime32`].
    pub const XENPF_SETTIME32: u32 = 17;
    /// [`SetTime64`].
    pub const XENPF_SETTIME64: u32 = 62;
    pub const XENPF_ADD_MEMTYPE: u32 = 31;
    pub const XENPF_DEL_MEMTYPE: u32 = 32;
    pub const XENPF_READ_MEMTYPE: u32 = 33;
    /// [`MicrocodeUpdate`].
    pub const XENPF_MICROCODE_UPDATE: u32 = 35;
    /// [`PlatformQuirk`].
    pub const XENPF_PLATFORM_QUIRK: u32 = 39;
    pub const QUIRK_NOIRQBALANCING: u32 = 1;
    pub const QUIRK_IOAPIC_BAD_REGSEL: u32 = 2;
    pub const QUIRK_IOAPIC_GOOD_REGSEL: u32 = 3;
    pub const XENPF_EFI_RUNTIME_CALL: u32 = 49;
    /// [`FirmwareInfo`].
    pub const XENPF_FIRMWARE_INFO: u32 = 50;
    /// [`FirmwareInfo::type_`].
    pub const XEN_FW_DISK_INFO: u32 = 1;
    pub const XEN_FW_DISK_MBR_SIGNATURE: u32 = 2;
    pub const XEN_FW_VBEDDC_INFO: u32 = 3;
    pub const XEN_FW_EFI_INFO: u32 = 4;
    /// [`FirmwareInfo::index`] of `XEN_FW_EFI_INFO`.
    pub const XEN_FW_EFI_VERSION: u32 = 0;
    pub const XEN_FW_EFI_CONFIG_TABLE: u32 = 1;
    pub const XEN_FW_EFI_VENDOR: u32 = 2;
    pub const XEN_FW_EFI_MEM_INFO: u32 = 3;
    pub const XEN_FW_EFI_RT_VERSION: u32 = 4;
    pub const XEN_FW_EFI_PCI_ROM: u32 = 5;
    pub const XEN_FW_EFI_APPLE_PROPERTIES: u32 = 6;
    pub const XEN_FW_KBD_SHIFT_FLAGS: u32 = 5;
    /// [`EnterAcpiSleep`].
    pub const XENPF_ENTER_ACPI_SLEEP: u32 = 51;
    /// [`EnterAcpiSleep::flags`].
    pub const XENPF_ACPI_SLEEP_EXTENDED: u32 = 1;
    /// [`ChangeFreq`].
    pub const XENPF_CHANGE_FREQ: u32 = 52;
    /// [`GetIdleTime`].
    pub const XENPF_GETIDLETIME: u32 = 53;
    /// [`SetProcessorPminfo`].
    pub const XENPF_SET_PROCESSOR_PMINFO: u32 = 54;
    /// Bits telling dom0 which states the hypervisor governs.
    pub const XEN_PROCESSOR_PM_CX: u32 = 1;
    pub const XEN_PROCESSOR_PM_PX: u32 = 2;
    pub const XEN_PROCESSOR_PM_TX: u32 = 4;
    /// [`SetProcessorPminfo::type_`].
    pub const XEN_PM_CX: u32 = 0;
    pub const XEN_PM_PX: u32 = 1;
    pub const XEN_PM_TX: u32 = 2;
    pub const XEN_PM_PDC: u32 = 3;
    pub const XEN_PX_PCT: u32 = 1;
    pub const XEN_PX_PSS: u32 = 2;
    pub const XEN_PX_PPC: u32 = 4;
    pub const XEN_PX_PSD: u32 = 8;
    pub const XEN_CPUPERF_SHARED_TYPE_HW: u32 = 1;
    pub const XEN_CPUPERF_SHARED_TYPE_ALL: u32 = 2;
    pub const XEN_CPUPERF_SHARED_TYPE_ANY: u32 = 3;
    /// [`PcpuInfo`].
    pub const XENPF_GET_CPUINFO: u32 = 55;
    /// [`PcpuInfo::flags`].
    pub const XEN_PCPU_FLAGS_ONLINE: u32 = 1;
    pub const XEN_PCPU_FLAGS_INVALID: u32 = 2;
    /// [`PcpuVersion`].
    pub const XENPF_GET_CPU_VERSION: u32 = 48;
    /// [`CpuOl`].
    pub const XENPF_CPU_ONLINE: u32 = 56;
    /// [`CpuOl`].
    pub const XENPF_CPU_OFFLINE: u32 = 57;
    /// [`CpuHotadd`].
    pub const XENPF_CPU_HOTADD: u32 = 58;
    /// [`MemHotadd`].
    pub const XENPF_MEM_HOTADD: u32 = 59;
    /// [`CoreParking`].
    pub const XENPF_CORE_PARKING: u32 = 60;
    pub const XEN_CORE_PARKING_SET: u32 = 1;
    pub const XEN_CORE_PARKING_GET: u32 = 2;
    /// [`ResourceOp`].
    pub const XENPF_RESOURCE_OP: u32 = 61;
    pub const XEN_RESOURCE_OP_MSR_READ: u32 = 0;
    pub const XEN_RESOURCE_OP_MSR_WRITE: u32 = 1;
    /// [`SymData`].
    pub const XENPF_GET_SYMBOL: u32 = 63;
}

structures! {
    /// The argument: a header and 128 bytes, whose start is one of the payloads below.
    #[repr(align(8))]
    pub struct PlatformOp = "struct xen_platform_op" {
        /// `XENPF_*`.
        pub cmd: u32,
        /// [`XENPF_INTERFACE_VERSION`].
        pub interface_version: u32,
        /// The payload.
        pub u: [u8; 128],
    }
    pub struct SetTime32 = "struct xenpf_settime32" {
        /// Unix time.
        pub secs: u32,
        pub nsecs: u32,
        /// Nanoseconds since boot at that time.
        pub system_time: u64,
    }
    pub struct SetTime64 = "struct xenpf_settime64" {
        /// Unix time.
        pub secs: u64,
        pub nsecs: u32,
        pub mbz: u32,
        /// Nanoseconds since boot at that time.
        pub system_time: u64,
    }
    pub struct MicrocodeUpdate = "struct xenpf_microcode_update" {
        /// Virtual address.
        pub data: u64,
        /// Bytes.
        pub length: u32,
        pub _pad: u32,
    }
    pub struct PlatformQuirk = "struct xenpf_platform_quirk" {
        /// `QUIRK_*`.
        pub quirk_id: u32,
    }
    pub struct FirmwareInfo = "struct xenpf_firmware_info" {
        /// `XEN_FW_*`.
        pub type_: u32 => "type",
        pub index: u32,
        /// A `FirmwareDiskInfo`, `FirmwareMbrSignature`, `FirmwareVbeddcInfo` or shift flags (u8), or EFI data.
        pub u: [u64; 4],
    }
    pub struct FirmwareDiskInfo = "__typeof__(((struct xenpf_firmware_info *)0)->u.disk_info)" {
        pub device: u8,
        pub version: u8,
        pub interface_support: u16,
        pub legacy_max_cylinder: u16,
        pub legacy_max_head: u8,
        pub legacy_sectors_per_track: u8,
        /// Virtual address.
        pub edd_params: u64,
    }
    pub struct FirmwareMbrSignature = "__typeof__(((struct xenpf_firmware_info *)0)->u.disk_mbr_signature)" {
        pub device: u8,
        pub _pad: [u8; 3],
        pub mbr_signature: u32,
    }
    pub struct FirmwareVbeddcInfo = "__typeof__(((struct xenpf_firmware_info *)0)->u.vbeddc_info)" {
        pub capabilities: u8,
        pub edid_transfer_time: u8,
        pub _pad: [u8; 6],
        /// Virtual address of 128 bytes.
        pub edid: u64,
    }
    pub struct EnterAcpiSleep = "struct xenpf_enter_acpi_sleep" {
        pub val_a: u16,
        pub val_b: u16,
        /// 1..=5.
        pub sleep_state: u32,
        /// [`XENPF_ACPI_SLEEP_EXTENDED`].
        pub flags: u32,
    }
    pub struct ChangeFreq = "struct xenpf_change_freq" {
        pub flags: u32,
        pub cpu: u32,
        /// Hz.
        pub freq: u64,
    }
    pub struct GetIdleTime = "struct xenpf_getidletime" {
        /// Virtual address; in: CPUs asked, out: CPUs known.
        pub cpumap_bitmap: u64,
        pub cpumap_nr_cpus: u32,
        pub _pad: u32,
        /// Virtual address of u64, nanoseconds.
        pub idletime: u64,
        /// System time.
        pub now: u64,
    }
    pub struct SetProcessorPminfo = "struct xenpf_set_processor_pminfo" {
        /// ACPI id.
        pub id: u32,
        /// `XEN_PM_*`.
        pub type_: u32 => "type",
        /// By type: power states, performance states, or the virtual address of the _PDC buffer.
        pub u: [u64; 13],
    }
    pub struct PcpuInfo = "struct xenpf_pcpuinfo" {
        pub xen_cpuid: u32,
        /// Out: highest CPU present.
        pub max_present: u32,
        /// `XEN_PCPU_FLAGS_*`.
        pub flags: u32,
        pub apic_id: u32,
        pub acpi_id: u32,
    }
    pub struct PcpuVersion = "struct xenpf_pcpu_version" {
        pub xen_cpuid: u32,
        /// Out: highest CPU present.
        pub max_present: u32,
        pub vendor_id: [u8; 12],
        pub family: u32,
        pub model: u32,
        pub stepping: u32,
    }
    pub struct CpuOl = "struct xenpf_cpu_ol" {
        pub cpuid: u32,
    }
    pub struct CpuHotadd = "struct xenpf_cpu_hotadd" {
        pub apic_id: u32,
        pub acpi_id: u32,
        pub pxm: u32,
    }
    pub struct MemHotadd = "struct xenpf_mem_hotadd" {
        pub spfn: u64,
        pub epfn: u64,
        pub pxm: u32,
        pub flags: u32,
    }
    pub struct CoreParking = "struct xenpf_core_parking" {
        /// `XEN_CORE_PARKING_*`.
        pub type_: u32 => "type",
        pub idle_nums: u32,
    }
    pub struct ResourceEntry = "struct xenpf_resource_entry" {
        /// In: `XEN_RESOURCE_OP_*`. Out: negated error.
        pub cmd: u32 => "u.cmd",
        pub rsvd: u32,
        pub idx: u64,
        pub val: u64,
    }
    pub struct ResourceOp = "struct xenpf_resource_op" {
        pub nr_entries: u32,
        pub cpu: u32,
        /// Virtual address of [`ResourceEntry`].
        pub entries: u64,
    }
    pub struct SymData = "struct xenpf_symdata" {
        pub namelen: u32,
        pub symnum: u32,
        /// Virtual address.
        pub name: u64,
        pub address: u64,
        /// As `nm` prints it.
        pub type_: u8 => "type",
        pub _pad: [u8; 7],
    }
}

//! `platform_op`: which operations there are. All are the control domain's.

use xen_abi::platform::*;

operations! {
    /// An operation on the machine.
    PlatformOp = "platform_op" in "platform.h", others: Control ENOSYS;
    served {
        SetTime32 = XENPF_SETTIME32, Control;
        FirmwareInfo = XENPF_FIRMWARE_INFO, Control, "`ESRCH`: a multiboot loader leaves no disks and no monitor to tell of";
        EnterAcpiSleep = XENPF_ENTER_ACPI_SLEEP, Control, "off (S5); `EOPNOTSUPP` for the others";
        GetCpuinfo = XENPF_GET_CPUINFO, Control;
        GetCpuVersion = XENPF_GET_CPU_VERSION, Control;
        CpuOnline = XENPF_CPU_ONLINE, Control, "of one that is";
        CpuOffline = XENPF_CPU_OFFLINE, Control, "`EOPNOTSUPP`: CPUs stay";
        CoreParking = XENPF_CORE_PARKING, Control, "none is parked; `EOPNOTSUPP` to set";
        SetTime64 = XENPF_SETTIME64, Control;
    }
    refused {
        XENPF_ADD_MEMTYPE, Control, ENOSYS, "the firmware's memory types stay";
        XENPF_DEL_MEMTYPE, Control, ENOSYS, "the firmware's memory types stay";
        XENPF_READ_MEMTYPE, Control, ENOSYS, "the firmware's memory types stay";
        XENPF_MICROCODE_UPDATE, Control, ENOSYS, "no microcode";
        XENPF_PLATFORM_QUIRK, Control, ENOSYS, "no chipset is known to need one";
        XENPF_EFI_RUNTIME_CALL, Control, ENOSYS, "as in Xen, where it was not started by EFI";
        XENPF_CHANGE_FREQ, Control, ENOSYS, "as in Xen, where dom0 does not set frequencies";
        XENPF_GETIDLETIME, Control, ENOSYS, "as in Xen, where dom0 does not set frequencies";
        XENPF_SET_PROCESSOR_PMINFO, Control, ENOSYS, "no power states; `start_info` says so";
        XENPF_CPU_HOTADD, Control, ENOSYS, "CPUs stay";
        XENPF_MEM_HOTADD, Control, ENOSYS, "memory stays";
        XENPF_RESOURCE_OP, Control, ENOSYS, "no cache allocation";
        XENPF_GET_SYMBOL, Control, ENOSYS, "no symbols in the image";
    }
}

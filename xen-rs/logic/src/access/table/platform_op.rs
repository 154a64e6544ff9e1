//! `platform_op`: which operations there are. All are the control domain's.

use xen_abi::platform::*;

operations! {
    /// An operation on the machine.
    PlatformOp = "platform_op" in "platform.h", others: Control ENOSYS;
    served {}
    refused {
        XENPF_SETTIME32, Control, ENOSYS, "not yet";
        XENPF_SETTIME64, Control, ENOSYS, "not yet";
        XENPF_ADD_MEMTYPE, Control, ENOSYS, "not yet";
        XENPF_DEL_MEMTYPE, Control, ENOSYS, "not yet";
        XENPF_READ_MEMTYPE, Control, ENOSYS, "not yet";
        XENPF_MICROCODE_UPDATE, Control, ENOSYS, "not yet";
        XENPF_PLATFORM_QUIRK, Control, ENOSYS, "not yet";
        XENPF_EFI_RUNTIME_CALL, Control, ENOSYS, "not yet";
        XENPF_FIRMWARE_INFO, Control, ENOSYS, "not yet";
        XENPF_ENTER_ACPI_SLEEP, Control, ENOSYS, "not yet";
        XENPF_CHANGE_FREQ, Control, ENOSYS, "not yet";
        XENPF_GETIDLETIME, Control, ENOSYS, "not yet";
        XENPF_SET_PROCESSOR_PMINFO, Control, ENOSYS, "not yet";
        XENPF_GET_CPUINFO, Control, ENOSYS, "not yet";
        XENPF_GET_CPU_VERSION, Control, ENOSYS, "not yet";
        XENPF_CPU_ONLINE, Control, ENOSYS, "not yet";
        XENPF_CPU_OFFLINE, Control, ENOSYS, "not yet";
        XENPF_CPU_HOTADD, Control, ENOSYS, "not yet";
        XENPF_MEM_HOTADD, Control, ENOSYS, "not yet";
        XENPF_CORE_PARKING, Control, ENOSYS, "not yet";
        XENPF_RESOURCE_OP, Control, ENOSYS, "not yet";
        XENPF_GET_SYMBOL, Control, ENOSYS, "not yet";
    }
}

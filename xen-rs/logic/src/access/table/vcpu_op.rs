//! `vcpu_op`: which operations there are, and whose they are.

use xen_abi::vcpu::*;

operations! {
    /// An operation on a vCPU of the caller.
    VcpuOp = "vcpu_op" in "vcpu.h", others: Anyone ENOSYS;
    served {
        Initialise = VCPUOP_INITIALISE, Anyone;
        Up = VCPUOP_UP, Anyone;
        Down = VCPUOP_DOWN, Anyone;
        IsUp = VCPUOP_IS_UP, Anyone;
        GetRunstateInfo = VCPUOP_GET_RUNSTATE_INFO, Anyone;
        RegisterRunstateMemoryArea = VCPUOP_REGISTER_RUNSTATE_MEMORY_AREA, Anyone;
        SetPeriodicTimer = VCPUOP_SET_PERIODIC_TIMER, Anyone;
        StopPeriodicTimer = VCPUOP_STOP_PERIODIC_TIMER, Anyone;
        SetSingleshotTimer = VCPUOP_SET_SINGLESHOT_TIMER, Anyone;
        StopSingleshotTimer = VCPUOP_STOP_SINGLESHOT_TIMER, Anyone;
        RegisterVcpuInfo = VCPUOP_REGISTER_VCPU_INFO, Anyone;
        SendNmi = VCPUOP_SEND_NMI, Anyone;
        GetPhysid = VCPUOP_GET_PHYSID, Anyone, "pinned vCPUs of the hardware domain; else `EINVAL`";
        RegisterVcpuTimeMemoryArea = VCPUOP_REGISTER_VCPU_TIME_MEMORY_AREA, Anyone;
    }
    refused {}
}

//! `vcpu_op` (`vcpu.h`).

use crate::layout::{constants, structures};

constants! {
    /// [`crate::arch_x86::VcpuGuestContext`] for PV.
    pub const VCPUOP_INITIALISE: u32 = 0;
    pub const VCPUOP_UP: u32 = 1;
    pub const VCPUOP_DOWN: u32 = 2;
    /// Returns 1 or 0.
    pub const VCPUOP_IS_UP: u32 = 3;
    /// [`VcpuRunstateInfo`].
    pub const VCPUOP_GET_RUNSTATE_INFO: u32 = 4;
    /// [`VcpuRegisterRunstateMemoryArea`].
    pub const VCPUOP_REGISTER_RUNSTATE_MEMORY_AREA: u32 = 5;
    /// [`VcpuSetPeriodicTimer`].
    pub const VCPUOP_SET_PERIODIC_TIMER: u32 = 6;
    pub const VCPUOP_STOP_PERIODIC_TIMER: u32 = 7;
    /// [`VcpuSetSingleshotTimer`].
    pub const VCPUOP_SET_SINGLESHOT_TIMER: u32 = 8;
    pub const VCPUOP_STOP_SINGLESHOT_TIMER: u32 = 9;
    /// [`VcpuRegisterVcpuInfo`].
    pub const VCPUOP_REGISTER_VCPU_INFO: u32 = 10;
    pub const VCPUOP_SEND_NMI: u32 = 11;
    /// [`VcpuGetPhysid`].
    pub const VCPUOP_GET_PHYSID: u32 = 12;
    /// [`VcpuRegisterTimeMemoryArea`].
    pub const VCPUOP_REGISTER_VCPU_TIME_MEMORY_AREA: u32 = 13;

    pub const RUNSTATE_RUNNING: u32 = 0;
    pub const RUNSTATE_RUNNABLE: u32 = 1;
    pub const RUNSTATE_BLOCKED: u32 = 2;
    pub const RUNSTATE_OFFLINE: u32 = 3;
    /// In `state_entry_time` while the record is being written.
    pub const XEN_RUNSTATE_UPDATE: u64 = 1 << 63;
    /// [`VcpuSetSingleshotTimer::flags`]: fail with ETIME when the time has passed.
    pub const VCPU_SSHOTTMR_FUTURE: u32 = 1 << 0;
}

structures! {
    /// Where a vCPU's time went.
    pub struct VcpuRunstateInfo = "struct vcpu_runstate_info" {
        /// `RUNSTATE_*`.
        pub state: u32,
        pub _pad: u32,
        /// System time in nanoseconds.
        pub state_entry_time: u64,
        /// Nanoseconds in each state.
        pub time: [u64; 4],
    }
    pub struct VcpuRegisterRunstateMemoryArea = "struct vcpu_register_runstate_memory_area" {
        /// Virtual address of a [`VcpuRunstateInfo`].
        pub addr: u64,
    }
    pub struct VcpuSetPeriodicTimer = "struct vcpu_set_periodic_timer" {
        pub period_ns: u64,
    }
    pub struct VcpuSetSingleshotTimer = "struct vcpu_set_singleshot_timer" {
        /// System time in nanoseconds.
        pub timeout_abs_ns: u64,
        /// [`VCPU_SSHOTTMR_FUTURE`].
        pub flags: u32,
        pub _pad: u32,
    }
    pub struct VcpuRegisterVcpuInfo = "struct vcpu_register_vcpu_info" {
        /// Guest frame.
        pub mfn: u64,
        /// Bytes within the frame.
        pub offset: u32,
        pub rsvd: u32,
    }
    pub struct VcpuGetPhysid = "struct vcpu_get_physid" {
        /// APIC id, and ACPI id `<< 32`.
        pub phys_id: u64,
    }
    pub struct VcpuRegisterTimeMemoryArea = "struct vcpu_register_time_memory_area" {
        /// Virtual address of a [`crate::arch_x86::VcpuTimeInfo`].
        pub addr: u64,
    }
}

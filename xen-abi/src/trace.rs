//! Trace buffers (`trace.h`): what a monitor in the control domain reads while things happen.
//!
//! A record is a header word (event, number of data words, whether a time stamp follows), the time stamp as two words if it
//! has one, and up to seven words of data.

use crate::layout::{constants, structures};

constants! {
    /// All classes, for the event mask.
    pub const TRC_ALL: u32 = 0x0fff_f000;
    /// From a class's mask to its event.
    pub const TRC_CLS_SHIFT: u32 = 16;
    pub const TRC_SUBCLS_SHIFT: u32 = 12;
    /// Data: records lost (u32), domain and vCPU (u16 each), time stamp of the first (u64).
    pub const TRC_LOST_RECORDS: u32 = 0x0001_f001;
    /// Fills the buffer up to its end.
    pub const TRC_TRACE_WRAP_BUFFER: u32 = 0x0001_f002;
    /// With the old state in bits 8-9 and the new one in bits 4-5. Data: vCPU and domain (u16 each).
    pub const TRC_SCHED_RUNSTATE_CHANGE: u32 = 0x0002_1001;
    /// Data: domain.
    pub const TRC_SCHED_DOM_ADD: u32 = 0x0002_8001;
    /// Data: domain.
    pub const TRC_SCHED_DOM_REM: u32 = 0x0002_8002;
    /// Data: domain, vCPU.
    pub const TRC_SCHED_WAKE: u32 = 0x0002_8004;
    /// Data: domain, vCPU.
    pub const TRC_SCHED_YIELD: u32 = 0x0002_8005;
    /// Data: domain, vCPU.
    pub const TRC_SCHED_BLOCK: u32 = 0x0002_8006;
    /// Data: domain, vCPU, reason.
    pub const TRC_SCHED_SHUTDOWN: u32 = 0x0002_8007;
    /// Data: domain and vCPU that ran, domain and vCPU that run now.
    pub const TRC_SCHED_SWITCH: u32 = 0x0002_800a;
    /// Data: rip (u64), vector and error code.
    pub const TRC_PV_TRAP: u32 = 0x0020_1003;
    /// Data: rip (u64), address (u64), error code.
    pub const TRC_PV_PAGE_FAULT: u32 = 0x0020_1004;
    /// Data: number, and which arguments follow.
    pub const TRC_PV_HYPERCALL_V2: u32 = 0x0020_100d;
    /// Addresses in the data have 64 bits.
    pub const TRC_64_FLAG: u32 = 0x100;
}

structures! {
    /// At the start of each CPU's buffer. Positions count modulo twice the bytes that follow.
    pub struct TBuf = "struct t_buf" {
        /// What the monitor has read; it writes this.
        pub cons: u32,
        /// What the hypervisor has written.
        pub prod: u32,
    }
}

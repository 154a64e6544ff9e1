//! `sched_op` (`sched.h`).

use crate::ids::DomId;
use crate::layout::{constants, structures};

constants! {
    pub const SCHEDOP_YIELD: u32 = 0;
    /// Unmask event upcalls and wait for one.
    pub const SCHEDOP_BLOCK: u32 = 1;
    /// [`SchedShutdown`].
    pub const SCHEDOP_SHUTDOWN: u32 = 2;
    /// [`SchedPoll`].
    pub const SCHEDOP_POLL: u32 = 3;
    /// [`SchedRemoteShutdown`].
    pub const SCHEDOP_REMOTE_SHUTDOWN: u32 = 4;
    /// [`SchedShutdown`]: latch the reason; the vCPU goes on.
    pub const SCHEDOP_SHUTDOWN_CODE: u32 = 5;
    /// [`SchedWatchdog`]: returns the new watchdog's id, or 0.
    pub const SCHEDOP_WATCHDOG: u32 = 6;
    /// [`SchedPinOverride`].
    pub const SCHEDOP_PIN_OVERRIDE: u32 = 7;

    pub const SHUTDOWN_POWEROFF: u32 = 0;
    pub const SHUTDOWN_REBOOT: u32 = 1;
    pub const SHUTDOWN_SUSPEND: u32 = 2;
    pub const SHUTDOWN_CRASH: u32 = 3;
    pub const SHUTDOWN_WATCHDOG: u32 = 4;
    pub const SHUTDOWN_SOFT_RESET: u32 = 5;
    pub const SHUTDOWN_MAX: u32 = 5;
}

structures! {
    pub struct SchedShutdown = "struct sched_shutdown" {
        /// `SHUTDOWN_*`.
        pub reason: u32,
    }
    pub struct SchedPoll = "struct sched_poll" {
        /// Virtual address of u32 ports.
        pub ports: u64,
        pub nr_ports: u32,
        pub _pad: u32,
        /// System time in nanoseconds; 0: none.
        pub timeout: u64,
    }
    pub struct SchedRemoteShutdown = "struct sched_remote_shutdown" {
        pub domain_id: DomId,
        pub _pad: u16,
        /// `SHUTDOWN_*`.
        pub reason: u32,
    }
    pub struct SchedWatchdog = "struct sched_watchdog" {
        /// 0: a new one.
        pub id: u32,
        /// Seconds; 0: stop it.
        pub timeout: u32,
    }
    pub struct SchedPinOverride = "struct sched_pin_override" {
        /// Negative: as before.
        pub pcpu: i32,
    }
}

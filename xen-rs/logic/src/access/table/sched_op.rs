//! `sched_op`: which operations there are, and whose they are.

use xen_abi::sched::*;

operations! {
    /// An operation on when the caller runs.
    SchedOp = "sched_op" in "sched.h", others: Anyone ENOSYS;
    served {
        Yield = SCHEDOP_YIELD, Anyone;
        Block = SCHEDOP_BLOCK, Anyone;
        Shutdown = SCHEDOP_SHUTDOWN, Anyone;
        Poll = SCHEDOP_POLL, Anyone;
        RemoteShutdown = SCHEDOP_REMOTE_SHUTDOWN, ControlOfOther;
        ShutdownCode = SCHEDOP_SHUTDOWN_CODE, Anyone;
        Watchdog = SCHEDOP_WATCHDOG, Anyone;
        PinOverride = SCHEDOP_PIN_OVERRIDE, Control;
    }
    refused {}
}

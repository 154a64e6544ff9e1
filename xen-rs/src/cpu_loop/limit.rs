//! The rate limit: who has got a CPU keeps it for a moment, so that those who wake up all the time do not eat the machine by
//! switching.

use logic::time::Nanos;

use super::pools;

/// Until when a vCPU that got this CPU then keeps it.
pub(super) fn keeps_until(cpu: u32, started: Nanos) -> Nanos {
    let microseconds = pools::of_cpu(cpu).map_or(0, pools::rate_limit);
    started.after(Nanos(u64::from(microseconds) * 1000))
}

//! The rate limit: who has got a CPU keeps it for a moment, so that those who wake up all the time do not eat the machine by
//! switching.

use core::sync::atomic::{AtomicU32, Ordering};

use logic::time::Nanos;
use xen_abi::errno::Errno;

/// Microseconds, as Xen has it.
const DEFAULT: u32 = 1000;
/// `XEN_SYSCTL_SCHED_RATELIMIT_MIN` and `_MAX`, in microseconds.
const LIMITS: core::ops::RangeInclusive<u32> = 100..=500_000;

static MICROSECONDS: AtomicU32 = AtomicU32::new(DEFAULT);

/// In microseconds; 0: none.
#[must_use]
pub fn rate_limit() -> u32 {
    MICROSECONDS.load(Ordering::Relaxed)
}

/// Sets it: microseconds, 0 for none. `EINVAL` outside its limits.
pub fn set_rate_limit(microseconds: u32) -> Result<(), Errno> {
    if microseconds != 0 && !LIMITS.contains(&microseconds) {
        return Err(Errno::EINVAL);
    }
    MICROSECONDS.store(microseconds, Ordering::Relaxed);
    Ok(())
}

/// Until when a vCPU that got its CPU then keeps it.
pub(super) fn keeps_until(started: Nanos) -> Nanos {
    started.after(Nanos(u64::from(rate_limit()) * 1000))
}

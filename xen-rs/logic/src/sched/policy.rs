//! Which scheduler a pool of CPUs has, and what may be set of it.
//!
//! Credit and credit2 share one queue and one notion of fairness (see the decision on schedulers per pool); what differs is
//! how long one runs while others wait. Under null each vCPU has a CPU for itself.

use xen_abi::{
    domctl::{XEN_SCHEDULER_CREDIT, XEN_SCHEDULER_CREDIT2, XEN_SCHEDULER_NULL},
    errno::Errno,
};

use super::slice::CREDIT_INIT;
use crate::time::Nanos;

/// A scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scheduler {
    /// Shares by weight, slices of a fixed length.
    Credit,
    /// Shares by weight, slices as short as fairness wants them.
    #[default]
    Credit2,
    /// A CPU for each vCPU.
    Null,
}

impl Scheduler {
    /// Of a number `XEN_SCHEDULER_*`.
    #[must_use]
    pub const fn of_number(number: u32) -> Option<Self> {
        match number {
            XEN_SCHEDULER_CREDIT => Some(Scheduler::Credit),
            XEN_SCHEDULER_CREDIT2 => Some(Scheduler::Credit2),
            XEN_SCHEDULER_NULL => Some(Scheduler::Null),
            _ => None,
        }
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Scheduler::Credit => XEN_SCHEDULER_CREDIT,
            Scheduler::Credit2 => XEN_SCHEDULER_CREDIT2,
            Scheduler::Null => XEN_SCHEDULER_NULL,
        }
    }

    /// Of a name on the command line (`sched=`).
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        match name {
            "credit" => Some(Scheduler::Credit),
            "credit2" => Some(Scheduler::Credit2),
            "null" => Some(Scheduler::Null),
            _ => None,
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Scheduler::Credit => "credit",
            Scheduler::Credit2 => "credit2",
            Scheduler::Null => "null",
        }
    }
}

/// What a queue goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Whose they are.
    pub scheduler: Scheduler,
    /// Credit: how long one runs while others wait.
    pub time_slice: Nanos,
}

impl Rules {
    /// As a pool starts with a scheduler.
    #[must_use]
    pub const fn new(scheduler: Scheduler) -> Self {
        Rules { scheduler, time_slice: Nanos(TIME_SLICE_MS as u64 * 1_000_000) }
    }

    /// An allowance of credit: what fills a slice, so that nobody loses some of it by waiting through another's.
    pub(super) fn allowance(&self) -> i64 {
        match self.scheduler {
            Scheduler::Credit => i64::try_from(self.time_slice.0).unwrap_or(CREDIT_INIT).max(CREDIT_INIT),
            Scheduler::Credit2 | Scheduler::Null => CREDIT_INIT,
        }
    }
}

/// Xen's `sched_credit_tslice_ms`.
const TIME_SLICE_MS: u32 = 30;
/// Xen's `sched_ratelimit_us`.
const RATE_LIMIT_US: u32 = 1000;
/// `XEN_SYSCTL_CSCHED_TSLICE_MIN` and `_MAX`, in milliseconds.
const TIME_SLICES: core::ops::RangeInclusive<u32> = 1..=1000;
/// `XEN_SYSCTL_SCHED_RATELIMIT_MIN` and `_MAX`, in microseconds.
const RATE_LIMITS: core::ops::RangeInclusive<u32> = 100..=500_000;

/// What a toolstack sets of a pool's scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Milliseconds; credit's alone.
    pub time_slice_ms: u32,
    /// Microseconds for which who has got a CPU keeps it; 0: no limit.
    pub rate_limit_us: u32,
}

impl Settings {
    /// As a pool starts.
    pub const DEFAULT: Self = Settings { time_slice_ms: TIME_SLICE_MS, rate_limit_us: RATE_LIMIT_US };

    /// `EINVAL` where one is outside its limits, or the rate limit is longer than credit's slice.
    pub fn checked(self, scheduler: Scheduler) -> Result<Self, Errno> {
        let rate = self.rate_limit_us;
        let ok = (rate == 0 || RATE_LIMITS.contains(&rate))
            && (scheduler != Scheduler::Credit
                || TIME_SLICES.contains(&self.time_slice_ms)
                    && u64::from(rate) <= u64::from(self.time_slice_ms) * 1000);
        if ok { Ok(self) } else { Err(Errno::EINVAL) }
    }

    /// The rules that follow.
    #[must_use]
    pub fn rules(&self, scheduler: Scheduler) -> Rules {
        Rules { scheduler, time_slice: Nanos(u64::from(self.time_slice_ms) * 1_000_000) }
    }
}

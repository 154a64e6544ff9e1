//! Time: nanoseconds since the start (Xen's system time), how the TSC becomes them here and in a guest, wall clock,
//! timers.

mod clock;
mod follow;
mod guest_tsc;
mod page;
#[cfg(test)]
mod tests;
mod timers;
mod tsc_scaling;

pub use clock::{Clock, Scale, SystemClock};
pub use follow::{Follower, Widened};
pub use guest_tsc::{GuestTsc, Host, Way};
pub use page::{TimeBody, TimePage, WallClock, publish};
pub use timers::{Fired, Periodic, TimerQueue, VcpuTimers};
pub use tsc_scaling::{Scaled, Scaling};

/// Nanoseconds since the start, or a span of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Nanos(pub u64);

impl Nanos {
    /// The beginning.
    pub const ZERO: Nanos = Nanos(0);
    /// Later than anything.
    pub const NEVER: Nanos = Nanos(u64::MAX);

    /// Later by a span; never wraps.
    #[must_use]
    pub const fn after(self, span: Nanos) -> Nanos {
        Nanos(self.0.saturating_add(span.0))
    }

    /// The span since an earlier moment; 0 if that is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Nanos) -> Nanos {
        Nanos(self.0.saturating_sub(earlier.0))
    }

    /// The earliest of some moments, of which each may not be there.
    #[must_use]
    #[inline]
    pub fn earliest<const N: usize>(moments: [Option<Nanos>; N]) -> Option<Nanos> {
        let first = moments.into_iter().fold(Self::NEVER, |first, next| first.min(next.unwrap_or(Self::NEVER)));
        (first != Self::NEVER).then_some(first)
    }

    /// A number of milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Nanos {
        Nanos(millis.saturating_mul(1_000_000))
    }

    /// A number of seconds.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Nanos {
        Nanos(secs.saturating_mul(1_000_000_000))
    }
}

//! The time that a guest reads from memory: `vcpu_time_info` and the wall clock of `shared_info` (`xen.h`).
//!
//! Readers take the version, the fields and the version again, and start over if it was odd or has changed. So a
//! writer makes it odd, writes, and makes it even: nobody else writes at the same time.

use super::{Nanos, SystemClock};

/// What `vcpu_time_info` holds besides its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeBody {
    /// The TSC at the reference moment.
    pub tsc_timestamp: u64,
    /// System time at the reference moment.
    pub system_time: u64,
    /// [`super::Scale::mul`].
    pub tsc_to_system_mul: u32,
    /// [`super::Scale::shift`].
    pub tsc_shift: i8,
    /// `XEN_PVCLOCK_*`.
    pub flags: u8,
}

impl TimeBody {
    /// The record of a clock. `stable`: the TSC counts alike on all CPUs, so that a guest may compare what two of its
    /// vCPUs read.
    #[must_use]
    pub const fn new(clock: &SystemClock, stable: bool) -> TimeBody {
        TimeBody {
            tsc_timestamp: clock.ticks,
            system_time: clock.time.0,
            tsc_to_system_mul: clock.scale.mul,
            tsc_shift: clock.scale.shift,
            flags: if stable { xen_abi::arch_x86::XEN_PVCLOCK_TSC_STABLE_BIT } else { 0 },
        }
    }
}

/// A place in guest memory with a version and a body; stores are not reordered with each other.
pub trait TimePage<B> {
    /// The version as it stands there (a guest may have scribbled over it).
    fn version(&self) -> u32;
    /// Writes the version.
    fn set_version(&self, version: u32);
    /// Writes the rest.
    fn set_body(&self, body: &B);
}

/// Writes a record by the protocol of the version.
pub fn publish<B>(page: &impl TimePage<B>, body: &B) {
    let odd = page.version() | 1;
    page.set_version(odd);
    page.set_body(body);
    page.set_version(odd.wrapping_add(1));
}

/// The wall clock at system time 0, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WallClock {
    /// Seconds since 1970.
    pub seconds: u64,
    /// And nanoseconds, below 10^9.
    pub nanos: u32,
}

impl WallClock {
    /// The wall clock of a machine that read `seconds` since 1970 at system time `now`, shifted by `offset` seconds
    /// (a domain's `XEN_DOMCTL_settimeoffset`).
    #[must_use]
    pub fn new(seconds: u64, nanos: u32, now: Nanos, offset: i64) -> WallClock {
        let total = u128::from(seconds) * 1_000_000_000 + u128::from(nanos);
        let start = total.saturating_sub(u128::from(now.0));
        #[allow(clippy::cast_possible_truncation, reason = "below 10^9, and below 2^64 for any date")]
        let (seconds, nanos) = ((start / 1_000_000_000) as u64, (start % 1_000_000_000) as u32);
        WallClock { seconds: seconds.saturating_add_signed(offset), nanos }
    }

    /// `wc_sec`: the low half.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "the low half")]
    pub const fn sec(self) -> u32 {
        self.seconds as u32
    }

    /// `wc_sec_hi`.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "the high half")]
    pub const fn sec_hi(self) -> u32 {
        (self.seconds >> 32) as u32
    }
}

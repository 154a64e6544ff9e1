//! From ticks to nanoseconds and back, with the fixed-point numbers that a guest gets.

use super::Nanos;

const GIGA: u64 = 1_000_000_000;

/// A source of system time.
pub trait Clock {
    /// Now.
    fn now(&self) -> Nanos;
}

/// Ticks to nanoseconds as `vcpu_time_info` (`xen.h`) defines it: `((ticks << shift) * mul) >> 32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    /// `tsc_to_system_mul`: 32.32 fixed point.
    pub mul: u32,
    /// `tsc_shift`: to the left, or to the right if negative.
    pub shift: i8,
}

impl Scale {
    /// For a counter of `hertz`. The shift brings the frequency between 1 and 2 GHz, so that `mul` keeps 31 bits of
    /// precision. `None` for a frequency that no counter has (below 1 kHz, above 2^45 Hz).
    #[must_use]
    pub fn from_hertz(hertz: u64) -> Option<Scale> {
        if !(1000..1 << 45).contains(&hertz) {
            return None;
        }
        let (mut frequency, mut shift) = (hertz, 0_i8);
        while frequency > 2 * GIGA {
            frequency >>= 1;
            shift -= 1;
        }
        while frequency <= GIGA {
            frequency <<= 1;
            shift += 1;
        }
        // 1 GHz < frequency <= 2 GHz, so this fits.
        let mul = u32::try_from((GIGA << 32) / frequency).ok()?;
        Some(Scale { mul, shift })
    }

    /// The nanoseconds of a number of ticks.
    #[must_use]
    #[inline]
    pub const fn nanos(self, ticks: u64) -> Nanos {
        let shifted =
            if self.shift >= 0 { ticks << self.shift.unsigned_abs() } else { ticks >> self.shift.unsigned_abs() };
        #[allow(clippy::cast_possible_truncation, reason = "the guest's own arithmetic wraps at the same place")]
        Nanos(((shifted as u128 * self.mul as u128) >> 32) as u64)
    }

    /// The least number of ticks that takes at least this long.
    #[must_use]
    pub fn ticks(self, span: Nanos) -> u64 {
        let shifted = ((u128::from(span.0) << 32) + u128::from(self.mul) - 1) / u128::from(self.mul.max(1));
        let ticks = if self.shift >= 0 {
            shifted.div_ceil(1 << self.shift.unsigned_abs())
        } else {
            shifted << self.shift.unsigned_abs()
        };
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }
}

/// System time read from a counter: the counter's value at one moment, the time then, and the scale.
///
/// With counters that run alike on all CPUs one such clock serves the whole machine, and time that two CPUs read in
/// turn never runs backwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SystemClock {
    /// The counter at the reference moment.
    pub ticks: u64,
    /// System time at the reference moment.
    pub time: Nanos,
    /// The counter's scale.
    pub scale: Scale,
}

impl SystemClock {
    /// The time at which the counter reads `ticks`; before the reference moment, that moment.
    #[must_use]
    #[inline]
    pub const fn at(&self, ticks: u64) -> Nanos {
        self.time.after(self.scale.nanos(ticks.saturating_sub(self.ticks)))
    }

    /// What the counter reads when the time has come: never early.
    #[must_use]
    pub fn ticks_at(&self, time: Nanos) -> u64 {
        self.ticks.saturating_add(self.scale.ticks(time.since(self.time)))
    }

    /// The same clock with a later reference moment. It reads the same only to within the rounding of two
    /// multiplications, so clocks whose readings are compared must share their reference.
    #[must_use]
    pub const fn rebased(&self, ticks: u64) -> SystemClock {
        SystemClock { ticks, time: self.at(ticks), scale: self.scale }
    }
}

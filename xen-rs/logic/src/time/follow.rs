//! A clock that follows a better one. Where the TSC cannot be the machine's clock (its rate changes, or CPUs disagree on
//! it), each CPU still reads its own TSC between two looks at the platform's timer, and bends its clock towards that one.

use super::{Nanos, Scale, SystemClock};

/// One CPU's clock, and its last look at the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Follower {
    clock: SystemClock,
    seen: Nanos,
}

impl Follower {
    /// How long a correction takes; looks at the master should be no further apart.
    pub const PERIOD: Nanos = Nanos::from_secs(1);
    /// Looks that are closer together say too little about the rate.
    const LEAST: Nanos = Nanos::from_millis(5);

    /// A clock that shows what the master does.
    #[must_use]
    pub const fn new(ticks: u64, master: Nanos, scale: Scale) -> Self {
        Self { clock: SystemClock { ticks, time: master, scale }, seen: master }
    }

    /// A clock whose state was kept elsewhere.
    #[must_use]
    pub const fn resume(clock: SystemClock, seen: Nanos) -> Self {
        Self { clock, seen }
    }

    /// What the master showed at the last look.
    #[must_use]
    pub const fn seen(&self) -> Nanos {
        self.seen
    }

    /// The clock until the next look.
    #[must_use]
    pub const fn clock(&self) -> SystemClock {
        self.clock
    }

    /// What the master should show when the TSC reads `ticks`, if that runs at `rate`. It goes by the master's last showing and
    /// not by this clock: one that runs wrong for a while would say that the master has missed rounds, and run more wrong still.
    #[must_use]
    pub fn expected(&self, ticks: u64, rate: Scale) -> Nanos {
        SystemClock { ticks: self.clock.ticks, time: self.seen, scale: rate }.at(ticks)
    }

    /// The master showed `master` when the TSC read `ticks`. The clock goes on where it is, never back, at the rate that
    /// brings it to the master within a period: at least half and at most twice the true one. One that lags by more than
    /// half a period is set.
    pub fn look(&mut self, ticks: u64, master: Nanos) {
        let (passed, counted) = (master.since(self.seen), ticks.saturating_sub(self.clock.ticks));
        if passed < Self::LEAST || counted == 0 {
            return;
        }
        let shown = self.clock.at(ticks);
        let half = Nanos(Self::PERIOD.0 / 2);
        let time = if master.since(shown) > half { master } else { shown };
        let lag = i128::from(master.0) - i128::from(time.0);
        let wanted = (i128::from(Self::PERIOD.0) + lag).clamp(i128::from(half.0), 2 * i128::from(Self::PERIOD.0));
        // Ticks in a period at the rate just seen, over the time that the clock is to show for them.
        let ticks_ahead = u128::from(counted) * u128::from(Self::PERIOD.0) / u128::from(passed.0);
        let hertz = ticks_ahead * 1_000_000_000 / wanted.unsigned_abs().max(1);
        let scale = u64::try_from(hertz).ok().and_then(Scale::from_hertz).unwrap_or(self.clock.scale);
        *self = Self { clock: SystemClock { ticks, time, scale }, seen: master };
    }
}

/// Makes a counter that wraps into one that does not. It must be looked at more than once a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Widened {
    last: u64,
    total: u64,
    mask: u64,
}

impl Widened {
    /// Counts from here on, in a counter whose bits are `mask`.
    #[must_use]
    pub const fn new(raw: u64, mask: u64) -> Self {
        Self { last: raw, total: 0, mask }
    }

    /// All ticks since the start. `expected` is what another clock says that they are; it tells how many whole rounds went
    /// by unseen, when nobody could look in time.
    pub fn look(&mut self, raw: u64, expected: u64) -> u64 {
        self.total = self.total.wrapping_add(raw.wrapping_sub(self.last) & self.mask);
        self.last = raw;
        let round = self.mask.saturating_add(1);
        let missing = expected.saturating_sub(self.total).saturating_add(round / 2);
        self.total = self.total.wrapping_add(missing / round * round);
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GHZ: u64 = 1_000_000_000;

    fn scale(hertz: u64) -> Scale {
        Scale::from_hertz(hertz).unwrap()
    }

    #[test]
    fn a_wrong_rate_is_bent() {
        // The TSC was thought to run at 1 GHz; it runs at 1.1.
        let mut follower = Follower::new(0, Nanos::ZERO, scale(GHZ));
        for second in 1..=8 {
            follower.look(second * 1_100_000_000, Nanos::from_secs(second));
        }
        let shown = follower.clock().at(9 * 1_100_000_000);
        assert!(shown.0.abs_diff(9 * GHZ) < 1000, "{shown:?}");
    }

    #[test]
    fn a_clock_far_behind_is_set_and_one_ahead_is_slowed() {
        let mut slow = Follower::new(0, Nanos::ZERO, scale(GHZ));
        slow.look(GHZ / 10, Nanos::from_secs(10));
        assert_eq!(slow.clock().time, Nanos::from_secs(10));
        let mut fast = Follower::new(0, Nanos::ZERO, scale(GHZ));
        fast.look(10 * GHZ, Nanos::from_secs(1));
        assert_eq!(fast.clock().time, Nanos::from_secs(10));
        assert_eq!(fast.clock().at(20 * GHZ).since(Nanos::from_secs(10)).0.div_ceil(1_000_000), 500);
    }

    #[test]
    fn looks_too_close_change_nothing() {
        let mut follower = Follower::new(0, Nanos::ZERO, scale(GHZ));
        let before = follower;
        follower.look(1000, Nanos(2000));
        assert_eq!(follower, before);
    }

    #[test]
    fn a_counter_wraps_without_loss() {
        let mut wide = Widened::new(0xfff0, 0xffff);
        assert_eq!(wide.look(0xffff, 0), 0xf);
        assert_eq!(wide.look(0x10, 0), 0x20);
        assert_eq!(wide.look(0x8010, 0x9000), 0x8020);
    }

    #[test]
    fn rounds_that_nobody_saw_count() {
        let mut wide = Widened::new(0, 0xffff);
        assert_eq!(wide.look(0x10, 0x3_1000), 0x3_0010);
        assert_eq!(wide.look(0x20, 0x3_1000), 0x3_0020);
        assert_eq!(wide.look(0x30, 0x3_7fff), 0x3_0030, "less than half a round is the other clock's error");
    }

    proptest! {
        /// A CPU of a busy host may be away for long, between two looks or within one. No round is missed, and none invented.
        #[test]
        fn rounds_are_counted_on_a_busy_host(
            looks in proptest::collection::vec((5_000_000u64..25_000_000, 0u64..500_000_000, 0u64..15_000_000), 1..200),
        ) {
            const PIT: u64 = 1_193_182;
            let count = |time: u64| u64::try_from(u128::from(time) * u128::from(PIT) / u128::from(GHZ)).unwrap();
            let rate = scale(2 * GHZ);
            let mut wide = Widened::new(0, 0xffff);
            let mut follower = Follower::new(0, Nanos::ZERO, rate);
            let mut now = 0;
            for (soon, away, within) in looks {
                // Seldom away, but then for long.
                now += soon + if away % 8 == 0 { away } else { 0 };
                let ticks = (now + if within % 4 == 0 { within } else { 0 }) * 2;
                let total = wide.look(count(now) & 0xffff, count(follower.expected(ticks, rate).0));
                prop_assert_eq!(total, count(now));
                follower.look(ticks, Nanos(now));
            }
        }

        /// Whatever the TSC does, time never goes back; when it has settled, the clock is right.
        #[test]
        fn never_back_and_right_in_the_end(rates in proptest::collection::vec(500_000_000u64..4_000_000_000, 1..20)) {
            let mut follower = Follower::new(0, Nanos::ZERO, scale(2 * GHZ));
            let (mut ticks, mut second, mut last) = (0, 0, Nanos::ZERO);
            let settled = [*rates.last().unwrap(); 500];
            for rate in rates.into_iter().chain(settled) {
                for part in 1..=4u64 {
                    let now = follower.clock().at(ticks + rate * part / 4);
                    prop_assert!(now >= last);
                    last = now;
                }
                ticks += rate;
                second += 1;
                follower.look(ticks, Nanos::from_secs(second));
                let now = follower.clock().at(ticks);
                prop_assert!(now >= last);
                last = now;
            }
            prop_assert!(last.0.abs_diff(second * GHZ) < 10_000, "{last:?} in second {second}");
        }
    }
}

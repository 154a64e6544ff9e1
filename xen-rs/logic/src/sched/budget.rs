//! Caps: the most a domain may run, however idle the machine is.
//!
//! A capped domain has so much time in each period. Several of its vCPUs may run at once and use up more than is left; what
//! they overdraw is taken off the next period's. What they do not come to use, since others are on the CPUs, is theirs for
//! a few periods more. So in the long run a domain that wants more than its cap gets exactly that.

use crate::time::Nanos;

/// The length of a period.
pub const PERIOD: Nanos = Nanos(10_000_000);

/// Periods whose time can be saved up.
const SAVED: i64 = 5;

/// What a domain may still run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Budget {
    /// Percent of one CPU; 0: no cap.
    cap: u16,
    /// Nanoseconds left in this period; below zero it is overdrawn.
    left: i64,
    /// The end of the period.
    end: Nanos,
}

impl Budget {
    /// No cap.
    pub const UNLIMITED: Budget = Budget { cap: 0, left: 0, end: Nanos::ZERO };

    /// Percent of one CPU; 0: no cap.
    #[must_use]
    pub const fn cap(&self) -> u16 {
        self.cap
    }

    /// From now on it is that: a new period begins.
    pub fn set_cap(&mut self, cap: u16, now: Nanos) {
        *self = Budget { cap, left: 0, end: now.after(PERIOD) };
        self.left = self.quota();
    }

    /// The time of one period.
    fn quota(&self) -> i64 {
        i64::try_from(PERIOD.0).unwrap_or(i64::MAX) / 100 * i64::from(self.cap)
    }

    /// Begins the periods that have come since the last look.
    fn renew(&mut self, now: Nanos) {
        if now < self.end {
            return;
        }
        let periods = now.since(self.end).0 / PERIOD.0 + 1;
        let gift = i64::try_from(periods).unwrap_or(i64::MAX).saturating_mul(self.quota());
        self.left = self.left.saturating_add(gift).min(self.quota() * SAVED);
        self.end = self.end.after(Nanos(periods.saturating_mul(PERIOD.0)));
    }

    /// Pays for a time of running that ends now.
    pub fn burn(&mut self, ran: Nanos, now: Nanos) {
        if self.cap != 0 {
            self.left = self.left.saturating_sub(i64::try_from(ran.0).unwrap_or(i64::MAX));
            self.renew(now);
        }
    }

    /// What it may run now.
    pub fn allowance(&mut self, now: Nanos) -> Allowance {
        if self.cap == 0 {
            return Allowance::Unlimited;
        }
        self.renew(now);
        match u64::try_from(self.left) {
            Ok(left @ 1..) => Allowance::For(Nanos(left)),
            _ => Allowance::NotBefore(self.end),
        }
    }
}

/// What a domain may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowance {
    /// There is no cap.
    Unlimited,
    /// For so long at most.
    For(Nanos),
    /// Not at all before then.
    NotBefore(Nanos),
}

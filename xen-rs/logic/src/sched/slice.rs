//! Credit: who has used less than its share goes first.
//!
//! The rules are those of credit2, thinned: running burns credit in proportion to time and inversely to weight; when
//! the first of a queue has none left, everyone on that queue gets a new allowance; a slice ends where the next one's
//! credit begins.

use crate::time::Nanos;

/// An allowance, and the most anyone can have saved: 10 ms of running at the default weight.
pub const CREDIT_INIT: i64 = 10_000_000;
/// The longest slice while others wait.
pub const SLICE_MAX: Nanos = Nanos(10_000_000);
/// The shortest slice, so that switching does not eat the machine.
pub const SLICE_MIN: Nanos = Nanos(500_000);
/// The weight of a domain nobody has weighed.
pub const WEIGHT_DEFAULT: u16 = 256;

/// What one vCPU may still run before others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// Nanoseconds of running at the default weight; below zero it has borrowed.
    pub credit: i64,
    /// The round of allowances of its queue that is in `credit`.
    pub round: u32,
    /// Its share relative to the others'.
    pub weight: u16,
}

impl Account {
    /// A new vCPU's.
    #[must_use]
    pub const fn new(weight: u16) -> Self {
        Account { credit: CREDIT_INIT, round: 0, weight }
    }

    /// Pays for a time of running.
    pub fn burn(&mut self, ran: Nanos) {
        let ran = i64::try_from(ran.0).unwrap_or(i64::MAX);
        let cost = ran.saturating_mul(i64::from(WEIGHT_DEFAULT)) / i64::from(self.weight.max(1));
        self.credit = self.credit.saturating_sub(cost);
    }

    /// How long it may run until its credit has fallen to `floor`.
    #[must_use]
    pub fn time_until(&self, floor: i64) -> Nanos {
        let spare = self.credit.saturating_sub(floor).max(0);
        let time = spare.saturating_mul(i64::from(self.weight.max(1))) / i64::from(WEIGHT_DEFAULT);
        Nanos(time.unsigned_abs())
    }

    /// Adds the allowances of the rounds it has missed; more than one cannot be saved up.
    pub fn refresh(&mut self, round: u32, allowance: i64) {
        let missed = round.wrapping_sub(self.round);
        if missed == 0 {
            return;
        }
        // A vCPU that comes from another queue may be ahead of this one's round: it gets nothing.
        if missed < u32::MAX / 2 {
            let gift = i64::from(missed).saturating_mul(allowance);
            self.credit = self.credit.saturating_add(gift).min(allowance);
        }
        self.round = round;
    }
}

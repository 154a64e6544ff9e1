//! How fast a guest may use a disk: requests and bytes per second, each counted as time that they take up.

/// What was not used of so long before may be caught up with, in nanoseconds.
const BURST: u64 = 100_000_000;
const SECOND: u64 = 1_000_000_000;

/// One limit.
#[derive(Clone, Copy, Debug)]
struct Pace {
    per_second: u64,
    /// Up to here all time is taken up.
    next: u64,
}

impl Pace {
    fn charge(&mut self, amount: u64, now: u64) {
        let time = u128::from(amount) * u128::from(SECOND) / u128::from(self.per_second.max(1));
        let from = self.next.max(now.saturating_sub(BURST));
        self.next = from.saturating_add(u64::try_from(time).unwrap_or(u64::MAX));
    }
}

/// The limits of a disk, maybe none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limit {
    requests: Option<Pace>,
    bytes: Option<Pace>,
}

impl Limit {
    /// So many requests and bytes per second.
    pub fn new(requests: Option<u64>, bytes: Option<u64>) -> Self {
        let pace =
            |per_second: Option<u64>| per_second.filter(|n| *n > 0).map(|per_second| Pace { per_second, next: 0 });
        Self { requests: pace(requests), bytes: pace(bytes) }
    }

    /// When the next request may begin; `None` where there is no limit.
    pub fn next(&self) -> Option<u64> {
        let next = |pace: Option<Pace>| pace.map(|pace| pace.next);
        next(self.requests).max(next(self.bytes))
    }

    /// A request of so many bytes has begun.
    pub fn charge(&mut self, bytes: u64, now: u64) {
        for (pace, amount) in [(&mut self.requests, 1), (&mut self.bytes, bytes)] {
            if let Some(pace) = pace {
                pace.charge(amount, now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_lets_so_many_through() {
        let mut limit = Limit::new(Some(100), Some(1_000_000));
        let mut begun = 0;
        let mut now = 10 * SECOND;
        while now < 12 * SECOND {
            if limit.next().is_none_or(|next| next <= now) {
                limit.charge(4096, now);
                begun += 1;
            }
            now += 1_000_000;
        }
        // 100 a second for two seconds, and what a burst allows.
        assert!((200..=212).contains(&begun), "{begun}");
        let mut slow = Limit::new(None, Some(4096));
        slow.charge(8192, 10 * SECOND);
        assert_eq!(slow.next(), Some(12 * SECOND - BURST));
        assert_eq!(Limit::new(None, Some(0)).next(), None);
    }
}

//! Lines about guests that break a protocol: a guest can do that as often as it likes, so in a while only some are printed.

use alloc::collections::BTreeMap;
use core::fmt::Display;
use guest_pv::{println, time};
use xen_abi::ids::DomId;

/// So many lines about a domain are printed in so many nanoseconds.
const MOST: u32 = 5;
const PERIOD: u64 = 10_000_000_000;

/// How much was said of late: since when, and how many lines there were.
#[derive(Debug, Default)]
pub struct Complaints {
    recent: BTreeMap<DomId, (u64, u32)>,
}

impl Complaints {
    /// Prints that a device of a domain's is at fault, unless enough was said.
    pub fn say(&mut self, dom: DomId, device: u32, what: &dyn Display) {
        match self.count(dom, time::now()) {
            count if count < MOST => println!("vbd: domain {dom}, device {device}: {what}"),
            MOST => println!("vbd: domain {dom}: more of this is not shown"),
            _ => {}
        }
    }

    /// Lines before this one.
    fn count(&mut self, dom: DomId, now: u64) -> u32 {
        self.recent.retain(|_, (since, _)| now.saturating_sub(*since) < PERIOD);
        let (_, count) = self.recent.entry(dom).or_insert((now, 0));
        let before = *count;
        *count = count.saturating_add(1);
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn each_domain_gets_some_lines_in_a_while() {
        let mut complaints = Complaints::default();
        let counts: Vec<u32> = (0..4).map(|n| complaints.count(DomId(1), n)).collect();
        assert_eq!(counts, [0, 1, 2, 3]);
        assert_eq!(complaints.count(DomId(2), 5), 0);
        assert_eq!(complaints.count(DomId(1), PERIOD), 0);
        assert_eq!(complaints.recent.len(), 2);
        assert_eq!(complaints.count(DomId(1), 3 * PERIOD), 0);
        assert_eq!(complaints.recent.len(), 1);
    }
}

//! The extents of `increase_reservation`, `decrease_reservation` and `populate_physmap`, a round at a time.

use xen_abi::memory::{MEMOP_EXTENT_SHIFT, MemoryReservation};

use super::LARGEST_ORDER;
use crate::guest::GuestMemory;
use crate::num;

/// Pages that one round gives or takes: each may have to be zeroed first.
const PAGES_PER_ROUND: u64 = 24;

/// Which of the three it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The domain gets memory; it need not want to know which.
    Increase,
    /// It gets memory in place of frames that it names.
    Populate,
    /// It gives memory back.
    Decrease,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// An extent, and where its number is, if there is a list. [`Extents::complete`] says that it is done.
    Extent(Option<u64>),
    /// The round is over: the guest makes the call again.
    Later,
    /// All extents are done.
    Finished,
}

/// The extents that a call is about, and how many are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extents {
    list: Option<u64>,
    order: u8,
    end: u64,
    done: u64,
    /// Pages left in this round; nothing counts before the first extent of it.
    left: Option<u64>,
}

/// A command without and with the first extent that a continuation keeps above it.
#[inline(always)]
#[must_use]
pub const fn split_command(command: u64) -> (u32, u64) {
    (num::uint(command) & ((1 << MEMOP_EXTENT_SHIFT) - 1), command >> MEMOP_EXTENT_SHIFT)
}

impl Extents {
    /// Those of a call that `first` have been done of. `None`: there is nothing that can be done.
    #[inline(always)]
    #[must_use]
    pub fn new<M: GuestMemory>(wanted: &MemoryReservation, first: u64, direction: Direction) -> Option<Self> {
        let listed = wanted.extent_start != 0;
        if first >= wanted.nr_extents
            // The number of a continuation has to fit.
            || wanted.nr_extents > u64::from(u32::MAX >> MEMOP_EXTENT_SHIFT)
            || wanted.extent_order > LARGEST_ORDER
            || (!listed && direction != Direction::Increase)
            || !M::is_guests(wanted.extent_start, 1)
        {
            return None;
        }
        let order = u8::try_from(wanted.extent_order).ok()?;
        let list = listed.then_some(wanted.extent_start);
        Some(Self { list, order, end: wanted.nr_extents, done: first, left: None })
    }

    /// Pages in an extent, as a power of two.
    #[inline(always)]
    #[must_use]
    pub const fn order(&self) -> u8 {
        self.order
    }

    /// How many are done, by this call and those before it.
    #[inline(always)]
    #[must_use]
    pub const fn done(&self) -> u64 {
        self.done
    }

    /// What to do next. `owes`: the last extent has left work that comes first.
    #[inline(always)]
    pub fn next(&mut self, owes: bool) -> Step {
        if self.done >= self.end {
            return Step::Finished;
        }
        let left = match self.left {
            Some(left) if left == 0 || owes => return Step::Later,
            Some(left) => left,
            None => PAGES_PER_ROUND,
        };
        self.left = Some(left.saturating_sub(1 << self.order));
        Step::Extent(self.list.map(|list| list.wrapping_add(self.done * 8)))
    }

    /// The last extent is done.
    #[inline(always)]
    pub const fn complete(&mut self) {
        self.done += 1;
    }

    /// The command with which the guest goes on.
    #[inline(always)]
    #[must_use]
    pub fn continuation(&self, command: u32) -> u64 {
        u64::from(command) | self.done << MEMOP_EXTENT_SHIFT
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::doc::Zeroes;
    use std::vec::Vec;

    fn wanted(start: u64, count: u64, order: u32) -> MemoryReservation {
        MemoryReservation { extent_start: start, nr_extents: count, extent_order: order, ..Default::default() }
    }

    fn extents(wanted: &MemoryReservation, first: u64, direction: Direction) -> Option<Extents> {
        Extents::new::<Zeroes>(wanted, first, direction)
    }

    #[test]
    fn what_cannot_be_done_is_not_begun() {
        use Direction::{Decrease, Increase, Populate};
        assert!(extents(&wanted(0x1000, 0, 0), 0, Populate).is_none(), "nothing");
        assert!(extents(&wanted(0x1000, 4, 0), 4, Populate).is_none(), "all done");
        assert!(extents(&wanted(0x1000, 1 << 26, 0), 0, Populate).is_none(), "too many");
        assert!(extents(&wanted(0x1000, (1 << 26) - 1, 0), 0, Populate).is_some());
        assert!(extents(&wanted(0x1000, 1, 10), 0, Populate).is_none(), "too large");
        assert!(extents(&wanted(0, 1, 0), 0, Populate).is_none(), "without a list");
        assert!(extents(&wanted(0, 1, 0), 0, Decrease).is_none());
        assert!(extents(&wanted(0, 1, 0), 0, Increase).is_some(), "whose numbers nobody wants");
        assert!(extents(&wanted(1 << 47, 1, 0), 0, Increase).is_none(), "a list that cannot be");
    }

    #[test]
    fn rounds_cover_each_extent_once() {
        for order in 0..=9 {
            let (mut first, mut seen) = (0, Vec::new());
            loop {
                let mut extents = extents(&wanted(0x1000, 100, order), first, Direction::Populate).unwrap();
                let mut pages = 0u64;
                let step = loop {
                    match extents.next(false) {
                        Step::Extent(at) => {
                            seen.push(at.unwrap());
                            pages += 1 << order;
                            extents.complete();
                        }
                        step => break step,
                    }
                };
                assert!(pages < PAGES_PER_ROUND + (1 << order), "a round is short");
                if step == Step::Finished {
                    break;
                }
                let (command, done) = split_command(extents.continuation(6));
                assert_eq!((command, done), (6, extents.done()));
                first = done;
            }
            assert_eq!(seen, (0..100).map(|i| 0x1000 + i * 8).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_debt_ends_a_round_but_not_before_its_first_extent() {
        let mut extents = extents(&wanted(0x1000, 3, 0), 1, Direction::Decrease).unwrap();
        assert_eq!(extents.next(true), Step::Extent(Some(0x1008)));
        extents.complete();
        assert_eq!(extents.next(true), Step::Later);
        assert_eq!(extents.done(), 2);
    }
}

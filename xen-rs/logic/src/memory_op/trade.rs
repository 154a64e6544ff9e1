//! `XENMEM_exchange` in chunks: as many extents of one side as make one of the other.

use core::ops::Range;

use xen_abi::errno::Errno;
use xen_abi::memory::{MemoryExchange, MemoryReservation};

use super::LARGEST_ORDER;
use crate::guest::GuestMemory;

/// One side of a trade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Side {
    list: u64,
    order: u8,
    /// Extents in a chunk, as a power of two.
    per_chunk: u8,
}

impl Side {
    fn order(reservation: &MemoryReservation) -> Result<u8, Errno> {
        u8::try_from(reservation.extent_order)
            .ok()
            .filter(|_| reservation.extent_order <= LARGEST_ORDER)
            .ok_or(Errno::EPERM)
    }

    const fn extents(&self, chunk: u64) -> Range<u64> {
        chunk << self.per_chunk..(chunk + 1) << self.per_chunk
    }
}

/// A trade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trade {
    given: Side,
    taken: Side,
    /// Extents that are given in all.
    count: u64,
}

impl Trade {
    /// The checks, in Xen's order.
    ///
    /// # Errors
    /// `EPERM` for extents that are too large, `EINVAL` for sides that do not make up for each other, `EFAULT` for lists that
    /// cannot be a guest's.
    pub fn new<M: GuestMemory>(wanted: &MemoryExchange) -> Result<Self, Errno> {
        let (given, taken) = (&wanted.in_, &wanted.out);
        let (given_order, taken_order) = (Side::order(given)?, Side::order(taken)?);
        let fits = |side: &MemoryReservation| u64::MAX >> side.extent_order >= side.nr_extents;
        if wanted.nr_exchanged > given.nr_extents
            || given.domid != taken.domid
            || !fits(given)
            || !fits(taken)
            || given.nr_extents << given_order != taken.nr_extents << taken_order
        {
            return Err(Errno::EINVAL);
        }
        if ![given, taken].iter().all(|side| M::is_guests(side.extent_start, 1)) {
            return Err(Errno::EFAULT);
        }
        let side = |reservation: &MemoryReservation, order: u8, other: u8| Side {
            list: reservation.extent_start,
            order,
            per_chunk: other.saturating_sub(order),
        };
        Ok(Self {
            given: side(given, given_order, taken_order),
            taken: side(taken, taken_order, given_order),
            count: given.nr_extents,
        })
    }

    /// Extents that are given in all.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Pages in an extent that is given, as a power of two.
    #[must_use]
    pub const fn given_order(&self) -> u8 {
        self.given.order
    }

    /// Pages in an extent that is taken, as a power of two.
    #[must_use]
    pub const fn taken_order(&self) -> u8 {
        self.taken.order
    }

    /// Extents that a chunk takes.
    #[must_use]
    pub const fn taken_per_chunk(&self) -> usize {
        1 << self.taken.per_chunk
    }

    /// Pages in a chunk: as many are given as taken.
    #[must_use]
    pub fn pages_per_chunk(&self) -> u64 {
        1 << self.given.order.max(self.taken.order)
    }

    /// The chunks that are left when so many extents have been given.
    #[must_use]
    pub const fn chunks(&self, given: u64) -> Range<u64> {
        given >> self.given.per_chunk..self.count >> self.given.per_chunk
    }

    /// Extents that have been given before a chunk.
    #[must_use]
    pub const fn given_before(&self, chunk: u64) -> u64 {
        chunk << self.given.per_chunk
    }

    /// Where the numbers of a chunk's given extents are.
    pub fn given(&self, chunk: u64) -> impl Iterator<Item = u64> + use<> {
        let list = self.given.list;
        self.given.extents(chunk).map(move |extent| list.wrapping_add(extent * 8))
    }

    /// Where the numbers of a chunk's taken extents are to be.
    pub fn taken(&self, chunk: u64) -> impl Iterator<Item = u64> + use<> {
        let list = self.taken.list;
        self.taken.extents(chunk).map(move |extent| list.wrapping_add(extent * 8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::doc::Zeroes;
    use std::vec::Vec;

    fn side(list: u64, count: u64, order: u32) -> MemoryReservation {
        MemoryReservation { extent_start: list, nr_extents: count, extent_order: order, ..Default::default() }
    }

    fn trade(in_: MemoryReservation, out: MemoryReservation) -> Result<Trade, Errno> {
        Trade::new::<Zeroes>(&MemoryExchange { in_, out, nr_exchanged: 0 })
    }

    #[test]
    fn both_sides_in_chunks() {
        let many_for_one = trade(side(0x1000, 32, 0), side(0x8000, 2, 4)).unwrap();
        assert_eq!((many_for_one.chunks(0), many_for_one.chunks(16)), (0..2, 1..2));
        assert_eq!(many_for_one.pages_per_chunk(), 16);
        assert_eq!(many_for_one.given(1).collect::<Vec<_>>(), (16..32).map(|i| 0x1000 + i * 8).collect::<Vec<_>>());
        assert_eq!(many_for_one.taken(1).collect::<Vec<_>>(), [0x8008]);
        let one_for_many = trade(side(0x1000, 2, 4), side(0x8000, 32, 0)).unwrap();
        assert_eq!((one_for_many.chunks(0), one_for_many.taken_per_chunk()), (0..2, 16));
        assert_eq!(one_for_many.given_before(1), 1);
    }

    #[test]
    fn what_does_not_match_is_refused() {
        assert_eq!(trade(side(0x1000, 1, 10), side(0x8000, 1, 10)), Err(Errno::EPERM));
        assert_eq!(trade(side(0x1000, 3, 0), side(0x8000, 1, 1)), Err(Errno::EINVAL));
        assert_eq!(
            trade(side(0x1000, 1 << 63, 1), side(0x8000, 0, 0)),
            Err(Errno::EINVAL),
            "no number has so many bits"
        );
        assert_eq!(trade(side(1 << 47, 1, 0), side(0x8000, 1, 0)), Err(Errno::EFAULT));
        let done = MemoryExchange { in_: side(0x1000, 1, 0), out: side(0x8000, 1, 0), nr_exchanged: 2 };
        assert_eq!(Trade::new::<Zeroes>(&done), Err(Errno::EINVAL), "more is done than there is");
    }
}

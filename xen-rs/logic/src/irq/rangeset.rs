//! A set of numbers kept as ranges: the ports, frames and interrupts that a domain was given.

use alloc::vec::Vec;
use core::ops::Range;

use xen_abi::errno::Errno;

/// The numbers of a set, as ranges that neither touch nor overlap, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSet(Vec<Range<u64>>);

impl RangeSet {
    /// Nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ranges.
    #[must_use]
    pub fn ranges(&self) -> &[Range<u64>] {
        &self.0
    }

    /// Adds `range`. `ENOMEM`; then nothing has changed.
    pub fn add(&mut self, range: Range<u64>) -> Result<(), Errno> {
        if range.is_empty() {
            return Ok(());
        }
        self.0.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        // Those that touch the new one become a part of it.
        let first = self.0.partition_point(|r| r.end < range.start);
        let end = self.0.partition_point(|r| r.start <= range.end);
        let touching = self.0.get(first..end).unwrap_or_default();
        let start = touching.first().map_or(range.start, |r| r.start.min(range.start));
        let last = touching.last().map_or(range.end, |r| r.end.max(range.end));
        self.0.splice(first..end, core::iter::once(start..last));
        Ok(())
    }

    /// Takes `range` out. `ENOMEM`; then nothing has changed.
    pub fn remove(&mut self, range: &Range<u64>) -> Result<(), Errno> {
        if range.is_empty() {
            return Ok(());
        }
        self.0.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        let first = self.0.partition_point(|r| r.end <= range.start);
        let end = self.0.partition_point(|r| r.start < range.end);
        let cut = self.0.get(first..end).unwrap_or_default();
        let below = cut.first().map(|r| r.start..range.start).filter(|r| !r.is_empty());
        let above = cut.last().map(|r| range.end..r.end).filter(|r| !r.is_empty());
        self.0.splice(first..end.max(first), below.into_iter().chain(above));
        Ok(())
    }

    /// Whether all of `range` is in it.
    #[must_use]
    pub fn contains(&self, range: &Range<u64>) -> bool {
        let at = self.0.partition_point(|r| r.end <= range.start);
        range.is_empty() || self.0.get(at).is_some_and(|r| r.start <= range.start && range.end <= r.end)
    }

    /// What of `range` is not in it.
    pub fn missing(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let mut from = range.start;
        let beyond = range.end..u64::MAX;
        let stops = self.0.iter().filter(move |r| r.end > range.start).cloned().chain(core::iter::once(beyond));
        stops
            .map(move |stop| {
                let gap = from..stop.start.min(range.end);
                from = from.max(stop.end);
                gap
            })
            .filter(|gap| !gap.is_empty())
    }
}

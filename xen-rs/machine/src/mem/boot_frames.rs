//! The first frame allocator: ranges of free memory at boot, from which tables and stacks are cut for good. What is left
//! goes to the real allocator in one piece of bookkeeping.
//!
//! Unsafe: frames are handed out before there is an allocator.

use super::layout::{DIRECT_MAP_SIZE, PAGE_SIZE};
use crate::boot_info::{BootInfo, MemoryKind};
use alloc::vec::Vec;
use core::ops::Range;

/// Free memory that nobody has claimed yet, as physical byte ranges on page boundaries, sorted.
///
/// There is one, made from the loader's map: so what it holds belongs to whoever holds it.
#[derive(Debug)]
pub struct BootFrames {
    ranges: Vec<Range<u64>>,
    /// Allocations stay below this until all of memory is mapped.
    limit: u64,
}

/// Below 1 MiB lie the firmware's tables and the page where secondary processors start.
const LOW_MEMORY: u64 = 1 << 20;

impl BootFrames {
    /// All RAM but low memory, the image and the modules.
    pub(crate) fn new(boot: &BootInfo, image: Range<u64>, limit: u64) -> Self {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for range in boot.memory_map.iter().filter(|r| r.kind == MemoryKind::Ram) {
            if range.end > DIRECT_MAP_SIZE {
                log::warn!("memory above {DIRECT_MAP_SIZE:#x} is not used");
            }
            let start = range.start.max(LOW_MEMORY).next_multiple_of(PAGE_SIZE);
            let end = range.end.min(DIRECT_MAP_SIZE) & !(PAGE_SIZE - 1);
            if start < end {
                ranges.push(start..end);
            }
        }
        let mut frames = Self { ranges, limit };
        frames.remove(&image);
        for module in &boot.modules {
            frames.remove(&module.phys);
        }
        frames
    }

    /// Takes a range out, rounded to whole pages.
    fn remove(&mut self, out: &Range<u64>) {
        let out = (out.start & !(PAGE_SIZE - 1))..out.end.next_multiple_of(PAGE_SIZE);
        let mut left = Vec::with_capacity(self.ranges.len() + 1);
        for range in self.ranges.drain(..) {
            if range.end <= out.start || out.end <= range.start {
                left.push(range);
                continue;
            }
            if range.start < out.start {
                left.push(range.start..out.start);
            }
            if out.end < range.end {
                left.push(out.end..range.end);
            }
        }
        self.ranges = left;
    }

    /// All of memory is mapped from now on.
    pub(crate) fn lift_limit(&mut self) {
        self.limit = u64::MAX;
    }

    /// Cuts `bytes` aligned to `align` (both whole pages) from the highest place there is.
    pub(crate) fn take(&mut self, bytes: u64, align: u64) -> Option<u64> {
        self.take_below(bytes, align, self.limit)
    }

    /// As [`Self::take`], below `limit`.
    pub(crate) fn take_below(&mut self, bytes: u64, align: u64, limit: u64) -> Option<u64> {
        let start = self.ranges.iter().rev().find_map(|range| {
            let top = range.end.min(limit);
            let start = top.checked_sub(bytes)? & !(align - 1);
            (start >= range.start).then_some(start)
        })?;
        self.remove(&(start..start + bytes));
        Some(start)
    }

    /// Takes memory for a while, for example to unpack dom0's kernel in; given back like a module.
    #[must_use]
    pub fn scratch(&mut self, bytes: u64) -> Option<crate::boot_info::Module> {
        let length = bytes.checked_next_multiple_of(PAGE_SIZE)?;
        let start = self.take(length, PAGE_SIZE)?;
        Some(crate::boot_info::Module { command_line: "", phys: start..start + length })
    }

    /// What is free, in physical bytes.
    #[must_use]
    pub fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }

    /// Bytes that are free.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        self.ranges.iter().map(|r| r.end - r.start).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot_info::{MemoryRange, Module};

    fn boot() -> BootInfo {
        let range = |start, end| MemoryRange { start, end, kind: MemoryKind::Ram };
        BootInfo {
            command_line: "",
            loader: "",
            memory_map: alloc::vec![
                range(0, 0x9_fc00),
                range(0x10_0000, 0x800_0123),
                range(0x1_0000_0000, 0x1_4000_0000)
            ],
            modules: alloc::vec![Module { command_line: "", phys: 0x26_1000..0x26_1a28 }],
            rsdp: None,
        }
    }

    #[test]
    fn leaves_out_what_is_in_use() {
        let frames = BootFrames::new(&boot(), 0x20_0000..0x26_0800, u64::MAX);
        assert_eq!(frames.ranges(), [0x10_0000..0x20_0000, 0x26_2000..0x800_0000, 0x1_0000_0000..0x1_4000_0000]);
    }

    #[test]
    fn takes_from_the_top_below_the_limit() {
        let mut frames = BootFrames::new(&boot(), 0..0, 1 << 32);
        let free = frames.free_bytes();
        assert_eq!(frames.take(0x1000, 0x1000), Some(0x7ff_f000));
        assert_eq!(frames.take(0x20_0000, 0x20_0000), Some(0x7c0_0000));
        assert_eq!(frames.free_bytes(), free - 0x20_1000);
        frames.lift_limit();
        assert_eq!(frames.take(0x1000, 0x1000), Some(0x1_3fff_f000));
        assert_eq!(frames.take(1 << 40, 0x1000), None);
    }
}

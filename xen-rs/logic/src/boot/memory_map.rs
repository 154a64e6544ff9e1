//! The machine's memory as a boot loader describes it.

use alloc::vec::Vec;

/// What a range of physical memory is (the types of the BIOS memory map, ACPI 6.5 table 15-4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum MemoryKind {
    /// Free for use.
    Ram = 1,
    /// Not memory, or not ours.
    Reserved = 2,
    /// ACPI tables: free once they have been read.
    AcpiReclaimable = 3,
    /// ACPI memory that must be kept.
    AcpiNvs = 4,
    /// Memory with errors, and everything unknown.
    Unusable = 5,
}

impl MemoryKind {
    /// From the loader's number.
    #[must_use]
    pub const fn from_e820(kind: u32) -> Self {
        match kind {
            1 => Self::Ram,
            3 => Self::AcpiReclaimable,
            4 => Self::AcpiNvs,
            5 => Self::Unusable,
            _ => Self::Reserved,
        }
    }
}

/// One range of the memory map, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRange {
    /// Physical address of the first byte.
    pub start: u64,
    /// Physical address behind the last byte.
    pub end: u64,
    /// What is there.
    pub kind: MemoryKind,
}

/// Sorts a memory map and resolves overlaps: where two ranges claim a byte, the less usable kind wins. Neighbours of one
/// kind are joined.
#[must_use]
pub fn tidy(map: Vec<MemoryRange>) -> Vec<MemoryRange> {
    let mut edges: Vec<u64> = map.iter().flat_map(|r| [r.start, r.end]).collect();
    edges.sort_unstable();
    edges.dedup();
    let mut result: Vec<MemoryRange> = Vec::new();
    for (&start, &end) in edges.iter().zip(edges.iter().skip(1)) {
        // Reserved over NVS over reclaimable over RAM; unusable over all.
        let rank = |kind: MemoryKind| match kind {
            MemoryKind::Ram => 0,
            MemoryKind::AcpiReclaimable => 1,
            MemoryKind::AcpiNvs => 2,
            MemoryKind::Reserved => 3,
            MemoryKind::Unusable => 4,
        };
        let kind =
            map.iter().filter(|r| r.start <= start && end <= r.end).map(|r| r.kind).max_by_key(|kind| rank(*kind));
        let Some(kind) = kind else { continue };
        match result.last_mut() {
            Some(last) if last.end == start && last.kind == kind => last.end = end,
            _ => result.push(MemoryRange { start, end, kind }),
        }
    }
    result
}

/// Takes RAM above an address out of a map.
pub fn clip(map: &mut Vec<MemoryRange>, limit: u64) {
    for range in map.iter_mut().filter(|range| range.kind == MemoryKind::Ram) {
        range.end = range.end.min(limit);
    }
    map.retain(|range| range.start < range.end);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlaps_go_to_the_less_usable_kind() {
        let range = |start, end, kind| MemoryRange { start, end, kind };
        let map = tidy(alloc::vec![
            range(0x10_0000, 0x800_0000, MemoryKind::Ram),
            range(0, 0x9f000, MemoryKind::Ram),
            range(0x700_0000, 0x900_0000, MemoryKind::Reserved),
            range(0x9f000, 0x10_0000, MemoryKind::Reserved),
        ]);
        assert_eq!(
            map,
            [
                range(0, 0x9f000, MemoryKind::Ram),
                range(0x9f000, 0x10_0000, MemoryKind::Reserved),
                range(0x10_0000, 0x700_0000, MemoryKind::Ram),
                range(0x700_0000, 0x900_0000, MemoryKind::Reserved),
            ]
        );
    }

    #[test]
    fn memory_above_a_limit_is_not_there() {
        let range = |start, end, kind| MemoryRange { start, end, kind };
        let mut map = alloc::vec![
            range(0x10_0000, 0x800_0000, MemoryKind::Ram),
            range(0x800_0000, 0x900_0000, MemoryKind::Reserved),
            range(0x900_0000, 0xa00_0000, MemoryKind::Ram),
        ];
        clip(&mut map, 0x400_0000);
        assert_eq!(
            map,
            [range(0x10_0000, 0x400_0000, MemoryKind::Ram), range(0x800_0000, 0x900_0000, MemoryKind::Reserved)]
        );
    }
}

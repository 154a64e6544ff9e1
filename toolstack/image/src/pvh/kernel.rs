//! A kernel that can start as PVH: its segments by physical address, and its 32-bit entry.

use alloc::vec::Vec;

use crate::error::ImageError;
use crate::kernel::{Segment, open, read_notes, read_segments};
use crate::notes::Notes;

/// Start info and all that it points to, and every segment, must be reachable from 32-bit code without paging.
const LIMIT: u64 = 1 << 32;

/// A PVH kernel that can be laid out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel<'a> {
    /// In the ELF's order, none empty, none wrapping.
    pub segments: Vec<Segment<'a>>,
    /// What its notes say.
    pub notes: Notes<'a>,
    /// Physical address of the first instruction.
    pub entry: u64,
    /// End of the highest segment.
    pub end: u64,
}

impl<'a> Kernel<'a> {
    /// Reads an unpacked ELF kernel, of 64 or 32 bits, with a PHYS32_ENTRY note.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(image: &'a [u8]) -> Result<Self, ImageError> {
        let file = open(image)?;
        let notes = read_notes(&file, image)?;
        if !notes.found {
            return Err(ImageError::NoXenNotes("PVH"));
        }
        let entry = notes.phys32_entry.ok_or(ImageError::NoPvhEntry)?;
        // PADDR_OFFSET is about virtual addresses, of which this entry has none.
        let segments = read_segments(&file, image, 0)?;
        if segments.is_empty() {
            return Err(ImageError::BadElf("nothing to load"));
        }
        for (index, segment) in segments.iter().enumerate() {
            if segment.start + segment.size > LIMIT {
                let (paddr, size) = (segment.start, segment.size);
                return Err(ImageError::BadSegment { index, paddr, size, what: "lies above 4 GiB" });
            }
        }
        if !segments.iter().any(|s| (s.start..s.start + s.size).contains(&entry)) {
            return Err(ImageError::BadNote { note: "PHYS32_ENTRY", what: "outside of the kernel" });
        }
        let end = segments.iter().map(|s| s.start + s.size).max().unwrap_or(0);
        Ok(Self { segments, notes, entry, end })
    }
}

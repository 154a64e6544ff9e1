//! The guest's memory.

use crate::boot::Boot;
use core::ops::Range;

/// Where pseudo-physical address 0 is mapped. Must agree with `guest.ld`.
pub const DIRECT_MAP: u64 = 0xffff_8800_0000_0000;
/// Bytes of a page.
pub const PAGE_SIZE: u64 = 4096;

/// Finds memory for the first heap: the builder maps at least 512 KiB after the boot stack, which is one page
/// behind the page tables.
#[cfg_attr(not(target_os = "none"), expect(dead_code))]
pub(crate) fn init(boot: &Boot) -> Range<u64> {
    let start = boot.pt_base + (boot.nr_pt_frames + 1) * PAGE_SIZE;
    start..start + 0x80000
}

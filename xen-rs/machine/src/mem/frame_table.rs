//! The frame table of this machine: one [`PageInfo`] for each frame, mapped at a fixed address at boot.
//!
//! Unsafe: the table lies at a fixed address.

use super::boot_frames::BootFrames;
use super::layout::{FRAME_RECORD, FRAME_TABLE, PAGE_SHIFT};
use super::setup::end_of_ram;
use crate::boot_info::{BootInfo, MemoryKind};
use core::ops::Range;
use logic::frames::Buddy;
use logic::page::{FrameTable, PageInfo};
use xen_abi::ids::Mfn;

const _: () = assert!(size_of::<PageInfo>() as u64 == FRAME_RECORD);

/// The table of all frames.
#[inline(always)]
#[must_use]
#[allow(clippy::cast_possible_truncation, reason = "usize has 64 bits here")]
pub fn frames() -> FrameTable<'static> {
    // SAFETY: boot has mapped that many records of zeroes there, which are frames that are no memory; the fields are
    // atomics, and records of holes (mapped read-only) are never written, since they are not memory.
    FrameTable::new(unsafe { core::slice::from_raw_parts(FRAME_TABLE as *const PageInfo, end_of_ram().0 as usize) })
}

/// Enters all memory in the table and makes an allocator of what is free. What is RAM but not free (the image, the
/// tables of boot, the modules) belongs to the hypervisor; below 1 MiB everything counts as device memory.
#[must_use]
pub fn init(boot: &BootInfo, free: BootFrames) -> Buddy {
    let table = frames();
    let first = 0x10_0000 >> PAGE_SHIFT;
    for range in boot.memory_map.iter().filter(|r| r.kind == MemoryKind::Ram) {
        let pages = range.start.div_ceil(4096).max(first)..range.end.div_ceil(4096).min(table.end().0);
        table.reserve(Mfn(pages.start), Mfn(pages.end));
    }
    super::pv_pte::share_m2p();
    let mut buddy = Buddy::new();
    for range in free.ranges() {
        buddy.add(table, Mfn(range.start >> PAGE_SHIFT), Mfn(range.end >> PAGE_SHIFT), true);
    }
    buddy
}

/// Zeroes a frame that is nobody's.
pub fn zero(frame: &logic::frames::Unowned<'_>) {
    // SAFETY: the frame is memory in the direct map and nobody else uses it.
    unsafe { super::pv_pte::fill(frame.mfn()) }
}

/// Memory of a boot module that nobody needs any more: hands it to the allocator.
pub fn free_module(buddy: &mut Buddy, module: crate::boot_info::Module) {
    let Range { start, end } = module.phys();
    let (first, last) = (start.div_ceil(4096), end >> PAGE_SHIFT);
    if first < last {
        buddy.add(frames(), Mfn(first), Mfn(last), true);
    }
}

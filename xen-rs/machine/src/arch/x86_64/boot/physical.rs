//! Physical memory on the first page tables.
//!
//! Unsafe: physical addresses that a loader names become pointers.

use super::EARLY_MAPPED;
use crate::mem::layout::DIRECT_MAP;
use logic::boot::loader;

/// What the first page tables map. What lies above their reach reads as zero.
#[derive(Clone, Copy)]
pub(super) struct Physical(());

impl Physical {
    /// # Safety
    /// The first page tables are in use for as long as it is, and nobody writes to what is read.
    pub(super) unsafe fn new() -> Self {
        Self(())
    }
}

impl loader::Physical for Physical {
    fn byte(self, at: u64) -> u8 {
        if at >= EARLY_MAPPED {
            return 0;
        }
        // SAFETY: mapped by the first page tables, as `new` was promised.
        unsafe { ((DIRECT_MAP + at) as *const u8).read() }
    }
}

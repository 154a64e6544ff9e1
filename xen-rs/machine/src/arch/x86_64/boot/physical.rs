//! Reading what a loader left in physical memory, on the first page tables.
//!
//! Unsafe: physical addresses that a loader names become pointers.

use super::EARLY_MAPPED;
use crate::mem::layout::DIRECT_MAP;
use alloc::vec::Vec;

/// Longer command lines are cut.
const MAX_LINE: u64 = 4095;

/// A loader's structure, by its physical address. What lies above the first page tables' reach reads as zero.
#[derive(Clone, Copy)]
pub(super) struct Physical(u64);

impl Physical {
    /// # Safety
    /// The first page tables are in use, and the loader says that it put data there.
    pub(super) unsafe fn new(phys: u64) -> Self {
        Self(phys)
    }

    /// What another address, found in this structure, leads to.
    pub(super) fn follow(self, phys: u64) -> Self {
        Self(phys)
    }

    pub(super) fn byte(self, offset: u64) -> u8 {
        let at = self.0.saturating_add(offset);
        if at >= EARLY_MAPPED {
            return 0;
        }
        // SAFETY: mapped by the first page tables; the loader's data, as `new` was promised.
        unsafe { ((DIRECT_MAP + at) as *const u8).read() }
    }

    pub(super) fn u32(self, offset: u64) -> u32 {
        u32::from_le_bytes(core::array::from_fn(|i| self.byte(offset + i as u64)))
    }

    pub(super) fn u64(self, offset: u64) -> u64 {
        u64::from(self.u32(offset)) | u64::from(self.u32(offset + 4)) << 32
    }

    /// The string at an address, kept for good: the loader's memory is reused. Address 0 stands for no string.
    pub(super) fn string_at(self, phys: u64) -> &'static str {
        if phys == 0 {
            return "";
        }
        self.follow(phys).string(0)
    }

    /// The string at an offset, kept for good.
    pub(super) fn string(self, offset: u64) -> &'static str {
        let bytes: Vec<u8> = (0..MAX_LINE)
            .map(|i| self.byte(offset + i))
            .take_while(|byte| *byte != 0)
            .map(|byte| if byte.is_ascii() { byte } else { b'?' })
            .collect();
        alloc::string::String::from_utf8(bytes).map_or("", |text| text.leak())
    }
}

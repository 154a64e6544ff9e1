//! Windows on physical memory that is not in the direct map: device registers and firmware tables. They are never taken
//! back, and one page is mapped once.
//!
//! Unsafe: device memory is mapped.

use super::boot_frames::BootFrames;
use super::hypervisor_map::{Access, Tables};
use super::layout::{DEVICE_WINDOWS, DEVICE_WINDOWS_END, PAGE_SIZE};
use core::sync::atomic::{AtomicU64, Ordering};

/// Next free address.
static NEXT: AtomicU64 = AtomicU64::new(DEVICE_WINDOWS);

/// A mapped range of physical memory.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    va: u64,
    bytes: u64,
}

impl Window {
    /// Maps `bytes` from `phys`, which need not be on a page boundary.
    ///
    /// # Safety
    /// Boot, one CPU. With [`Access::Device`] the range holds registers whose driver the caller is; otherwise it holds
    /// data that only the firmware writes.
    pub(crate) unsafe fn map(frames: &mut BootFrames, phys: u64, bytes: u64, access: Access) -> Self {
        let offset = phys % PAGE_SIZE;
        let length = (offset + bytes).next_multiple_of(PAGE_SIZE);
        let va = NEXT.fetch_add(length, Ordering::Relaxed);
        assert!(va + length <= DEVICE_WINDOWS_END, "no address space for windows left");
        // SAFETY: one CPU, so nobody else changes the tables.
        let mut tables = unsafe { Tables::current(frames) };
        tables.map(va, phys - offset, length, access);
        Self { va: va + offset, bytes }
    }

    /// Its address.
    #[must_use]
    pub const fn va(self) -> u64 {
        self.va
    }

    /// Reads a 32-bit register.
    #[inline(always)]
    #[must_use]
    pub(crate) fn read32(self, offset: u64) -> u32 {
        debug_assert!(offset + 4 <= self.bytes);
        // SAFETY: inside the mapped range (offsets are constants of the driver).
        unsafe { ((self.va + offset) as *const u32).read_volatile() }
    }

    /// Writes a 32-bit register.
    #[inline(always)]
    pub(crate) fn write32(self, offset: u64, value: u32) {
        debug_assert!(offset + 4 <= self.bytes);
        // SAFETY: inside the mapped range; the effect of the value is the driver's business.
        unsafe { ((self.va + offset) as *mut u32).write_volatile(value) }
    }
}

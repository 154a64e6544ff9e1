//! Windows on physical memory that is not in the direct map: device registers and firmware tables. They are never taken
//! back, and one page is mapped once.
//!
//! Most are made at boot. [`DevicePage`]s are made later: their address space and its last-level table are set aside at
//! boot, so that all there is to do is to fill an entry that nobody has used before.
//!
//! Unsafe: device memory is mapped.

use super::boot_frames::BootFrames;
use super::frame_table::frames;
use super::hypervisor_map::{Access, Tables, page_bits};
use super::layout::{DEVICE_WINDOWS, DEVICE_WINDOWS_END, PAGE_SIZE};
use crate::arch::x86_64::acpi;
use crate::mailbox::Poll;
use core::sync::atomic::{AtomicU64, Ordering};
use logic::lock::{SpinLock, rank};
use xen_abi::ids::Mfn;

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

/// How many pages can be mapped after boot.
const SLOTS: usize = 256;

/// The pages that are mapped, in the order of their slots, and where the slots are.
struct Slots {
    va: u64,
    /// The entry of the first slot; the others follow it.
    entries: u64,
    phys: [u64; SLOTS],
    used: usize,
}

static SLOTS_IN_USE: SpinLock<Slots, { rank::LEAF }, Poll> =
    SpinLock::new(Slots { va: 0, entries: 0, phys: [0; SLOTS], used: 0 });

/// Sets the address space aside.
pub(crate) fn init_device_pages(frames: &mut BootFrames) {
    let bytes = SLOTS as u64 * PAGE_SIZE;
    // Aligned to its size, all of it lies in one last-level table.
    let start = NEXT.load(Ordering::Relaxed).next_multiple_of(bytes);
    assert!(start + bytes <= DEVICE_WINDOWS_END, "no address space for windows left");
    NEXT.store(start + bytes, Ordering::Relaxed);
    // SAFETY: boot, one CPU.
    let mut tables = unsafe { Tables::current(frames) };
    let entries = tables.window(start, Access::Device) as u64;
    SLOTS_IN_USE.lock_leaf(|slots| (slots.va, slots.entries) = (start, entries));
}

/// One page of a device's registers.
#[derive(Clone, Copy, Debug)]
pub struct DevicePage {
    va: u64,
}

impl DevicePage {
    /// The page with a physical address, which must be a device's: neither memory nor an interrupt controller. The error
    /// says whether that is the only thing that is missing: all windows are in use.
    pub fn map(phys: u64) -> Result<Self, bool> {
        let frame = phys >> 12;
        let is_device = (0x100..1 << 40).contains(&frame)
            && frames().ram(Mfn(frame)).is_none()
            && !acpi::interrupt_controllers().any(|controller| controller == frame);
        if !is_device {
            return Err(false);
        }
        let phys = frame << 12;
        SLOTS_IN_USE.lock_leaf(|slots| {
            let known = slots.phys.iter().take(slots.used).position(|mapped| *mapped == phys);
            let at = known.unwrap_or(slots.used);
            let Some(slot) = slots.phys.get_mut(at).filter(|_| slots.entries != 0) else { return Err(true) };
            if known.is_none() {
                *slot = phys;
                slots.used += 1;
                let entry = (slots.entries + at as u64 * 8) as *mut u64;
                // SAFETY: one of the entries set aside, under the lock; it was never present, so that no CPU remembers
                // anything for it; and what it maps is no memory.
                unsafe { entry.write_volatile(phys | page_bits(Access::Device)) };
            }
            Ok(Self { va: slots.va + at as u64 * PAGE_SIZE })
        })
    }

    /// Reads 32 bits; the offset is brought into the page.
    #[must_use]
    pub fn read32(self, offset: u64) -> u32 {
        // SAFETY: inside a mapped page of a device.
        unsafe { ((self.va + (offset & 0xffc)) as *const u32).read_volatile() }
    }

    /// Writes 32 bits; the offset is brought into the page. What a device does to memory when its registers are written
    /// is the control domain's responsibility, as with all that it does itself; so this stays within the crate.
    pub(crate) fn write32(self, offset: u64, value: u32) {
        // SAFETY: as above.
        unsafe { ((self.va + (offset & 0xffc)) as *mut u32).write_volatile(value) };
    }
}

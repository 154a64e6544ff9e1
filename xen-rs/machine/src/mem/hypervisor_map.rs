//! The hypervisor's own page tables: built once at boot, shared by every root table through L4 slots 256-271.
//!
//! Unsafe: the hypervisor's own page tables are built and loaded.

use super::boot_frames::BootFrames;
use super::direct_map::va_of_phys;
use super::layout::{FIRST_L4_SLOT, PAGE_SIZE};
use crate::arch::x86_64::cpu::{Features, has};
use core::sync::atomic::{AtomicU64, Ordering};

/// Bits of a page table entry.
pub mod pte {
    /// Present.
    pub const P: u64 = 1;
    /// Writable.
    pub const RW: u64 = 1 << 1;
    /// For ring 3 as well.
    pub const USER: u64 = 1 << 2;
    /// Write-through.
    pub const PWT: u64 = 1 << 3;
    /// Not cached.
    pub const PCD: u64 = 1 << 4;
    /// Accessed.
    pub const A: u64 = 1 << 5;
    /// Dirty.
    pub const D: u64 = 1 << 6;
    /// A large page.
    pub const PS: u64 = 1 << 7;
    /// Survives a change of the root table.
    pub const G: u64 = 1 << 8;
    /// Not executable; left out where the CPU lacks it.
    pub const NX: u64 = 1 << 63;
    /// The physical address.
    pub const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
}

/// What a mapping may be used for. There is no kind that is writable and executable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Code of the hypervisor.
    Execute,
    /// Constants.
    Read,
    /// Data.
    Write,
    /// Data that is not the same on every CPU or changes: not global.
    WriteLocal,
    /// As `WriteLocal`, but only to be read.
    ReadLocal,
    /// Registers of a device.
    Device,
    /// For guests to read as well.
    GuestRead,
}

impl Access {
    fn bits(self) -> u64 {
        use pte::{A, D, G, NX, P, PCD, PWT, RW, USER};
        let bits = match self {
            Self::Execute => P | A | G,
            Self::Read => P | A | G | NX,
            Self::Write => P | RW | A | D | G | NX,
            Self::WriteLocal => P | RW | A | D | NX,
            Self::ReadLocal => P | A | NX,
            Self::Device => P | RW | A | D | G | NX | PCD | PWT,
            // Not global: a guest's user mode must not find what its kernel has looked at (`VMASST_TYPE_m2p_strict`).
            Self::GuestRead => P | USER | A | NX,
        };
        if has(Features::NX) { bits } else { bits & !NX }
    }

    /// Bits of the entries that lead to such a mapping.
    fn table_bits(self) -> u64 {
        let user = if self == Self::GuestRead { pte::USER } else { 0 };
        pte::P | pte::RW | pte::A | user
    }
}

/// Physical address of the idle root table.
static ROOT: AtomicU64 = AtomicU64::new(0);

/// The hypervisor's root table: what a CPU runs on that runs no guest.
#[must_use]
pub fn idle_root() -> u64 {
    ROOT.load(Ordering::Relaxed)
}

/// L4 entries 256-271, which every root table of a guest holds as they are.
#[must_use]
pub fn hypervisor_slots() -> [u64; 16] {
    let root = va_of_phys(idle_root()) as *const u64;
    // SAFETY: the idle root is a table of 512 entries in the direct map, and these sixteen do not change after boot.
    core::array::from_fn(|i| unsafe { root.add(FIRST_L4_SLOT + i).read_volatile() })
}

/// Page tables under construction or in use; only the holder may change them.
pub(crate) struct Tables<'a> {
    root: u64,
    frames: &'a mut BootFrames,
}

impl<'a> Tables<'a> {
    /// An empty root table.
    pub(crate) fn new(frames: &'a mut BootFrames) -> Self {
        let root = Self::table(frames);
        Self { root, frames }
    }

    /// The tables in use, to add to them.
    ///
    /// # Safety
    /// Nobody else changes them meanwhile.
    pub(crate) unsafe fn current(frames: &'a mut BootFrames) -> Self {
        Self { root: idle_root(), frames }
    }

    pub(crate) fn root(&self) -> u64 {
        self.root
    }

    pub(crate) fn frames(&mut self) -> &mut BootFrames {
        self.frames
    }

    /// Makes these the tables that [`idle_root`] names.
    pub(crate) fn publish(&self) {
        ROOT.store(self.root, Ordering::Relaxed);
    }

    /// A zeroed page.
    fn table(frames: &mut BootFrames) -> u64 {
        let phys = match frames.take(PAGE_SIZE, PAGE_SIZE) {
            Some(phys) => phys,
            None => panic!("no memory for page tables"),
        };
        // SAFETY: fresh memory, mapped in the direct map.
        unsafe { (va_of_phys(phys) as *mut u64).write_bytes(0, 512) };
        phys
    }

    /// The entry for `va` at `level` (1 is the last), making the tables above it as needed.
    fn entry(&mut self, va: u64, level: u32, access: Access) -> *mut u64 {
        let mut table = self.root;
        for l in (level + 1..=4).rev() {
            let at = slot(table, va, l);
            // SAFETY: a table of ours in the direct map.
            let old = unsafe { at.read() };
            assert!(old & pte::PS == 0 || old == 0, "a large page lies at {va:#x}");
            if old & pte::P == 0 {
                table = Self::table(self.frames);
                // SAFETY: as above.
                unsafe { at.write(table | access.table_bits()) };
            } else {
                table = old & pte::ADDRESS;
                // SAFETY: as above.
                unsafe { at.write(old | access.table_bits()) };
            }
        }
        slot(table, va, level)
    }

    /// Maps `bytes` from `va` to `phys` with the largest pages that fit.
    pub(crate) fn map(&mut self, va: u64, phys: u64, bytes: u64, access: Access) {
        let mut done = 0;
        while done < bytes {
            let (va, phys, left) = (va + done, phys + done, bytes - done);
            let fits = |size: u64| (va | phys) & (size - 1) == 0 && left >= size;
            let (level, size) = if fits(1 << 30) && has(Features::PAGE_1G) {
                (3, 1 << 30)
            } else if fits(1 << 21) {
                (2, 1 << 21)
            } else {
                (1, PAGE_SIZE)
            };
            let large = if level > 1 { pte::PS } else { 0 };
            let at = self.entry(va, level, access);
            // SAFETY: a table of ours; the mapping is what the caller asked for.
            unsafe { at.write(phys | access.bits() | large) };
            done += size;
        }
    }

    /// Links an existing lower table (or shared tables of filler pages) at `va`.
    pub(crate) fn link(&mut self, va: u64, level: u32, table: u64, access: Access) {
        let at = self.entry(va, level, access);
        // SAFETY: a table of ours.
        unsafe { at.write(table | access.table_bits()) };
    }

    /// A last-level table whose 512 entries all map one page.
    pub(crate) fn filler_table(&mut self, phys: u64, access: Access) -> u64 {
        self.fill_table(phys | access.bits())
    }

    /// A table whose 512 entries all lead to one lower table.
    pub(crate) fn filler_tables(&mut self, table: u64, access: Access) -> u64 {
        self.fill_table(table | access.table_bits())
    }

    fn fill_table(&mut self, entry: u64) -> u64 {
        let table = Self::table(self.frames);
        for i in 0..512 {
            // SAFETY: a fresh table of 512 entries.
            unsafe { (va_of_phys(table) as *mut u64).add(i).write(entry) };
        }
        table
    }

    /// Address of the last-level entry for `va`, tables made as needed: for windows that change later.
    pub(crate) fn window(&mut self, va: u64, access: Access) -> *mut u64 {
        self.entry(va, 1, access)
    }
}

/// The entry for `va` in a table of `level`.
fn slot(table: u64, va: u64, level: u32) -> *mut u64 {
    let index = (va >> (12 + 9 * (level - 1))) & 511;
    (va_of_phys(table) + index * 8) as *mut u64
}

/// Bits of a page's entry for an access.
pub(crate) fn page_bits(access: Access) -> u64 {
    access.bits()
}

/// Drops what this CPU remembers of one page.
#[inline]
pub(crate) fn flush_page(va: u64) {
    // SAFETY: forgetting a translation changes nothing that memory safety rests on.
    unsafe { core::arch::asm!("invlpg [{}]", in(reg) va, options(nostack, preserves_flags)) };
}

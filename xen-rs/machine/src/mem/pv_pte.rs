//! The entries of guests' page tables, and the content of guests' pages, through the direct map.
//!
//! This is the one place where a number in memory stands for a reference: what is written here must have been counted by
//! `logic::page`, which hands out the proofs ([`Table`], [`TypeRef`]) that the functions ask for. Guests see the same
//! memory at the same time, so everything is atomic or volatile, and nothing is a reference.
//!
//! Unsafe: guests' page tables and pages are read and written through the direct map.

use super::direct_map::va_of;
use super::frame_table::frames;
use super::hypervisor_map::hypervisor_slots;
use super::layout::{FIRST_L4_SLOT, M2P};
use crate::arch::x86_64::cpu::read_cr3;
use core::sync::atomic::{AtomicU64, Ordering};
use logic::page::{Descriptors, Entry, Frame, RootTable, Slot, Table, TypeRef, Writable, entry::bit};
use logic::trap::descriptor::Checked;
use xen_abi::ids::{DomId, Mfn};

/// An entry of a frame of memory, as an atomic.
///
/// # Safety
/// The frame is memory, so it is in the direct map for good.
#[inline(always)]
unsafe fn cell(mfn: Mfn, slot: Slot) -> &'static AtomicU64 {
    let at = va_of(mfn) + u64::from(slot.number()) * 8;
    // SAFETY: aligned, mapped for good, and every access of ours to guests' pages is atomic or by string moves.
    unsafe { AtomicU64::from_ptr(at as *mut u64) }
}

/// Reads an entry of a table.
#[inline(always)]
#[must_use]
pub fn read(table: &Table<'_>, slot: Slot) -> Entry {
    // SAFETY: a frame of the frame table that is memory.
    Entry(unsafe { cell(table.mfn(), slot) }.load(Ordering::Relaxed))
}

/// Exchanges an entry of a table; a full barrier.
#[inline(always)]
pub fn swap(table: &Table<'_>, slot: Slot, new: Entry) -> Entry {
    // SAFETY: as in `read`; the new entry is counted, says the proof's maker.
    Entry(unsafe { cell(table.mfn(), slot) }.swap(new.0, Ordering::SeqCst))
}

/// Exchanges an entry of a table if it still is `old`; a full barrier.
#[inline(always)]
pub fn compare_exchange(table: &Table<'_>, slot: Slot, old: Entry, new: Entry) -> Result<(), Entry> {
    // SAFETY: as in `swap`.
    let cell = unsafe { cell(table.mfn(), slot) };
    cell.compare_exchange(old.0, new.0, Ordering::SeqCst, Ordering::Relaxed).map(drop).map_err(Entry)
}

/// The slot of the table that shows guests the machine-to-phys table.
const M2P_SLOT: u16 = FIRST_L4_SLOT as u16;

/// Puts the hypervisor's sixteen entries into a root table. `m2p`: with the one for guests to read the machine-to-phys
/// table by.
pub fn fill_root(root: &Table<'_>, m2p: bool) {
    for (number, entry) in (M2P_SLOT..).zip(hypervisor_slots()) {
        let entry = if number == M2P_SLOT && !m2p { 0 } else { entry };
        // SAFETY: as in `swap`: these entries are the hypervisor's own.
        unsafe { cell(root.mfn(), Slot::new(number)) }.store(entry, Ordering::Relaxed);
    }
}

/// Shows or hides the machine-to-phys table in a root in use (`VMASST_TYPE_m2p_strict`: the user root must not have it).
/// True when something changed.
pub fn show_m2p(root: &TypeRef<'_, RootTable>, show: bool) -> bool {
    let entry = if show { hypervisor_slots()[0] } else { 0 };
    // SAFETY: as in `fill_root`.
    let cell = unsafe { cell(root.mfn(), Slot::new(M2P_SLOT)) };
    let changed = (cell.load(Ordering::Relaxed) ^ entry) & bit::PRESENT != 0;
    if changed {
        cell.store(entry, Ordering::Relaxed);
    }
    changed
}

/// The last-level entry that translates a guest's address in the tables this CPU has loaded: its table, slot and value.
///
/// Another CPU may change the tables meanwhile, so the answer is a hint: whoever acts on it locks the table first.
#[inline]
#[must_use]
pub fn walk(va: u64) -> Option<(Frame<'static>, Slot, Entry)> {
    let (f, slot) = walk_to_table(va)?;
    Some((f, slot, peek(f, slot)))
}

/// [`walk`], for whom the entry does not matter.
#[inline]
#[must_use]
pub fn walk_to_table(va: u64) -> Option<(Frame<'static>, Slot)> {
    walk_from(read_cr3() & bit::ADDRESS, va, &mut 0)
}

/// As [`walk`], and the rights that the entries on the way have in common (RW and USER; NX if any has it).
#[inline]
#[must_use]
pub fn walk_with_rights(va: u64) -> Option<(Entry, u64)> {
    let mut rights = bit::RW | bit::USER;
    let (f, slot) = walk_from(read_cr3() & bit::ADDRESS, va, &mut rights)?;
    let entry = peek(f, slot);
    entry.is_present().then_some(())?;
    Some((entry, merge(rights, entry)))
}

#[inline(always)]
const fn merge(rights: u64, entry: Entry) -> u64 {
    (rights & (entry.0 | bit::NX)) | (entry.0 & bit::NX)
}

#[inline(always)]
fn walk_from(root: u64, va: u64, rights: &mut u64) -> Option<(Frame<'static>, Slot)> {
    if !super::layout::is_guest_address(va) {
        return None;
    }
    let end = frames().end().0 << 12;
    let mut at = root;
    for level in [3, 2, 1] {
        // Another CPU may have taken the table out of use meanwhile, so an entry may be anything, and lead anywhere.
        if at >= end {
            return None;
        }
        let entry = glance(at + (va >> (9 + 9 * level) & 0xff8));
        if entry.0 & (bit::PRESENT | bit::PSE) != bit::PRESENT {
            return None;
        }
        *rights = merge(*rights, entry);
        at = entry.0 & bit::ADDRESS;
    }
    let f = frames().ram(Mfn(at >> 12))?;
    Some((f, Slot::new((va >> 12 & 511) as u16)))
}

/// What lies at a machine address below the end of memory: zero if that is no memory.
#[cfg(target_os = "none")]
#[inline(always)]
fn glance(at: u64) -> Entry {
    let value: u64;
    // SAFETY: an address of the direct map. A hole there faults, which the exception table turns into zero.
    unsafe {
        core::arch::asm!(
            "2: mov {value}, [{at} + {direct_map}]",
            "3:",
            ".pushsection .text.fixup, \"ax\"",
            "4: xor {value:e}, {value:e}",
            "jmp 3b",
            ".popsection",
            ".pushsection .ex_table, \"a\"",
            ".long 2b - ., 4b - .",
            ".popsection",
            value = out(reg) value, at = in(reg) at, direct_map = in(reg) va_of(Mfn(0)), options(nostack, readonly)
        );
    }
    Entry(value)
}

#[cfg(not(target_os = "none"))]
fn glance(at: u64) -> Entry {
    frames().ram(Mfn(at >> 12)).map_or(Entry(0), |f| peek(f, Slot::of_address(at)))
}

/// A word of a frame, whatever it holds now.
#[inline(always)]
#[must_use]
pub fn peek(f: Frame<'_>, slot: Slot) -> Entry {
    // SAFETY: a frame of the frame table that is memory.
    Entry(unsafe { cell(f.mfn(), slot) }.load(Ordering::Relaxed))
}

/// Writes a word of a page that is held as writable.
#[inline(always)]
pub fn write_word(page: &TypeRef<'_, Writable>, slot: Slot, value: u64) {
    // SAFETY: as in `read`; the page is no table while it is held as writable.
    unsafe { cell(page.mfn(), slot) }.store(value, Ordering::Release);
}

/// Writes a descriptor into a table that may be in use.
pub fn write_descriptor(table: &TypeRef<'_, Descriptors>, slot: Slot, value: Checked) {
    // SAFETY: as in `read`; the page holds descriptors, and this is one that a guest may have.
    unsafe { cell(table.mfn(), slot) }.store(value.raw(), Ordering::Release);
}

/// Writes bytes into a page that is held as writable, from `offset` on, up to the end of the page.
pub fn write_bytes(page: &TypeRef<'_, Writable>, offset: usize, bytes: &[u8]) {
    let offset = offset.min(4096);
    let length = bytes.len().min(4096 - offset);
    // SAFETY: within one page of memory that is no table while held as writable; guests may write it too, which string
    // moves do not mind.
    unsafe { string_copy(va_of(page.mfn()) + offset as u64, bytes.as_ptr() as u64, length) }
}

/// Reads bytes of a page, from `offset` on, up to the end of the page.
pub fn read_bytes(f: Frame<'_>, offset: usize, bytes: &mut [u8]) {
    let offset = offset.min(4096);
    let length = bytes.len().min(4096 - offset);
    // SAFETY: within one page of memory.
    unsafe { string_copy(bytes.as_mut_ptr() as u64, va_of(f.mfn()) + offset as u64, length) }
}

/// Zeroes a page that is held as writable.
pub fn clear(page: &TypeRef<'_, Writable>) {
    // SAFETY: it is no table while held as writable.
    unsafe { fill(page.mfn()) }
}

/// Copies a page to one that is held as writable.
pub fn copy_page(to: &TypeRef<'_, Writable>, from: Frame<'_>) {
    // SAFETY: two whole pages of memory; the target is no table while held as writable.
    unsafe { string_copy(va_of(to.mfn()), va_of(from.mfn()), 4096) }
}

/// Bytes of one page that go to another: where they are there and there, and how many.
#[derive(Clone, Copy, Debug)]
pub struct Bytes {
    to: u16,
    from: u16,
    length: u16,
}

impl Bytes {
    /// If they reach beyond neither page.
    #[inline(always)]
    #[must_use]
    pub fn new(to: u16, from: u16, length: u16) -> Option<Self> {
        (u32::from(to.max(from)) + u32::from(length) <= 4096).then_some(Self { to, from, length })
    }
}

/// Copies bytes between pages; the caller has a reference on the one it reads.
#[inline(always)]
pub fn copy_bytes(to: &TypeRef<'_, Writable>, from: Frame<'_>, bytes: Bytes) {
    let (to, from) = (va_of(to.mfn()) + u64::from(bytes.to), va_of(from.mfn()) + u64::from(bytes.from));
    // SAFETY: within two pages of memory; the target is no table while held as writable.
    unsafe { string_copy(to, from, bytes.length.into()) }
}

/// Zeroes a frame, by quadwords.
///
/// # Safety
/// It is memory, and nobody minds.
pub(super) unsafe fn fill(mfn: Mfn) {
    // SAFETY: one page of the direct map.
    unsafe {
        core::arch::asm!("rep stosq", inout("rdi") va_of(mfn) => _, inout("rcx") 512u64 => _, in("rax") 0u64,
            options(nostack, preserves_flags));
    }
}

/// Copies memory that others may change meanwhile.
///
/// # Safety
/// Both ranges are mapped, and the target may be overwritten.
#[inline(always)]
unsafe fn string_copy(to: u64, from: u64, length: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        core::arch::asm!("rep movsq", "mov rcx, {tail}", "rep movsb",
            inout("rdi") to => _, inout("rsi") from => _, inout("rcx") length as u64 / 8 => _,
            tail = in(reg) length as u64 % 8, options(nostack, preserves_flags));
    }
}

/// Sets what the machine-to-phys table says of a frame that is memory.
#[inline(always)]
pub fn set_m2p(f: Frame<'_>, pfn: u64) {
    // SAFETY: the table has a writable record for each frame that is memory; guests only read it.
    unsafe { AtomicU64::from_ptr((M2P + f.mfn().0 * 8) as *mut u64) }.store(pfn, Ordering::Relaxed);
}

/// What the machine-to-phys table says of a frame.
#[inline]
#[must_use]
pub fn m2p(mfn: Mfn) -> Option<u64> {
    if mfn.0 >= frames().end().0 {
        return None;
    }
    // SAFETY: the table has a readable record for each frame of the frame table.
    let pfn = unsafe { AtomicU64::from_ptr((M2P + mfn.0 * 8) as *mut u64) }.load(Ordering::Relaxed);
    (pfn != u64::MAX).then_some(pfn)
}

/// What is behind a part of 2 MiB of the machine-to-phys table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum M2pExtent {
    /// Frames that follow each other from this one on; `DOMID_XEN` owns them.
    Frames(Mfn),
    /// Nothing of its own: no frame has its record there.
    Hole,
    /// It lies behind the end.
    Beyond,
}

/// The part of the machine-to-phys table that lies at `index` times 2 MiB.
#[must_use]
pub fn m2p_extent(index: u64) -> M2pExtent {
    let offset = index.saturating_mul(2 << 20);
    if offset >= frames().end().0 * 8 {
        return M2pExtent::Beyond;
    }
    let va = M2P + offset;
    let mut table = Mfn(super::hypervisor_map::idle_root() >> 12);
    for shift in [39, 30, 21] {
        let Some(f) = frames().ram(table) else { return M2pExtent::Hole };
        let entry = peek(f, Slot::new((va >> shift & 511) as u16));
        if shift == 21 && entry.0 & bit::PSE != 0 {
            return M2pExtent::Frames(entry.mfn());
        }
        if !entry.is_present() {
            return M2pExtent::Hole;
        }
        table = entry.mfn();
    }
    M2pExtent::Hole
}

/// Lets guests that may map pages of `DOMID_XEN` map the machine-to-phys table, for reading.
pub(super) fn share_m2p() {
    for index in 0.. {
        match m2p_extent(index) {
            M2pExtent::Frames(first) => frames().show(first, Mfn(first.0 + (2 << 20 >> 12)), DomId::XEN),
            M2pExtent::Hole => {}
            M2pExtent::Beyond => return,
        }
    }
}

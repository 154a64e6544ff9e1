//! The windows through which this CPU sees a guest's descriptor tables: sixteen pages of GDT, the last two of them the
//! hypervisor's, and sixteen pages of LDT. They belong to the CPU and change with the vCPU.
//!
//! A page stays in the window until the next load, so a vCPU's references are given up only after another load (or
//! [`unload`]) on the CPU that ran it.
//!
//! Unsafe: page-table entries of this CPU's descriptor windows are changed.

use super::gdt::{self, GUEST_PAGES, LDT_INDEX, LDT_SELECTOR};
use super::percpu::{self, GDT_WINDOW, LDT_WINDOW, WINDOW_PAGES};
use crate::mem::hypervisor_map::{Access, flush_page, page_bits};
use crate::mem::layout::{PAGE_SHIFT, PAGE_SIZE};
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use logic::page::{Descriptors, TypeRef};

/// Descriptors in one page.
const PER_PAGE: u32 = 512;

/// The last-level entry of a page of the windows: GDT first, then LDT.
fn entry(page: usize) -> Option<&'static AtomicU64> {
    let first = percpu::this().window_entries.load(Ordering::Relaxed) as *mut u64;
    // SAFETY: 32 entries in a row of a table of ours that lives for good (`percpu::create`), used by this CPU alone.
    (page < 2 * WINDOW_PAGES).then(|| unsafe { AtomicU64::from_ptr(first.add(page)) })
}

/// Puts an entry in its place and forgets the old one.
fn set(page: usize, value: u64) {
    if entry(page).is_some_and(|entry| entry.swap(value, Ordering::Relaxed) != value) {
        flush_page(percpu::region() + GDT_WINDOW + page as u64 * PAGE_SIZE);
    }
}

fn mapped(frame: &TypeRef<'_, Descriptors>) -> u64 {
    // The CPU sets accessed bits.
    frame.mfn().0 << PAGE_SHIFT | page_bits(Access::WriteLocal)
}

/// Shows the guest's pages of its GDT; where it has none, there are no descriptors.
pub fn load_gdt<'a>(pages: impl IntoIterator<Item = &'a TypeRef<'static, Descriptors>>) {
    let this = percpu::this();
    let mut count = 0;
    for (page, frame) in pages.into_iter().take(GUEST_PAGES).enumerate() {
        set(page, mapped(frame));
        count = page + 1;
    }
    let empty = this.no_descriptors.load(Ordering::Relaxed);
    for page in count..this.gdt_pages.swap(count as u32, Ordering::Relaxed) as usize {
        set(page, empty);
    }
}

/// Makes the LDT register refer to a table of that many descriptors, none of whose pages is shown yet: the first use of
/// one faults in the window ([`ldt_fault`]). 0: no LDT.
pub fn load_ldt(entries: u32) {
    let this = percpu::this();
    let mut shown = this.ldt_pages.swap(0, Ordering::Relaxed);
    while shown != 0 {
        set(WINDOW_PAGES + shown.trailing_zeros() as usize, 0);
        shown &= shown - 1;
    }
    let had = this.ldt_entries.swap(entries, Ordering::Relaxed);
    if entries == 0 && had == 0 {
        return;
    }
    let entries = entries.min(PER_PAGE * WINDOW_PAGES as u32);
    let (selector, [low, high]) = if entries == 0 {
        (0, [0, 0])
    } else {
        let base = percpu::region() + LDT_WINDOW;
        (LDT_SELECTOR, gdt::system_descriptor(base, u64::from(entries) * 8 - 1, gdt::TYPE_LDT))
    };
    let own = percpu::region() + GDT_WINDOW + GUEST_PAGES as u64 * PAGE_SIZE;
    let at = (own + LDT_INDEX as u64 * 8) as *mut u64;
    // SAFETY: the hypervisor's page of this CPU's GDT; the descriptor covers the LDT window, where guests have only
    // descriptor pages.
    unsafe {
        at.write_volatile(low);
        at.add(1).write_volatile(high);
        asm!("lldt {:x}", in(reg) selector, options(nostack, preserves_flags));
    }
}

/// If a page fault hit this CPU's LDT window: which page of the guest's LDT is wanted.
#[must_use]
pub fn ldt_fault(address: u64) -> Option<u32> {
    let page = address.checked_sub(percpu::region() + LDT_WINDOW)? / PAGE_SIZE;
    u32::try_from(page).ok().filter(|page| *page < WINDOW_PAGES as u32)
}

/// A data segment as 32-bit code uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataSegment {
    /// Where it starts.
    pub base: u32,
    /// Its last offset.
    pub limit: u32,
    /// It can be read.
    pub readable: bool,
    /// It can be written to.
    pub writable: bool,
}

/// The data segment of a selector; `None` if ring 3 cannot use it as one (SDM vol. 3A, 3.4.5). One that grows downwards
/// is not taken either.
#[must_use]
pub fn data(selector: u16) -> Option<DataSegment> {
    const WINDOW_BYTES: u64 = WINDOW_PAGES as u64 * PAGE_SIZE;
    if selector & !3 == 0 {
        return None;
    }
    let rights = super::segments::attributes(selector)?;
    let (kind, is_segment, present) = (rights >> 8 & 0xf, rights >> 12 & 1 != 0, rights >> 15 & 1 != 0);
    let is_code = kind & 8 != 0;
    if !is_segment || !present || !is_code && kind & 4 != 0 {
        return None;
    }
    let window = if selector & 4 == 0 { GDT_WINDOW } else { LDT_WINDOW };
    let offset = u64::from(selector & !7);
    if offset >= WINDOW_BYTES {
        return None;
    }
    // SAFETY: `lar` has just read this descriptor, so its page is shown in the window; only this CPU changes that.
    let raw = unsafe { ((percpu::region() + window + offset) as *const u64).read_volatile() };
    let base = (raw >> 16 & 0xff_ffff | raw >> 56 << 24) as u32;
    let limit = (raw & 0xffff | raw >> 32 & 0xf_0000) as u32;
    let limit = if raw >> 55 & 1 != 0 { limit << 12 | 0xfff } else { limit };
    Some(DataSegment { base, limit, readable: !is_code || kind & 2 != 0, writable: !is_code && kind & 2 != 0 })
}

/// Shows a page of the guest's LDT.
pub fn map_ldt(page: u32, frame: &TypeRef<'static, Descriptors>) {
    let index = page as usize;
    if index < WINDOW_PAGES {
        set(WINDOW_PAGES + index, mapped(frame));
        percpu::this().ldt_pages.fetch_or(1 << index, Ordering::Relaxed);
    }
}

/// No guest's tables.
pub fn unload() {
    load_gdt(core::iter::empty());
    load_ldt(0);
}

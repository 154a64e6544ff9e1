//! This domain's page tables: look-up, new tables, and the direct map.
//!
//! Every page table is a page of our own memory that is mapped read-only in the direct map; entries are read there and
//! written by `mmu_update`. Permissions are granted in the L1 entries only.
//!
//! Unsafe: page tables are read through the direct map, and changed.

use super::window::MapError;
use super::{PAGE_SIZE, address, frames, m2p, p2m};
use crate::call::mmu::{mmu_update, update_va_mapping};
use crate::pvh;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use xen_abi::errno::Errno;
use xen_abi::ids::{DomId, Mfn, Pfn};
use xen_abi::mmu::{MMU_NORMAL_PT_UPDATE, MmuUpdate, UVMF_INVLPG};

/// Entry is valid.
pub const PRESENT: u64 = 1 << 0;
/// Writes are allowed.
pub const WRITE: u64 = 1 << 1;
/// User mode may access.
pub const USER: u64 = 1 << 2;
/// Write-through and cache-disable together: uncached.
pub const UNCACHED: u64 = 3 << 3;
/// Has been accessed.
pub const ACCESSED: u64 = 1 << 5;
/// Has been written to.
pub const DIRTY: u64 = 1 << 6;
/// Maps a large page (levels 2 and 3).
const LARGE: u64 = 1 << 7;
/// The bits of an entry that hold the frame's address.
pub const FRAME_MASK: u64 = 0x000f_ffff_ffff_f000;

/// A leaf of kernel memory, readable.
pub const READ_ONLY: u64 = PRESENT | ACCESSED;
/// A leaf of kernel memory, writable.
pub const READ_WRITE: u64 = PRESENT | WRITE | ACCESSED | DIRTY;
/// An entry that points to a lower table.
pub const TABLE: u64 = PRESENT | WRITE | USER | ACCESSED | DIRTY;

static ROOT: AtomicU64 = AtomicU64::new(0);

/// The machine frame of the kernel's L4 table.
pub fn root() -> Mfn {
    Mfn(ROOT.load(Ordering::Relaxed))
}

/// Remembers the root that the builder made.
pub(super) fn init(pt_base: u64) {
    let mfn = p2m(Pfn((pt_base - super::DIRECT_MAP) / PAGE_SIZE)).expect("the root has a frame");
    ROOT.store(mfn.0, Ordering::Relaxed);
}

/// The root that the entry code made. What it mapped where it lies is not needed any more: address 0 is a mistake again.
pub(super) fn init_pvh() {
    ROOT.store(pvh::root().0, Ordering::Relaxed);
    write_directly(entry_address(pvh::root(), 0), 0);
}

/// The index into the table of `level` (1..=4) on the way to `va`.
pub const fn index(va: u64, level: u32) -> u64 {
    va >> (12 + 9 * (level - 1)) & 511
}

/// Machine address of an entry.
pub const fn entry_address(table: Mfn, index: u64) -> u64 {
    table.0 * PAGE_SIZE + index * 8
}

/// Reads an entry of a table of ours.
pub fn read_entry(table: Mfn, index: u64) -> u64 {
    let pfn = m2p(table).expect("page tables are our own memory");
    // SAFETY: the frame is mapped in the direct map; the processor sets bits in entries, hence the volatile read.
    unsafe { ((address(pfn) + (index & 511) * 8) as *const u64).read_volatile() }
}

/// The machine frame that an entry points to.
pub const fn frame_of(entry: u64) -> Mfn {
    Mfn((entry & FRAME_MASK) >> 12)
}

/// The table of `level` that translates `va`, if there is one.
pub fn table_for(va: u64, level: u32) -> Option<Mfn> {
    let mut table = root();
    for above in (level + 1..=4).rev() {
        let entry = read_entry(table, index(va, above));
        if entry & PRESENT == 0 || entry & LARGE != 0 {
            return None;
        }
        table = frame_of(entry);
    }
    Some(table)
}

/// The L1 entry of `va`; `None` when there is no L1 table.
pub fn lookup(va: u64) -> Option<u64> {
    match table_for(va, 1) {
        Some(l1) => Some(read_entry(l1, index(va, 1))),
        None if pvh::is_active() => in_large_page(va),
        None => None,
    }
}

/// What the L1 entry would be where a page of 2 MiB maps `va`.
fn in_large_page(va: u64) -> Option<u64> {
    const OFFSET: u64 = (1 << 21) - 1;
    let entry = read_entry(table_for(va, 2)?, index(va, 2));
    let small = entry & !LARGE & !(OFFSET & FRAME_MASK) | va & OFFSET & FRAME_MASK;
    (entry & PRESENT != 0 && entry & LARGE != 0).then_some(small)
}

/// Machine address of the L1 entry of `va`; `None` when there is no L1 table.
pub fn slot(va: u64) -> Option<u64> {
    Some(entry_address(table_for(va, 1)?, index(va, 1)))
}

/// Makes a mapped frame that nobody uses into one that may become a page table: read-only, filled by `entry`.
fn prepare(pfn: Pfn, entry: impl Fn(u64) -> u64) -> Result<Mfn, Errno> {
    let mfn = p2m(pfn).ok_or(Errno::EINVAL)?;
    for index in 0..512 {
        // SAFETY: the frame is mapped writable and unused.
        unsafe { ((address(pfn) + index * 8) as *mut u64).write(entry(index)) };
    }
    if pvh::is_active() {
        return Ok(mfn);
    }
    // SAFETY: nothing writes to the frame any more.
    unsafe { update_va_mapping(address(pfn), mfn.0 << 12 | READ_ONLY, UVMF_INVLPG) }?;
    Ok(mfn)
}

fn write_entry(table: Mfn, index: u64, value: u64) -> Result<(), Errno> {
    if pvh::is_active() {
        write_directly(entry_address(table, index), value);
        return Ok(());
    }
    let request = MmuUpdate { ptr: entry_address(table, index) | MMU_NORMAL_PT_UPDATE, val: value };
    // SAFETY: used for entries that were empty, so no mapping is lost.
    unsafe { mmu_update(&[request], DomId::SELF) }.map_err(|(_, errno)| errno)
}

/// Writes an entry of a page table in a hardware container, and forgets what the processor knows of it.
fn write_directly(address: u64, value: u64) {
    // SAFETY: page tables are in the direct map; the callers answer for what the entry maps.
    unsafe { ((super::DIRECT_MAP + address) as *mut u64).write_volatile(value) };
    #[cfg(target_os = "none")]
    // SAFETY: flushing changes no mapping.
    unsafe {
        core::arch::asm!("mov {0}, cr3", "mov cr3, {0}", out(reg) _, options(nostack, preserves_flags));
    }
}

/// The table of `level` for `va`; missing ones are made.
fn ensure(va: u64, level: u32) -> Result<Mfn, Errno> {
    let mut table = root();
    for above in (level + 1..=4).rev() {
        let entry = read_entry(table, index(va, above));
        table = if entry & PRESENT == 0 {
            let new = prepare(frames::take().ok_or(Errno::ENOMEM)?, |_| 0)?;
            write_entry(table, index(va, above), new.0 << 12 | TABLE)?;
            new
        } else if entry & LARGE != 0 {
            // Only a container has large pages; one is mapped by 512 small ones from now on.
            let small = |at: u64| (entry & !LARGE) + at * PAGE_SIZE;
            let new = prepare(frames::take().ok_or(Errno::ENOMEM)?, small)?;
            write_entry(table, index(va, above), new.0 << 12 | TABLE)?;
            new
        } else {
            frame_of(entry)
        };
    }
    Ok(table)
}

/// Machine address of the L1 entry of `va`; missing tables are made.
///
/// # Errors
/// `ENOMEM` without frames for tables, else what the hypervisor says.
pub fn ensure_slot(va: u64) -> Result<u64, Errno> {
    Ok(entry_address(ensure(va, 1)?, index(va, 1)))
}

/// Sets the L1 entry of one page of our own: `update_va_mapping`, and in a container a store.
///
/// # Safety
/// The page is not in use, or what it maps stays the same.
///
/// # Errors
/// `ENOMEM` without frames for tables, else what the hypervisor says.
pub unsafe fn set_entry(va: u64, entry: u64) -> Result<(), Errno> {
    if pvh::is_active() {
        write_directly(ensure_slot(va)?, entry);
        return Ok(());
    }
    // SAFETY: by the contract above.
    unsafe { update_va_mapping(va, entry, UVMF_INVLPG) }
}

/// Sets the L1 entries of consecutive pages from `va` on; `owner` owns the frames.
///
/// # Safety
/// The pages are not in use.
///
/// # Errors
/// What the hypervisor says about which page; the pages before it are mapped.
pub unsafe fn set_entries(va: u64, entries: impl Iterator<Item = u64>, owner: DomId) -> Result<(), MapError> {
    // SAFETY: by the contract above.
    unsafe { set_entries_by(MMU_NORMAL_PT_UPDATE, va, entries, owner) }
}

/// [`set_entries`] with another command of `mmu_update`.
///
/// # Safety
/// As for [`set_entries`].
///
/// # Errors
/// As for [`set_entries`].
pub unsafe fn set_entries_by(
    command: u64,
    va: u64,
    entries: impl Iterator<Item = u64>,
    owner: DomId,
) -> Result<(), MapError> {
    let mut batch: Vec<MmuUpdate> = Vec::with_capacity(512);
    let mut done = 0;
    let mut table = None;
    let mut entries = entries.peekable();
    while let Some(val) = entries.next() {
        let page = va + (done + batch.len()) as u64 * PAGE_SIZE;
        let l1 = match table {
            Some(l1) if index(page, 1) != 0 => l1,
            _ => ensure(page, 1).map_err(|errno| MapError { index: done + batch.len(), errno })?,
        };
        table = Some(l1);
        batch.push(MmuUpdate { ptr: entry_address(l1, index(page, 1)) | command, val });
        if batch.len() == 512 || entries.peek().is_none() {
            if pvh::is_active() {
                if owner != DomId::SELF {
                    return Err(MapError { index: done, errno: Errno::EOPNOTSUPP });
                }
                batch.iter().for_each(|update| write_directly(update.ptr & !3, update.val));
                done += batch.len();
                batch.clear();
                continue;
            }
            // SAFETY: by the contract above.
            unsafe { mmu_update(&batch, owner) }.map_err(|(count, errno)| MapError { index: done + count, errno })?;
            done += batch.len();
            batch.clear();
        }
    }
    Ok(())
}

/// Extends the direct map over frames `0..frames`.
///
/// New L1 tables come from the lowest free frames, which the builder has mapped; each maps 512 more.
pub(super) fn map_all(frames: u64) {
    let leaf = |pfn: u64| match p2m(Pfn(pfn)) {
        Some(mfn) if pfn < frames => mfn.0 << 12 | READ_WRITE,
        _ => 0,
    };
    let mut pfn = 0;
    while pfn < frames {
        let va = address(Pfn(pfn));
        if let Some(entry) = lookup(va) {
            if entry & PRESENT == 0 && leaf(pfn) != 0 {
                let l1 = table_for(va, 1).expect("it was just there");
                write_entry(l1, index(va, 1), leaf(pfn)).expect("own memory can be mapped");
            }
            pfn += 1;
            continue;
        }
        let l2 = ensure(va, 2).expect("the direct map has its tables");
        let fresh = frames::take().expect("there are frames for the direct map");
        let l1 = prepare(fresh, |index| leaf(pfn + index)).expect("the lowest free frames are mapped");
        write_entry(l2, index(va, 2), l1.0 << 12 | TABLE).expect("own memory can be mapped");
        pfn = (pfn | 511) + 1;
    }
}

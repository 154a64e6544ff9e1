//! Builds the final page tables at boot: the image by segment, the direct map, the frame table, the machine-to-phys table.
//!
//! Unsafe: the final page tables are built and loaded.

use super::boot_frames::BootFrames;
use super::direct_map::va_of_phys;
use super::hypervisor_map::{Access, Tables};
use super::layout::{DIRECT_MAP, FRAME_RECORD, FRAME_TABLE, IMAGE_OFFSET, M2P, M2P_GUEST, PAGE_SHIFT, PAGE_SIZE};
use crate::arch::x86_64::cpu::{self, Features, cr4, has};
use crate::boot_info::{BootInfo, MemoryKind};
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};
use xen_abi::ids::Mfn;

unsafe extern "C" {
    static __text_start: u8;
    static __text_end: u8;
    static __rodata_start: u8;
    static __rodata_end: u8;
    static __data_start: u8;
    static __bss_end: u8;
}

/// One more than the highest frame number of RAM that is used.
static END_OF_RAM: AtomicU64 = AtomicU64::new(0);

/// One more than the highest frame number of RAM in use: the length of the frame table and of the machine-to-phys table.
#[must_use]
pub fn end_of_ram() -> Mfn {
    Mfn(END_OF_RAM.load(Ordering::Relaxed))
}

const LARGE: u64 = 2 << 20;

/// Builds the tables and switches to them. On return all RAM is in the direct map and the identity map is gone.
pub(crate) fn init(boot: &BootInfo, image: Range<u64>, early_limit: u64) -> BootFrames {
    let mut frames = BootFrames::new(boot, image, early_limit);
    let ram: Vec<Range<u64>> = boot
        .memory_map
        .iter()
        .filter(|r| matches!(r.kind, MemoryKind::Ram))
        .map(|r| r.start.next_multiple_of(PAGE_SIZE)..r.end.min(super::layout::DIRECT_MAP_SIZE) & !(PAGE_SIZE - 1))
        .filter(|r| r.start < r.end)
        .collect();
    let end = ram.iter().map(|r| r.end).max().unwrap_or(0) >> PAGE_SHIFT;
    END_OF_RAM.store(end, Ordering::Relaxed);

    let mut tables = Tables::new(&mut frames);
    map_image(&mut tables);
    map_ram(&mut tables, &ram);
    // A hole looks like frames that are no memory, and like frames without a guest's number.
    map_records(&mut tables, &ram, end, &[(FRAME_TABLE, Access::Write, Access::Read)], FRAME_RECORD, 0, Grain::Page);
    map_records(
        &mut tables,
        &ram,
        end,
        &[(M2P, Access::Write, Access::Read), (M2P_GUEST, Access::GuestRead, Access::GuestRead)],
        8,
        u64::MAX,
        // Tools map it by these.
        Grain::Large,
    );
    // The windows get their last-level tables now, so that no L4 or L3 entry of ours changes once guests copy them.
    tables.window(super::layout::DEVICE_WINDOWS, Access::Device);
    tables.publish();
    let root = tables.root();
    // SAFETY: the tables map the image, this stack (in the image) and the direct map as the present ones do.
    unsafe {
        cpu::write_cr3(root);
        if has(Features::GLOBAL_PAGES) {
            cpu::write_cr4(cpu::read_cr4() | cr4::PGE);
        }
    }
    frames.lift_limit();
    frames
}

fn map_image(tables: &mut Tables<'_>) {
    let segments = [
        (&raw const __text_start, &raw const __text_end, Access::Execute),
        (&raw const __rodata_start, &raw const __rodata_end, Access::Read),
        (&raw const __data_start, &raw const __bss_end, Access::Write),
    ];
    for (start, end, access) in segments {
        let (start, end) = (start as u64, (end as u64).next_multiple_of(PAGE_SIZE));
        tables.map(start, start - IMAGE_OFFSET, end - start, access);
    }
}

/// All RAM, and the firmware's area below 1 MiB; code and constants of the image cannot be written here either.
fn map_ram(tables: &mut Tables<'_>, ram: &[Range<u64>]) {
    let sealed = (&raw const __text_start) as u64 - IMAGE_OFFSET
        ..((&raw const __rodata_end) as u64 - IMAGE_OFFSET).next_multiple_of(PAGE_SIZE);
    let mut map = |start: u64, end: u64, access| {
        if start < end {
            tables.map(DIRECT_MAP + start, start, end - start, access);
        }
    };
    for range in ram {
        map(range.start, range.end.min(sealed.start), Access::Write);
        map(range.start.max(sealed.start), range.end.min(sealed.end), Access::Read);
        map(range.start.max(sealed.end), range.end, Access::Write);
    }
}

/// The smallest piece of a table that has memory of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Grain {
    Page,
    Large,
}

/// Maps one table with a record for each frame below `end` at several addresses (address, access, access to filler).
/// Memory is spent only where there is RAM; elsewhere all pages are one page of `filler` words, read-only.
fn map_records(
    tables: &mut Tables<'_>,
    ram: &[Range<u64>],
    end: u64,
    aliases: &[(u64, Access, Access)],
    record: u64,
    filler: u64,
    grain: Grain,
) {
    let filler_page = filled(tables, PAGE_SIZE, filler);
    let fillers: Vec<(u64, u64)> = aliases
        .iter()
        .map(|(_, _, access)| {
            let last = tables.filler_table(filler_page, *access);
            (last, tables.filler_tables(last, *access))
        })
        .collect();
    // Does any frame whose record lies in these bytes exist?
    let needed = |at: u64, bytes: u64| {
        let first = at / record;
        let last = (at + bytes).div_ceil(record);
        ram.iter().any(|r| r.start >> PAGE_SHIFT < last && first < r.end >> PAGE_SHIFT)
    };
    let total = (end * record).next_multiple_of(PAGE_SIZE);
    let mut at = 0;
    while at < total {
        let step = if at % (1 << 30) == 0 && !needed(at, 1 << 30) {
            for ((va, _, access), (_, tables_of_last)) in aliases.iter().zip(&fillers) {
                tables.link(va + at, 3, *tables_of_last, *access);
            }
            1 << 30
        } else if at % LARGE == 0 && !needed(at, LARGE) {
            for ((va, _, access), (last, _)) in aliases.iter().zip(&fillers) {
                tables.link(va + at, 2, *last, *access);
            }
            LARGE
        } else if at % LARGE == 0
            && (grain == Grain::Large || (total - at >= LARGE && all_needed(ram, at, LARGE, record)))
        {
            let phys = filled(tables, LARGE, filler);
            for (va, access, _) in aliases {
                tables.map(va + at, phys, LARGE, *access);
            }
            LARGE
        } else if needed(at, PAGE_SIZE) {
            let phys = filled(tables, PAGE_SIZE, filler);
            for (va, access, _) in aliases {
                tables.map(va + at, phys, PAGE_SIZE, *access);
            }
            PAGE_SIZE
        } else {
            for (va, _, access) in aliases {
                tables.map(va + at, filler_page, PAGE_SIZE, *access);
            }
            PAGE_SIZE
        };
        at += step;
    }
}

/// Whether most frames with records in these bytes exist, so that a large page wastes little.
fn all_needed(ram: &[Range<u64>], at: u64, bytes: u64, record: u64) -> bool {
    let (first, last) = (at / record, (at + bytes) / record);
    ram.iter()
        .any(|r| r.start >> PAGE_SHIFT <= first && last <= r.end >> PAGE_SHIFT)
        // The gap below 1 MiB is small change.
        || (at == 0 && ram.iter().any(|r| r.start <= 1 << 20 && last <= r.end >> PAGE_SHIFT))
}

/// Fresh memory, aligned to its size, every word `value`.
fn filled(tables: &mut Tables<'_>, bytes: u64, value: u64) -> u64 {
    let Some(phys) = tables.frames().take(bytes, bytes) else {
        panic!("no memory for the frame table ({bytes} bytes)");
    };
    // SAFETY: fresh memory, in the direct map (below the early limit), by whole words.
    unsafe {
        core::arch::asm!("rep stosq", inout("rdi") va_of_phys(phys) => _, inout("rcx") bytes / 8 => _, in("rax") value,
             options(nostack, preserves_flags));
    }
    phys
}

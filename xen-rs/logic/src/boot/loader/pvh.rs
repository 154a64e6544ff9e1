//! What a PVH loader says: `struct hvm_start_info` of Xen's `arch-x86/hvm/start_info.h`. Command lines come without a
//! file name.

use alloc::string::ToString;
use core::mem::offset_of;

use super::{Area, MAX_ENTRIES, Module, Physical, Told};
use crate::boot::memory_map::{MemoryKind, MemoryRange, tidy};
use xen_abi::hvm::{HvmMemmapTableEntry, HvmModlistEntry, HvmStartInfo};

/// What our entry point puts into EAX.
pub(super) const MAGIC: u32 = xen_abi::hvm::XEN_HVM_START_MAGIC_VALUE;

/// Reads the information; `None` when it is not what the loader should have left.
pub(super) fn read(info: Area<impl Physical>) -> Option<Told> {
    if info.u32(offset_of!(HvmStartInfo, magic) as u64) != MAGIC {
        return None;
    }
    let count = |offset: usize| u64::from(info.u32(offset as u64)).min(MAX_ENTRIES as u64);
    let long = |offset: usize| info.u64(offset as u64);
    let modules = info.follow(long(offset_of!(HvmStartInfo, modlist_paddr)));
    let modules = (0..count(offset_of!(HvmStartInfo, nr_modules)))
        .map(|i| {
            let field = |offset: usize| modules.u64(i * size_of::<HvmModlistEntry>() as u64 + offset as u64);
            let start = field(offset_of!(HvmModlistEntry, paddr));
            Module {
                command_line: info.string_at(field(offset_of!(HvmModlistEntry, cmdline_paddr))).trim().to_string(),
                phys: start..start.saturating_add(field(offset_of!(HvmModlistEntry, size))),
            }
        })
        .collect();
    // Version 0 ends before the memory map; such a loader cannot start us, which shows by a map without memory.
    let entries = match info.u32(offset_of!(HvmStartInfo, version) as u64) {
        0 => 0,
        _ => count(offset_of!(HvmStartInfo, memmap_entries)),
    };
    let table = info.follow(long(offset_of!(HvmStartInfo, memmap_paddr)));
    let map = (0..entries)
        .map(|i| {
            let at = i * size_of::<HvmMemmapTableEntry>() as u64;
            let start = table.u64(at + offset_of!(HvmMemmapTableEntry, addr) as u64);
            let size = table.u64(at + offset_of!(HvmMemmapTableEntry, size) as u64);
            let kind = table.u32(at + offset_of!(HvmMemmapTableEntry, type_) as u64);
            MemoryRange { start, end: start.saturating_add(size), kind: MemoryKind::from_e820(kind) }
        })
        .collect();
    let rsdp = long(offset_of!(HvmStartInfo, rsdp_paddr));
    Some(Told {
        command_line: info.string_at(long(offset_of!(HvmStartInfo, cmdline_paddr))).trim().to_string(),
        loader: "a PVH loader".to_string(),
        memory_map: tidy(map),
        modules,
        rsdp: (rsdp != 0).then_some(rsdp),
    })
}

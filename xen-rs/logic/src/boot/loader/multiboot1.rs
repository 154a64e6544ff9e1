//! What a multiboot1 loader says (GNU specification 0.6.96, section 3.3).

use alloc::string::String;
use alloc::vec::Vec;

use super::{Area, MAX_ENTRIES, Module, Physical, Told, strip_name};
use crate::boot::memory_map::{MemoryKind, MemoryRange, tidy};

/// What the loader leaves in EAX.
pub(super) const MAGIC: u32 = 0x2bad_b002;

/// Bits of the first word: which other fields hold something.
const HAS_MEMORY: u32 = 1 << 0;
const HAS_COMMAND_LINE: u32 = 1 << 2;
const HAS_MODULES: u32 = 1 << 3;
const HAS_MEMORY_MAP: u32 = 1 << 6;
const HAS_LOADER: u32 = 1 << 9;

/// Reads the information.
pub(super) fn read(info: Area<impl Physical>) -> Told {
    let has = |flag: u32| info.u32(0) & flag != 0;
    let string =
        |flag: u32, offset: u64| if has(flag) { info.string_at(u64::from(info.u32(offset))) } else { String::new() };
    let loader = string(HAS_LOADER, 64);
    // GRUB 2 gives the arguments alone, all others put the file name first.
    let names_in_front = !loader.starts_with("GRUB 2");
    let mut modules = Vec::new();
    if has(HAS_MODULES) {
        let table = info.follow(u64::from(info.u32(24)));
        for i in (0..u64::from(info.u32(20))).take(MAX_ENTRIES) {
            let word = |offset: u64| u64::from(table.u32(i * 16 + offset));
            modules.push(Module {
                command_line: strip_name(&table.string_at(word(8)), names_in_front),
                phys: word(0)..word(4),
            });
        }
    }
    Told {
        command_line: strip_name(&string(HAS_COMMAND_LINE, 16), names_in_front),
        loader,
        memory_map: tidy(memory_map(info, has)),
        modules,
        rsdp: None,
    }
}

fn memory_map(info: Area<impl Physical>, has: impl Fn(u32) -> bool) -> Vec<MemoryRange> {
    let mut map = Vec::new();
    if has(HAS_MEMORY_MAP) {
        let length = u64::from(info.u32(44));
        let table = info.follow(u64::from(info.u32(48)));
        let mut at = 0;
        while at + 24 <= length && map.len() < MAX_ENTRIES {
            let (start, size) = (table.u64(at + 4), table.u64(at + 12));
            let kind = MemoryKind::from_e820(table.u32(at + 20));
            map.push(MemoryRange { start, end: start.saturating_add(size), kind });
            // The size of an entry does not count itself.
            at += u64::from(table.u32(at)) + 4;
        }
    } else if has(HAS_MEMORY) {
        for (start, kib) in [(0, info.u32(4)), (0x10_0000, info.u32(8))] {
            map.push(MemoryRange { start, end: start + u64::from(kib) * 1024, kind: MemoryKind::Ram });
        }
    }
    map
}

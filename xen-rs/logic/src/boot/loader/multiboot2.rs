//! What a multiboot2 loader says (GNU specification 2.0, section 3.6): a row of tags.

use alloc::string::ToString;
use alloc::vec::Vec;

use super::{Area, MAX_ENTRIES, Module, Physical, Told};
use crate::boot::memory_map::{MemoryKind, MemoryRange, tidy};

/// What the loader leaves in EAX.
pub(super) const MAGIC: u32 = 0x36d7_6289;

const END: u32 = 0;
const COMMAND_LINE: u32 = 1;
const LOADER: u32 = 2;
const MODULE: u32 = 3;
const MEMORY_MAP: u32 = 6;
/// A copy of the ACPI root pointer, of the first version or a later one.
const ACPI_OLD: u32 = 14;
const ACPI_NEW: u32 = 15;
/// Type and size.
const TAG_HEADER: u64 = 8;

/// Reads the information. Command lines come without a file name.
pub(super) fn read(info: Area<impl Physical>) -> Told {
    let mut told = Told::default();
    let mut map = Vec::new();
    let total = u64::from(info.u32(0));
    let mut offset = 8;
    while offset + TAG_HEADER <= total {
        let (kind, size) = (info.u32(offset), u64::from(info.u32(offset + 4)));
        let body = offset + TAG_HEADER;
        match kind {
            COMMAND_LINE => told.command_line = info.string(body).trim().to_string(),
            LOADER => told.loader = info.string(body),
            MODULE if told.modules.len() < MAX_ENTRIES => told.modules.push(Module {
                command_line: info.string(body + 8).trim().to_string(),
                phys: u64::from(info.u32(body))..u64::from(info.u32(body + 4)),
            }),
            MEMORY_MAP => read_memory_map(&mut map, info, body, offset + size),
            // The newer copy is the better one.
            ACPI_NEW => told.rsdp = Some(info.at.saturating_add(body)),
            ACPI_OLD => told.rsdp = told.rsdp.or(Some(info.at.saturating_add(body))),
            END => break,
            _ => {}
        }
        if size < TAG_HEADER {
            break;
        }
        offset += size.next_multiple_of(8);
    }
    told.memory_map = tidy(map);
    told
}

fn read_memory_map(map: &mut Vec<MemoryRange>, info: Area<impl Physical>, body: u64, end: u64) {
    const LEAST: u64 = 24;
    let entry_size = u64::from(info.u32(body)).max(LEAST);
    let mut at = body + 8;
    while at + entry_size <= end && map.len() < MAX_ENTRIES {
        let (start, size) = (info.u64(at), info.u64(at + 8));
        let kind = MemoryKind::from_e820(info.u32(at + 16));
        map.push(MemoryRange { start, end: start.saturating_add(size), kind });
        at += entry_size;
    }
}

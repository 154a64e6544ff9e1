//! The multiple APIC description table (ACPI 6.5, 5.2.12).

use super::root::{HEADER, Table};
use super::{Complaint, IoApic, MAX_ENTRIES, MAX_PROCESSORS, Override, Platform};
use crate::boot::area::{Area, Physical};

/// Kinds of entries.
const LOCAL_APIC: u8 = 0;
const IO_APIC: u8 = 1;
const SOURCE_OVERRIDE: u8 = 2;
const LOCAL_APIC_ADDRESS: u8 = 5;
const LOCAL_X2APIC: u8 = 9;
/// A processor that can be used.
const ENABLED: u32 = 1;

/// Reads the table.
pub(super) fn read<P: Physical>(platform: &mut Platform, table: Table<P>, complain: &mut impl FnMut(Complaint)) {
    let signature = table.signature;
    let mut local_apic = table.entry(HEADER, 4).map_or(0, |entry| u64::from(entry.u32(0)));
    // The address and 4 bytes of flags, then the entries.
    let mut offset = HEADER + 8;
    while offset < table.length {
        let length = table.entry(offset, 2).map_or(0, |entry| u64::from(entry.byte(1)));
        let Some(entry) = table.entry(offset, length).filter(|_| length >= 2) else {
            complain(Complaint::Entry(signature, offset));
            break;
        };
        let kind = entry.byte(0);
        if length < least(kind) {
            complain(Complaint::Entry(signature, offset));
        } else if kind == LOCAL_APIC_ADDRESS {
            local_apic = entry.u64(4);
        } else {
            read_entry(platform, entry);
        }
        offset += length;
    }
    if local_apic == 0 || local_apic & 0xfff != 0 || local_apic >> 52 != 0 {
        complain(Complaint::Address(signature, local_apic));
    } else {
        platform.local_apic = local_apic;
    }
}

/// Bytes of an entry, at least.
fn least(kind: u8) -> u64 {
    match kind {
        LOCAL_APIC => 8,
        IO_APIC | LOCAL_APIC_ADDRESS => 12,
        SOURCE_OVERRIDE => 10,
        LOCAL_X2APIC => 16,
        _ => 2,
    }
}

fn read_entry(platform: &mut Platform, entry: Area<impl Physical>) {
    let mut processor = |apic_id: u32, processor_id: u32, flags: u32| {
        if flags & ENABLED != 0 && platform.apic_ids.len() < MAX_PROCESSORS {
            platform.apic_ids.push(apic_id);
            platform.processor_ids.push(processor_id);
        }
    };
    match entry.byte(0) {
        LOCAL_APIC => processor(u32::from(entry.byte(3)), u32::from(entry.byte(2)), entry.u32(4)),
        LOCAL_X2APIC => processor(entry.u32(4), entry.u32(12), entry.u32(8)),
        IO_APIC if platform.io_apics.len() < MAX_ENTRIES => {
            platform.io_apics.push(IoApic { phys: u64::from(entry.u32(4)), first_gsi: entry.u32(8) });
        }
        SOURCE_OVERRIDE if platform.overrides.len() < MAX_ENTRIES => {
            let flags = entry.u16(8);
            platform.overrides.push(Override {
                isa: entry.byte(3),
                gsi: entry.u32(4),
                level: flags >> 2 & 3 == 3,
                low: flags & 3 == 3,
            });
        }
        _ => {}
    }
}

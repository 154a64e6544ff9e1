//! From the root pointer to a table (ACPI 6.5, 5.2.5 to 5.2.8).

use super::Complaint;
use crate::boot::area::{Area, Physical};

/// Bytes of the header that every table begins with.
pub(super) const HEADER: u64 = 36;
/// Longer tables are not believed; the longest in use is the DSDT.
const MAX_LENGTH: u64 = 4 << 20;
/// More tables are not looked at.
const MAX_TABLES: u64 = 256;

/// Where a BIOS leaves the segment of its extended data area, and what it may be.
const EBDA_SEGMENT: u64 = 0x40e;
/// Where a BIOS has its read-only memory.
const BIOS: (u64, u64) = (0xe_0000, 0x10_0000);

/// A table that was checked.
#[derive(Clone, Copy)]
pub(super) struct Table<P> {
    /// Its signature.
    pub signature: [u8; 4],
    /// Its bytes.
    pub area: Area<P>,
    /// How many they are, at least [`HEADER`].
    pub length: u64,
}

impl<P: Physical> Table<P> {
    /// The table at an address, with a signature.
    pub fn at(area: Area<P>, signature: [u8; 4], complain: &mut impl FnMut(Complaint)) -> Option<Self> {
        let (at, length) = (area.at, u64::from(area.u32(4)));
        if !(HEADER..=MAX_LENGTH).contains(&length) || at.checked_add(length).is_none() {
            complain(Complaint::Length(signature, at));
            return None;
        }
        if !area.adds_up(length) {
            complain(Complaint::Checksum(signature, at));
            return None;
        }
        Some(Table { signature, area, length })
    }

    /// Bytes of it, if it has that many.
    pub fn entry(self, offset: u64, length: u64) -> Option<Area<P>> {
        let fits = offset.checked_add(length).is_some_and(|end| end <= self.length);
        fits.then(|| self.area.follow(self.area.at.saturating_add(offset)))
    }
}

/// All tables: the root table, whose entries are the addresses of the others.
#[derive(Clone, Copy)]
pub(super) struct Tables<P> {
    root: Table<P>,
    /// Bytes of an address.
    width: u64,
}

/// Finds the root table.
pub(super) fn find<P: Physical>(
    root: Option<u64>,
    memory: P,
    complain: &mut impl FnMut(Complaint),
) -> Option<Tables<P>> {
    let told = root.map(|at| Area { memory, at }).filter(|pointer| is_pointer(*pointer));
    let pointer = told.or_else(|| search(memory))?;
    if let Some(extended) = extended(pointer) {
        let table = Table::at(pointer.follow(extended), *b"XSDT", complain);
        if let Some(root) = table.filter(|table| table.area.says(0, b"XSDT")) {
            return Some(Tables { root, width: 8 });
        }
    }
    let root = Table::at(pointer.follow(u64::from(pointer.u32(16))), *b"RSDT", complain)?;
    root.area.says(0, b"RSDT").then_some(Tables { root, width: 4 })
}

/// Whether a root pointer is there: its text, and a first part that adds up.
fn is_pointer(area: Area<impl Physical>) -> bool {
    area.says(0, b"RSD PTR ") && area.adds_up(20)
}

/// The address of the root table of wide addresses: pointers of revision 2 and above have it.
fn extended(pointer: Area<impl Physical>) -> Option<u64> {
    const SIZE: u32 = 36;
    let length = pointer.u32(20);
    // A pointer may have grown since; not by much.
    let whole = pointer.byte(15) >= 2 && (SIZE..=256).contains(&length) && pointer.adds_up(u64::from(length));
    whole.then(|| pointer.u64(24)).filter(|at| *at != 0)
}

/// The root pointer where a BIOS may have put it: at a multiple of 16 in the first KiB of its data area, or in its ROM.
fn search<P: Physical>(memory: P) -> Option<Area<P>> {
    let data = u64::from(Area { memory, at: EBDA_SEGMENT }.u16(0)) << 4;
    let data = if data == 0 { 0..0 } else { data..data + 1024 };
    let places = data.step_by(16).chain((BIOS.0..BIOS.1).step_by(16));
    places.map(|at| Area { memory, at }).find(|area| is_pointer(*area))
}

impl<P: Physical> Tables<P> {
    /// The first table with a signature that is in order.
    pub fn get(self, signature: [u8; 4], complain: &mut impl FnMut(Complaint)) -> Option<Table<P>> {
        let count = ((self.root.length - HEADER) / self.width).min(MAX_TABLES);
        (0..count).find_map(|i| {
            let entry = self.root.entry(HEADER + i * self.width, self.width)?;
            let at = if self.width == 8 { entry.u64(0) } else { u64::from(entry.u32(0)) };
            let area = entry.follow(at);
            if at == 0 || !area.says(0, &signature) {
                return None;
            }
            Table::at(area, signature, complain)
        })
    }
}

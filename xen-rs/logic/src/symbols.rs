//! Names for the addresses of a crash report: a table that lies in the image, filled in after linking, since only the
//! linked program has addresses. Reading takes no memory and is bounded: it happens while the hypervisor falls.
//!
//! Layout, little-endian: [`MAGIC`], the number of symbols, then for each, sorted by address: its offset from the
//! image's start, its size, and where its name ends, all of 32 bits; then the names, one behind the other.

use alloc::{string::String, vec::Vec};

/// Begins a table that was filled in.
pub const MAGIC: u32 = u32::from_le_bytes(*b"SYM1");

const HEADER: usize = 8;
const ENTRY: usize = 12;

/// Where an address lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The function's name.
    pub name: &'a str,
    /// How far behind the function's start.
    pub offset: u32,
    /// The function's size; 0 when nobody knows (assembly).
    pub size: u32,
}

impl core::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}+{:#x}/{:#x}", self.name, self.offset, self.size)
    }
}

fn word(table: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(table.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// Looks an offset from the image's start up. `None` in an empty table and for what lies in no function.
#[must_use]
pub fn find(table: &[u8], offset: u32) -> Option<Place<'_>> {
    let count = word(table, 4).filter(|_| word(table, 0) == Some(MAGIC))? as usize;
    let entry = |index: usize, field: usize| word(table, HEADER + index * ENTRY + field * 4);
    // The last entry that begins at the address or before it.
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if entry(middle, 0)? <= offset { low = middle + 1 } else { high = middle }
    }
    let index = low.checked_sub(1)?;
    let (start, size) = (entry(index, 0)?, entry(index, 1)?);
    let into = offset - start;
    if size != 0 && into >= size {
        return None;
    }
    let names = HEADER.checked_add(count.checked_mul(ENTRY)?)?;
    let name_start = match index.checked_sub(1) {
        Some(before) => entry(before, 2)?,
        None => 0,
    };
    let name = table.get(names.checked_add(name_start as usize)?..names.checked_add(entry(index, 2)? as usize)?)?;
    Some(Place { name: core::str::from_utf8(name).ok()?, offset: into, size })
}

/// A function for the table: offset, size and name.
pub type Symbol = (u32, u32, String);

/// Makes a table of at most `room` bytes: names are cut as short as it takes. `None` when even that is not enough.
#[must_use]
pub fn encode(mut symbols: Vec<Symbol>, room: usize) -> Option<Vec<u8>> {
    /// Lengths to try, in bytes.
    const LENGTHS: [usize; 5] = [120, 80, 56, 40, 24];
    symbols.sort();
    symbols.dedup_by_key(|symbol| symbol.0);
    LENGTHS.iter().find_map(|length| encode_with(&symbols, *length).filter(|table| table.len() <= room))
}

fn encode_with(symbols: &[Symbol], longest: usize) -> Option<Vec<u8>> {
    let mut table = Vec::new();
    let mut names = String::new();
    table.extend(MAGIC.to_le_bytes());
    table.extend(u32::try_from(symbols.len()).ok()?.to_le_bytes());
    for (offset, size, name) in symbols {
        let end = (0..=longest.min(name.len())).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
        names.push_str(name.get(..end).unwrap_or_default());
        for word in [*offset, *size, u32::try_from(names.len()).ok()?] {
            table.extend(word.to_le_bytes());
        }
    }
    table.extend(names.bytes());
    Some(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbols() -> Vec<Symbol> {
        alloc::vec![(0x40, 0x10, "beta".into()), (0x10, 0x20, "alpha::one".into()), (0x60, 0, "label".into())]
    }

    fn name(table: &[u8], offset: u32) -> Option<String> {
        find(table, offset).map(|place| alloc::format!("{place}"))
    }

    #[test]
    fn addresses_have_names() {
        let table = encode(symbols(), 4096).unwrap();
        assert_eq!(name(&table, 0x0f), None);
        assert_eq!(name(&table, 0x10).unwrap(), "alpha::one+0x0/0x20");
        assert_eq!(name(&table, 0x2f).unwrap(), "alpha::one+0x1f/0x20");
        assert_eq!(name(&table, 0x30), None, "between two functions");
        assert_eq!(name(&table, 0x4f).unwrap(), "beta+0xf/0x10");
        assert_eq!(name(&table, 0x7f).unwrap(), "label+0x1f/0x0");
    }

    #[test]
    fn an_empty_or_spoilt_table_has_no_names() {
        assert_eq!(find(&[0; 64], 0x10), None);
        assert_eq!(find(&[], 0x10), None);
        let whole = encode(symbols(), 4096).unwrap();
        for length in 0..whole.len() {
            let _ = find(&whole[..length], 0x4f);
        }
        for at in 0..whole.len() {
            let mut spoilt = whole.clone();
            spoilt[at] ^= 0xff;
            let _ = find(&spoilt, 0x4f);
        }
    }

    #[test]
    fn names_are_cut_to_fit() {
        let long = alloc::vec![(0, 1, "x".repeat(500))];
        assert_eq!(find(&encode(long.clone(), 4096).unwrap(), 0).unwrap().name.len(), 120);
        assert_eq!(find(&encode(long.clone(), 64).unwrap(), 0).unwrap().name.len(), 40);
        assert_eq!(encode(long, 16), None);
    }
}

//! Configuration space in memory (PCI Express base specification, 7.2.2): all 4 KiB of each function, without the ports of the
//! host bridge, each access to which the hypervisor carries out. Where it lies stands in the ACPI table MCFG (PCI firmware
//! specification, 4.1.2).

use crate::registers::Registers;
use alloc::vec;
use alloc::vec::Vec;
use guest_pv::mem::{Mapping, PAGE_SIZE};
use spin::Once;

/// Where the root pointer of ACPI's tables is looked for (ACPI 5.2.5.1), at multiples of 16 bytes.
const BIOS: (u64, usize) = (0xe_0000, 0x2_0000);
const ROOT: &[u8; 8] = b"RSD PTR ";
/// Bytes of a table's header; of MCFG before its entries, and of each.
const HEADER: usize = 36;
const BEFORE: usize = 44;
const ENTRY: usize = 16;
/// No table that is looked at is longer.
const LONGEST: usize = 64 << 10;
/// Bytes of a function's and of a bus's part.
const FUNCTION: usize = 4 << 10;
const BUS: usize = 1 << 20;

/// The part of segment 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Space {
    /// Where bus 0 is, or would be.
    base: u64,
    first: u8,
    last: u8,
}

static SPACE: Once<Option<Space>> = Once::new();

fn at(bus: u8, devfn: u8, len: usize) -> Option<Registers> {
    let space = (*SPACE.call_once(|| find(physical)))?;
    if !(space.first..=space.last).contains(&bus) {
        return None;
    }
    Registers::map(space.base + ((u64::from(bus) << 8 | u64::from(devfn)) << 12), len).ok()
}

/// All functions of a bus, 4 KiB each; `None` where there is no such way.
pub(crate) fn bus(bus: u8) -> Option<Registers> {
    at(bus, 0, BUS)
}

/// One function.
pub(crate) fn function(bus: u8, devfn: u8) -> Option<Registers> {
    at(bus, devfn, FUNCTION)
}

/// Copies what firmware left in memory.
fn physical(address: u64, len: usize) -> Option<Vec<u8>> {
    let within = (address % PAGE_SIZE) as usize;
    let mapping = Mapping::device(address / PAGE_SIZE, (within + len).div_ceil(PAGE_SIZE as usize)).ok()?;
    let mut bytes = vec![0; len];
    mapping.read(within, &mut bytes);
    Some(bytes)
}

fn number(bytes: &[u8], at: usize, len: usize) -> Option<u64> {
    let part = bytes.get(at..at.checked_add(len)?)?;
    Some(part.iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte)))
}

fn sums_to_zero(bytes: &[u8]) -> bool {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)) == 0
}

/// A whole table, if it is one by that name.
fn table(read: &impl Fn(u64, usize) -> Option<Vec<u8>>, address: u64, name: &[u8]) -> Option<Vec<u8>> {
    let header = read(address, HEADER)?;
    let len = usize::try_from(number(&header, 4, 4)?).ok()?;
    if header.get(..4)? != name || !(HEADER..=LONGEST).contains(&len) {
        return None;
    }
    read(address, len).filter(|bytes| sums_to_zero(bytes))
}

fn find(read: impl Fn(u64, usize) -> Option<Vec<u8>>) -> Option<Space> {
    let bios = read(BIOS.0, BIOS.1)?;
    let is_root = |part: &&[u8]| part.starts_with(ROOT) && part.get(..20).is_some_and(sums_to_zero);
    let root = (0..bios.len()).step_by(16).filter_map(|at| bios.get(at..)).find(is_root)?;
    // Since ACPI 2 there is a list with addresses of 64 bits.
    let wide = root.get(15)? >= &2;
    let (list, name, width) =
        if wide { (number(root, 24, 8)?, b"XSDT", 8) } else { (number(root, 16, 4)?, b"RSDT", 4) };
    let list = table(&read, list, name)?;
    let mcfg = (HEADER..list.len())
        .step_by(width)
        .filter_map(|at| number(&list, at, width))
        .find_map(|address| table(&read, address, b"MCFG"))?;
    let entries = (BEFORE..mcfg.len()).step_by(ENTRY).filter_map(|at| mcfg.get(at..at + ENTRY));
    let segment_0 = |entry: &[u8]| -> Option<Space> {
        let base = number(entry, 0, 8)?;
        let [first, last] = [*entry.get(10)?, *entry.get(11)?];
        (number(entry, 8, 2)? == 0 && base != 0 && base % BUS as u64 == 0).then_some(Space { base, first, last })
    };
    entries.filter_map(segment_0).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
        let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        bytes[at] = 0u8.wrapping_sub(sum);
        bytes
    }

    fn acpi(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes[..4].copy_from_slice(name);
        bytes[4..8].copy_from_slice(&u32::try_from(HEADER + body.len()).unwrap().to_le_bytes());
        bytes.extend(body);
        sealed(bytes, 9)
    }

    #[test]
    fn the_table_says_where_it_lies() {
        let mut memory = vec![0u8; 2 << 20];
        let mut put = |at: usize, bytes: &[u8]| memory[at..at + bytes.len()].copy_from_slice(bytes);
        let mut root = vec![0; 20];
        root[..8].copy_from_slice(ROOT);
        root[16..20].copy_from_slice(&0x10_0000u32.to_le_bytes());
        put(0xf_0010, &sealed(root, 8));
        let list: Vec<u8> = [0x10_1000u32, 0x10_2000].iter().flat_map(|at| at.to_le_bytes()).collect();
        put(0x10_0000, &acpi(b"RSDT", &list));
        put(0x10_1000, &acpi(b"FACP", &[1, 2, 3]));
        let entry = [&[0; 8][..], &0xb000_0000u64.to_le_bytes(), &[0, 0, 0, 255, 0, 0, 0, 0]].concat();
        put(0x10_2000, &acpi(b"MCFG", &entry));
        let read = |memory: &[u8], at: u64, len: usize| {
            let at = usize::try_from(at).ok()?;
            memory.get(at..at + len).map(<[u8]>::to_vec)
        };
        let found = find(|at, len| read(&memory, at, len));
        assert_eq!(found, Some(Space { base: 0xb000_0000, first: 0, last: 255 }));
        // Any byte of it that is another one.
        for at in (0x10_2000..0x10_2000 + BEFORE + ENTRY).chain(0xf_0010..0xf_0010 + 20) {
            memory[at] ^= 0x40;
            assert_eq!(find(|at, len| read(&memory, at, len)), None, "{at:#x}");
            memory[at] ^= 0x40;
        }
    }
}

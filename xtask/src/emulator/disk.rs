//! A disk that boots a multiboot1 kernel with its modules without any boot loader but `tests/boot-sector`, which says
//! what sector 1 must hold. All addresses are worked out here, so that the sector's code has only to read.

use super::Payload;
use anyhow::{Context, Result, bail};
use elf::ElfBytes;
use elf::abi::PT_LOAD;
use elf::endian::LittleEndian;
use std::path::Path;

/// Bytes of a sector.
const SECTOR: usize = 512;
/// Where the multiboot information goes, and where its room ends.
const INFO: u32 = 0x1_0000;
const INFO_END: usize = 0x1_0000;
/// Where the boot sector puts the memory map.
const MEMORY_MAP: u32 = 0x6000;
/// What follows the kernel begins on a page.
const PAGE: u64 = 4096;
/// Multiboot 1 (GNU specification 0.6.96, 3.1.1): a header lies within the first 8 KiB.
const HEADER_MAGIC: u32 = 0x1bad_b002;
const HEADER_REACH: usize = 8192;
/// The header says where to enter.
const HAS_ADDRESSES: u32 = 1 << 16;
/// The information holds a command line, modules, a memory map and the loader's name.
const INFO_FLAGS: u32 = 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9;
/// Bytes of the information itself; then come the table of modules and the strings.
const INFO_SIZE: u32 = 120;
const LOADER: &str = "xen-rs test disk";

/// A piece of memory to load.
struct Piece {
    address: u32,
    bytes: Vec<u8>,
}

/// The disk's content.
pub fn image(sector: &Path, payload: &Payload) -> Result<Vec<u8>> {
    let (entry, mut pieces) = kernel(&payload.kernel)?;
    let end = pieces.iter().map(|piece| u64::from(piece.address) + piece.bytes.len() as u64).max().unwrap_or(0);
    let mut next = end.next_multiple_of(PAGE);
    let mut modules = Vec::new();
    for module in &payload.modules {
        let bytes = read(&module.path)?;
        let (address, end) = (u32::try_from(next)?, u32::try_from(next + bytes.len() as u64)?);
        let name = module.path.file_name().unwrap_or_default().to_string_lossy();
        modules.push((address, end, format!("{name} {}", module.args)));
        pieces.push(Piece { address, bytes });
        next = u64::from(end).next_multiple_of(PAGE);
    }
    pieces.push(Piece { address: INFO, bytes: information(&format!("hypervisor {}", payload.append), &modules)? });
    let sector = read(sector)?;
    if sector.len() != SECTOR {
        bail!("the boot sector has {} bytes", sector.len());
    }
    assemble(sector, entry, &pieces)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| path.display().to_string())
}

/// Puts the sectors one behind the other.
fn assemble(sector: Vec<u8>, entry: u32, pieces: &[Piece]) -> Result<Vec<u8>> {
    let mut list: Vec<u32> = vec![entry, INFO];
    let mut disk = sector;
    disk.resize(2 * SECTOR, 0);
    for piece in pieces {
        let sectors = piece.bytes.len().div_ceil(SECTOR);
        list.extend([u32::try_from(disk.len() / SECTOR)?, u32::try_from(sectors)?, piece.address]);
        disk.extend_from_slice(&piece.bytes);
        disk.resize(disk.len().next_multiple_of(SECTOR), 0);
    }
    list.extend([0; 3]);
    let words = disk.get_mut(SECTOR..2 * SECTOR).context("two sectors")?.chunks_exact_mut(4);
    if words.len() < list.len() {
        bail!("more modules than a test disk can list");
    }
    words.zip(list).for_each(|(place, word)| place.copy_from_slice(&word.to_le_bytes()));
    Ok(disk)
}

/// The kernel's entry point and what of it is loaded where; memory that is to be zero included.
fn kernel(path: &Path) -> Result<(u32, Vec<Piece>)> {
    let file = read(path)?;
    let elf = ElfBytes::<LittleEndian>::minimal_parse(&file).with_context(|| path.display().to_string())?;
    let mut pieces = Vec::new();
    for segment in elf.segments().context("no segments")?.iter().filter(|segment| segment.p_type == PT_LOAD) {
        let mut bytes = elf.segment_data(&segment)?.to_vec();
        bytes.resize(usize::try_from(segment.p_memsz)?, 0);
        pieces.push(Piece { address: u32::try_from(segment.p_paddr)?, bytes });
    }
    let entry = match entry_in_header(&file) {
        Some(entry) => entry,
        None => u32::try_from(elf.ehdr.e_entry)?,
    };
    Ok((entry, pieces))
}

/// The entry point that a multiboot header gives, if it does.
fn entry_in_header(file: &[u8]) -> Option<u32> {
    let words: Vec<u32> =
        file.chunks_exact(4).take(HEADER_REACH / 4).map(|word| word.try_into().map_or(0, u32::from_le_bytes)).collect();
    let header = words
        .windows(8)
        .find(|words| words[0] == HEADER_MAGIC && words[0].wrapping_add(words[1]).wrapping_add(words[2]) == 0)?;
    (header[1] & HAS_ADDRESSES != 0).then_some(header[7])
}

/// The multiboot information, its table of modules, and the strings of both.
fn information(command_line: &str, modules: &[(u32, u32, String)]) -> Result<Vec<u8>> {
    let table = INFO + INFO_SIZE;
    let mut strings = Vec::new();
    let first_string = table + u32::try_from(modules.len())? * 16;
    let mut string = |text: &str| -> Result<u32> {
        let at = first_string + u32::try_from(strings.len())?;
        strings.extend(text.bytes().chain([0]));
        Ok(at)
    };
    let mut info = vec![0u8; INFO_SIZE as usize];
    let mut set = |offset: usize, word: u32| {
        if let Some(place) = info.get_mut(offset..offset + 4) {
            place.copy_from_slice(&word.to_le_bytes());
        }
    };
    set(0, INFO_FLAGS);
    set(16, string(command_line)?);
    set(20, u32::try_from(modules.len())?);
    set(24, table);
    set(48, MEMORY_MAP);
    set(64, string(LOADER)?);
    for (start, end, line) in modules {
        for word in [*start, *end, string(line)?, 0] {
            info.extend(word.to_le_bytes());
        }
    }
    info.extend(strings);
    if info.len() > INFO_END {
        bail!("command lines are too long for a test disk");
    }
    Ok(info)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_lie_in_whole_sectors() {
        let pieces = [Piece { address: 0x20_0000, bytes: vec![1; 513] }, Piece { address: 0x30_0000, bytes: vec![2] }];
        let disk = assemble(vec![0; SECTOR], 0x20_0010, &pieces).unwrap();
        assert_eq!(disk.len(), 5 * SECTOR);
        let word = |index: usize| u32::from_le_bytes(disk[SECTOR + index * 4..][..4].try_into().unwrap());
        assert_eq!((0..11).map(word).collect::<Vec<_>>(), [0x20_0010, INFO, 2, 2, 0x20_0000, 4, 1, 0x30_0000, 0, 0, 0]);
        assert_eq!((disk[2 * SECTOR + 512], disk[4 * SECTOR]), (1, 2));
    }

    #[test]
    fn information_names_its_modules() {
        let info = information("hypervisor x=1", &[(0x40_0000, 0x40_1000, "dom0 y".into())]).unwrap();
        let word = |at: usize| u32::from_le_bytes(info[at..][..4].try_into().unwrap());
        let text = |at: u32| {
            let from = (at - INFO) as usize;
            let length = info[from..].iter().position(|byte| *byte == 0).unwrap();
            String::from_utf8(info[from..from + length].to_vec()).unwrap()
        };
        assert_eq!((text(word(16)), word(20)), ("hypervisor x=1".into(), 1));
        let table = (word(24) - INFO) as usize;
        assert_eq!((word(table), word(table + 4), text(word(table + 8))), (0x40_0000, 0x40_1000, "dom0 y".into()));
    }

    #[test]
    fn the_header_gives_the_entry() {
        let mut file = vec![0u8; 64];
        let words = [HEADER_MAGIC, HAS_ADDRESSES, 0u32.wrapping_sub(HEADER_MAGIC + HAS_ADDRESSES), 0, 0, 0, 0, 0x1234];
        words.iter().for_each(|word| file.extend(word.to_le_bytes()));
        assert_eq!(entry_in_header(&file), Some(0x1234));
        assert_eq!(entry_in_header(&[0; 64]), None);
    }
}

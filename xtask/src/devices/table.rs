//! Disks with partitions: two volumes as large as a disk without, of which the second one holds what such a disk does.

use super::{DISK, content};

/// Bytes of a sector.
const SECTOR: usize = 512;
/// Where the partitions begin, in sectors, and how long each is.
const FIRST: u32 = 2048;
const LENGTH: u32 = 8192;
const _: () = assert!(LENGTH as usize * SECTOR == DISK, "each is as large as a disk");
const SECOND: u32 = FIRST + LENGTH;
/// Sectors of the disk: there is room at its end.
const SECTORS: u32 = SECOND + LENGTH + 2048;
/// Where the table of an extended partition is.
const LINK: u32 = SECOND - 64;
/// Entries of a GPT, and bytes of each.
const ENTRIES: u32 = 128;
const ENTRY: u32 = 128;

/// The kind of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UEFI 2.10, 5.3.
    Gpt,
    /// The second partition is a logical one, number 5.
    Mbr,
}

/// A disk's bytes.
pub fn disk(kind: Kind) -> Vec<u8> {
    let mut bytes = vec![0; SECTORS as usize * SECTOR];
    let second = SECOND as usize * SECTOR;
    bytes[second..second + DISK].copy_from_slice(&content());
    match kind {
        Kind::Gpt => {
            entry(&mut bytes, 0, 0, 0xee, (1, SECTORS - 1));
            gpt(&mut bytes);
        }
        Kind::Mbr => {
            entry(&mut bytes, 0, 0, 0x83, (FIRST, LENGTH - 64));
            entry(&mut bytes, 0, 1, 0x05, (LINK, LENGTH + 64));
            entry(&mut bytes, LINK, 0, 0x83, (SECOND - LINK, LENGTH));
        }
    }
    bytes
}

fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    bytes[at..at + what.len()].copy_from_slice(what);
}

/// An entry of the older kind of table.
fn entry(bytes: &mut [u8], sector: u32, index: usize, kind: u8, (start, sectors): (u32, u32)) {
    let table = sector as usize * SECTOR;
    let at = table + 446 + index * 16;
    put(bytes, at + 4, &[kind]);
    put(bytes, at + 8, &start.to_le_bytes());
    put(bytes, at + 12, &sectors.to_le_bytes());
    put(bytes, table + 510, &[0x55, 0xaa]);
}

/// The first table alone: it is whole, so nobody asks for the second one.
fn gpt(bytes: &mut [u8]) {
    let mut entries = vec![0; (ENTRIES * ENTRY) as usize];
    for (index, start) in [FIRST, SECOND].into_iter().enumerate() {
        let at = index * ENTRY as usize;
        // Any type and any name will do, if only they are not zero.
        put(&mut entries, at, &[0xaf; 32]);
        put(&mut entries, at + 32, &u64::from(start).to_le_bytes());
        put(&mut entries, at + 40, &u64::from(start + LENGTH - 1).to_le_bytes());
    }
    let mut header = vec![0; 92];
    put(&mut header, 0, b"EFI PART\0\0\x01\0");
    let words =
        [(12, 92), (24, 1), (32, SECTORS - 1), (40, 34), (48, SECTORS - 34), (72, 2), (80, ENTRIES), (84, ENTRY)];
    for (at, word) in words {
        put(&mut header, at, &word.to_le_bytes());
    }
    put(&mut header, 88, &crc32(&entries).to_le_bytes());
    let sum = crc32(&header);
    put(&mut header, 16, &sum.to_le_bytes());
    put(bytes, SECTOR, &header);
    put(bytes, 2 * SECTOR, &entries);
}

/// CRC-32 (IEEE 802.3), bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| sum >> 1 ^ (sum & 1).wrapping_neg() & 0xedb8_8320)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_say_where_the_partitions_are() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        let disk = disk(Kind::Gpt);
        assert_eq!(disk[SECTOR..SECTOR + 8], *b"EFI PART");
        assert_eq!(disk[SECOND as usize * SECTOR..][..DISK], content());
        let disk = super::disk(Kind::Mbr);
        assert_eq!(disk[LINK as usize * SECTOR + 510..][..2], [0x55, 0xaa]);
    }
}

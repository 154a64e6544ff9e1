//! Partition tables: GPT (UEFI 2.10, 5.3) and MBR, as far as to say where each partition lies.
//!
//! A table is data from a disk, so it may say anything: what does not fit on the disk is left out.

use alloc::vec::Vec;

/// A part of a disk, in sectors of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number, as Linux counts.
    pub number: u32,
    /// Its first sector.
    pub start: u64,
    /// How many.
    pub sectors: u64,
}

/// Reads sectors of the disk.
pub trait Reader {
    /// Bytes of a sector.
    fn sector_size(&self) -> usize;
    /// How many there are.
    fn sectors(&self) -> u64;
    /// `count` sectors from `first` on.
    fn read(&mut self, first: u64, count: usize) -> Option<Vec<u8>>;
}

/// Entries that a table may have; what is past them is not looked at.
const MOST: u32 = 128;
/// The type of an MBR entry that says that a GPT follows.
const PROTECTIVE: u8 = 0xee;
/// Types of an MBR entry that holds further ones.
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];
/// Links of a chain of extended partitions.
const LINKS: u32 = 64;

/// All partitions of a disk; none where it has no table.
pub fn read(disk: &mut impl Reader) -> Vec<Partition> {
    let sectors = disk.sectors();
    let Some(mbr) = disk.read(0, 1) else {
        return Vec::new();
    };
    let Some(entries) = mbr_entries(&mbr) else {
        return Vec::new();
    };
    let mut all = if entries.iter().any(|entry| entry.kind == PROTECTIVE) {
        // The second table is at the very end.
        let last = sectors.saturating_sub(1);
        gpt(disk, 1).or_else(|| gpt(disk, last)).unwrap_or_default()
    } else {
        mbr_partitions(disk, &entries)
    };
    all.retain(|part| part.sectors > 0 && part.start.checked_add(part.sectors).is_some_and(|end| end <= sectors));
    all
}

struct Entry {
    kind: u8,
    start: u64,
    sectors: u64,
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn mbr_entries(sector: &[u8]) -> Option<Vec<Entry>> {
    if sector.get(510..512) != Some(&[0x55, 0xaa]) {
        return None;
    }
    let entry = |index: usize| {
        let at = 446 + index * 16;
        let (start, sectors) = (u32_at(sector, at + 8)?.into(), u32_at(sector, at + 12)?.into());
        Some(Entry { kind: *sector.get(at + 4)?, start, sectors })
    };
    (0..4).map(entry).collect()
}

fn mbr_partitions(disk: &mut impl Reader, entries: &[Entry]) -> Vec<Partition> {
    let mut all = Vec::new();
    let mut logical = 5;
    for (number, entry) in (1..).zip(entries).filter(|(_, entry)| entry.kind != 0) {
        if !EXTENDED.contains(&entry.kind) {
            all.push(Partition { number, start: entry.start, sectors: entry.sectors });
            continue;
        }
        let (base, mut next) = (entry.start, entry.start);
        for _ in 0..LINKS {
            let Some(link) = disk.read(next, 1).and_then(|sector| mbr_entries(&sector)) else {
                break;
            };
            let [first, second, ..] = link.as_slice() else {
                break;
            };
            if first.kind != 0 && first.sectors > 0 {
                all.push(Partition { number: logical, start: next + first.start, sectors: first.sectors });
                logical += 1;
            }
            if !EXTENDED.contains(&second.kind) || second.start == 0 {
                break;
            }
            next = base + second.start;
        }
    }
    all
}

/// The GPT whose header is at a sector, if it is whole.
fn gpt(disk: &mut impl Reader, at: u64) -> Option<Vec<Partition>> {
    let header = disk.read(at, 1)?;
    let len = usize::try_from(u32_at(&header, 12)?).ok()?;
    if header.get(..8) != Some(b"EFI PART") || !(92..=header.len()).contains(&len) {
        return None;
    }
    let mut counted = header.get(..len)?.to_vec();
    counted.get_mut(16..20)?.fill(0);
    if crc32fast::hash(&counted) != u32_at(&header, 16)? {
        return None;
    }
    let (first, count, size) = (u64_at(&header, 72)?, u32_at(&header, 80)?, u32_at(&header, 84)?);
    if !(1..=MOST).contains(&count) || !(128..=1024).contains(&size) {
        return None;
    }
    let (count, size) = (usize::try_from(count).ok()?, usize::try_from(size).ok()?);
    let table = disk.read(first, (count * size).div_ceil(disk.sector_size()))?;
    let table = table.get(..count * size)?;
    if crc32fast::hash(table) != u32_at(&header, 88)? {
        return None;
    }
    let partition = |(number, entry): (u32, &[u8])| {
        let (start, last) = (u64_at(entry, 32)?, u64_at(entry, 40)?);
        let used = entry.get(..16)?.iter().any(|&byte| byte != 0);
        (used && last >= start).then(|| Partition { number, start, sectors: (last - start).saturating_add(1) })
    };
    Some((1..).zip(table.chunks_exact(size)).filter_map(partition).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    struct Image(Vec<u8>);

    impl Reader for Image {
        fn sector_size(&self) -> usize {
            512
        }
        fn sectors(&self) -> u64 {
            self.0.len() as u64 / 512
        }
        fn read(&mut self, first: u64, count: usize) -> Option<Vec<u8>> {
            let at = usize::try_from(first).ok()?.checked_mul(512)?;
            Some(self.0.get(at..at.checked_add(count * 512)?)?.to_vec())
        }
    }

    impl Image {
        fn new(sectors: usize) -> Self {
            Self(vec![0; sectors * 512])
        }
        fn put(&mut self, at: usize, bytes: &[u8]) {
            self.0[at..at + bytes.len()].copy_from_slice(bytes);
        }
        fn entry(&mut self, sector: usize, index: usize, kind: u8, start: u32, sectors: u32) {
            let at = sector * 512 + 446 + index * 16;
            self.put(at + 4, &[kind]);
            self.put(at + 8, &start.to_le_bytes());
            self.put(at + 12, &sectors.to_le_bytes());
            self.put(sector * 512 + 510, &[0x55, 0xaa]);
        }
        fn gpt(&mut self, header: usize, table: usize) {
            let mut entries = vec![0; 128 * 128];
            for (index, (start, last)) in [(0, (40u64, 49u64)), (2, (50, 50)), (3, (60, 5000))] {
                entries[index * 128] = 1;
                entries[index * 128 + 32..][..8].copy_from_slice(&start.to_le_bytes());
                entries[index * 128 + 40..][..8].copy_from_slice(&last.to_le_bytes());
            }
            let mut bytes = vec![0; 92];
            bytes[..8].copy_from_slice(b"EFI PART");
            bytes[12..16].copy_from_slice(&92u32.to_le_bytes());
            bytes[72..80].copy_from_slice(&(table as u64).to_le_bytes());
            bytes[80..84].copy_from_slice(&128u32.to_le_bytes());
            bytes[84..88].copy_from_slice(&128u32.to_le_bytes());
            bytes[88..92].copy_from_slice(&crc32fast::hash(&entries).to_le_bytes());
            let crc = crc32fast::hash(&bytes);
            bytes[16..20].copy_from_slice(&crc.to_le_bytes());
            self.put(header * 512, &bytes);
            self.put(table * 512, &entries);
        }
    }

    fn part(number: u32, start: u64, sectors: u64) -> Partition {
        Partition { number, start, sectors }
    }

    #[test]
    fn a_disk_without_a_table_has_no_partitions() {
        assert_eq!(read(&mut Image::new(100)), []);
        assert_eq!(read(&mut Image::new(0)), []);
    }

    #[test]
    fn mbr_partitions_primary_and_logical() {
        let mut disk = Image::new(1000);
        disk.entry(0, 0, 0x83, 10, 20);
        disk.entry(0, 2, 0x05, 100, 500);
        disk.entry(0, 3, 0x83, 900, 200);
        disk.entry(100, 0, 0x83, 2, 30);
        disk.entry(100, 1, 0x05, 200, 50);
        disk.entry(300, 0, 0x83, 1, 40);
        // Number 4 does not fit on the disk.
        assert_eq!(read(&mut disk), [part(1, 10, 20), part(5, 102, 30), part(6, 301, 40)]);
        // A chain that bites its tail ends.
        disk.entry(300, 1, 0x05, 200, 50);
        assert_eq!(read(&mut disk).len(), 2 + 63);
    }

    #[test]
    fn gpt_partitions_and_the_second_table() {
        let mut disk = Image::new(200);
        disk.entry(0, 0, PROTECTIVE, 1, 199);
        disk.gpt(1, 2);
        let expected = [part(1, 40, 10), part(3, 50, 1)];
        assert_eq!(read(&mut disk), expected);
        disk.put(3 * 512, &[1]);
        assert_eq!(read(&mut disk), [], "the table's sum is wrong");
        disk.gpt(199, 160);
        assert_eq!(read(&mut disk), expected, "then the second one counts");
    }
}

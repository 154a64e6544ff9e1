//! A disk of any bytes whose partition table is read: what it finds lies on the disk.
//!
//! The input is patches (place, length, bytes) to a small disk of one of three kinds: with a GPT, whose sums are made right
//! afterwards, with a table of the older kind, with either of them in sectors of 4096 bytes.
#![no_main]
#![forbid(unsafe_code)]

use file_places::partition::{Reader, read};
use fuzz::Bytes;
use libfuzzer_sys::fuzz_target;

const SECTORS: usize = 128;
/// Where the tables' entries are: of the first one, of the one at the end.
const ENTRIES: [usize; 2] = [2, SECTORS - 40];

struct Image {
    bytes: Vec<u8>,
    sector: usize,
    reads: usize,
}

impl Reader for Image {
    fn sector_size(&self) -> usize {
        self.sector
    }

    fn sectors(&self) -> u64 {
        SECTORS as u64
    }

    fn read(&mut self, first: u64, count: usize) -> Option<Vec<u8>> {
        self.reads += 1;
        let at = usize::try_from(first).ok()?.checked_mul(self.sector)?;
        Some(self.bytes.get(at..at.checked_add(count.checked_mul(self.sector)?)?)?.to_vec())
    }
}

impl Image {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        let len = bytes.len().min(self.bytes.len().saturating_sub(at));
        if let Some(to) = self.bytes.get_mut(at..at + len) {
            to.copy_from_slice(&bytes[..len]);
        }
    }

    fn u32_at(&self, at: usize) -> usize {
        usize::try_from(u32::from_le_bytes(*self.bytes[at..].first_chunk().unwrap())).unwrap()
    }

    /// A header with what the format asks for; patches may change all of it.
    fn header(&mut self, at: usize, entries: usize) {
        let at = at * self.sector;
        self.put(at, b"EFI PART");
        self.put(at + 12, &92u32.to_le_bytes());
        self.put(at + 72, &(entries as u64).to_le_bytes());
        self.put(at + 80, &128u32.to_le_bytes());
        self.put(at + 84, &128u32.to_le_bytes());
    }

    /// Makes the sums of a header right, as far as it says what they are of.
    fn seal(&mut self, at: usize, entries: usize) {
        let at = at * self.sector;
        let from = entries * self.sector;
        let len = self.u32_at(at + 80).saturating_mul(self.u32_at(at + 84)).min(self.bytes.len() - from);
        let sum = crc32(&self.bytes[from..from + len]);
        self.put(at + 88, &sum.to_le_bytes());
        self.put(at + 16, &[0; 4]);
        let len = self.u32_at(at + 12).min(self.sector);
        let sum = crc32(&self.bytes[at..at + len]);
        self.put(at + 16, &sum.to_le_bytes());
    }
}

/// CRC-32 (IEEE 802.3), bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| sum >> 1 ^ (sum & 1).wrapping_neg() & 0xedb8_8320)
    })
}

fuzz_target!(|data: &[u8]| {
    let mut input = Bytes::new(data);
    let kind = input.u8();
    let sector = if kind & 1 == 0 { 512 } else { 4096 };
    let mut disk = Image { bytes: vec![0; SECTORS * sector], sector, reads: 0 };
    disk.put(510, &[0x55, 0xaa]);
    let gpt = kind & 2 != 0;
    if gpt {
        disk.put(446 + 4, &[0xee]);
        disk.header(1, ENTRIES[0]);
        disk.header(SECTORS - 1, ENTRIES[1]);
    }
    while !input.is_empty() {
        let at = usize::from(input.u16()) << (kind >> 2 & 3);
        let bytes: Vec<u8> = (0..input.u8() % 64).map(|_| input.u8()).collect();
        disk.put(at % (SECTORS * sector), &bytes);
    }
    if gpt {
        disk.seal(1, ENTRIES[0]);
        disk.seal(SECTORS - 1, ENTRIES[1]);
    }
    for part in read(&mut disk) {
        assert!(part.number > 0 && part.sectors > 0);
        assert!(part.start.checked_add(part.sectors).is_some_and(|end| end <= SECTORS as u64));
    }
    // Four chains of links, or two tables: nothing on a disk makes it read on and on.
    assert!(disk.reads <= 1 + 4 * 64);
});

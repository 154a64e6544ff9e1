//! What a SATA disk says of itself (ACS-3, 7.12.7).

use super::port::SEGMENTS;
use crate::drivers::Geometry;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use dom0_hal::dma::Page;

/// Its bytes.
pub const LEN: usize = 512;

/// What a disk says it is.
#[derive(Debug, PartialEq, Eq)]
pub struct Identity {
    pub geometry: Geometry,
    /// How many commands it queues, where it does.
    pub depth: Option<usize>,
    pub model: String,
}

impl Identity {
    /// What stands at the begin of a page.
    pub fn read(page: &Page) -> Result<Self, String> {
        let mut bytes = [0; LEN];
        page.read(0, &mut bytes);
        parse(&bytes)
    }
}

fn parse(bytes: &[u8; LEN]) -> Result<Identity, String> {
    let words: Vec<u16> = bytes.as_chunks().0.iter().map(|word| u16::from_le_bytes(*word)).collect();
    let word = |at: usize| words.get(at).copied().unwrap_or(0);
    let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 1)) << 16;
    if word(83) & 1 << 10 == 0 {
        return Err(String::from("a disk without 48-bit addresses is not supported"));
    }
    // Sizes of sectors are told where bit 14 is set and bit 15 is not.
    let sizes = if word(106) >> 14 == 1 { word(106) } else { 0 };
    let size = if sizes & 1 << 12 != 0 { long(117) * 2 } else { 512 };
    let exponent = if sizes & 1 << 13 != 0 { (sizes & 0xf).min(8) } else { 0 };
    let sector_size = u32::try_from(size).ok().filter(|size| matches!(size, 512 | 4096));
    let sector_size = sector_size.ok_or_else(|| format!("sectors of {size} bytes are not supported"))?;
    // Word 76 is of Serial ATA (7.12.7.34): neither 0 nor all ones where it means anything.
    let serial = if word(76) == u16::MAX { 0 } else { word(76) };
    let name: Vec<u8> = words.get(27..47).unwrap_or_default().iter().flat_map(|word| word.to_be_bytes()).collect();
    Ok(Identity {
        geometry: Geometry {
            sectors: (long(100) | long(102) << 32).saturating_mul(size / 512),
            sector_size,
            physical_sector_size: sector_size << exponent,
            read_only: false,
            flush: true,
            discard: false,
            segments: SEGMENTS,
        },
        depth: (serial & 1 << 8 != 0).then(|| usize::from(word(75) & 0x1f) + 1),
        model: String::from_utf8_lossy(&name).trim().into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(words: &[(usize, u16)]) -> Result<Identity, String> {
        let mut bytes = [0; LEN];
        for (at, word) in [(83, 1 << 10)].iter().chain(words) {
            bytes[at * 2..at * 2 + 2].copy_from_slice(&word.to_le_bytes());
        }
        parse(&bytes)
    }

    #[test]
    fn sizes_and_queues_are_told() {
        let plain = disk(&[(100, 0x2000), (27, u16::from_be_bytes(*b"QE"))]).unwrap();
        assert_eq!((plain.geometry.sectors, plain.geometry.sector_size), (0x2000, 512));
        assert_eq!((plain.depth, plain.model.starts_with("QE")), (None, true));
        let large = disk(&[(102, 1), (75, 31), (76, 1 << 8), (106, 1 << 14 | 1 << 13 | 3)]).unwrap();
        assert_eq!((large.geometry.sectors, large.geometry.physical_sector_size), (1 << 32, 4096));
        assert_eq!(large.depth, Some(32));
        // Sectors of 2048 words.
        let native = disk(&[(100, 8), (106, 1 << 14 | 1 << 12), (117, 2048)]).unwrap();
        assert_eq!((native.geometry.sectors, native.geometry.sector_size), (64, 4096));
        assert!(disk(&[(106, 1 << 14 | 1 << 12), (117, 260)]).is_err(), "sectors of 520 bytes");
        assert!(disk(&[(83, 0)]).is_err(), "no 48-bit addresses");
    }
}

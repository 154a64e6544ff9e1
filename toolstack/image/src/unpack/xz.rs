//! xz ("The .xz File Format", version 1.1.0). A kernel's build makes one block: the x86 filter, LZMA2, and a CRC32. That is
//! taken apart here, unpacked by lzma-rust2 into its place, and the filter undone there; the crate's own way through a file,
//! which takes a tenth longer (a byte at a time for the checksum, pieces for the filter), is for whatever else there is.

use crc32fast::hash;
use lzma_rust2::{Lzma2Reader, Read, XzReader};

use super::lzma::{decoder_error, probe_end, read_to_end};
use super::{WINDOW_LIMIT, x86_calls};
use crate::error::ImageError;
use crate::payload::Format;
use alloc::vec::Vec;

const fn damaged(what: &'static str) -> ImageError {
    ImageError::Damaged { format: Format::Xz, what }
}

fn limit_kib() -> u32 {
    u32::try_from(WINDOW_LIMIT / 1024 + 1024).unwrap_or(u32::MAX)
}

pub fn unpack(data: &[u8], out: &mut [u8]) -> Result<usize, ImageError> {
    if let Some(block) = Block::read(data)
        && let Some(written) = block.unpack(out)?
    {
        return Ok(written);
    }
    unpack_any(data, out)
}

fn unpack_any(data: &[u8], out: &mut [u8]) -> Result<usize, ImageError> {
    let mut reader = XzReader::new_mem_limit(data, false, limit_kib());
    let written = read_to_end(Format::Xz, out, |buf| reader.read(buf))?;
    probe_end(Format::Xz, out.len(), written, |buf| reader.read(buf))?;
    Ok(written)
}

/// "Stream Header": magic, flags that say CRC32, their own CRC32.
const HEADER: [u8; 12] = [0xfd, b'7', b'z', b'X', b'Z', 0, 0, 1, 0x69, 0x22, 0xde, 0x36];
/// The flags alone, which stand in the footer too, before its magic.
const FLAGS: [u8; 2] = [0, 1];
/// Filters' numbers.
const X86: u8 = 0x04;
const LZMA2: u8 = 0x21;

/// The first block of a file, of the kind that a kernel's build makes.
struct Block<'a> {
    /// Bytes of its header.
    header: usize,
    filtered: bool,
    dictionary: u32,
    /// All that is behind the header.
    body: &'a [u8],
}

impl<'a> Block<'a> {
    /// `None` for another kind, and for a header that is damaged.
    fn read(data: &'a [u8]) -> Option<Self> {
        let data = data.strip_prefix(&HEADER)?;
        let size = (usize::from(*data.first()?) + 1) * 4;
        let (header, body) = data.split_at_checked(size)?;
        let (fields, crc) = header.split_last_chunk::<4>()?;
        if hash(fields) != u32::from_le_bytes(*crc) {
            return None;
        }
        // The flags count the filters. No sizes, no other offset of the filter than 0.
        let (filtered, rest) = match fields {
            [_, 1, X86, 0, rest @ ..] => (true, rest),
            [_, 0, rest @ ..] => (false, rest),
            _ => return None,
        };
        let [LZMA2, 1, size, padding @ ..] = rest else { return None };
        if *size >= 40 || padding.iter().any(|byte| *byte != 0) {
            return None;
        }
        let dictionary = (2 | u32::from(size & 1)).checked_shl(u32::from(size / 2) + 11)?;
        Some(Self { header: header.len(), filtered, dictionary, body })
    }

    /// `None` where it is not the only block.
    fn unpack(&self, out: &mut [u8]) -> Result<Option<usize>, ImageError> {
        let mut rest = self.body;
        let reader = Lzma2Reader::new_mem_limit(&mut rest, self.dictionary, limit_kib(), None);
        let mut reader = reader.map_err(|error| decoder_error(Format::Xz, &error))?;
        let written = read_to_end(Format::Xz, out, |buf| reader.read(buf))?;
        probe_end(Format::Xz, out.len(), written, |buf| reader.read(buf))?;
        let packed = self.body.len() - rest.len();
        let (padding, rest) = rest.split_at_checked(packed.next_multiple_of(4) - packed).ok_or(CUT_SHORT)?;
        let (crc, rest) = rest.split_first_chunk::<4>().ok_or(CUT_SHORT)?;
        // An index begins with zero, a block with its size.
        if rest.first().is_some_and(|byte| *byte != 0) {
            return Ok(None);
        }
        let end = end(self.header + packed + crc.len(), written);
        if padding.iter().any(|byte| *byte != 0) || !rest.starts_with(&end) {
            return Err(damaged("the index or the end is wrong"));
        }
        let unpacked = out.get_mut(..written).unwrap_or_default();
        if self.filtered {
            x86_calls::undo(unpacked);
        }
        if hash(unpacked) != u32::from_le_bytes(*crc) {
            return Err(damaged("wrong checksum"));
        }
        Ok(Some(written))
    }
}

const CUT_SHORT: ImageError = damaged("the checksum is cut short");

/// What stands behind the only block of a file: the index with its one record, and the footer.
fn end(unpadded: usize, unpacked: usize) -> Vec<u8> {
    let mut index = alloc::vec![0, 1];
    for mut number in [unpadded, unpacked] {
        // Seven bits at a time, the lowest first; the eighth says that there are more.
        loop {
            let [low, ..] = number.to_le_bytes();
            number >>= 7;
            if number == 0 {
                index.push(low);
                break;
            }
            index.push(low | 0x80);
        }
    }
    index.resize(index.len().next_multiple_of(4), 0);
    index.extend(hash(&index).to_le_bytes());
    // "Backward Size" counts words, less one.
    let words = u32::try_from(index.len() / 4 - 1).unwrap_or(u32::MAX);
    let footer: Vec<u8> = words.to_le_bytes().into_iter().chain(FLAGS).collect();
    index.extend(hash(&footer).to_le_bytes());
    index.extend(footer);
    index.extend(b"YZ");
    index
}

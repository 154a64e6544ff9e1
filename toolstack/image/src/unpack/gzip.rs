//! gzip (RFC 1952): the header by hand, the deflate stream by miniz_oxide.

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

use crate::error::ImageError;
use crate::payload::Format;

const fn damaged(what: &'static str) -> ImageError {
    ImageError::Damaged { format: Format::Gzip, what }
}

/// Where the deflate stream starts.
fn header_len(data: &[u8]) -> Option<usize> {
    const FHCRC: u8 = 2;
    const FEXTRA: u8 = 4;
    const FNAME: u8 = 8;
    const FCOMMENT: u8 = 16;
    let flags = *data.get(3)?;
    let mut at = 10usize;
    if flags & FEXTRA != 0 {
        let len = u16::from_le_bytes([*data.get(at)?, *data.get(at + 1)?]);
        at += 2 + usize::from(len);
    }
    for flag in [FNAME, FCOMMENT] {
        if flags & flag != 0 {
            at += data.get(at..)?.iter().position(|b| *b == 0)? + 1;
        }
    }
    if flags & FHCRC != 0 {
        at += 2;
    }
    Some(at)
}

/// What stands behind the stream: the CRC-32 of what comes out, and its length modulo 2^32.
fn trailer(rest: &[u8]) -> Option<(u32, u32)> {
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let len = rest.first_chunk::<4>()?;
    Some((u32::from_le_bytes(*crc), u32::from_le_bytes(*len)))
}

pub fn unpack(data: &[u8], out: &mut [u8]) -> Result<usize, ImageError> {
    let body = header_len(data).and_then(|at| data.get(at..)).ok_or(damaged("the header is cut short"))?;
    let mut state = alloc::boxed::Box::<DecompressorOxide>::default();
    let (status, read, written) = decompress(&mut state, body, out, 0, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF);
    match status {
        TINFLStatus::Done => {
            let rest = body.get(read..).unwrap_or_default();
            let (crc, len) = trailer(rest).ok_or(damaged("the checksum is cut short"))?;
            let unpacked = out.get(..written).unwrap_or_default();
            if crc32fast::hash(unpacked) != crc {
                return Err(damaged("wrong checksum"));
            }
            if u32::try_from(written & 0xffff_ffff) != Ok(len) {
                return Err(damaged("not as long as it says"));
            }
            Ok(written)
        }
        TINFLStatus::HasMoreOutput => Err(ImageError::Overflow { format: Format::Gzip, size: out.len() as u64 }),
        TINFLStatus::NeedsMoreInput | TINFLStatus::FailedCannotMakeProgress => Err(damaged("the stream ends early")),
        _ => Err(damaged("bad deflate stream")),
    }
}

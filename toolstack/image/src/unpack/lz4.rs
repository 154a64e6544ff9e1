//! LZ4's legacy frame: a magic, then blocks of up to 8 MiB unpacked, each after its packed length. Blocks by lz4_flex.

use crate::error::ImageError;
use crate::payload::Format;

const BLOCK: usize = 8 << 20;

const fn damaged(what: &'static str) -> ImageError {
    ImageError::Damaged { format: Format::Lz4, what }
}

pub fn unpack(data: &[u8], out: &mut [u8]) -> Result<usize, ImageError> {
    let capacity = out.len();
    let mut input = data.get(4..).ok_or(damaged("no magic"))?;
    let mut written = 0;
    // An end shorter than a length field, or a length of zero, ends the frame: lz4's own tool leaves the end open.
    while let Some((len, rest)) = input.split_first_chunk::<4>() {
        let len = usize::try_from(u32::from_le_bytes(*len)).unwrap_or(usize::MAX);
        if len == 0 {
            break;
        }
        let (block, rest) = rest.split_at_checked(len).ok_or(damaged("a block is cut short"))?;
        input = rest;
        let room = out.get_mut(written..).unwrap_or_default();
        let whole = room.len() >= BLOCK;
        let room = room.get_mut(..BLOCK.min(capacity - written)).unwrap_or_default();
        written += match lz4_flex::block::decompress_into(block, room) {
            Ok(n) => n,
            Err(lz4_flex::block::DecompressError::OutputTooSmall { .. }) if !whole => {
                return Err(ImageError::Overflow { format: Format::Lz4, size: capacity as u64 });
            }
            Err(_) => return Err(damaged("bad block")),
        };
    }
    Ok(written)
}

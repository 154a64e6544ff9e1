//! zstd, by ruzstd.

use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use ruzstd::io::Read;

use super::WINDOW_LIMIT;
use crate::error::ImageError;
use crate::payload::Format;

const fn damaged(what: &'static str) -> ImageError {
    ImageError::Damaged { format: Format::Zstd, what }
}

pub fn unpack(data: &[u8], out: &mut [u8]) -> Result<usize, ImageError> {
    let mut input = data;
    let mut decoder = FrameDecoder::new();
    decoder.set_max_window_size(WINDOW_LIMIT);
    decoder.init(&mut input).map_err(|_| damaged("bad frame header"))?;
    let mut written = 0;
    loop {
        decoder
            .decode_blocks(&mut input, BlockDecodingStrategy::UptoBytes(1 << 20))
            .map_err(|_| damaged("bad block"))?;
        let room = out.get_mut(written..).unwrap_or_default();
        written += decoder.read(room).map_err(|_| damaged("cannot drain the window"))?;
        if decoder.can_collect() != 0 && written == out.len() {
            return Err(ImageError::Overflow { format: Format::Zstd, size: out.len() as u64 });
        }
        if decoder.is_finished() && decoder.can_collect() == 0 {
            // The frame need not have a checksum; the kernel's build adds one.
            return match decoder.get_checksum_from_data() {
                Some(stored) if decoder.get_calculated_checksum() != Some(stored) => Err(damaged("wrong checksum")),
                _ => Ok(written),
            };
        }
    }
}

//! The legacy .lzma container, and the read loop that xz shares.

use lzma_rust2::{Error, LzmaReader, Read};

use super::WINDOW_LIMIT;
use crate::error::ImageError;
use crate::payload::Format;

pub fn decoder_error(format: Format, error: &Error) -> ImageError {
    let what = match error {
        Error::Eof => "the stream ends early",
        Error::InvalidData(s)
        | Error::InvalidInput(s)
        | Error::Other(s)
        | Error::Unsupported(s)
        | Error::OutOfMemory(s)
        | Error::WriteZero(s) => s,
        Error::Interrupted => "interrupted",
    };
    ImageError::Damaged { format, what }
}

/// Reads until the decoder says it is done or `out` is full.
pub fn read_to_end(
    format: Format,
    out: &mut [u8],
    mut read: impl FnMut(&mut [u8]) -> Result<usize, Error>,
) -> Result<usize, ImageError> {
    let mut written = 0;
    while let Some(rest) = out.get_mut(written..)
        && !rest.is_empty()
    {
        match read(rest) {
            Ok(0) => break,
            Ok(n) => written += n,
            Err(Error::Interrupted) => {}
            Err(e) => return Err(decoder_error(format, &e)),
        }
    }
    Ok(written)
}

/// With `out` full, makes sure that nothing more would have come; this also makes the decoder verify its checksums.
pub fn probe_end(
    format: Format,
    capacity: usize,
    written: usize,
    mut read: impl FnMut(&mut [u8]) -> Result<usize, Error>,
) -> Result<(), ImageError> {
    if written < capacity {
        return Ok(());
    }
    match read(&mut [0]) {
        Ok(0) => Ok(()),
        Ok(_) => Err(ImageError::Overflow { format, size: capacity as u64 }),
        Err(e) => Err(decoder_error(format, &e)),
    }
}

pub fn unpack(data: &[u8], out: &mut [u8]) -> Result<usize, ImageError> {
    let limit_kib = u32::try_from(WINDOW_LIMIT / 1024 + 1024).unwrap_or(u32::MAX);
    let mut reader = LzmaReader::new_mem_limit(data, limit_kib, None).map_err(|e| decoder_error(Format::Lzma, &e))?;
    let written = read_to_end(Format::Lzma, out, |buf| reader.read(buf))?;
    probe_end(Format::Lzma, out.len(), written, |buf| reader.read(buf))?;
    Ok(written)
}

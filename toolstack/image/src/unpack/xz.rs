//! xz, by lzma-rust2 (the kernel's build uses the x86 filter and a CRC32 check).

use lzma_rust2::{Read, XzReader};

use super::WINDOW_LIMIT;
use super::lzma::{probe_end, read_to_end};
use crate::error::ImageError;
use crate::payload::Format;

pub fn unpack(data: &[u8], out: &mut [u8]) -> Result<usize, ImageError> {
    let limit_kib = u32::try_from(WINDOW_LIMIT / 1024 + 1024).unwrap_or(u32::MAX);
    let mut reader = XzReader::new_mem_limit(data, false, limit_kib);
    let written = read_to_end(Format::Xz, out, |buf| reader.read(buf))?;
    probe_end(Format::Xz, out.len(), written, |buf| reader.read(buf))?;
    Ok(written)
}

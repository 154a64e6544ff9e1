//! Packs data in ways that are short to write down.
#![allow(dead_code, reason = "each test file uses its part")]

pub fn crc(bytes: &[u8]) -> u32 {
    bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

pub fn gzip(data: &[u8]) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 3];
    out.extend(miniz_oxide::deflate::compress_to_vec(data, 9));
    out.extend((!crc(data)).to_le_bytes());
    out.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
    out
}

/// A legacy frame with one stored (literal-only) block: nearly every damage to it looks like another kernel.
pub fn lz4(data: &[u8]) -> Vec<u8> {
    let mut block = vec![0xf0];
    let mut rest = data.len() - 15;
    while rest >= 255 {
        block.push(255);
        rest -= 255;
    }
    block.push(u8::try_from(rest).unwrap());
    block.extend(data);
    let mut out = vec![0x02, 0x21, 0x4c, 0x18];
    out.extend(u32::try_from(block.len()).unwrap().to_le_bytes());
    out.extend(block);
    out
}

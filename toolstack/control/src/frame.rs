//! Frames: a body and its CRC-32, stuffed so that no byte of them is 0 (COBS: Cheshire and Baker, "Consistent Overhead
//! Byte Stuffing", 1997), and a 0 after each. So whoever listens finds the next frame's start after any garbage.

use alloc::vec::Vec;

/// The longest body.
pub const MAX_BODY: usize = 1400;
/// Bytes of the CRC.
const CRC: usize = 4;
/// The longest frame without its 0: one more byte for each 254.
const MAX_FRAME: usize = MAX_BODY + CRC + (MAX_BODY + CRC) / 254 + 1;
/// A run of bytes none of which is 0 is not longer.
const RUN: u8 = 0xff;

/// Adds a frame to `out`. A body longer than [`MAX_BODY`] would not be understood.
pub fn encode(body: &[u8], out: &mut Vec<u8>) {
    let crc = crc32fast::hash(body).to_le_bytes();
    let mut code_at = out.len();
    let mut code = 1_u8;
    out.push(code);
    for &byte in body.iter().chain(&crc) {
        if byte != 0 {
            out.push(byte);
            code += 1;
        }
        if byte == 0 || code == RUN {
            if let Some(place) = out.get_mut(code_at) {
                *place = code;
            }
            (code_at, code) = (out.len(), 1);
            out.push(code);
        }
    }
    if let Some(place) = out.get_mut(code_at) {
        *place = code;
    }
    out.push(0);
}

/// A frame that is none: bytes of it were lost or changed, or it was never meant to be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged;

/// Finds frames in a stream.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    /// What came since the last 0 is too long for a frame.
    overlong: bool,
}

impl Decoder {
    /// Takes the next bytes; `found` gets the body of every frame that ends in them.
    pub fn push(&mut self, bytes: &[u8], mut found: impl FnMut(Result<&[u8], Damaged>)) {
        for &byte in bytes {
            if byte != 0 {
                self.overlong |= self.bytes.len() == MAX_FRAME;
                if !self.overlong {
                    self.bytes.push(byte);
                }
                continue;
            }
            // A 0 right after a 0 ends nothing: senders may begin with one.
            if self.overlong {
                found(Err(Damaged));
            } else if !self.bytes.is_empty() {
                found(unstuff(&mut self.bytes).ok_or(Damaged));
            }
            self.bytes.clear();
            self.overlong = false;
        }
    }
}

/// The body of a frame, decoded in place.
fn unstuff(bytes: &mut [u8]) -> Option<&[u8]> {
    let (mut read, mut write) = (0, 0);
    while read < bytes.len() {
        let code = *bytes.get(read)?;
        let run = usize::from(code).checked_sub(1)?;
        let from = read + 1;
        let to = from + run;
        if to > bytes.len() {
            return None;
        }
        bytes.copy_within(from..to, write);
        write += run;
        read = to;
        if code != RUN && read < bytes.len() {
            *bytes.get_mut(write)? = 0;
            write += 1;
        }
    }
    let (body, crc) = bytes.get(..write)?.split_at_checked(write.checked_sub(CRC)?)?;
    (crc == crc32fast::hash(body).to_le_bytes()).then_some(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn decode(bytes: &[u8]) -> Vec<Result<Vec<u8>, Damaged>> {
        let mut all = Vec::new();
        Decoder::default().push(bytes, |found| all.push(found.map(<[u8]>::to_vec)));
        all
    }

    #[test]
    fn frames_come_back() {
        for len in [0, 1, 2, 253, 254, 255, 508, 509, 1000, MAX_BODY] {
            for fill in [0, 1, 0xff] {
                let body = vec![fill; len];
                let mut line = Vec::new();
                encode(&body, &mut line);
                assert!(line.len() <= MAX_FRAME + 1);
                assert_eq!(line.iter().filter(|&&byte| byte == 0).count(), 1);
                assert_eq!(decode(&line), [Ok(body)], "{len} times {fill}");
            }
        }
    }

    #[test]
    fn garbage_costs_one_frame() {
        let mut line = vec![0x55; 5000];
        line.push(0);
        line.extend(b"half a fra");
        encode(b"lost", &mut line);
        encode(b"found", &mut line);
        assert_eq!(decode(&line), [Err(Damaged), Err(Damaged), Ok(b"found".to_vec())]);
    }
}

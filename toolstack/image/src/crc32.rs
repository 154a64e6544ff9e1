//! CRC-32 as gzip (RFC 1952) and the kernel's build use it, eight bytes at a time.

/// The polynomial, reflected.
const POLYNOMIAL: u32 = 0xedb8_8320;

/// The remainder of each byte that is followed by 0 to 7 bytes of zeros.
static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        #[allow(clippy::cast_possible_truncation, reason = "below 256")]
        let mut crc = byte as u32;
        let mut follow = 0;
        while follow < 8 {
            let mut bit = 0;
            while bit < 8 {
                crc = (crc >> 1) ^ (POLYNOMIAL & (crc & 1).wrapping_neg());
                bit += 1;
            }
            tables[follow][byte] = crc;
            follow += 1;
        }
        byte += 1;
    }
    tables
}

/// A checksum under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crc32(u32);

impl Crc32 {
    /// Of nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(!0)
    }

    /// Goes on with more bytes.
    #[must_use]
    pub fn with(self, bytes: &[u8]) -> Self {
        let [t0, t1, t2, t3, t4, t5, t6, t7] = &TABLES;
        let at = |table: &[u32; 256], byte: u8| table[usize::from(byte)];
        let mut crc = self.0;
        let (words, rest) = bytes.as_chunks::<8>();
        for &[a, b, c, d, e, f, g, h] in words {
            let [a, b, c, d] = (crc ^ u32::from_le_bytes([a, b, c, d])).to_le_bytes();
            crc = at(t7, a) ^ at(t6, b) ^ at(t5, c) ^ at(t4, d) ^ at(t3, e) ^ at(t2, f) ^ at(t1, g) ^ at(t0, h);
        }
        for &byte in rest {
            crc = (crc >> 8) ^ at(t0, crc.to_le_bytes()[0] ^ byte);
        }
        Self(crc)
    }

    /// The remainder as it is: the kernel's build appends this one, so that the whole has the remainder 0.
    #[must_use]
    pub const fn remainder(self) -> u32 {
        self.0
    }

    /// The checksum that gzip stores.
    #[must_use]
    pub const fn value(self) -> u32 {
        !self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_check_value() {
        assert_eq!(Crc32::new().with(b"123456789").value(), 0xcbf4_3926);
        assert_eq!(Crc32::new().with(b"1234").with(b"56789").value(), 0xcbf4_3926);
        assert_eq!(Crc32::new().value(), 0);
    }

    #[test]
    fn appended_to_what_it_is_of_it_leaves_nothing() {
        let crc = Crc32::new().with(&[7; 1001]);
        assert_eq!(crc.with(&crc.remainder().to_le_bytes()).remainder(), 0);
    }
}

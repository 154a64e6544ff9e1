//! What the fuzz targets share.
#![forbid(unsafe_code)]

/// Bytes that are used up one after another; zeroes after the end.
#[derive(Debug)]
pub struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    /// All of an input.
    #[must_use]
    pub const fn new(data: &'a [u8]) -> Self {
        Bytes(data)
    }

    /// Whether none is left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut taken = [0; N];
        let count = N.min(self.0.len());
        let (now, later) = self.0.split_at(count);
        taken[..count].copy_from_slice(now);
        self.0 = later;
        taken
    }

    /// The next byte.
    pub fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.take())
    }

    /// The next two.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    /// The next four.
    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    /// The next eight.
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}

/// Takes the bytes that another end of a ring writes somewhere into its page of 4096 bytes: where, and which. `step` says how many.
pub fn scribbled<'a>(left: &mut &'a [u8], step: u8, place: [u8; 2]) -> (usize, &'a [u8]) {
    let at = usize::from(u16::from_be_bytes(place)) % 4096;
    let len = left.len().min(usize::from(step / 5) + 1).min(4096 - at);
    let (bytes, rest) = left.split_at(len);
    *left = rest;
    (at, bytes)
}

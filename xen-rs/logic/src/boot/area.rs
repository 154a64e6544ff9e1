//! Structures in physical memory, read byte by byte: nothing of what is there needs to be aligned, or right.

use alloc::string::String;

/// Longer strings are cut.
const MAX_LINE: usize = 4095;

/// Physical memory.
pub trait Physical: Copy {
    /// A byte: zero where nothing can be read.
    fn byte(self, at: u64) -> u8;
}

/// A structure, by its address.
#[derive(Clone, Copy)]
pub(super) struct Area<P> {
    /// The memory it is in.
    pub memory: P,
    /// Where it begins.
    pub at: u64,
}

impl<P: Physical> Area<P> {
    /// What another address, found in this structure, leads to.
    pub fn follow(self, at: u64) -> Self {
        Area { at, ..self }
    }

    /// The byte at an offset.
    pub fn byte(self, offset: u64) -> u8 {
        self.memory.byte(self.at.saturating_add(offset))
    }

    /// The number of two bytes at an offset.
    pub fn u16(self, offset: u64) -> u16 {
        u16::from_le_bytes([0, 1].map(|i| self.byte(offset.saturating_add(i))))
    }

    /// The number of four bytes at an offset.
    pub fn u32(self, offset: u64) -> u32 {
        u32::from_le_bytes([0, 1, 2, 3].map(|i| self.byte(offset.saturating_add(i))))
    }

    /// The number of eight bytes at an offset.
    pub fn u64(self, offset: u64) -> u64 {
        u64::from(self.u32(offset)) | u64::from(self.u32(offset.saturating_add(4))) << 32
    }

    /// The string at an address. Address 0 stands for no string.
    pub fn string_at(self, at: u64) -> String {
        if at == 0 { String::new() } else { self.follow(at).string(0) }
    }

    /// The string at an offset, in ASCII.
    pub fn string(self, offset: u64) -> String {
        (offset..)
            .take(MAX_LINE)
            .map(|at| self.byte(at))
            .take_while(|byte| *byte != 0)
            .map(|byte| if byte.is_ascii() { char::from(byte) } else { '?' })
            .collect()
    }

    /// Whether a text is at an offset.
    pub fn says(self, offset: u64, text: &[u8]) -> bool {
        (offset..).zip(text).all(|(at, byte)| self.byte(at) == *byte)
    }

    /// Whether the bytes of an area add up to zero, as ACPI wants it.
    pub fn adds_up(self, length: u64) -> bool {
        (0..length).fold(0u8, |sum, at| sum.wrapping_add(self.byte(at))) == 0
    }
}

//! A set of vectors, as IRR, ISR and TMR are.

/// 256 bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Vectors([u32; 8]);

impl Vectors {
    /// Puts one in.
    pub const fn set(&mut self, vector: u8) {
        self.0[(vector >> 5) as usize] |= 1 << (vector & 31);
    }

    /// Takes one out.
    pub const fn clear(&mut self, vector: u8) {
        self.0[(vector >> 5) as usize] &= !(1 << (vector & 31));
    }

    /// Whether it is there.
    #[must_use]
    pub const fn has(&self, vector: u8) -> bool {
        self.0[(vector >> 5) as usize] & 1 << (vector & 31) != 0
    }

    /// The highest one.
    #[must_use]
    pub fn highest(&self) -> Option<u8> {
        let (index, word) = (0u8..).zip(self.0).filter(|(_, word)| *word != 0).last()?;
        u8::try_from(word.ilog2()).ok().map(|bit| index << 5 | bit)
    }

    /// Its `index`th register of 32 bits.
    #[must_use]
    pub fn word(&self, index: u32) -> u32 {
        usize::try_from(index).ok().and_then(|index| self.0.get(index)).copied().unwrap_or(0)
    }
}

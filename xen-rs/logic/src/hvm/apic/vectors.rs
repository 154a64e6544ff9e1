//! A set of vectors, as IRR, ISR and TMR are.

/// 256 bits, and a bit for each word that has any: most of the time there is nothing, which is asked before each entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Vectors {
    words: [u32; 8],
    used: u8,
}

impl Vectors {
    /// Puts one in.
    pub const fn set(&mut self, vector: u8) {
        self.words[(vector >> 5) as usize] |= 1 << (vector & 31);
        self.used |= 1 << (vector >> 5);
    }

    /// Takes one out.
    pub const fn clear(&mut self, vector: u8) {
        let word = &mut self.words[(vector >> 5) as usize];
        *word &= !(1 << (vector & 31));
        if *word == 0 {
            self.used &= !(1 << (vector >> 5));
        }
    }

    /// Whether it is there.
    #[must_use]
    pub const fn has(&self, vector: u8) -> bool {
        self.words[(vector >> 5) as usize] & 1 << (vector & 31) != 0
    }

    /// The highest one.
    #[inline]
    #[must_use]
    pub fn highest(&self) -> Option<u8> {
        let index = self.used.checked_ilog2()?;
        let bit = self.words.get(usize::try_from(index).ok()?)?.checked_ilog2()?;
        u8::try_from(index << 5 | bit).ok()
    }

    /// Its `index`th register of 32 bits.
    #[must_use]
    pub fn word(&self, index: u32) -> u32 {
        usize::try_from(index).ok().and_then(|index| self.words.get(index)).copied().unwrap_or(0)
    }
}

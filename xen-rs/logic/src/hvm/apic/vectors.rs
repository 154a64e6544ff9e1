//! A set of vectors, as IRR, ISR and TMR are.

/// 256 bits, and a bit for each word that has any: most of the time there is nothing, which is asked before each entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Vectors {
    words: [u32; 8],
    used: u8,
}

impl Vectors {
    /// None.
    pub const NONE: Self = Self { words: [0; 8], used: 0 };

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

    /// Its eight registers.
    #[must_use]
    pub const fn words(&self) -> [u32; 8] {
        self.words
    }

    /// Whether there is none.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Those of both.
    #[must_use]
    pub fn with(self, others: Self) -> Self {
        Self::from(core::array::from_fn(|i| {
            self.words.get(i).copied().unwrap_or(0) | others.words.get(i).copied().unwrap_or(0)
        }))
    }
}

impl From<[u32; 8]> for Vectors {
    fn from(words: [u32; 8]) -> Self {
        let used = words.iter().enumerate().fold(0, |used, (i, word)| if *word == 0 { used } else { used | 1 << i });
        Self { words, used }
    }
}

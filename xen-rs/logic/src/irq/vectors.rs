//! Vectors of the CPUs, given out for devices. A vector means the same on every CPU, so that an interrupt moves to
//! another one by its destination alone.

use core::ops::RangeInclusive;

/// Vectors in use.
#[derive(Clone, Debug)]
pub struct Vectors {
    used: [u64; 4],
    range: (u8, u8),
}

/// Vectors that an `int` of user mode is likely to name: a mix-up with a device's is not worth two vectors.
const SOFTWARE: [u8; 2] = [0x80, 0x82];

impl Vectors {
    /// All of `range` is free.
    #[must_use]
    pub const fn new(range: RangeInclusive<u8>) -> Self {
        Self { used: [0; 4], range: (*range.start(), *range.end()) }
    }

    fn is_used(&self, vector: u8) -> bool {
        let word = self.used.get(usize::from(vector / 64)).copied().unwrap_or(u64::MAX);
        word >> (vector % 64) & 1 != 0
    }

    fn set(&mut self, vector: u8, used: bool) {
        if let Some(word) = self.used.get_mut(usize::from(vector / 64)) {
            let bit = 1 << (vector % 64);
            *word = if used { *word | bit } else { *word & !bit };
        }
    }

    /// Takes a vector out of circulation.
    pub fn reserve(&mut self, vector: u8) {
        self.set(vector, true);
    }

    /// A free vector, lowest priority class first; none when all are in use.
    pub fn take(&mut self) -> Option<u8> {
        let (first, last) = self.range;
        let vector = (first..=last).find(|vector| !self.is_used(*vector) && !SOFTWARE.contains(vector))?;
        self.set(vector, true);
        Some(vector)
    }

    /// Gives a vector back.
    pub fn give_back(&mut self, vector: u8) {
        self.set(vector, false);
    }
}

//! Parts of a volume that were read: file systems are looked at in these alone. What is missing is asked for, and the look
//! starts over, so that nothing waits while it looks.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Bytes of a part.
pub const BLOCK: usize = 4096;
/// Parts that are read at once.
pub const AHEAD: u64 = 32;
/// Parts of one look at most: 8 MiB, which bounds how long looks that start over take.
pub const MOST: usize = 2048;

/// Why a look stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// This part is needed.
    Missing(u64),
    /// There is no such file.
    NotFound,
    /// It is not a file, or not a directory where one is needed.
    WrongKind,
    /// It is something that is not supported.
    Unsupported(&'static str),
    /// The file system contradicts itself.
    Broken,
}

/// The parts.
#[derive(Debug, Default)]
pub struct Blocks(BTreeMap<u64, Vec<u8>>);

impl Blocks {
    /// Adds parts from this one on.
    pub fn insert(&mut self, first: u64, bytes: &[u8]) {
        self.0.extend((first..).zip(bytes.chunks(BLOCK).map(Vec::from)));
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Copies bytes.
    pub fn read(&self, at: u64, to: &mut [u8]) -> Result<(), Stop> {
        let (mut at, mut to) = (at, to);
        while !to.is_empty() {
            let number = at / BLOCK as u64;
            let block = self.0.get(&number).ok_or(Stop::Missing(number))?;
            let from = usize::try_from(at % BLOCK as u64).unwrap_or(0);
            let len = to.len().min(BLOCK - from);
            // A part that ends with the volume is shorter.
            let bytes = block.get(from..from + len).ok_or(Stop::Broken)?;
            let (head, tail) = to.split_at_mut(len);
            head.copy_from_slice(bytes);
            (at, to) = (at.checked_add(len as u64).ok_or(Stop::Broken)?, tail);
        }
        Ok(())
    }

    /// `N` bytes.
    pub fn array<const N: usize>(&self, at: u64) -> Result<[u8; N], Stop> {
        let mut bytes = [0; N];
        self.read(at, &mut bytes)?;
        Ok(bytes)
    }

    /// A number, as all others the lower byte first.
    pub fn u16(&self, at: u64) -> Result<u16, Stop> {
        Ok(u16::from_le_bytes(self.array(at)?))
    }

    /// See [`Blocks::u16`].
    pub fn u32(&self, at: u64) -> Result<u32, Stop> {
        Ok(u32::from_le_bytes(self.array(at)?))
    }
}

//! Floor 1: where files lie on a volume, as its file system (ext4, FAT) says, and partitions on a disk. Any bytes may be there: a
//! guest may have written them.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod blocks;
mod ext4;
mod fat;
pub mod partition;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;
pub use blocks::{AHEAD, BLOCK, Blocks, MOST, Stop};

/// Some of a file, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where it lies on the volume; nowhere where nothing was written: then it reads as zeros.
    pub at: Option<u64>,
    /// How long it is.
    pub len: u64,
}

/// Where a file lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// Its bytes.
    pub size: u64,
    /// Its pieces, in order.
    pub pieces: Vec<Piece>,
}

/// Where a file lies, and whether its file system may be written to.
pub fn locate(blocks: &Blocks, path: &str) -> Result<(Located, bool), Stop> {
    if ext4::is_one(blocks)? {
        Ok((ext4::locate(blocks, path)?, false))
    } else if fat::is_one(blocks)? {
        Ok((fat::locate(blocks, path)?, true))
    } else {
        Err(Stop::Unsupported("no file system that is known"))
    }
}

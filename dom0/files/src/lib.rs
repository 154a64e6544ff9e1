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

/// Pieces of one file at most: what a volume says decides how many there are, and their list is the reader's memory.
const PIECES: usize = 65_536;

/// Adds to a file's pieces; one that goes on where the last ended becomes part of it.
fn add(pieces: &mut Vec<Piece>, piece: Piece) -> Result<(), Stop> {
    let full = pieces.len() == PIECES;
    match pieces.last_mut() {
        Some(last) if last.at.and_then(|at| at.checked_add(last.len)).is_some_and(|end| piece.at == Some(end)) => {
            last.len = last.len.checked_add(piece.len).ok_or(Stop::Broken)?;
        }
        _ if full => return Err(Stop::Unsupported("a file in more than 65,536 pieces")),
        _ => pieces.push(piece),
    }
    Ok(())
}

/// Cuts a file's pieces off where it ends, and says how many bytes they lack.
fn cut(pieces: &mut Vec<Piece>, size: u64) -> u64 {
    let mut left = size;
    for piece in &mut *pieces {
        piece.len = piece.len.min(left);
        left -= piece.len;
    }
    pieces.retain(|piece| piece.len > 0);
    left
}

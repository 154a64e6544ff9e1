//! A large stretch of memory for a short time: room to unpack a kernel in.

use super::{direct_map, frame_table::frames};
use logic::frames::Block;

/// Frames in a row, as bytes.
#[derive(Debug)]
pub struct Scratch(Block);

impl Scratch {
    /// Over a block that is nobody's.
    #[must_use]
    pub const fn new(block: Block) -> Self {
        Self(block)
    }

    /// The bytes.
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let start = direct_map::va_of(self.0.mfn());
        let length = (self.0.pages() as usize) << 12;
        // SAFETY: a block is memory that follows itself in the direct map, and its holder is the only one who reaches it;
        // any bytes are valid.
        unsafe { core::slice::from_raw_parts_mut(start as *mut u8, length) }
    }

    /// Gives the block back, marked as holding data.
    pub fn into_block(mut self) -> Block {
        self.0.soil(frames());
        self.0
    }
}

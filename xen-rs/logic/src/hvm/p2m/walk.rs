//! Looking up in nested page tables, which needs no lock.

use xen_abi::ids::{Gfn, Mfn};

use super::format::Item;
use super::{Access, END, Format, Order, TOP, Use, slot};
use crate::frames::Block;
use crate::page::{FrameTable, Slot, word::ENTRIES};

/// A frame that is a nested page table: the proof for writing to it. This module alone makes one, from a frame that
/// belongs to nobody and holds zeroes, or from an entry that it has written itself.
#[derive(Debug)]
pub struct Node(pub(super) Mfn);

impl Node {
    /// Its frame's number.
    #[inline(always)]
    #[must_use]
    pub const fn mfn(&self) -> Mfn {
        self.0
    }

    /// A new table out of a frame that holds zeroes: the hypervisor's, until it is freed. Gives back a larger block, or one
    /// that may hold something.
    pub(super) fn new(block: Block, frames: FrameTable<'_>) -> Result<Self, Block> {
        if block.order() != 0 || block.frames(frames).any(|f| f.info().is_dirty()) {
            return Err(block);
        }
        Ok(Node(block.keep(frames).0))
    }

    /// The frame, of a table that nothing leads to any more.
    pub(super) fn into_block(self, frames: FrameTable<'_>) -> Block {
        let mut block = Block::new(self.0, 0);
        // It may hold entries still.
        block.soil(frames);
        block
    }
}

/// The frames of tables, as the floor above reaches them.
pub trait TableMemory: Copy {
    /// An entry. The CPU sets accessed and dirty flags at any time.
    fn read(self, node: &Node, slot: Slot) -> u64;
    /// Exchanges an entry: a full barrier.
    fn swap(self, node: &Node, slot: Slot, value: u64) -> u64;
    /// Writes an entry of a table that nothing leads to yet.
    fn fill(self, node: &Node, slot: Slot, value: u64);
}

/// What is behind a guest frame number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The frame, when this was read: another CPU may take the page out of the map at any moment.
    pub mfn: Mfn,
    /// The size of the entry that it is in.
    pub order: Order,
    /// What the guest may do with it.
    pub access: Access,
    /// What it is.
    pub usage: Use,
}

/// A root, and how to walk from it.
#[derive(Clone, Copy, Debug)]
pub struct Walker<M> {
    pub(super) root: Mfn,
    pub(super) format: Format,
    pub(super) memory: M,
}

impl<M: TableMemory> Walker<M> {
    /// What is mapped at a guest frame number.
    #[inline]
    #[must_use]
    pub fn find(&self, gfn: Gfn) -> Option<Found> {
        if gfn >= END {
            return None;
        }
        let mut node = Node(self.root);
        let mut level = TOP;
        loop {
            match self.format.item(self.memory.read(&node, slot(gfn.0, level)), level) {
                Item::Leaf { mfn, access, usage } => {
                    let order = Order::of_level(level)?;
                    let mfn = Mfn(mfn.0 + gfn.0 % order.frames());
                    return Some(Found { mfn, order, access, usage });
                }
                Item::Table(next) if level > 0 => {
                    node = Node(next);
                    level -= 1;
                }
                _ => return None,
            }
        }
    }

    /// Tells of all that is mapped, in no more time than there are entries: for debugging.
    pub fn each(&self, tell: &mut impl FnMut(Found)) {
        self.each_below(&Node(self.root), TOP, tell);
    }

    fn each_below(&self, node: &Node, level: u8, tell: &mut impl FnMut(Found)) {
        for i in 0..ENTRIES {
            match (self.format.item(self.memory.read(node, Slot::new(i)), level), Order::of_level(level)) {
                (Item::Leaf { mfn, access, usage }, Some(order)) => tell(Found { mfn, order, access, usage }),
                (Item::Table(next), _) if level > 0 => self.each_below(&Node(next), level - 1, tell),
                _ => {}
            }
        }
    }

    /// The root.
    #[must_use]
    pub const fn root(&self) -> Mfn {
        self.root
    }

    /// What the CPU is told of it (see [`Format::pointer`]).
    #[must_use]
    pub const fn pointer(&self, accessed_dirty: bool) -> u64 {
        self.format.pointer(self.root, accessed_dirty)
    }
}

//! Frames on their way back to the allocator, put together first.
//!
//! A domain's pages go back one by one, but mostly in order: put together here, a few blocks take the way through the
//! allocator's lists instead of hundreds.

use arrayvec::ArrayVec;

use super::Block;

/// One for each size that grows at the moment, and some for pages that are out of order.
const BLOCKS: usize = 16;

/// Blocks to be given back together.
#[derive(Debug, Default)]
#[must_use = "the frames would be lost"]
pub struct Batch(ArrayVec<Block, BLOCKS>);

impl Batch {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self(ArrayVec::new_const())
    }

    /// Adds a block. There is not room for any number: one that comes back is to be given back at once.
    pub fn add(&mut self, block: Block) -> Option<Block> {
        let mut block = block;
        while let Some(last) = self.0.pop() {
            match last.join(block) {
                Ok(joined) => block = joined,
                Err((last, next)) => {
                    // Where it just was, there is room.
                    let _ = self.0.try_push(last);
                    block = next;
                    break;
                }
            }
        }
        let oldest = if self.0.is_full() { self.0.pop_at(0) } else { None };
        match self.0.try_push(block) {
            Ok(()) => oldest,
            Err(full) => Some(full.element()),
        }
    }

    /// Takes a block out; `None` when all are out.
    pub fn take(&mut self) -> Option<Block> {
        self.0.pop()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::vec::Vec;
    use xen_abi::ids::Mfn;

    fn collect(mfns: impl IntoIterator<Item = u64>) -> Vec<(u64, u8)> {
        let (mut batch, mut all) = (Batch::new(), Vec::new());
        for mfn in mfns {
            all.extend(batch.add(Block::new(Mfn(mfn), 0)));
        }
        all.extend(core::iter::from_fn(|| batch.take()));
        let mut all: Vec<_> = all.iter().map(|block| (block.mfn().0, block.order())).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn neighbours_are_put_together() {
        assert_eq!(collect(512..1024), [(512, 9)]);
        assert_eq!(collect(5..13), [(5, 0), (6, 1), (8, 2), (12, 0)]);
        assert_eq!(collect((512..1024).rev()), [(512, 9)], "in either order");
        assert_eq!(collect([4, 5, 7, 6]), [(4, 2)]);
        assert_eq!(collect([4, 7, 5, 6]), [(4, 0), (5, 0), (6, 0), (7, 0)], "one after the other only");
        assert_eq!(collect([1, 2]), [(1, 0), (2, 0)], "neighbours, but not halves of one block");
    }

    #[test]
    fn no_frame_is_lost_or_doubled() {
        for stride in [1, 3, 7, 64, 101] {
            let mut seen: Vec<_> = collect((0..1024).map(|i| i * stride % 1024 + i / 1024))
                .into_iter()
                .flat_map(|(mfn, order)| mfn..mfn + (1 << order))
                .collect();
            seen.sort_unstable();
            let mut want: Vec<_> = (0..1024).map(|i| i * stride % 1024 + i / 1024).collect();
            want.sort_unstable();
            assert_eq!(seen, want, "{stride}");
        }
    }
}

//! The map itself: entering pages, taking them out, splitting large ones, taking the whole apart.

use arrayvec::ArrayVec;
use xen_abi::ids::Gfn;

use super::format::Item;
use super::page::{Page, Stale};
use super::walk::{Found, Node, TableMemory, Walker};
use super::{END, Format, Order, TOP, slot};
use crate::frames::Block;
use crate::page::{FrameTable, Slot, word::ENTRIES};

/// Why a page was not entered, or none taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Frames for tables are missing: [`Physmap::feed`], then again.
    NeedsTables,
    /// There is something already (for a large page: tables, which may be empty).
    Occupied,
    /// The number is beyond the end, or no multiple of the page's size, or the CPU has no pages of that size.
    Misplaced,
}

/// Tables that one operation may need: those below the root, or two for splitting.
const SPARE: usize = TOP as usize;

/// A domain's map. Its owner guards it by a lock; [`Walker`] looks things up without.
#[derive(Debug)]
pub struct Physmap<M> {
    walker: Walker<M>,
    largest: Order,
    /// Tables to come.
    spare: ArrayVec<Node, SPARE>,
    /// Tables, with the root and the spare ones.
    tables: u64,
    /// One above the highest number that was ever mapped.
    end: Gfn,
    /// One above the highest number for which there are tables.
    reach: Gfn,
    /// Where taking it apart goes on.
    rest: Gfn,
}

impl<M: TableMemory> Physmap<M> {
    /// An empty map whose root is this zeroed frame. `largest`: what the CPU can map by one entry. Gives back a block that
    /// cannot be a table.
    pub fn new(format: Format, largest: Order, memory: M, root: Block, frames: FrameTable<'_>) -> Result<Self, Block> {
        let walker = Walker { root: Node::new(root, frames)?.0, format, memory };
        Ok(Self { walker, largest, spare: ArrayVec::new(), tables: 1, end: Gfn(0), reach: Gfn(0), rest: Gfn(0) })
    }

    /// For looking things up without the lock.
    #[must_use]
    pub const fn walker(&self) -> Walker<M> {
        self.walker
    }

    /// What is mapped at a number.
    #[must_use]
    pub fn find(&self, gfn: Gfn) -> Option<Found> {
        self.walker.find(gfn)
    }

    /// Frames that it has taken for tables.
    #[must_use]
    pub const fn tables(&self) -> u64 {
        self.tables
    }

    /// One above the highest number that was ever mapped.
    #[must_use]
    pub const fn end(&self) -> Gfn {
        self.end
    }

    /// The largest page that one entry can map.
    #[must_use]
    pub const fn largest(&self) -> Order {
        self.largest
    }

    /// How many frames it wants before the next operation, so that none can fail with [`Refused::NeedsTables`].
    #[must_use]
    pub const fn wants(&self) -> usize {
        SPARE - self.spare.len()
    }

    /// Gives it a zeroed frame for tables. Gives back what it cannot use.
    pub fn feed(&mut self, block: Block, frames: FrameTable<'_>) -> Result<(), Block> {
        if self.spare.is_full() {
            return Err(block);
        }
        let node = Node::new(block, frames)?;
        self.tables += 1;
        // There is room.
        self.spare.push(node);
        Ok(())
    }

    /// Enters a page where nothing is. One entry becomes present, which no TLB has to be told.
    pub fn map<'f>(&mut self, gfn: Gfn, page: Page<'f>) -> Result<(), (Refused, Page<'f>)> {
        let order = page.order();
        let (number, mfn) = (gfn.0, page.frame().mfn());
        let fits = number < END.0 && (number | mfn.0).is_multiple_of(order.frames()) && order <= self.largest;
        if !fits {
            return Err((Refused::Misplaced, page));
        }
        let Walker { root, format, memory } = self.walker;
        // Tables are made on the way, whatever comes of it.
        self.reach = self.reach.max(Gfn(number + order.frames()));
        let mut node = Node(root);
        let mut level = TOP;
        while level > order.level() {
            let at = slot(number, level);
            node = match format.item(memory.read(&node, at), level) {
                Item::Table(next) => Node(next),
                Item::Leaf { .. } => return Err((Refused::Occupied, page)),
                Item::Absent => match self.spare.pop() {
                    Some(next) => {
                        memory.swap(&node, at, format.table(next.0));
                        next
                    }
                    None => return Err((Refused::NeedsTables, page)),
                },
            };
            level -= 1;
        }
        let at = slot(number, level);
        if format.item(memory.read(&node, at), level) != Item::Absent {
            return Err((Refused::Occupied, page));
        }
        memory.swap(&node, at, format.leaf(mfn, order, page.access(), page.usage()));
        self.end = self.end.max(Gfn(number + order.frames()));
        Ok(())
    }

    /// Takes the page out that begins at a number and is no larger than `most`: a larger one is split first. `None`: there
    /// is nothing, or something that does not begin there and is no larger.
    ///
    /// # Errors
    /// Splitting needs tables: nothing has changed.
    pub fn unmap<'f>(&mut self, gfn: Gfn, most: Order, frames: FrameTable<'f>) -> Result<Option<Stale<'f>>, Refused> {
        if gfn >= END {
            return Ok(None);
        }
        let Walker { root, format, memory } = self.walker;
        let mut node = Node(root);
        let mut level = TOP;
        loop {
            let at = slot(gfn.0, level);
            let item = format.item(memory.read(&node, at), level);
            node = match (item, Order::of_level(level)) {
                (Item::Leaf { .. }, Some(order)) if order > most => self.split(&node, at, order)?,
                (Item::Leaf { .. }, Some(order)) if gfn.0.is_multiple_of(order.frames()) => {
                    // Whatever flags the CPU has set meanwhile.
                    let Item::Leaf { mfn, access, usage } = format.item(memory.swap(&node, at, 0), level) else {
                        return Ok(None);
                    };
                    return Ok(Page::of_entry(frames, mfn, order, access, usage));
                }
                (Item::Table(next), _) if level > 0 => Node(next),
                _ => return Ok(None),
            };
            level -= 1;
        }
    }

    /// Replaces an entry by a table of 512 that say the same. What TLBs hold stays true until one of them is taken out,
    /// and then they are flushed.
    fn split(&mut self, node: &Node, at: Slot, order: Order) -> Result<Node, Refused> {
        let Walker { format, memory, .. } = self.walker;
        let table = self.spare.pop().ok_or(Refused::NeedsTables)?;
        let smaller = order.smaller();
        if let Item::Leaf { mfn, access, usage } = format.item(memory.read(node, at), order.level()) {
            for i in 0..ENTRIES {
                let part = xen_abi::ids::Mfn(mfn.0 + u64::from(i) * smaller.frames());
                memory.fill(&table, Slot::new(i), format.leaf(part, smaller, access, usage));
            }
            memory.swap(node, at, format.table(table.0));
        }
        Ok(table)
    }

    /// Takes everything out and frees the tables, of a domain whose vCPUs run no more and whose translations are out of
    /// all TLBs: one slice of `budget` entries. What was mapped goes to `page`, tables to `table`. True when nothing is left;
    /// nothing may be entered or looked up after the first slice.
    pub fn take_apart<'f>(
        &mut self,
        frames: FrameTable<'f>,
        budget: &mut u64,
        page: &mut impl FnMut(Stale<'f>),
        table: &mut impl FnMut(Block),
    ) -> bool {
        if self.tables == 0 {
            return true;
        }
        for spare in self.spare.drain(..) {
            self.tables -= 1;
            table(spare.into_block(frames));
        }
        let root = Node(self.walker.root);
        let done = self.clear(&root, TOP, frames, budget, page, table);
        if done {
            self.tables = 0;
            table(root.into_block(frames));
        }
        done
    }

    /// Clears a table from `self.rest` on, which lies in it; false when the slice ended before.
    fn clear<'f>(
        &mut self,
        node: &Node,
        level: u8,
        frames: FrameTable<'f>,
        budget: &mut u64,
        page: &mut impl FnMut(Stale<'f>),
        table: &mut impl FnMut(Block),
    ) -> bool {
        let Walker { format, memory, .. } = self.walker;
        let size = 1u64 << (9 * level);
        for i in slot(self.rest.0, level).number()..ENTRIES {
            if self.rest >= self.reach {
                return true;
            }
            if *budget == 0 {
                return false;
            }
            let at = Slot::new(i);
            let next = Gfn((self.rest.0 / size + 1) * size);
            match format.item(memory.read(node, at), level) {
                Item::Leaf { mfn, access, usage } => {
                    memory.fill(node, at, 0);
                    let Some(order) = Order::of_level(level) else { continue };
                    *budget = budget.saturating_sub(order.frames());
                    if let Some(stale) = Page::of_entry(frames, mfn, order, access, usage) {
                        page(stale);
                    }
                }
                Item::Table(below) if level > 0 => {
                    let below = Node(below);
                    if !self.clear(&below, level - 1, frames, budget, page, table) {
                        return false;
                    }
                    memory.fill(node, at, 0);
                    self.tables -= 1;
                    table(below.into_block(frames));
                }
                _ => {}
            }
            // Not before: each slice gets somewhere.
            *budget = budget.saturating_sub(1);
            self.rest = next;
        }
        true
    }
}

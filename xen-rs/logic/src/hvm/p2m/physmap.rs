//! The map itself: entering pages, taking them out, splitting large ones, taking the whole apart.

use alloc::vec::Vec;

use arrayvec::ArrayVec;
use xen_abi::ids::{Gfn, Mfn};

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
    /// Tables in whose place one entry is now: [`Self::join`].
    joined: Vec<Node>,
    /// Tables, with the root, the spare and the joined ones.
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
        let (spare, joined) = (ArrayVec::new(), Vec::new());
        Ok(Self { walker, largest, spare, joined, tables: 1, end: Gfn(0), reach: Gfn(0), rest: Gfn(0) })
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

    /// Puts one entry of 1 GiB in place of a table whose 512 entries say the same; false where they do not. Of a domain that
    /// has not run: a running CPU is not to meet pages that grow. Whoever looks something up meanwhile finds it in the
    /// table as well, which is kept until the end.
    pub fn join(&mut self, gfn: Gfn) -> bool {
        if self.largest < Order::Huge || gfn >= END {
            return false;
        }
        let Walker { root, format, memory } = self.walker;
        let mut node = Node(root);
        for level in (Order::Huge.level() + 1..=TOP).rev() {
            let Item::Table(next) = format.item(memory.read(&node, slot(gfn.0, level)), level) else { return false };
            node = Node(next);
        }
        let at = slot(gfn.0, Order::Huge.level());
        let Item::Table(table) = format.item(memory.read(&node, at), Order::Huge.level()) else { return false };
        let table = Node(table);
        let entry = |i| format.item(memory.read(&table, Slot::new(i)), Order::Large.level());
        let Item::Leaf { mfn: first, access, usage } = entry(0) else { return false };
        let follows = |i| {
            let mfn = Mfn(first.0 + u64::from(i) * Order::Large.frames());
            entry(i) == Item::Leaf { mfn, access, usage }
        };
        let is_one = first.0.is_multiple_of(Order::Huge.frames()) && (1..ENTRIES).all(follows);
        if !is_one || self.joined.try_reserve(1).is_err() {
            return false;
        }
        memory.swap(&node, at, format.leaf(first, Order::Huge, access, usage));
        self.joined.push(table);
        true
    }

    /// Splits whatever large page a number is in, down to single pages: for code, where the CPU is not to run any from
    /// larger ones ([`Format::EptSmallCode`]).
    ///
    /// # Errors
    /// Splitting needs tables; what is split already stays so.
    pub fn split_down(&mut self, gfn: Gfn) -> Result<(), Refused> {
        if gfn >= END {
            return Ok(());
        }
        let Walker { root, format, memory } = self.walker;
        let mut node = Node(root);
        for level in (1..=TOP).rev() {
            let at = slot(gfn.0, level);
            node = match (format.item(memory.read(&node, at), level), Order::of_level(level)) {
                (Item::Leaf { .. }, Some(order)) => self.split(&node, at, order)?,
                (Item::Table(next), _) => Node(next),
                _ => return Ok(()),
            };
        }
        Ok(())
    }

    /// Takes the page out that begins at a number and is no larger than `most`, nor than 2 MiB: a larger one is split first.
    /// `None`: there is nothing, or something that does not begin there and is no larger.
    ///
    /// # Errors
    /// Splitting needs tables: nothing has changed.
    pub fn unmap<'f>(&mut self, gfn: Gfn, most: Order, frames: FrameTable<'f>) -> Result<Option<Stale<'f>>, Refused> {
        if gfn >= END {
            return Ok(None);
        }
        let most = most.min(Order::Large);
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
                let part = Mfn(mfn.0 + u64::from(i) * smaller.frames());
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
        while let Some(joined) = self.joined.pop() {
            self.tables -= 1;
            table(joined.into_block(frames));
            *budget = budget.saturating_sub(u64::from(ENTRIES));
            if *budget == 0 {
                return false;
            }
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
        let end = ((self.rest.0 / size) | u64::from(ENTRIES - 1)) * size + size;
        while self.rest.0 < end {
            if self.rest >= self.reach {
                return true;
            }
            if *budget == 0 {
                return false;
            }
            let at = slot(self.rest.0, level);
            let mut next = Gfn((self.rest.0 / size + 1) * size);
            match (format.item(memory.read(node, at), level), Order::of_level(level)) {
                (Item::Leaf { mfn, access, usage }, Some(order)) => {
                    // One of 1 GiB goes in parts, of which each is as much as a slice does.
                    let part = order.min(Order::Large);
                    let mfn = Mfn(mfn.0 + self.rest.0 % order.frames());
                    next = Gfn(self.rest.0 + part.frames());
                    if next.0.is_multiple_of(order.frames()) {
                        memory.fill(node, at, 0);
                    }
                    *budget = budget.saturating_sub(part.frames());
                    if let Some(stale) = Page::of_entry(frames, mfn, part, access, usage) {
                        page(stale);
                    }
                }
                (Item::Table(below), _) if level > 0 => {
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

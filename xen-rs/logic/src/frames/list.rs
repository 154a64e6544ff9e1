//! A list of pages, linked through the frame table: a page is on one list at most.

use xen_abi::ids::Mfn;

use crate::page::{Frame, FrameTable};

const END: u32 = u32::MAX;

/// A doubly linked list of frames. Its owner guards it with a lock.
#[derive(Debug)]
pub struct PageList {
    first: u32,
    last: u32,
    len: u64,
}

impl Default for PageList {
    fn default() -> Self {
        Self::new()
    }
}

/// Frame numbers fit in 32 bits up to 16 TiB; the direct map ends at 5 TiB.
#[allow(clippy::cast_possible_truncation, reason = "the frame table has no frame above 2^32")]
const fn link(mfn: Mfn) -> u32 {
    mfn.0 as u32
}

impl PageList {
    /// An empty list.
    #[must_use]
    pub const fn new() -> Self {
        PageList { first: END, last: END, len: 0 }
    }

    /// Number of pages.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is no page.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first page.
    #[must_use]
    pub fn first(&self, table: FrameTable<'_>) -> Option<Mfn> {
        let mfn = Mfn(u64::from(self.first));
        (self.first != END && table.info(mfn).is_some()).then_some(mfn)
    }

    /// The last page.
    #[must_use]
    pub fn last(&self, table: FrameTable<'_>) -> Option<Mfn> {
        let mfn = Mfn(u64::from(self.last));
        (self.last != END && table.info(mfn).is_some()).then_some(mfn)
    }

    /// Puts a page that is on no list at the end.
    pub fn push(&mut self, table: FrameTable<'_>, f: Frame<'_>) {
        let (info, me) = (f.info(), link(f.mfn()));
        info.set_links(self.last, END);
        match table.info(Mfn(u64::from(self.last))) {
            Some(last) if self.last != END => last.set_next(me),
            _ => self.first = me,
        }
        self.last = me;
        self.len += 1;
    }

    /// Puts a page that is on no list at the front.
    pub fn push_front(&mut self, table: FrameTable<'_>, f: Frame<'_>) {
        let (info, me) = (f.info(), link(f.mfn()));
        info.set_links(END, self.first);
        match table.info(Mfn(u64::from(self.first))) {
            Some(first) if self.first != END => first.set_prev(me),
            _ => self.last = me,
        }
        self.first = me;
        self.len += 1;
    }

    /// Takes a page of this list off it.
    pub fn remove(&mut self, table: FrameTable<'_>, f: Frame<'_>) {
        let (prev, next) = f.info().links();
        match table.info(Mfn(u64::from(prev))) {
            Some(info) if prev != END => info.set_next(next),
            _ => self.first = next,
        }
        match table.info(Mfn(u64::from(next))) {
            Some(info) if next != END => info.set_prev(prev),
            _ => self.last = prev,
        }
        self.len -= 1;
    }

    /// Takes the first page off.
    pub fn pop<'f>(&mut self, table: FrameTable<'f>) -> Option<Frame<'f>> {
        let f = table.ram(self.first(table)?)?;
        self.remove(table, f);
        Some(f)
    }

    /// Takes the last page off.
    pub fn pop_last<'f>(&mut self, table: FrameTable<'f>) -> Option<Frame<'f>> {
        let f = table.ram(self.last(table)?)?;
        self.remove(table, f);
        Some(f)
    }

    /// The page after this one of the list.
    #[must_use]
    pub fn after(&self, f: Frame<'_>) -> Option<Mfn> {
        let (_, next) = f.info().links();
        (next != END).then_some(Mfn(u64::from(next)))
    }
}

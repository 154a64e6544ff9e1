//! What an entry holds: references of the frames that it maps, as values that cannot be copied or forgotten.

use xen_abi::Errno;
use xen_abi::ids::{DomId, Mfn};

use super::{Access, Order, Use};
use crate::grant::Flushed;
use crate::page::{Env, Frame, FrameTable, Mmu};

/// The references of 2^order frames for one use by a guest: to be put into a map, or to be given up.
#[derive(Debug)]
#[must_use = "the frames would be lost"]
pub struct Page<'f> {
    first: Frame<'f>,
    order: Order,
    access: Access,
    usage: Use,
}

/// What was mapped until now: CPUs may still translate by it.
#[derive(Debug)]
#[must_use = "the frames would be lost"]
pub struct Stale<'f>(Page<'f>);

impl<'f> Stale<'f> {
    /// The page, out of use everywhere.
    #[inline]
    pub fn flushed(self, _flushed: &Flushed) -> Page<'f> {
        self.0
    }

    /// How much it was.
    #[must_use]
    pub const fn order(&self) -> Order {
        self.0.order
    }

    /// What it was.
    #[must_use]
    pub const fn usage(&self) -> Use {
        self.0.usage
    }
}

impl<'f> Page<'f> {
    /// Takes the references of 2^order frames of `owner` from `mfn` on, for use by a guest `mapper`. Bounded by the largest
    /// extent that a guest can ask for, order 9: a huge page is refused.
    ///
    /// # Errors
    /// `EINVAL`: not (all) memory of `owner`, or not aligned. `EBUSY`: to be written, but in use as something else.
    pub fn take<E: Env>(
        mm: &mut Mmu<'f, E>,
        (mfn, order): (Mfn, Order),
        owner: DomId,
        (access, usage): (Access, Use),
        mapper: DomId,
    ) -> Result<Self, Errno> {
        if order > Order::Large || !mfn.0.is_multiple_of(order.frames()) {
            return Err(Errno::EINVAL);
        }
        for i in 0..order.frames() {
            if let Err(errno) = mm.get_mapping(Mfn(mfn.0 + i), owner, access.write, mapper) {
                give_up(mm, mfn, i, access.write);
                return Err(errno);
            }
        }
        match mm.frames.ram(mfn) {
            Some(first) => Ok(Self { first, order, access, usage }),
            None => Err(Errno::EINVAL),
        }
    }

    /// Gives the references up.
    pub fn give_up<E: Env>(self, mm: &mut Mmu<'f, E>) {
        give_up(mm, self.first.mfn(), self.order.frames(), self.access.write);
    }

    /// Its references stay with what the caller has on record of a grant: they are given up by `Mmu::put_freed`.
    pub fn leave(self) {
        let Self { .. } = self;
    }

    /// Its first frame.
    #[must_use]
    pub const fn frame(&self) -> Frame<'f> {
        self.first
    }

    /// How much it is.
    #[must_use]
    pub const fn order(&self) -> Order {
        self.order
    }

    /// What it is in the map as.
    #[must_use]
    pub const fn usage(&self) -> Use {
        self.usage
    }

    /// What a guest may do with it.
    #[must_use]
    pub const fn access(&self) -> Access {
        self.access
    }

    /// Parts it into pages of the next smaller size; a single page stays as it is.
    pub fn parts(self, frames: FrameTable<'f>) -> impl Iterator<Item = Page<'f>> {
        let Self { first, order, access, usage } = self;
        let (part, mfn) = (order.smaller(), first.mfn().0);
        (0..order.frames() / part.frames())
            .filter_map(move |i| frames.ram(Mfn(mfn + i * part.frames())))
            .map(move |first| Page { first, order: part, access, usage })
    }

    /// A page that holds no references.
    #[cfg(all(test, not(loom)))]
    pub(super) const fn bare(first: Frame<'f>, order: Order) -> Self {
        Self { first, order, access: Access::ALL, usage: Use::Ram }
    }

    /// What an entry that was taken out of a table stood for.
    pub(super) fn of_entry(
        frames: FrameTable<'f>,
        mfn: Mfn,
        order: Order,
        access: Access,
        usage: Use,
    ) -> Option<Stale<'f>> {
        let first = frames.ram(mfn);
        debug_assert!(first.is_some(), "an entry maps {mfn:x}, which is no memory");
        Some(Stale(Page { first: first?, order, access, usage }))
    }
}

fn give_up<'f, E: Env>(mm: &mut Mmu<'f, E>, first: Mfn, count: u64, writable: bool) {
    for i in 0..count {
        if let Some(f) = mm.frames.ram(Mfn(first.0 + i)) {
            mm.put_mapping(f, writable);
        }
    }
}

//! Taking pages away from an owner who alone refers to them: by `XENMEM_exchange`, and when the owner dies.

use xen_abi::Errno;
use xen_abi::ids::{DomId, Mfn};

use super::env::Env;
use super::info::Frame;
use super::refs::Mmu;
use super::word::Stamp;
use crate::frames::{Block, Stale};

/// A page that nobody can refer to, not even its owner, on whose list it still is. It goes back to the owner by
/// [`Stolen::restore`], or off the list and to the allocator.
#[derive(Debug)]
#[must_use = "the page would be lost"]
pub struct Stolen<'f>(Frame<'f>);

impl<'f> Stolen<'f> {
    /// Takes a page that was just found on its owner's list, under the lock of that list, if nothing refers to it but the
    /// allocation itself.
    #[inline(always)]
    pub fn of_list(f: Frame<'f>) -> Option<Self> {
        f.info().seize().then_some(Self(f))
    }

    /// The frame.
    #[must_use]
    pub const fn frame(&self) -> Frame<'f> {
        self.0
    }

    /// The owner has it again, as before.
    pub fn restore(self) -> Frame<'f> {
        self.0.info().give_again();
        self.0
    }

    /// The frame as a block for the allocator, once it is off its owner's list; `now`: the flush clock. TLBs may hold
    /// mappings that the owner has taken out of its tables and not flushed.
    pub fn into_block(self, now: Stamp) -> Block {
        self.0.info().disown(now);
        Block::new(self.0.mfn(), 0)
    }

    /// The frame for another owner, who gets what is in it, once it is off the list of this one; `now`: the flush clock.
    pub fn into_stale(self, now: Stamp) -> Stale {
        Stale::new(self.into_block(now))
    }
}

impl<'f, E: Env> Mmu<'f, E> {
    /// Takes a page of `owner` to which nothing refers but the allocation itself: no mapping, no table, no pin. `EINVAL`
    /// for every other.
    pub fn steal(&mut self, mfn: Mfn, owner: DomId) -> Result<Stolen<'f>, Errno> {
        let f = self.frames.ram(mfn).ok_or(Errno::EINVAL)?;
        if f.info().owner() != Some(owner) || !f.info().seize() {
            return Err(Errno::EINVAL);
        }
        // Nobody changes the owner any more, but somebody may have done so between the look and the grab.
        if f.info().owner() != Some(owner) {
            f.info().give_again();
            return Err(Errno::EINVAL);
        }
        Ok(Stolen(f))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::Kind;
    use super::super::tests::{A, B, Machine};
    use super::*;

    #[test]
    fn only_what_nothing_refers_to() {
        let machine = Machine::new(8);
        machine.give(0..4, A);
        let mut mm = machine.mmu();
        assert_eq!(mm.steal(Mfn(1), B).map(drop), Err(Errno::EINVAL), "not the owner");
        assert_eq!(mm.steal(Mfn(7), A).map(drop), Err(Errno::EINVAL), "nobody's");
        assert_eq!(mm.steal(Mfn(99), A).map(drop), Err(Errno::EINVAL), "no memory");
        let held = mm.get_page(Mfn(1), A).unwrap();
        assert_eq!(mm.steal(Mfn(1), A).map(drop), Err(Errno::EINVAL), "in use");
        mm.put_page(held);
        mm.pin(Mfn(1), Kind::L1, A).unwrap();
        assert_eq!(mm.steal(Mfn(1), A).map(drop), Err(Errno::EINVAL), "pinned");
        mm.unpin(Mfn(1), A).unwrap();
        let stolen = mm.steal(Mfn(1), A).unwrap();
        assert!(mm.get_page(Mfn(1), A).is_none(), "out of reach");
        assert_eq!(mm.steal(Mfn(1), A).map(drop), Err(Errno::EINVAL), "even of thieves");
        let f = stolen.restore();
        assert!(
            mm.get_page(f.mfn(), A).is_some_and(|f| {
                mm.put_page(f);
                true
            }),
            "as before"
        );
    }
}

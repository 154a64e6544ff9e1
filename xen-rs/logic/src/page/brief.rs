//! References that are held for a moment, also under a ranked lock: nothing here waits, flushes or frees. What would is
//! handed back as a value that only an [`Mmu`] takes, once no lock is held any more.

use xen_abi::ids::Mfn;

use super::env::Env;
use super::info::{Frame, FrameTable, Owner};
use super::refs::{Mmu, step};
use super::role::{TypeRef, Writable};
use super::word::{Kind, Stamp};

/// A general reference to a page, whoever owns it.
#[derive(Debug)]
#[must_use = "the page would be kept for ever"]
pub struct Brief<'f>(Frame<'f>);

/// The last reference to a page: the page is to be freed by [`Mmu::end_last`].
#[derive(Debug)]
#[must_use = "the page would be lost"]
pub struct Last<'f>(Frame<'f>);

impl<'f> FrameTable<'f> {
    /// Holds a page, if it is in use.
    #[inline(always)]
    pub fn hold(self, mfn: Mfn) -> Option<Brief<'f>> {
        let info = self.info(mfn)?;
        // Only memory has references.
        info.get_any().then_some(Brief(Frame::of(mfn, info)))
    }
}

impl<'f> Brief<'f> {
    /// Whether it is a page of that domain. This does not change while it is held.
    #[inline(always)]
    #[must_use]
    pub fn is_of(&self, owner: Owner) -> bool {
        self.0.info().is_of(owner)
    }

    /// The frame.
    #[inline(always)]
    #[must_use]
    pub const fn frame(&self) -> Frame<'f> {
        self.0
    }

    /// Holds it as writable, if it is so or was so last. (Otherwise a flush may be due: `Mmu::get_writable_ref`.)
    #[inline(always)]
    pub fn as_writable(self) -> Result<TypeRef<'f, Writable>, Self> {
        let word = self.0.word();
        let more = if word.is_valid(Kind::Writable) {
            word.one_more()
        } else if word.is_free_of(Kind::Writable) {
            word.writable_again()
        } else {
            return Err(self);
        };
        if step(self.0, word, more).is_ok() { Ok(TypeRef::of(self.0)) } else { Err(self) }
    }

    /// Holds it no more.
    #[inline(always)]
    pub fn end(self) -> Result<(), Last<'f>> {
        if self.0.info().put() { Err(Last(self.0)) } else { Ok(()) }
    }
}

impl<'f> TypeRef<'f, Writable> {
    /// Holds the page as nothing in particular. It comes back if that takes another attempt: `Mmu::put_writable_ref`.
    #[inline(always)]
    pub fn as_any(self, now: impl FnOnce() -> Stamp) -> Result<Brief<'f>, Self> {
        let f = self.frame();
        let word = f.word();
        let less = if word.count() > 1 { word.one_less() } else { word.written_until(now()) };
        if word.is_valid(Kind::Writable) && step(f, word, less).is_ok() { Ok(Brief(f)) } else { Err(self) }
    }
}

impl<'f, E: Env> Mmu<'f, E> {
    /// [`Brief::end`], where pages can be freed.
    #[inline(always)]
    pub fn end_brief(&mut self, brief: Brief<'f>) {
        self.put_page(brief.0);
    }

    /// Frees a page whose last reference was given up elsewhere.
    #[cold]
    pub fn end_last(&mut self, last: Last<'f>) {
        self.release(last.0);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::tests::{A, B, Machine};
    use super::*;

    #[test]
    fn held_and_given_up_leaves_nothing() {
        let machine = Machine::new(4);
        machine.give(0..2, A);
        let info = machine.table().ram(Mfn(1)).unwrap().info();
        let before = info.references();
        for _ in 0..2 {
            let brief = machine.table().hold(Mfn(1)).unwrap();
            assert!(brief.is_of(Owner::of(A)) && !brief.is_of(Owner::of(B)));
            assert_eq!(info.references(), before + 1);
            let first = brief.as_writable();
            // Never used: a flush may be due, and whoever can do that makes it writable.
            let writable = match first {
                Ok(writable) => writable,
                Err(brief) => {
                    let mut mm = machine.mmu();
                    assert!(brief.end().is_ok());
                    mm.get_writable_ref(Mfn(1), A).unwrap()
                }
            };
            assert!(info.word().is_valid(Kind::Writable));
            let again = writable.as_any(|| Stamp::new(1)).unwrap();
            assert!(info.word().is_free_of(Kind::Writable));
            assert!(again.end().is_ok());
        }
        assert_eq!(info.references(), before);
        assert!(machine.table().hold(Mfn(3)).is_none(), "nobody's");
    }

    #[test]
    fn a_table_is_not_written() {
        let machine = Machine::new(4);
        machine.give(0..2, A);
        let mut mm = machine.mmu();
        let table = mm.get_page(Mfn(0), A).unwrap();
        mm.get_type(table, Kind::L1).unwrap();
        let brief = machine.table().hold(Mfn(0)).unwrap();
        let brief = brief.as_writable().unwrap_err();
        assert!(brief.end().is_ok());
    }
}

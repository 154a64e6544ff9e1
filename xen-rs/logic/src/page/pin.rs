//! Pinning: the owner's own type reference to a table, kept in the page's word.

use xen_abi::Errno;
use xen_abi::ids::{DomId, Mfn};

use super::atomic::Ordering;
use super::env::Env;
use super::info::Frame;
use super::refs::{Fail, Mmu, Put};
use super::word::{Kind, State, Word};

impl<'f, E: Env> Mmu<'f, E> {
    /// Validates a table of `owner` and keeps it valid until [`Mmu::unpin`].
    pub fn pin(&mut self, mfn: Mfn, kind: Kind, owner: DomId) -> Result<(), Fail> {
        let f = self.get_page(mfn, owner).ok_or(Fail::Refused(Errno::EINVAL))?;
        if let Err(fail) = self.get_type(f, kind) {
            self.put_page(f);
            return Err(fail);
        }
        if f.info().word.fetch_or(Word::PINNED, Ordering::AcqRel) & Word::PINNED != 0 {
            self.put_page_and_type(f);
            return Err(Fail::Refused(Errno::EINVAL));
        }
        Ok(())
    }

    /// Takes back a pin that has just been made, if it is still there: for a domain that began to die meanwhile.
    pub fn pin_raced_with_death(&mut self, mfn: Mfn) {
        if let Some(f) = self.frames.ram(mfn)
            && take_pin(f)
        {
            self.put_page_and_type(f);
        }
    }

    /// Gives up the pin of a table of `owner`.
    pub fn unpin(&mut self, mfn: Mfn, owner: DomId) -> Result<(), Errno> {
        let f = self.get_page(mfn, owner).ok_or(Errno::EINVAL)?;
        let pinned = take_pin(f);
        if pinned {
            self.put_page_and_type(f);
        }
        self.put_page(f);
        if pinned { Ok(()) } else { Err(Errno::EINVAL) }
    }

    /// Takes a page away from a dying domain, as far as the domain itself keeps it: its pin, a validation that nobody
    /// will finish, the reference of the allocation. `false`: the slice is over, ask again.
    ///
    /// References of others (mappings by another domain, tables that still point here) keep the page until they go.
    pub fn relinquish(&mut self, f: Frame<'f>, owner: DomId) -> bool {
        if self.get_page(f.mfn(), owner).is_none() {
            // Another CPU has dropped the last reference since it was found on the owner's list: it is on its way to the
            // allocator, or somebody else's by now.
            return true;
        }
        let done = self.relinquish_referenced(f);
        self.put_page(f);
        done
    }

    fn relinquish_referenced(&mut self, f: Frame<'f>) -> bool {
        if take_pin(f) && !self.put_page_and_type(f) {
            // The rest of the devalidation is in the deferred table; the caller finishes that first.
            return false;
        }
        if matches!(f.word().state(), State::Partial(_)) && self.drop_abandoned(f) != Put::Done {
            return false;
        }
        if f.info().take_allocated() {
            self.put_page(f);
        }
        true
    }

    /// Gives back a page of `owner` that only the owner itself still refers to in its role as owner: what
    /// `decrease_reservation` does. The page goes when its last mapping goes.
    pub fn give_back(&mut self, mfn: Mfn, owner: DomId) -> Result<(), Errno> {
        let f = self.get_page(mfn, owner).ok_or(Errno::EINVAL)?;
        if f.info().is_special() {
            self.put_page(f);
            return Err(Errno::EINVAL);
        }
        if take_pin(f) {
            self.put_page_and_type(f);
        }
        if f.info().take_allocated() {
            self.put_page(f);
        }
        self.put_page(f);
        Ok(())
    }
}

/// Takes the pin out of the word; true if it was there. The reference it stood for is the caller's then.
fn take_pin(f: Frame<'_>) -> bool {
    f.info().word.fetch_and(!Word::PINNED, Ordering::AcqRel) & Word::PINNED != 0
}

/// The kind that a `MMUEXT_PIN_L*_TABLE` command asks for.
#[must_use]
pub const fn pin_kind(command: u32) -> Option<Kind> {
    match command {
        0 => Some(Kind::L1),
        1 => Some(Kind::L2),
        2 => Some(Kind::L3),
        3 => Some(Kind::L4),
        _ => None,
    }
}

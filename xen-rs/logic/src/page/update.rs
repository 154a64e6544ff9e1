//! Changing one entry of a table that is in use.

use xen_abi::Errno;
use xen_abi::ids::DomId;

use super::atomic::Ordering;
use super::entry::{Entry, bit};
use super::env::{Env, Slot, Table};
use super::info::Frame;
use super::refs::{Fail, Mmu};
use super::word::{Kind, State, Word};

/// A table in use whose entries this CPU alone changes, until [`Mmu::unlock`].
#[derive(Debug)]
#[must_use = "the table would stay locked"]
pub struct Locked<'f>(Table<'f>);

impl<'f> Locked<'f> {
    /// The table.
    #[inline(always)]
    #[must_use]
    pub const fn table(&self) -> &Table<'f> {
        &self.0
    }
}

impl Drop for Locked<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.0.frame.info().word.fetch_and(!Word::UPDATING, Ordering::Release);
    }
}

/// How a new entry takes the place of an old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// As it is.
    Whole,
    /// Accessed and dirty of the old entry are kept (`MMU_PT_UPDATE_PRESERVE_AD`).
    KeepAccessedDirty,
    /// Only if the old entry is still this one (an emulated `cmpxchg`).
    IfStill(Entry),
}

/// For whom an entry is changed.
#[derive(Clone, Copy, Debug)]
pub struct Owners {
    /// Whose pages L1 entries may point to: a domain, `DOMID_IO` or `DOMID_XEN`.
    pub pages: DomId,
    /// Who asks.
    pub caller: DomId,
}

/// What a change of an entry calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// Nothing more than the guest itself does.
    Data,
    /// An upper-level entry that was in use: CPUs may walk the old table until they are flushed.
    OldTable,
}

impl<'f, E: Env> Mmu<'f, E> {
    /// Locks a table of `owner` for a change of entries. `None` if the frame is not a table in use of that owner.
    #[inline]
    pub fn lock_table(&mut self, f: Frame<'f>, owner: DomId) -> Option<Locked<'f>> {
        let mut word = f.word();
        loop {
            let kind = word.kind();
            if !matches!(word.state(), State::Valid(_)) || !kind.is_table() {
                return None;
            }
            if word.is_updating() {
                self.env.relax();
                word = f.word();
                continue;
            }
            let new = word.0 | Word::UPDATING;
            let seen = f.info().word.compare_exchange_weak(word.0, new, Ordering::Acquire, Ordering::Relaxed);
            match seen {
                Ok(_) => {
                    // While the lock is held the type reference, and so the page and its owner, stay.
                    let locked = Locked(Table { frame: f, kind });
                    return (f.info().owner() == Some(owner)).then_some(locked);
                }
                Err(now) => word = Word(now),
            }
        }
    }

    /// [`Mmu::lock_table`] of a last-level table.
    #[inline(always)]
    pub fn lock_data_table(&mut self, f: Frame<'f>, owner: DomId) -> Option<Locked<'f>> {
        let word = f.word();
        let new = word.0 | Word::UPDATING;
        if word.is_quiet(Kind::L1)
            && f.info().word.compare_exchange(word.0, new, Ordering::Acquire, Ordering::Relaxed).is_ok()
        {
            let locked = Locked(Table { frame: f, kind: Kind::L1 });
            return f.info().is_owned_by(owner).then_some(locked);
        }
        self.lock_data_table_slowly(f, owner)
    }

    #[cold]
    fn lock_data_table_slowly(&mut self, f: Frame<'f>, owner: DomId) -> Option<Locked<'f>> {
        self.lock_table(f, owner).filter(|locked| locked.0.kind == Kind::L1)
    }

    /// [`Mmu::update`] of an entry of a last-level table, which is locked for it. `EINVAL` also if `f` is none of `owner`.
    #[inline(always)]
    pub fn update_data(
        &mut self,
        f: Frame<'f>,
        slot: Slot,
        new: Entry,
        replace: Replace,
        owner: DomId,
        owners: Owners,
    ) -> Result<(), Errno> {
        let locked = self.lock_data_table(f, owner).ok_or(Errno::EINVAL)?;
        self.update_l1(&locked, slot, new, replace, owner, owners)
    }

    /// Writes `new` to an entry of a locked table of `owner`, counting what it points to and giving up what the old one
    /// did. Errors are Xen's.
    #[inline(never)]
    pub fn update(
        &mut self,
        locked: Locked<'f>,
        slot: Slot,
        new: Entry,
        replace: Replace,
        owner: DomId,
        owners: Owners,
    ) -> Result<Changed, Fail> {
        if locked.0.kind == Kind::L1 {
            let done = self.update_l1(&locked, slot, new, replace, owner, owners);
            done.map(|()| Changed::Data).map_err(Fail::Refused)
        } else {
            self.update_upper(locked, slot, new, replace, owner, owners)
        }
    }

    #[inline(always)]
    fn update_l1(
        &mut self,
        locked: &Locked<'f>,
        slot: Slot,
        new: Entry,
        replace: Replace,
        owner: DomId,
        owners: Owners,
    ) -> Result<(), Errno> {
        let table = &locked.0;
        if !new.is_present() {
            if new.0 != 0 && self.env.refuse_absent(owner, new) {
                return Err(Errno::EPERM);
            }
            let old = self.exchange(table, slot, new, replace).map_err(|_| Errno::EBUSY)?;
            if old.is_present() {
                self.put_data(old, owner);
            }
            return Ok(());
        }
        if new.0 & bit::CACHING != 0 && !self.env.may_choose_caching(owner)
            || new.0 & bit::NX != 0 && !self.env.has_nx()
        {
            return Err(Errno::EINVAL);
        }
        let new = new.adjusted(Kind::L1);
        let seen = self.env.read(table, slot);
        if seen.is_present() {
            if seen.same_reference(new, Kind::L1) {
                return self.exchange(table, slot, new, replace).map(drop).map_err(|_| Errno::EBUSY);
            }
            if seen.differs_in_write_only(new)
                && let Some(f) = self.frames.ram(new.mfn())
                && f.info().is_owned_by(owners.pages)
            {
                return self.change_writability(table, slot, new, replace, f, owner);
            }
        }
        let new = self.get_data(new, owner, owners.pages, owners.caller)?;
        match self.exchange(table, slot, new, replace) {
            Ok(old) => {
                if old.is_present() {
                    self.put_data(old, owner);
                }
                Ok(())
            }
            Err(_) => {
                self.put_data(new, owner);
                Err(Errno::EBUSY)
            }
        }
    }

    /// Makes an entry writable, or read-only, that goes on mapping the same page the same way: the general reference
    /// that it holds, which also keeps the owner the same, stays as it is.
    #[inline(always)]
    fn change_writability(
        &mut self,
        table: &Table<'f>,
        slot: Slot,
        new: Entry,
        replace: Replace,
        f: Frame<'f>,
        owner: DomId,
    ) -> Result<(), Errno> {
        let writable = new.is_writable();
        if writable {
            if !self.get_writable(f) {
                return Err(Errno::EBUSY);
            }
            if !f.info().is_owned_by(owner) {
                f.mark_foreign();
            }
        }
        let exchanged = self.exchange(table, slot, new, replace);
        // What is to be given up: the reference of the old entry, or of the new one that did not come to be.
        if exchanged.is_ok() != writable {
            self.put_writable(f);
        }
        exchanged.map(drop).map_err(|_| Errno::EBUSY)
    }

    fn update_upper(
        &mut self,
        locked: Locked<'f>,
        slot: Slot,
        new: Entry,
        replace: Replace,
        owner: DomId,
        owners: Owners,
    ) -> Result<Changed, Fail> {
        let table = &locked.0;
        let kind = table.kind;
        if owners.pages != owner || !slot.is_guests(kind) {
            return Err(Fail::Refused(Errno::EINVAL));
        }
        let new = new.adjusted(kind);
        if new.is_present() {
            if new.0 & Entry::forbidden(kind, false, self.env.has_nx()) != 0 {
                return Err(Fail::Refused(Errno::EINVAL));
            }
            let seen = self.env.read(table, slot);
            let stays = seen.is_present() && seen.same_reference(new, kind);
            if stays && !(new.is_own(table) && new.is_writable()) {
                return match self.exchange(table, slot, new, replace) {
                    Ok(_) => Ok(Changed::OldTable),
                    Err(_) => Err(Fail::Refused(Errno::EBUSY)),
                };
            }
            // A table that could only be validated in part is put aside and found again by the next attempt.
            if let Err(stop) = self.get_table(table, new, owner, false) {
                use super::refs::Stop;
                let child = self.frames.ram(new.mfn());
                return match (stop, child) {
                    (Stop::Partial, Some(child)) => {
                        self.put_page(child);
                        Err(Fail::Again)
                    }
                    (Stop::RefusedPartial(errno), Some(child)) => {
                        let fail = self.settle(child, Stop::RefusedPartial(errno));
                        self.put_page(child);
                        Err(fail)
                    }
                    (Stop::Refused(errno) | Stop::RefusedPartial(errno), _) => Err(Fail::Refused(errno)),
                    (Stop::Busy | Stop::Partial, _) => Err(Fail::Again),
                };
            }
        } else if new.0 != 0 && self.env.refuse_absent(owner, new) {
            return Err(Fail::Refused(Errno::EPERM));
        }
        let (dropped, result) = match self.exchange(table, slot, new, replace) {
            Ok(old) if old.is_present() => (old, Ok(Changed::OldTable)),
            Ok(old) => (old, Ok(Changed::Data)),
            Err(_) => (new, Err(Fail::Refused(Errno::EBUSY))),
        };
        let own = dropped.is_own(table);
        drop(locked);
        if dropped.is_present()
            && !own
            && let Some(child) = self.frames.ram(dropped.mfn())
        {
            self.put_page_and_type(child);
        }
        result
    }

    /// Puts an entry in place; what was there before. `Err`: the old entry was not the expected one.
    #[inline(always)]
    fn exchange(&mut self, table: &Table<'f>, slot: Slot, new: Entry, replace: Replace) -> Result<Entry, Entry> {
        match replace {
            Replace::Whole => Ok(self.env.swap(table, slot, new)),
            Replace::KeepAccessedDirty => {
                let mut old = self.env.read(table, slot);
                loop {
                    let kept = Entry(new.0 | (old.0 & (bit::ACCESSED | bit::DIRTY)));
                    match self.env.compare_exchange(table, slot, old, kept) {
                        Ok(()) => return Ok(old),
                        // The CPU sets these bits by itself; nothing else changes under the lock.
                        Err(now) => old = now,
                    }
                }
            }
            Replace::IfStill(old) => self.env.compare_exchange(table, slot, old, new).map(|()| old),
        }
    }
}

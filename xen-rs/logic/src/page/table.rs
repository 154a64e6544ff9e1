//! Validating and devalidating whole tables, entry by entry, in slices.

use xen_abi::Errno;
use xen_abi::ids::DomId;

use super::entry::Entry;
use super::env::{Env, Slot, Table};
use super::info::Frame;
use super::refs::{Mmu, Put, Stop};
use super::word::{ENTRIES, Kind, Progress};

/// Units of work in an L1 table, which is done in one go, so a slice is over: up to 200 instructions for each entry.
const WHOLE: u32 = 2 * ENTRIES as u32;
/// Entries of it after which interrupts may be taken.
const BREATH: u16 = 128;

/// Whether an entry is charged for: each that is present, of the others one in eight.
#[inline(always)]
const fn costs(entry: Entry, slot: u16) -> bool {
    entry.is_present() || slot & 7 == 0
}

impl<'f, E: Env> Mmu<'f, E> {
    /// Counts the entries of a locked table from `from` on. `Ok(None)`: all are counted. `Ok(Some)`: the slice is over.
    /// `Err`: an entry cannot be; what is counted so far is to be given up again.
    pub(super) fn promote(&mut self, table: &Table<'f>, from: Progress) -> Result<Option<Progress>, (Errno, Progress)> {
        let Some(owner) = table.frame.info().owner() else {
            return Err((Errno::EINVAL, from));
        };
        if table.kind == Kind::L1 {
            return self.promote_l1(table, owner);
        }
        let mut resumed = from.partial_entry;
        for i in from.done..ENTRIES {
            let slot = Slot::new(i);
            let at = Progress { done: i, partial_entry: resumed };
            if !slot.is_guests(table.kind) {
                continue;
            }
            let entry = self.env.read(table, slot);
            if i > from.done && costs(entry, i) && self.env.spend(1) {
                return Ok(Some(at));
            }
            if entry.is_present() {
                match self.get_table(table, entry, owner, resumed) {
                    Ok(_) => {}
                    Err(Stop::Busy) => return Ok(Some(at)),
                    Err(Stop::Partial) => return Ok(Some(Progress { done: i, partial_entry: true })),
                    Err(Stop::Refused(errno)) => return Err((errno, at)),
                    Err(Stop::RefusedPartial(errno)) => {
                        return Err((errno, Progress { done: i, partial_entry: true }));
                    }
                }
                let stored = entry.adjusted(table.kind);
                if stored != entry {
                    self.env.swap(table, slot, stored);
                }
            } else if entry.0 != 0 && self.env.refuse_absent(owner, entry) {
                return Err((Errno::EPERM, at));
            }
            resumed = false;
        }
        if table.kind == Kind::L4 {
            self.env.fill_root(table, owner);
        }
        Ok(None)
    }

    /// Counts what an entry above L1 points to: the next table of the same owner.
    ///
    /// `resumed`: the entry has its general reference already, and keeps it whatever happens. Otherwise it is kept on
    /// success and when the next table is left in the partial state.
    pub(super) fn get_table(
        &mut self,
        table: &Table<'f>,
        entry: Entry,
        owner: DomId,
        resumed: bool,
    ) -> Result<Frame<'f>, Stop> {
        // The caching bits are forbidden above L1 whoever asks.
        if entry.0 & Entry::forbidden(table.kind, false, self.env.has_nx()) != 0 {
            return Err(Stop::Refused(Errno::EINVAL));
        }
        // A table may show itself for reading: its own reference keeps it what it is.
        if entry.is_own(table) {
            return if entry.is_writable() { Err(Stop::Refused(Errno::EINVAL)) } else { Ok(table.frame) };
        }
        let child = if resumed { self.frames.ram(entry.mfn()) } else { self.get_page(entry.mfn(), owner) };
        let Some(child) = child else { return Err(Stop::Refused(Errno::EINVAL)) };
        match self.acquire(child, table.kind.below()) {
            Ok(()) => Ok(child),
            Err(stop) => {
                if !resumed && matches!(stop, Stop::Busy | Stop::Refused(_)) {
                    self.put_page(child);
                }
                Err(stop)
            }
        }
    }

    fn promote_l1(&mut self, table: &Table<'f>, owner: DomId) -> Result<Option<Progress>, (Errno, Progress)> {
        let forbidden = Entry::forbidden(Kind::L1, self.env.may_choose_caching(owner), self.env.has_nx());
        for i in 0..ENTRIES {
            if i.is_multiple_of(BREATH) {
                self.env.breathe();
            }
            let slot = Slot::new(i);
            let at = Progress { done: i, partial_entry: false };
            let entry = self.env.read(table, slot);
            if !entry.is_present() {
                if entry.0 != 0 && self.env.refuse_absent(owner, entry) {
                    return Err((Errno::EPERM, at));
                }
                continue;
            }
            // The marks that we set (GUEST_KERNEL, GLOBAL) come on top of what the guest wrote.
            let counted =
                if entry.0 & forbidden == 0 { self.get_data(entry, owner, owner, owner) } else { Err(Errno::EINVAL) };
            match counted {
                Ok(fixed) => {
                    let stored = fixed.adjusted(Kind::L1);
                    if stored != entry {
                        self.env.swap(table, slot, stored);
                    }
                }
                Err(errno) => return Err((errno, at)),
            }
        }
        // The whole table is one piece of work; the next piece may be too much for this slice.
        self.env.spend(WHOLE);
        Ok(None)
    }

    /// Gives up what the entries of a locked table hold, from the last counted one down. `Some`: the slice is over.
    pub(super) fn demote(&mut self, table: &Table<'f>, from: Progress) -> Option<Progress> {
        if table.kind == Kind::L1 {
            if let Some(owner) = table.frame.info().owner() {
                for i in 0..from.done {
                    if i.is_multiple_of(BREATH) {
                        self.env.breathe();
                    }
                    let entry = self.env.read(table, Slot::new(i));
                    if entry.is_present() {
                        self.put_data(entry, owner);
                    }
                }
            }
            self.env.spend(WHOLE);
            return None;
        }
        let mut at = from;
        while at.partial_entry || at.done > 0 {
            let i = if at.partial_entry { at.done } else { at.done - 1 };
            let slot = Slot::new(i);
            let entry = self.env.read(table, slot);
            if slot.is_guests(table.kind)
                && entry.is_present()
                && !entry.is_own(table)
                && let Some(child) = self.frames.ram(entry.mfn())
            {
                let put = if at.partial_entry { self.drop_partial(child) } else { self.drop_type(child) };
                match put {
                    Put::Done => self.put_page(child),
                    Put::Busy => return Some(at),
                    Put::Partial => return Some(Progress { done: i, partial_entry: true }),
                }
            }
            at = Progress { done: i, partial_entry: false };
            if i > 0 && costs(entry, i) && self.env.spend(1) {
                return Some(at);
            }
        }
        None
    }
}

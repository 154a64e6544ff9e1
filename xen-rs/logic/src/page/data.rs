//! What the entries of L1 tables refer to: data pages, other domains' pages, device memory.

use xen_abi::Errno;
use xen_abi::ids::{DomId, Mfn};

use super::entry::{Entry, bit};
use super::env::{Env, Table};
use super::refs::Mmu;
use super::word::Kind;

impl<'f, E: Env> Mmu<'f, E> {
    /// Counts what a present L1 entry, whose bits were checked, points to; the entry as it may be stored.
    ///
    /// `table_owner`: whose table it is in. `page_owner`: whose page the caller says it is (`DOMID_IO`: device memory by
    /// the caller's rights; `DOMID_XEN`: shared pages of the hypervisor). `caller`: who asks.
    ///
    /// Errors as Xen's: `EPERM` and `EINVAL` for device memory, `EBUSY` for a page of a wrong owner or kind.
    #[inline(always)]
    pub(super) fn get_data(
        &mut self,
        entry: Entry,
        table_owner: DomId,
        page_owner: DomId,
        caller: DomId,
    ) -> Result<Entry, Errno> {
        let Some(f) = self.frames.ram(entry.mfn()) else {
            return self.get_device(entry, table_owner, page_owner, caller);
        };
        if !f.info().get_any() {
            return Err(Errno::EBUSY);
        }
        if !f.info().is_owned_by(page_owner) {
            self.put_page(f);
            return Err(Errno::EBUSY);
        }
        if entry.is_writable() {
            if !self.get_writable(f) {
                self.put_page(f);
                return Err(Errno::EBUSY);
            }
            if page_owner != table_owner {
                f.mark_foreign();
            }
        }
        if entry.0 & bit::CACHING != 0 && f.info().is_special() {
            self.put_data(entry, table_owner);
            return Err(Errno::EACCES);
        }
        Ok(entry)
    }

    #[cold]
    fn get_device(
        &mut self,
        entry: Entry,
        table_owner: DomId,
        page_owner: DomId,
        caller: DomId,
    ) -> Result<Entry, Errno> {
        let page_owner = if page_owner == DomId::IO { caller } else { page_owner };
        for who in [page_owner, table_owner] {
            if !self.env.may_map_io(who, entry.mfn()) {
                // The frame number of all ones is how some guests write "no frame".
                let nowhere = entry.mfn() == Mfn(bit::ADDRESS >> 12);
                return Err(if nowhere { Errno::EINVAL } else { Errno::EPERM });
            }
        }
        // As in Xen it becomes read-only without a word.
        let entry =
            if entry.is_writable() && self.env.is_read_only_io(entry.mfn()) { entry.read_only() } else { entry };
        Ok(entry.for_device())
    }

    /// Gives up what a present L1 entry referred to.
    #[inline(always)]
    pub(super) fn put_data(&mut self, entry: Entry, _table_owner: DomId) {
        let Some(f) = self.frames.ram(entry.mfn()) else { return };
        if entry.is_writable() {
            self.put_writable(f);
        }
        self.put_page(f);
    }

    /// Checks the 512 descriptors of a page that is to be loaded as GDT or LDT, and makes them harmless or refuses.
    pub(super) fn check_descriptors(&mut self, table: &Table<'f>) -> Result<(), Errno> {
        for i in 0..super::word::ENTRIES {
            let slot = super::Slot::new(i);
            let raw = self.env.read(table, slot);
            match crate::trap::descriptor::check(raw.0) {
                Ok(fixed) if fixed == raw.0 => {}
                Ok(fixed) => {
                    self.env.swap(table, slot, Entry(fixed));
                }
                Err(_) => return Err(Errno::EINVAL),
            }
        }
        debug_assert_eq!(table.kind, Kind::SegDesc);
        Ok(())
    }
}

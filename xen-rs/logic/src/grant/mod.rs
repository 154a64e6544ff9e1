//! Grant tables: pages that one domain lets another map or copy.
//!
//! Two sides with a lock each. The *granting* domain's [`Table`] holds its shared pages of entries, written by the
//! guest at any time, and for each entry that is in use a pin: who uses it, how often, and which frame it was when
//! the use began. The *mapping* domain's [`Maptrack`] gives out the handles and pays for them. No operation needs
//! both locks at once.
//!
//! A mapping lives through types: [`GrantMapping`] (its handle is claimed for unmapping, nobody else can) becomes
//! [`Detached`] when the page-table entry is gone, and only after the TLBs were flushed can the pin be dropped, which
//! gives [`Freed`]: the references on the page that may now be put. A grant that is revoked (its flags cleared by the
//! guest) while mapped stays pinned until then; the guest sees `GTF_reading` and `GTF_writing` and waits.
//!
//! ```
//! use logic::grant::{Detached, EntryPage, Flushed, Freed, GrantMapping, Maptrack, Table};
//! fn unmap<P: EntryPage>(track: &mut Maptrack, table: &mut Table<P>, mapping: GrantMapping, flushed: &Flushed) -> Freed {
//!     let detached = track.detach(mapping);
//!     table.release(detached, flushed)
//! }
//! ```
//!
//! What is still in a page table cannot be released:
//!
//! ```compile_fail,E0308
//! # use logic::grant::{EntryPage, Flushed, Freed, GrantMapping, Table};
//! fn unmap<P: EntryPage>(table: &mut Table<P>, mapping: GrantMapping, flushed: &Flushed) -> Freed {
//!     table.release(mapping, flushed)
//! }
//! ```
//!
//! nor anything before the flush, of which only the machine floor hands out the proof:
//!
//! ```compile_fail,E0423
//! # use logic::grant::{Detached, EntryPage, Flushed, Freed, Table};
//! fn unmap<P: EntryPage>(table: &mut Table<P>, detached: Detached) -> Freed {
//!     table.release(detached, &Flushed(()))
//! }
//! ```
//!
//! nor twice:
//!
//! ```compile_fail,E0382
//! # use logic::grant::{Detached, EntryPage, Flushed, Freed, Table};
//! fn unmap<P: EntryPage>(table: &mut Table<P>, detached: Detached, flushed: &Flushed) -> (Freed, Freed) {
//!     (table.release(detached, flushed), table.release(detached, flushed))
//! }
//! ```
//!
//! Statuses and their order are those of `grant_table.h` as Xen 4.17 answers them.

mod entry;
#[cfg(all(test, loom))]
mod loom;
mod maptrack;
mod switch;
mod table;
#[cfg(all(test, not(loom)))]
mod tests;
#[cfg(all(test, not(loom)))]
mod tests_version2;
mod transfer;
mod version2;
mod whole_page;

pub use entry::{Access, EntryCell, EntryPage, Extent, Purpose, Via};
pub use maptrack::{Detached, Flushed, GrantMapping, Left, Mapped, Maptrack, Reserved, TableId, Unmap};
pub use table::{Claim, ENTRIES_PER_FRAME, Freed, PassedOn, Pinned, Table, Version};
pub use transfer::Search;
pub use whole_page::{InUse, Offer, Offers};

use xen_abi::grant_table as abi;

/// Why an operation on a grant was refused (`GNTST_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i16)]
pub enum Refusal {
    /// Anything that has no status of its own.
    GeneralError = abi::GNTST_GENERAL_ERROR,
    /// No such domain.
    BadDomain = abi::GNTST_BAD_DOMAIN,
    /// No such grant.
    BadGntref = abi::GNTST_BAD_GNTREF,
    /// No such mapping.
    BadHandle = abi::GNTST_BAD_HANDLE,
    /// Not a place to map at.
    BadVirtAddr = abi::GNTST_BAD_VIRT_ADDR,
    /// Not the mapping's machine address.
    BadDevAddr = abi::GNTST_BAD_DEV_ADDR,
    /// No room in the I/O MMU.
    NoDeviceSpace = abi::GNTST_NO_DEVICE_SPACE,
    /// The caller may not.
    PermissionDenied = abi::GNTST_PERMISSION_DENIED,
    /// The granted frame is not the granting domain's to give.
    BadPage = abi::GNTST_BAD_PAGE,
    /// A copy goes beyond a page.
    BadCopyArg = abi::GNTST_BAD_COPY_ARG,
    /// Not now.
    Again = abi::GNTST_EAGAIN,
    /// No handle left.
    NoSpace = abi::GNTST_NO_SPACE,
}

impl Refusal {
    /// The value for the `status` field.
    #[must_use]
    pub const fn status(self) -> i16 {
        self as i16
    }
}

/// The `status` field for a result.
#[must_use]
pub const fn status<T>(result: &Result<T, Refusal>) -> i16 {
    match result {
        Ok(_) => abi::GNTST_OKAY,
        Err(refusal) => refusal.status(),
    }
}

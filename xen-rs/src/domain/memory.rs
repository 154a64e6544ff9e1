//! What a domain has of memory: how much, and the list of its pages.

use core::sync::atomic::{AtomicU64, Ordering};

use logic::lock::Held;
use xen_abi::{errno::Errno, ids::Mfn};

use super::Domain;

/// A domain's memory.
pub struct DomainMemory {
    maximum: AtomicU64,
}

/// How much a domain has and may have, in pages.
#[derive(Clone, Copy, Debug)]
pub struct Totals {
    /// Pages it has.
    pub total: u64,
    /// Pages it may have.
    pub maximum: u64,
}

impl DomainMemory {
    /// No memory, and none allowed.
    #[must_use]
    pub const fn new() -> Self {
        Self { maximum: AtomicU64::new(0) }
    }

    /// How much it has and may have.
    #[must_use]
    pub fn totals(&self, _held: &mut Held<'_, 0>) -> Totals {
        Totals { total: 0, maximum: self.maximum.load(Ordering::Relaxed) }
    }

    /// Sets how many pages it may have. Less than it has is allowed: then it gets no more.
    pub fn set_maximum(&self, pages: u64, _held: &mut Held<'_, 0>) {
        self.maximum.store(pages, Ordering::Relaxed);
    }

    /// Fills a page of the domain with the 32-byte entries of the hypercall page.
    pub fn write_hypercall_page(&self, _domain: &Domain, _frame: Mfn, _held: &mut Held<'_, 0>) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }
}

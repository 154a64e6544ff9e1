//! Memory that is one piece in the machine, too: for devices, which know no page tables (`XENMEM_exchange`).
//!
//! Unsafe: memory is taken out of the direct map and put back.

use super::table::READ_WRITE;
use super::{PAGE_BYTES, address, frames, p2m, p2m_entry};
use crate::{call, pvh};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use xen_abi::errno::Errno;
use xen_abi::ids::{Mfn, Pfn};
use xen_abi::mmu::UVMF_INVLPG;

/// Pages next to each other in the machine, freed when dropped.
#[derive(Debug)]
pub struct Run {
    first: Pfn,
    pages: u64,
}

impl Run {
    /// `1 << order` pages full of zeros.
    #[must_use]
    pub fn zeroed(order: u32) -> Option<Self> {
        let pages = 1 << order;
        let this = Self { first: frames::take_run(pages)?, pages };
        if !this.is_contiguous() {
            this.exchange(order).ok()?;
        }
        // SAFETY: the pages are mapped, and nobody else knows of them.
        unsafe { core::ptr::write_bytes(this.address() as *mut u8, 0, this.len()) };
        Some(this)
    }

    /// The first one's number in the machine.
    #[must_use]
    pub fn mfn(&self) -> Mfn {
        p2m(self.first).expect("an allocated frame has memory")
    }

    /// Where they are mapped.
    #[must_use]
    pub fn address(&self) -> u64 {
        address(self.first)
    }

    /// How many bytes they are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pages as usize * PAGE_BYTES
    }

    /// Whether they are none, which they never are.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pages == 0
    }

    fn pfns(&self) -> impl Iterator<Item = Pfn> + use<> {
        (self.first.0..self.first.0 + self.pages).map(Pfn)
    }

    /// Memory that was never exchanged mostly is.
    fn is_contiguous(&self) -> bool {
        let first = p2m(self.first).map(|mfn| mfn.0);
        pvh::is_active() || self.pfns().zip(0..).all(|(pfn, at)| p2m(pfn).map(|mfn| mfn.0) == first.map(|mfn| mfn + at))
    }

    /// Trades each page's memory for some other: afterwards they lie apart, as pages of a domain do that has run for long. What
    /// was in them is lost.
    ///
    /// # Errors
    /// Those of the hypercall.
    pub fn scatter(&mut self) -> Result<(), Errno> {
        // Neighbours in the machine, in either direction, are none here then.
        let (even, odd): (Vec<Pfn>, Vec<Pfn>) = self.pfns().partition(|pfn| pfn.0.is_multiple_of(2));
        self.trade(&[even, odd].concat(), 0)
    }

    /// Trades their memory for one piece.
    fn exchange(&self, order: u32) -> Result<(), Errno> {
        self.trade(&self.pfns().collect::<Vec<_>>(), order)
    }

    /// Trades their memory for pieces of `1 << order` pages, which the frames get in this order. What cannot be traded is put
    /// back.
    fn trade(&self, pfns: &[Pfn], order: u32) -> Result<(), Errno> {
        let given: Vec<u64> = pfns.iter().filter_map(|pfn| p2m(*pfn)).map(|mfn| mfn.0).collect();
        for pfn in pfns {
            // SAFETY: nobody uses the pages; each is mapped again below.
            unsafe { call::mmu::update_va_mapping(address(*pfn), 0, UVMF_INVLPG) }?;
        }
        let mut taken: Vec<u64> = pfns.chunks(1 << order).map(|piece| piece[0].0).collect();
        let traded = call::memory::exchange(&given, &mut taken, order);
        if traded.is_ok() {
            for (piece, first) in pfns.chunks(1 << order).zip(taken) {
                for (pfn, mfn) in piece.iter().zip(first..) {
                    p2m_entry(*pfn).expect("a frame is in the list").store(mfn, Ordering::Relaxed);
                }
            }
        }
        for pfn in pfns {
            let mfn = p2m(*pfn).expect("an allocated frame has memory");
            // SAFETY: nothing is mapped there.
            unsafe { call::mmu::update_va_mapping(address(*pfn), mfn.0 << 12 | READ_WRITE, UVMF_INVLPG) }?;
        }
        traded
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.pfns().for_each(frames::give);
    }
}

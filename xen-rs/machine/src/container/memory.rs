//! The memory of the guest in this CPU's container, by its linear addresses.
//!
//! The hypervisor's own tables do not map it, so an ordinary copy (`mem::guest_copy`) faults at once, and comes here on its
//! way out: guests in ring 3 pay nothing for those in containers.
//!
//! What is looked up in the nested tables holds until this CPU waits or answers others (see `mem::nested`), which no copy
//! does. A piece ends with its page.
//!
//! Unsafe: the tables that this CPU has loaded are found by their address, and guests' memory is read in the direct map.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use logic::hvm::walk::{Paging, frame_of, walk};

use super::known::{self, Use, Walked};
use super::{Vendor, svm, vendor, vmx, window};
use crate::arch::x86_64::percpu;
use crate::mem::direct_map::va_of;
use crate::mem::guest_copy;
use crate::mem::nested::Tables;

const PAGE: u64 = 4096;

/// How this CPU's guest translates.
struct View {
    paging: Paging,
    tables: &'static Tables,
    generation: u64,
}

impl View {
    /// `None`: no container is loaded.
    fn here() -> Option<Self> {
        let this = percpu::this();
        let tables = this.container_tables.load(Ordering::Relaxed) as *const Tables;
        // SAFETY: put there by a container that holds a share of them and takes the address away before it leaves this
        // CPU; no copy outlives that.
        let tables = unsafe { tables.as_ref() }?;
        let paging = match vendor()? {
            Vendor::Svm => svm::paging_of(this.container_block.load(Ordering::Relaxed)),
            Vendor::Vmx => vmx::paging_here(),
        };
        // Read before anything is looked up: a removal that comes later waits for this CPU's answer.
        Some(Self { paging, tables, generation: tables.generation() })
    }

    /// Where a guest-physical address is in the direct map, up to the end of its page.
    #[inline]
    fn place(&self, address: u64, writes: bool) -> Option<u64> {
        let found = self.tables.lookup(frame_of(address))?;
        (!writes || found.access.write).then(|| va_of(found.mfn) + address % PAGE)
    }

    /// Where a linear address is in the direct map, up to the end of its page.
    #[inline]
    fn translate(&self, linear: u64, what_for: Use) -> Option<u64> {
        match known::find(&self.paging, self.generation, linear, what_for) {
            Some(place) => Some(place),
            None => self.find_out(linear, what_for),
        }
    }

    #[cold]
    #[inline(never)]
    fn find_out(&self, linear: u64, what_for: Use) -> Option<u64> {
        let mut walked = Walked::new();
        let address = walk(&self.paging, linear, what_for.writes(), |at| {
            let word = self.place(at, false)?;
            // SAFETY: aligned, and memory of the guest, which is in the direct map; others write there by atomic accesses or
            // the guest itself does.
            let value = unsafe { AtomicU64::from_ptr(word as *mut u64) }.load(Ordering::Relaxed);
            walked.step(word, value);
            Some(value)
        })?;
        let place = self.place(address, what_for.writes())?;
        known::remember(&self.paging, self.generation, linear, what_for, &walked, place);
        Some(place)
    }
}

/// Copies between a guest's linear addresses and the hypervisor's own memory; how many bytes at the end were not copied.
/// `None`: this CPU has no guest in a container.
///
/// # Safety
/// `own` is memory of the caller's, of that length, which may be written if the guest's is read.
#[cold]
#[inline(never)]
pub(crate) unsafe fn copy(guest: u64, own: u64, length: usize, writes: bool) -> Option<usize> {
    // SAFETY: the caller's promise.
    unsafe { copy_for(guest, own, length, if writes { Use::Write } else { Use::Read }) }
}

/// # Safety
/// As for [`copy`].
unsafe fn copy_for(guest: u64, own: u64, length: usize, what_for: Use) -> Option<usize> {
    let view = View::here()?;
    let mut done = 0;
    while done < length {
        let at = guest.wrapping_add(done as u64);
        let piece = (length - done).min((PAGE - at % PAGE) as usize);
        let Some(place) = window::place(at).or_else(|| view.translate(at, what_for)) else { break };
        let ours = own + done as u64;
        let (to, from) = if what_for.writes() { (place, ours) } else { (ours, place) };
        // SAFETY: one side is the caller's, the other a page of the guest's in the direct map, and the piece ends with it.
        if unsafe { guest_copy::copy(to, from, piece) } != 0 {
            break;
        }
        done += piece;
    }
    Some(length - done)
}

/// Reads four bytes at a linear address, if where they are is remembered and they do not cross a page. The container whose
/// registers and tables these are is loaded on this CPU.
#[inline(always)]
pub(super) fn four_at_once(paging: &Paging, tables: &Tables, linear: u64, what_for: Use) -> Option<u32> {
    if linear % PAGE > PAGE - 4 {
        return None;
    }
    // As for a view: before anything is looked up.
    let generation = tables.generation();
    let place = known::find(paging, generation, linear, what_for)?;
    let value: u32;
    // SAFETY: a place in the direct map that is the guest's. It may change at any moment and need not be aligned, so it is read
    // by one instruction.
    unsafe { asm!("mov {:e}, [{}]", out(reg) value, in(reg) place, options(nostack, readonly, preserves_flags)) };
    Some(value)
}

/// Reads code at a linear address: how many bytes of it.
#[must_use]
pub fn fetch(linear: u64, code: &mut [u8]) -> usize {
    // SAFETY: the caller's slice.
    let left = unsafe { copy_for(linear, code.as_mut_ptr() as u64, code.len(), Use::Code) };
    code.len() - left.unwrap_or(code.len())
}

//! Translations that this CPU remembers of the guest in its container, so that reading an instruction or an argument does not
//! walk two sets of tables each time.
//!
//! A guest changes its tables without telling anybody, and a TLB may keep what it had; the hypervisor may not, since it does
//! not hear of the guest's flushes. So what is remembered is the walk: where the guest's entries were, and what they said.
//! It holds as long as they still say that, the guest's registers are the same, and so is the generation of the nested tables.
//!
//! Unsafe: a page of this CPU's, and a guest's page tables in the direct map.

use core::sync::atomic::{AtomicU64, Ordering};

use logic::hvm::walk::Paging;

use crate::arch::x86_64::percpu;
use crate::mem::direct_map::va_of_phys;

/// How many there are of code, and of data: an argument does not take the place of the instruction that hands it over.
const HALF: usize = 8;
const PLACES: usize = 2 * HALF;
/// Entries of a walk that is remembered.
pub(super) const LEVELS: usize = 4;
const PAGE: u64 = 4096;

/// The words that a walk reads: where they are in the direct map, and what they said.
pub(super) type Steps = [(u64, u64); LEVELS];

/// Stands where a walk has fewer steps.
static NOTHING: AtomicU64 = AtomicU64::new(0);

/// A walk that is remembered.
#[repr(C)]
struct Known {
    /// The page's address, and what for: see [`Use`].
    key: u64,
    /// Of the nested tables, which begin with 1. 0: nothing is remembered here, as in the zeroes at the beginning.
    generation: u64,
    paging: Paging,
    steps: Steps,
    /// Where the page is in the direct map.
    place: u64,
}

const _: () = assert!((size_of::<Known>() * PLACES) as u64 <= super::window::IN_PAGE);

/// What an address is translated for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Read = 0,
    Write = 1,
    Code = 2,
}

impl Use {
    pub(super) const fn writes(self) -> bool {
        matches!(self, Self::Write)
    }
}

#[inline(always)]
const fn key(linear: u64, what_for: Use) -> u64 {
    linear & !(PAGE - 1) | what_for as u64
}

/// The page of this CPU's, in the direct map. Its second half is another module's: [`super::window`].
#[inline(always)]
pub(super) fn page() -> u64 {
    va_of_phys(percpu::this().container_pages.load(Ordering::Relaxed) + 2 * PAGE)
}

/// The place for a key on this CPU.
#[inline(always)]
fn slot(key: u64) -> *mut Known {
    let page = page() as *mut Known;
    let half = if key & Use::Code as u64 == 0 { 0 } else { HALF };
    page.wrapping_add((key / PAGE) as usize % HALF + half)
}

/// Where a linear address is in the direct map, if that is remembered and still true.
#[inline(always)]
pub(super) fn find(paging: &Paging, generation: u64, linear: u64, what_for: Use) -> Option<u64> {
    let key = key(linear, what_for);
    // SAFETY: the page was set aside for this CPU, which has a container loaded; nobody else reads or writes it, and zeroes
    // are what it may hold.
    let known = unsafe { &*slot(key) };
    let same = known.key == key
        && known.generation == generation
        && known.paging.cr3 == paging.cr3
        && known.paging.cr0 == paging.cr0
        && known.paging.cr4 == paging.cr4
        && known.paging.efer == paging.efer;
    if !same {
        return None;
    }
    let unchanged = |&(at, value): &(u64, u64)| {
        // SAFETY: a word of the guest's memory, which is the guest's still (the nested tables have not changed), or of
        // `NOTHING`.
        unsafe { AtomicU64::from_ptr(at as *mut u64) }.load(Ordering::Relaxed) == value
    };
    let [a, b, c, d] = &known.steps;
    (unchanged(a) && unchanged(b) && unchanged(c) && unchanged(d)).then_some(known.place | (linear % PAGE))
}

/// Remembers a walk of the guest that is loaded here.
pub(super) fn remember(paging: &Paging, generation: u64, linear: u64, what_for: Use, walked: &Walked, place: u64) {
    if walked.count > LEVELS {
        return;
    }
    let key = key(linear, what_for);
    let new = Known { key, generation, paging: *paging, steps: walked.steps, place: place & !(PAGE - 1) };
    // SAFETY: as in `find`.
    unsafe { slot(key).write(new) };
}

/// Another guest comes: what is remembered is the last one's.
pub(super) fn forget() {
    let first = slot(0);
    for i in 0..PLACES {
        // SAFETY: as in `find`, and the place of 0 is the first.
        unsafe { (*first.wrapping_add(i)).generation = 0 };
    }
}

/// A walk that goes on.
pub(super) struct Walked {
    steps: Steps,
    count: usize,
}

impl Walked {
    pub(super) fn new() -> Self {
        Self { steps: [((&raw const NOTHING) as u64, 0); LEVELS], count: 0 }
    }

    pub(super) fn step(&mut self, at: u64, value: u64) {
        if let Some(step) = self.steps.get_mut(self.count) {
            *step = (at, value);
        }
        self.count += 1;
    }
}

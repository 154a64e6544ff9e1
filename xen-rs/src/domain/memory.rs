//! What a domain has of memory: how much, the list of its pages, the device memory it may map, its memory map.

use alloc::{sync::Arc, vec::Vec};
use core::mem;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use logic::{
    frames::{Batch, Block, PageList, Shortage, Zone},
    hypercall::Budget,
    irq::RangeSet,
    lock::{Held, rank},
    page::{Deferred, Frame, Stolen, Writable},
};
use machine::mem::{frame_table::frames, pv_pte, tlb};
use xen_abi::{
    errno::Errno,
    hypercall::HYPERVISOR_IRET,
    ids::{DomId, Mfn},
    memory::E820Entry,
};

use super::Domain;
use crate::{
    cpu_loop::breathe,
    memory::{self, mmu, mmu_within},
    sync::Lock,
};

/// A domain's memory.
pub struct DomainMemory {
    pages: Lock<PageList, { rank::P2M }>,
    total: AtomicU64,
    maximum: AtomicU64,
    /// Pages that are set aside for it (`XENMEM_claim_pages`); changes under the lock of the pages.
    outstanding: AtomicU64,
    /// How many pages of the list its death has not looked at yet; all ones before that begins.
    to_relinquish: AtomicU64,
    owed: Lock<Owed, { rank::LEAF }>,
    io: Lock<RangeSet, { rank::LEAF }>,
    has_io: AtomicBool,
    map: Lock<Vec<E820Entry>, { rank::LEAF }>,
}

/// A page of a dying domain.
enum Next {
    /// Something may refer to it still.
    Page(Frame<'static>),
    /// These pages have left it, and the batch is full.
    Free(Block),
    /// Some have left it; there are more.
    Later,
    /// All were looked at.
    None,
}

/// Work on page tables that the death of a domain has begun.
struct Owed {
    /// Tables given up that are not devalidated yet.
    deferred: Vec<Deferred>,
    /// A page that is not taken away yet.
    page: Option<Mfn>,
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
        Self {
            pages: Lock::new(PageList::new()),
            total: AtomicU64::new(0),
            maximum: AtomicU64::new(0),
            outstanding: AtomicU64::new(0),
            to_relinquish: AtomicU64::new(u64::MAX),
            owed: Lock::new(Owed { deferred: Vec::new(), page: None }),
            io: Lock::new(RangeSet::new()),
            has_io: AtomicBool::new(false),
            map: Lock::new(Vec::new()),
        }
    }

    /// How much it has and may have.
    #[must_use]
    pub fn totals(&self, _held: &mut Held<'_, 0>) -> Totals {
        Totals { total: self.total.load(Ordering::Relaxed), maximum: self.maximum.load(Ordering::Relaxed) }
    }

    /// How many pages it has.
    #[inline]
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Sets how many pages it may have. Less than it has is allowed: then it gets no more.
    pub fn set_maximum(&self, pages: u64, _held: &mut Held<'_, 0>) {
        self.maximum.store(pages, Ordering::Relaxed);
    }

    /// Gives the domain 2^order zeroed frames that follow each other; the first one's number.
    ///
    /// # Errors
    /// ERESTART: not finished, call again. ENOMEM: it may not have so much, or there is no such block.
    pub fn populate(&self, domain: &Domain, order: u8, zone: Zone, held: &mut Held<'_, 0>) -> Result<Mfn, Errno> {
        let wanted = 1 << order;
        if self.total.load(Ordering::Relaxed) + wanted > self.maximum.load(Ordering::Relaxed) {
            return Err(Errno::ENOMEM);
        }
        let block = memory::alloc_for(self.outstanding(), order, zone, held).map_err(|shortage| match shortage {
            Shortage::Exhausted => Errno::ENOMEM,
            Shortage::Unfinished => Errno::ERESTART,
        })?;
        let (mut pages, mut below) = self.pages.lock(held);
        // Under the lock no other CPU adds pages, and a dying domain's list is only taken apart.
        let total = pages.len() + wanted;
        let dying = self.to_relinquish.load(Ordering::Relaxed) != u64::MAX;
        if dying || total > self.maximum.load(Ordering::Relaxed) {
            memory::free(block, &mut below);
            return Err(if dying { Errno::EINVAL } else { Errno::ENOMEM });
        }
        let first = block.assign(frames(), domain.id, &mut pages);
        self.total.store(total, Ordering::Relaxed);
        let outstanding = self.outstanding();
        if outstanding > 0 {
            self.set_outstanding(outstanding.saturating_sub(wanted), &mut below);
        }
        Ok(first)
    }

    /// Sets pages aside for the domain, so that it can have `pages` in all; 0 gives up what it has not got of them.
    ///
    /// # Errors
    /// Xen's: EINVAL for a second claim, or one for no more than it has, or for more than it may have; ENOMEM when that
    /// many are not free, or are claimed already.
    pub fn claim(&self, pages: u64, held: &mut Held<'_, 0>) -> Result<(), Errno> {
        let (list, mut below) = self.pages.lock(held);
        if pages == 0 {
            self.set_outstanding(0, &mut below);
            return Ok(());
        }
        let dying = self.to_relinquish.load(Ordering::Relaxed) != u64::MAX;
        if dying || self.outstanding() > 0 || pages <= list.len() || pages > self.maximum.load(Ordering::Relaxed) {
            return Err(Errno::EINVAL);
        }
        if memory::claim(pages - list.len(), &mut below) {
            self.outstanding.store(pages - list.len(), Ordering::Relaxed);
            Ok(())
        } else {
            Err(Errno::ENOMEM)
        }
    }

    /// Pages that are set aside for it.
    #[must_use]
    pub fn outstanding(&self) -> u64 {
        self.outstanding.load(Ordering::Relaxed)
    }

    /// Under the lock of the pages.
    fn set_outstanding<const H: u8>(&self, pages: u64, held: &mut Held<'_, H>) {
        let before = self.outstanding.swap(pages, Ordering::Relaxed);
        memory::change_claim(before, pages, held);
    }

    /// Gives the domain `new` frames in place of as many `old` pages: both are empty afterwards. `EINVAL` for a domain that
    /// is dying: nothing has changed.
    pub fn exchange(
        &self,
        owner: DomId,
        old: &mut Vec<Stolen<'static>>,
        new: &mut Vec<Block>,
        held: &mut Held<'_, 0>,
    ) -> Result<(), Errno> {
        {
            let (mut pages, _held) = self.pages.lock(held);
            if self.to_relinquish.load(Ordering::Relaxed) != u64::MAX {
                return Err(Errno::EINVAL);
            }
            for page in old.iter() {
                pages.remove(frames(), page.frame());
            }
            for block in new.drain(..) {
                block.assign(frames(), owner, &mut pages);
            }
            self.total.store(pages.len(), Ordering::Relaxed);
        }
        for (i, page) in (0u32..).zip(old.drain(..)) {
            if i.is_multiple_of(64) {
                breathe(held);
            }
            pv_pte::set_m2p(page.frame(), u64::MAX);
            memory::free(page.into_block(tlb::now()), held);
        }
        Ok(())
    }

    /// Whether it may have one more page.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let dying = self.to_relinquish.load(Ordering::Relaxed) != u64::MAX;
        !dying && self.total() < self.maximum.load(Ordering::Relaxed)
    }

    /// Gives the domain frames of somebody else's, with what is in them; they come back if it may not have them, or dies.
    pub fn accept(&self, owner: DomId, block: Block, held: &mut Held<'_, 0>) -> Result<(), Block> {
        let (mut pages, mut below) = self.pages.lock(held);
        let total = pages.len() + block.pages();
        let dying = self.to_relinquish.load(Ordering::Relaxed) != u64::MAX;
        if dying || total > self.maximum.load(Ordering::Relaxed) {
            return Err(block);
        }
        let outstanding = self.outstanding();
        if outstanding > 0 {
            self.set_outstanding(outstanding.saturating_sub(block.pages()), &mut below);
        }
        block.assign(frames(), owner, &mut pages);
        self.total.store(total, Ordering::Relaxed);
        Ok(())
    }

    /// A page of the domain has lost its last reference: takes it off the list.
    pub fn forget_page(&self, f: Frame<'_>, held: &mut Held<'_, 0>) {
        let (mut pages, mut below) = self.pages.lock(held);
        pages.remove(frames(), f);
        self.total.store(pages.len(), Ordering::Relaxed);
        // As in Xen, what a domain with a claim gives back is set aside for it too.
        let outstanding = self.outstanding();
        if outstanding > 0 {
            self.set_outstanding(outstanding + 1, &mut below);
        }
    }

    /// Puts a page of the domain, to which the caller has a reference, last on its list: a dying domain is taken apart from
    /// there.
    pub fn put_last(&self, f: Frame<'_>, held: &mut Held<'_, 0>) {
        let (mut pages, _held) = self.pages.lock(held);
        // The order says which pages of a dying domain were looked at.
        if self.to_relinquish.load(Ordering::Relaxed) == u64::MAX {
            pages.remove(frames(), f);
            pages.push(frames(), f);
        }
    }

    /// Takes the pages away from a dying domain whose vCPUs hold no roots any more; false: call again.
    ///
    /// Pages that others still map stay on the list and leave it when those mappings go. A table that takes long is left
    /// in its partial state between two calls, so any CPU can make the next one.
    pub fn relinquish(&self, domain: &Arc<Domain>, held: &mut Held<'_, 0>) -> bool {
        {
            let (pages, mut below) = self.pages.lock(held);
            // From here on nothing is added.
            let _ = self.to_relinquish.compare_exchange(u64::MAX, pages.len(), Ordering::Relaxed, Ordering::Relaxed);
            self.set_outstanding(0, &mut below);
        }
        let mut work =
            self.owed.lock_leaf(|owed| Owed { deferred: mem::take(&mut owed.deferred), page: owed.page.take() });
        let mut batch = Batch::new();
        let done = self.relinquish_some(domain, &mut work, &mut batch, held);
        memory::free_batch(batch, held);
        self.owed.lock_leaf(|owed| {
            owed.deferred.append(&mut work.deferred);
            owed.page = owed.page.take().or(work.page);
        });
        if done {
            self.to_relinquish.store(0, Ordering::Release);
        }
        done
    }

    /// One slice; true when no page is left to be looked at.
    fn relinquish_some(
        &self,
        domain: &Arc<Domain>,
        work: &mut Owed,
        batch: &mut Batch,
        held: &mut Held<'_, 0>,
    ) -> bool {
        let mut budget = Budget::ROUND;
        let mut left = PAGES_PER_SLICE;
        while left > 0 && budget > 0 {
            let next = match work.page.take().and_then(|mfn| frames().ram(mfn)) {
                Some(page) => {
                    left -= 1;
                    page
                }
                None => match self.next_to_relinquish(&mut left, batch, held) {
                    Next::Page(page) => page,
                    Next::Free(block) => {
                        memory::free(block, held);
                        continue;
                    }
                    Next::Later => continue,
                    Next::None => {
                        let mut mm = mmu_within(budget, held.again(), domain, &mut work.deferred, batch);
                        return memory::finish(&mut mm);
                    }
                },
            };
            let mut mm = mmu_within(budget, held.again(), domain, &mut work.deferred, batch);
            // What was begun comes first: pages refer to each other from the root down.
            if !memory::finish(&mut mm) || !mm.relinquish(next, domain.id) {
                work.page = Some(next.mfn());
            }
            budget = mm.env.left();
        }
        false
    }

    /// The next page of the list that was not looked at and that something refers to: it goes to the list's front, before those
    /// that were looked at. Those that nothing refers to any more go off the list and into the batch on the way. From the end
    /// on, where the pinned tables are: when they are gone, nothing refers to what they mapped.
    #[inline(always)]
    fn next_to_relinquish(&self, looks: &mut u32, batch: &mut Batch, held: &mut Held<'_, 0>) -> Next {
        let (mut pages, _held) = self.pages.lock(held);
        // Other CPUs may wait for the list: not all of the slice at once.
        for _ in 0..PAGES_AT_ONCE.min(*looks) {
            *looks -= 1;
            let left = self.to_relinquish.load(Ordering::Relaxed);
            if left == 0 {
                return Next::None;
            }
            let Some(page) = pages.pop_last(frames()) else { return Next::None };
            self.to_relinquish.store(left - 1, Ordering::Relaxed);
            let Some(alone) = Stolen::of_list(page) else {
                pages.push_front(frames(), page);
                return Next::Page(page);
            };
            self.total.store(pages.len(), Ordering::Relaxed);
            pv_pte::set_m2p(alone.frame(), u64::MAX);
            if let Some(block) = batch.add(alone.into_block(tlb::now())) {
                return Next::Free(block);
            }
        }
        Next::Later
    }

    /// Whether all that its death can take has been taken.
    #[must_use]
    pub fn is_relinquished(&self) -> bool {
        self.to_relinquish.load(Ordering::Acquire) == 0
    }

    /// Whether no page of it is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.total.load(Ordering::Relaxed) == 0
    }

    /// Lets it map device memory (frames that are no memory), or takes the right back; mappings it has stay. `ENOMEM`.
    pub fn change_io(&self, range: &Range<u64>, allow: bool) -> Result<(), Errno> {
        self.io.lock_leaf(|io| {
            if allow { io.add(range.clone()) } else { io.remove(range) }?;
            self.has_io.store(!io.is_empty(), Ordering::Release);
            Ok(())
        })
    }

    /// The device memory it may map, in order.
    #[must_use]
    pub fn io_ranges(&self) -> Vec<Range<u64>> {
        self.io.lock_leaf(|io| io.ranges().to_vec())
    }

    /// Whether it may map all of these frames, as far as they are no memory.
    #[must_use]
    pub fn has_io_range(&self, range: &Range<u64>) -> bool {
        self.io.lock_leaf(|io| io.contains(range))
    }

    /// Whether it may map this frame, which is not memory.
    #[must_use]
    pub fn may_map_io(&self, mfn: Mfn) -> bool {
        self.has_io() && self.has_io_range(&(mfn.0..mfn.0.saturating_add(1)))
    }

    /// Whether it may map any device memory, and so choose how its mappings are cached.
    #[inline]
    #[must_use]
    pub fn has_io(&self) -> bool {
        self.has_io.load(Ordering::Acquire)
    }

    /// Sets what `XENMEM_memory_map` tells it.
    pub fn set_map(&self, map: Vec<E820Entry>) {
        self.map.lock_leaf(|old| *old = map);
    }

    /// What `XENMEM_memory_map` tells it.
    #[must_use]
    pub fn map(&self) -> Vec<E820Entry> {
        self.map.lock_leaf(|map| map.clone())
    }

    /// Writes bytes into one of its pages, as a builder does; `EINVAL` if the page is not its own or is a table.
    pub fn write_page(
        &self,
        domain: &Arc<Domain>,
        mfn: Mfn,
        offset: usize,
        bytes: &[u8],
        held: &mut Held<'_, 0>,
    ) -> Result<(), Errno> {
        let mut deferred = Vec::new();
        let mut mm = mmu(held.again(), domain, &mut deferred);
        let page = mm.get_ref::<Writable>(mfn, domain.id).map_err(|_| Errno::EINVAL)?;
        pv_pte::write_bytes(&page, offset, bytes);
        mm.put_ref(page);
        Ok(())
    }

    /// Fills a page of the domain with the 32-byte entries of the hypercall page.
    pub fn write_hypercall_page(&self, domain: &Arc<Domain>, frame: Mfn, held: &mut Held<'_, 0>) -> Result<(), Errno> {
        let mut page = [0xcc; 4096];
        for (number, entry) in (0u32..64).zip(page.chunks_exact_mut(32)) {
            let number = number.to_le_bytes();
            let code: &[&[u8]] = if u32::from_le_bytes(number) == HYPERVISOR_IRET {
                // push rcx; push r11; push rax; mov eax, 23; syscall
                &[&[0x51, 0x41, 0x53, 0x50, 0xb8], &number, &[0x0f, 0x05]]
            } else {
                // push rcx; push r11; mov eax, number; syscall; pop r11; pop rcx; ret
                &[&[0x51, 0x41, 0x53, 0xb8], &number, &[0x0f, 0x05, 0x41, 0x5b, 0x59, 0xc3]]
            };
            for (at, byte) in entry.iter_mut().zip(code.iter().flat_map(|part| part.iter())) {
                *at = *byte;
            }
        }
        self.write_page(domain, frame, 0, &page, held)
    }
}

/// Pages that one slice of a death looks at.
const PAGES_PER_SLICE: u32 = 128;
/// Pages that are looked at under one hold of the list's lock.
const PAGES_AT_ONCE: u32 = 16;

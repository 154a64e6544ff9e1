//! A PVH domain's physical map: pages entered, looked up, taken out; the frames that its tables may use.

use alloc::{collections::BTreeMap, sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicU64, Ordering};

use arrayvec::ArrayVec;
use logic::{
    frames::{Batch, Block, Zone},
    hvm::p2m::{Access, Found, Order, Page, Refused, Stale, Use},
    hypercall::Budget,
    lock::{Held, rank},
};
use machine::{
    container,
    mem::{
        frame_table::frames,
        nested::{self, Map, Tables},
    },
};
use xen_abi::{
    errno::Errno,
    ids::{DomId, Gfn, Mfn},
};

use crate::{
    cpu_loop::breathe,
    domain::{Domain, Life},
    memory,
    sync::{Lock, Once},
};

/// Frames for tables that a domain may use before its toolstack says how many, as in Xen.
const DEFAULT_POOL: u64 = 256;
/// Pages that are taken out between two flushes.
const ROUND: usize = 32;
/// Entries that one slice of its end looks at; a large page counts as many as it has frames.
const ENTRIES_PER_SLICE: u64 = 768;

/// The physical map.
#[derive(Debug)]
pub struct DomainPhysmap {
    /// `None` before the first page comes and after the domain's end.
    map: Lock<Option<Map>, { rank::PHYSMAP }>,
    /// Where the frames are that the domain shares with the hypervisor: its shared info and its grant table's.
    places: Lock<BTreeMap<u64, Gfn>, { rank::PHYSMAP }>,
    tables: Once<Arc<Tables>>,
    /// Frames that its tables may use (`XEN_DOMCTL_set_paging_mempool_size`).
    pool: AtomicU64,
}

impl Default for DomainPhysmap {
    fn default() -> Self {
        Self::new()
    }
}

impl DomainPhysmap {
    /// Of a new domain: empty.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            map: Lock::new(None),
            places: Lock::new(BTreeMap::new()),
            tables: Once::new(),
            pool: AtomicU64::new(DEFAULT_POOL),
        }
    }

    /// Notes where a shared frame is, and says where it was before.
    pub fn note_place(&self, mfn: Mfn, gfn: Gfn, held: &mut Held<'_, 0>) -> Option<Gfn> {
        self.places.lock(held).0.insert(mfn.0, gfn)
    }

    /// Where a shared frame is, as far as it still is there.
    #[must_use]
    pub fn place_of(&self, mfn: Mfn, held: &mut Held<'_, 0>) -> Option<Gfn> {
        let gfn = *self.places.lock(held).0.get(&mfn.0)?;
        self.find(gfn, held).filter(|found| found.mfn == mfn).map(|_| gfn)
    }

    /// What its vCPUs run by, once it has memory.
    #[allow(dead_code, reason = "vCPUs in containers ask for it")]
    #[inline]
    #[must_use]
    pub fn tables(&self) -> Option<&Arc<Tables>> {
        self.tables.get()
    }

    /// What is mapped at a guest frame number at the moment. Without a reference: who has none finds out by taking one
    /// whether the frame still is whose it was. (A running vCPU of the domain looks things up in [`Self::tables`], without
    /// the lock; nobody else may, since the tables go when the domain dies.)
    #[must_use]
    pub fn find<const H: u8>(&self, gfn: Gfn, held: &mut Held<'_, H>) -> Option<Found> {
        self.map.lock(held).0.as_ref()?.find(gfn)
    }

    /// Tells of all that is mapped, for debugging.
    pub fn each(&self, held: &mut Held<'_, 0>, mut tell: impl FnMut(Found)) {
        if let Some(map) = self.map.lock(held).0.as_ref() {
            map.walker().each(&mut tell);
        }
    }

    /// One above the highest number that was ever mapped.
    #[must_use]
    pub fn end(&self, held: &mut Held<'_, 0>) -> Gfn {
        self.map.lock(held).0.as_ref().map_or(Gfn(0), Map::end)
    }

    /// How many frames its tables may use.
    #[must_use]
    pub fn pool(&self) -> u64 {
        self.pool.load(Ordering::Relaxed)
    }

    /// Sets how many frames its tables may use. `ENOMEM`: it uses more, or there are not so many.
    pub fn set_pool(&self, pages: u64, held: &mut Held<'_, 0>) -> Result<(), Errno> {
        let free = memory::census(held).free;
        let (map, _held) = self.map.lock(held);
        let used = map.as_ref().map_or(0, Map::tables);
        if pages < used || pages - used > free {
            return Err(Errno::ENOMEM);
        }
        self.pool.store(pages, Ordering::Relaxed);
        Ok(())
    }

    /// Where frames for an extent had better lie: large ones where those before them end, so that one entry can map 1 GiB of
    /// them.
    #[cold]
    pub fn place(&self, domain: &Domain, gfn: Gfn, order: u8, held: &mut Held<'_, 0>) -> Zone {
        let large = order == Order::Large as u8 && gfn.0.is_multiple_of(Order::Large.frames());
        if !large || container::largest_page() < Order::Huge || domain.cpuid.is_fixed() {
            return Zone::Any;
        }
        let (huge, large) = (Order::Huge.frames(), Order::Large.frames());
        if gfn.0.is_multiple_of(huge) {
            // Not for a domain that is smaller.
            let fills = domain.memory.totals(held).maximum >= gfn.0.saturating_add(huge);
            return if fills { Zone::Largest } else { Zone::Any };
        }
        let before = self.find(Gfn(gfn.0 - large), held).filter(|before| before.order == Order::Large);
        let next = before.map(|before| Mfn(before.mfn.0 + large)).filter(|next| next.0 % huge == gfn.0 % huge);
        next.map_or(Zone::Any, Zone::From)
    }

    /// Enters 2^order frames of `owner` that follow each other, by large entries where they fit. What was there is taken out;
    /// the domain's own memory among it is freed.
    ///
    /// # Errors
    /// `EINVAL`: not pages of `owner`, a number that no guest has, or the domain dies. `EBUSY`: in use as something else.
    /// `ENOMEM`: the pool is used up. What was entered before is taken out again, as by [`Self::remove`].
    pub fn enter(
        &self,
        domain: &Arc<Domain>,
        (gfn, mfn, order): (Gfn, Mfn, u8),
        owner: DomId,
        how: (Access, Use),
        held: &mut Held<'_, 0>,
    ) -> Result<(), Errno> {
        let count = 1u64.checked_shl(order.into()).ok_or(Errno::EINVAL)?;
        gfn.0.checked_add(count).ok_or(Errno::EINVAL)?;
        let mut done = 0;
        while done < count {
            let (at, first) = (Gfn(gfn.0 + done), Mfn(mfn.0 + done));
            let part = Order::fitting(at, first.0, count - done, Order::Large);
            let entered = match self.enter_page(domain, at, (first, part), owner, how, held) {
                Ok(()) => Ok(part),
                // Where small pages were before, there is no large one any more.
                Err(Refused::Occupied) if part == Order::Large => {
                    self.enter_page(domain, at, (first, Order::Page), owner, how, held).map(|()| Order::Page)
                }
                Err(refused) => Err(refused),
            };
            match entered {
                Ok(part) => done += part.frames(),
                Err(refused) => {
                    let _ = self.take_out(domain, (gfn, done), |_| false, held);
                    return Err(errno(refused));
                }
            }
            self.join_behind(domain, Gfn(gfn.0 + done), held);
            if order > 0 {
                breathe(held);
            }
        }
        Ok(())
    }

    /// What has just been filled up to there may be a whole GiB, which one entry can map. Not under a vCPU that may run.
    fn join_behind(&self, domain: &Domain, end: Gfn, held: &mut Held<'_, 0>) {
        if !end.0.is_multiple_of(Order::Huge.frames()) || domain.cpuid.is_fixed() {
            return;
        }
        if let Some(map) = self.map.lock(held).0.as_mut() {
            let _joined = map.join(Gfn(end.0 - 1));
        }
    }

    /// The guest cannot run code at a number: has it in a page of 4 KiB where only the size keeps it from that. False: there
    /// is no code.
    ///
    /// # Errors
    /// `ENOMEM`: the pool for tables is used up.
    pub fn allow_code(&self, domain: &Domain, gfn: Gfn, held: &mut Held<'_, 0>) -> Result<bool, Errno> {
        let (mut map, mut below) = self.map.lock(held);
        self.feed(domain, &mut map, &mut below);
        let Some(map) = map.as_mut() else { return Ok(false) };
        if !map.find(gfn).is_some_and(|found| found.access.execute) {
            return Ok(false);
        }
        map.split_down(gfn).map_err(errno)?;
        Ok(true)
    }

    fn enter_page(
        &self,
        domain: &Arc<Domain>,
        gfn: Gfn,
        (mfn, order): (Mfn, Order),
        owner: DomId,
        how: (Access, Use),
        held: &mut Held<'_, 0>,
    ) -> Result<(), Refused> {
        let mut deferred = Vec::new();
        let taken =
            Page::take(&mut memory::mmu(held.again(), domain, &mut deferred), (mfn, order), owner, how, domain.id);
        let Ok(mut page) = taken else { return Err(Refused::Misplaced) };
        for _ in 0..2 {
            let entered = {
                let (mut map, mut below) = self.map.lock(held);
                self.feed(domain, &mut map, &mut below);
                match map.as_mut() {
                    // What its end has gone past is not looked at again.
                    _ if domain.life.get() != Life::Alive => Err((Refused::Misplaced, page)),
                    Some(map) => map.map(gfn, page),
                    None => Err((Refused::NeedsTables, page)),
                }
            };
            let refused = match entered {
                Ok(()) => return Ok(()),
                Err((refused, rest)) => {
                    page = rest;
                    refused
                }
            };
            if refused != Refused::Occupied || self.give_back(domain, gfn, order as u8, held).is_err() {
                page.give_up(&mut memory::mmu(held.again(), domain, &mut deferred));
                return Err(refused);
            }
        }
        page.give_up(&mut memory::mmu(held.again(), domain, &mut deferred));
        Err(Refused::Occupied)
    }

    /// Lets the map have the frames for tables that the next operation may need, as far as the pool goes. No domain gets a map
    /// that nobody would take apart any more.
    fn feed(&self, domain: &Domain, map: &mut Option<Map>, held: &mut Held<'_, { rank::PHYSMAP }>) {
        if map.is_none() && self.tables.get().is_none() && domain.life.get() == Life::Alive {
            let Ok(root) = memory::alloc(0, Zone::Any, held) else { return };
            match nested::new(domain.id, container::table_format(), container::largest_page(), root) {
                Ok((new, tables)) => {
                    self.tables.call_once(|| Arc::new(tables));
                    *map = Some(new);
                }
                Err(root) => return memory::free(root, held),
            }
        }
        let Some(map) = map else { return };
        while map.wants() > 0 && map.tables() < self.pool() {
            let Ok(block) = memory::alloc(0, Zone::Any, held) else { return };
            if let Err(block) = map.feed(block, frames()) {
                return memory::free(block, held);
            }
        }
    }

    /// Takes 2^order pages out of the map, wherever there are any; how many there were. They stay the domain's.
    pub fn remove(&self, domain: &Arc<Domain>, gfn: Gfn, order: u8, held: &mut Held<'_, 0>) -> Result<u64, Errno> {
        let count = 1u64.checked_shl(order.into()).ok_or(Errno::EINVAL)?;
        self.take_out(domain, (gfn, count), |_| false, held)
    }

    /// Takes 2^order pages out of the map; what of them is the domain's own memory is freed.
    pub fn give_back(&self, domain: &Arc<Domain>, gfn: Gfn, order: u8, held: &mut Held<'_, 0>) -> Result<u64, Errno> {
        let count = 1u64.checked_shl(order.into()).ok_or(Errno::EINVAL)?;
        self.take_out(domain, (gfn, count), |usage| usage == Use::Ram, held)
    }

    /// Takes the mapping of a grant out: of this frame, at this place, for this. Its references are left for what is on record
    /// of the mapping. `EINVAL`: there is another one, or none.
    pub fn remove_grant(&self, gfn: Gfn, (mfn, access): (Mfn, Access), held: &mut Held<'_, 0>) -> Result<(), Errno> {
        let stale = {
            let (mut map, _below) = self.map.lock(held);
            let map = map.as_mut().ok_or(Errno::EINVAL)?;
            let is_it = |found: &Found| found.mfn == mfn && found.usage == Use::Grant && found.access == access;
            map.find(gfn).filter(is_it).ok_or(Errno::EINVAL)?;
            map.unmap(gfn, Order::Page, frames()).map_err(errno)?.ok_or(Errno::EINVAL)?
        };
        let tables = self.tables.get().ok_or(Errno::EINVAL)?;
        stale.flushed(&tables.flush()).leave();
        Ok(())
    }

    fn take_out(
        &self,
        domain: &Arc<Domain>,
        (gfn, count): (Gfn, u64),
        frees: impl Fn(Use) -> bool,
        held: &mut Held<'_, 0>,
    ) -> Result<u64, Errno> {
        let (mut at, end) = (gfn.0, gfn.0.checked_add(count).ok_or(Errno::EINVAL)?);
        let (mut deferred, mut taken) = (Vec::new(), 0);
        let mut refused = None;
        while at < end && refused.is_none() {
            let mut stale = ArrayVec::<Stale<'static>, ROUND>::new();
            {
                let (mut map, mut below) = self.map.lock(held);
                while at < end && !stale.is_full() {
                    self.feed(domain, &mut map, &mut below);
                    let Some(map) = map.as_mut() else {
                        at = end;
                        break;
                    };
                    let most = Order::fitting(Gfn(at), 0, end - at, Order::Large);
                    // Something smaller may begin here, too.
                    match map.unmap(Gfn(at), most, frames()) {
                        Ok(Some(page)) => {
                            at += page.order().frames();
                            stale.push(page);
                        }
                        Ok(None) => at += 1,
                        Err(why) => {
                            // Those that are out already go their way.
                            refused = Some(errno(why));
                            break;
                        }
                    }
                }
            }
            let Some(tables) = self.tables.get().filter(|_| !stale.is_empty()) else { continue };
            let flushed = tables.flush();
            let mut mm = memory::mmu(held.again(), domain, &mut deferred);
            for page in stale {
                let page = page.flushed(&flushed);
                let (first, pages, usage) = (page.frame().mfn().0, page.order().frames(), page.usage());
                taken += pages;
                page.give_up(&mut mm);
                if frees(usage) {
                    for mfn in first..first + pages {
                        // It may be given away already: then there is nothing to give back.
                        let _ = mm.give_back(Mfn(mfn), domain.id);
                    }
                }
            }
        }
        refused.map_or(Ok(taken), Err)
    }

    /// One step of the end of a domain whose vCPUs run no more: pages and tables go. False: call again.
    pub fn take_apart(&self, domain: &Arc<Domain>, held: &mut Held<'_, 0>) -> bool {
        let Some(mut map) = self.map.lock(held).0.take() else { return true };
        let Some(tables) = self.tables.get() else { return true };
        let flushed = tables.flush();
        let (mut deferred, mut batch) = (Vec::new(), Batch::new());
        let mut blocks: ArrayVec<Block, 16> = ArrayVec::new();
        let mut left = ENTRIES_PER_SLICE;
        let done = {
            let mut mm = memory::mmu_within(Budget::ROUND, held.again(), domain, &mut deferred, &mut batch);
            let mut page = |stale: Stale<'static>| stale.flushed(&flushed).give_up(&mut mm);
            let mut table = |block| blocks.push(block);
            map.take_apart(frames(), &mut left, &mut page, &mut table)
        };
        for block in blocks {
            memory::free(block, held);
        }
        memory::free_batch(batch, held);
        if !done {
            *self.map.lock(held).0 = Some(map);
        }
        done
    }
}

fn errno(refused: Refused) -> Errno {
    match refused {
        Refused::NeedsTables => Errno::ENOMEM,
        Refused::Occupied => Errno::EBUSY,
        Refused::Misplaced => Errno::EINVAL,
    }
}

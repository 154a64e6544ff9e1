//! The free frames of the machine.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use logic::{
    frames::{Batch, Block, Buddy, Shortage, Stale, Zone},
    lock::{Held, rank},
};
use machine::{
    boot_info::{BootInfo, MemoryRange, Module},
    mem::{
        boot_frames::BootFrames,
        end_of_ram,
        frame_table::{self, frames},
        heap, pv_pte,
        shared::SharedPage,
        tlb::{self, Forget},
    },
};
use xen_abi::{
    errno::Errno,
    ids::{DomId, Mfn},
};

use crate::sync::{Lock, Once};

static FREE: Lock<Buddy, { rank::FRAMES }> = Lock::new(Buddy::new());
static MAP: Once<(Vec<MemoryRange>, u64)> = Once::new();

/// Frames that an allocation zeroes in one go.
const SCRUB_LIMIT: usize = 32;
/// Frames that an idle CPU scrubs in one go, as a power of two.
const SCRUB_ORDER: u8 = 4;
/// Free frames that idle CPUs are scrubbing at the moment; changes under the lock of `FREE`.
static BEING_SCRUBBED: AtomicU64 = AtomicU64::new(0);

/// Free frames that are set aside for domains (`XENMEM_claim_pages`); changes under the lock of `FREE`.
static CLAIMED: AtomicU64 = AtomicU64::new(0);

/// How many frames there are.
#[derive(Clone, Copy, Debug)]
pub struct Census {
    /// Frames of RAM.
    pub total: u64,
    /// Free ones.
    pub free: u64,
    /// Those of the free ones that are not clean yet.
    pub dirty: u64,
    /// Those of the free ones that are set aside for a domain.
    pub claimed: u64,
    /// The highest frame of RAM.
    pub highest: Mfn,
}

/// Takes the machine's memory over from boot.
pub fn init(boot: &BootInfo, free: BootFrames, held: &mut Held<'_, 0>) {
    use machine::boot_info::MemoryKind;
    let ram = boot.memory_map.iter().filter(|r| r.kind == MemoryKind::Ram);
    let total = ram.map(|r| (r.end >> 12).saturating_sub(r.start.div_ceil(4096))).sum();
    MAP.call_once(|| (boot.memory_map.clone(), total));
    *FREE.lock(held).0 = frame_table::init(boot, free);
}

/// The machine's memory map as the loader told it.
#[must_use]
pub fn machine_map() -> &'static [MemoryRange] {
    MAP.get().map_or(&[], |(map, _)| map)
}

/// Counts the frames.
#[must_use]
pub fn census(held: &mut Held<'_, 0>) -> Census {
    let (free, _held) = FREE.lock(held);
    let being_scrubbed = BEING_SCRUBBED.load(Ordering::Relaxed);
    Census {
        total: MAP.get().map_or(0, |(_, total)| *total),
        free: free.free_pages() + being_scrubbed,
        dirty: free.dirty_pages() + being_scrubbed,
        claimed: CLAIMED.load(Ordering::Relaxed),
        highest: Mfn(end_of_ram().0.saturating_sub(1)),
    }
}

/// Counts the free frames whose numbers take so many bits.
#[must_use]
pub fn free_of(widths: core::ops::RangeInclusive<usize>, held: &mut Held<'_, 0>) -> u64 {
    FREE.lock(held).0.free_pages_of(widths)
}

/// Takes 2^order frames: zeroed, and in no TLB. One frame is never [`Shortage::Unfinished`].
pub fn alloc<const H: u8>(order: u8, zone: Zone, held: &mut Held<'_, H>) -> Result<Block, Shortage> {
    alloc_for(0, order, zone, held)
}

/// [`alloc`] for a domain for which `claim` frames are set aside.
pub fn alloc_for<const H: u8>(claim: u64, order: u8, zone: Zone, held: &mut Held<'_, H>) -> Result<Block, Shortage> {
    let mut block = alloc_dirty(claim, order, zone, held)?;
    if block.scrub(frames(), SCRUB_LIMIT, frame_table::zero) {
        Ok(block)
    } else {
        // What has been zeroed stays zero, and the next call finds the same block.
        free(block, held);
        Err(Shortage::Unfinished)
    }
}

/// Takes 2^order frames: in no TLB, but they may hold the last owner's data.
fn alloc_dirty<const H: u8>(claim: u64, order: u8, zone: Zone, held: &mut Held<'_, H>) -> Result<Block, Shortage> {
    const { assert!(H < rank::FRAMES, "the frames are the last lock but the console's") };
    let stale = {
        let (mut free, _held) = FREE.lock(held);
        let claimed = CLAIMED.load(Ordering::Relaxed);
        if claimed != 0 && claim < 1 << order && unclaimed(&free) < 1 << order {
            return Err(Shortage::Exhausted);
        }
        free.alloc(frames(), order, zone)?
    };
    Ok(stale.flushed(frames(), |since| tlb::flush(tlb::stale_cpus(None, since), Forget::All)))
}

/// Gives frames back.
pub fn free<const H: u8>(block: Block, held: &mut Held<'_, H>) {
    const { assert!(H < rank::FRAMES, "the frames are the last lock but the console's") };
    FREE.lock(held).0.free(frames(), block);
}

/// Gives the blocks of a batch back.
pub fn free_batch(mut batch: Batch, held: &mut Held<'_, 0>) {
    if let Some(first) = batch.take() {
        let (mut free, _held) = FREE.lock(held);
        free.free(frames(), first);
        while let Some(block) = batch.take() {
            free.free(frames(), block);
        }
    }
}

/// Free frames that are not set aside for a domain.
fn unclaimed(free: &Buddy) -> u64 {
    let all = free.free_pages() + BEING_SCRUBBED.load(Ordering::Relaxed);
    all.saturating_sub(CLAIMED.load(Ordering::Relaxed))
}

/// Sets frames aside for a domain: false if there are not so many.
pub fn claim<const H: u8>(pages: u64, held: &mut Held<'_, H>) -> bool {
    let (free, _held) = FREE.lock(held);
    let enough = pages <= unclaimed(&free);
    if enough {
        CLAIMED.fetch_add(pages, Ordering::Relaxed);
    }
    enough
}

/// A domain's claim becomes `after` frames, because it has got some or given some back, or gives it up.
pub fn change_claim<const H: u8>(before: u64, after: u64, held: &mut Held<'_, H>) {
    if before != after {
        let (_free, _held) = FREE.lock(held);
        CLAIMED.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
    }
}

/// Memory of a boot module that nobody needs any more.
pub fn free_module(module: Module, held: &mut Held<'_, 0>) {
    frame_table::free_module(&mut FREE.lock(held).0, module);
}

/// Frames that the hypervisor's heap gets in one go.
const HEAP_ORDER: u8 = 9;

/// Gives the hypervisor's heap some frames when it is low: from where no lock is held, before anything large begins.
#[inline]
pub fn feed_heap(held: &mut Held<'_, 0>) {
    if heap::is_low()
        && let Ok(block) = alloc_dirty(0, HEAP_ORDER, Zone::Any, held)
    {
        heap::donate(block);
    }
}

/// For an idle CPU: zeroes a few free frames that hold somebody's old data; false when all are clean.
pub fn scrub_some(held: &mut Held<'_, 0>) -> bool {
    let taken = {
        let (mut free, _held) = FREE.lock(held);
        let taken = free.take_dirty(frames(), SCRUB_ORDER);
        let pages = taken.as_ref().map_or(0, Stale::pages);
        BEING_SCRUBBED.fetch_add(pages, Ordering::Relaxed);
        taken
    };
    let Some(stale) = taken else { return false };
    let pages = stale.pages();
    // The last owner must not write to it any more once it counts as clean.
    let mut block = stale.flushed(frames(), |since| tlb::flush(tlb::stale_cpus(None, since), Forget::All));
    let _clean = block.scrub(frames(), usize::MAX, frame_table::zero);
    let (mut free, _held) = FREE.lock(held);
    free.free(frames(), block);
    BEING_SCRUBBED.fetch_sub(pages, Ordering::Relaxed);
    true
}

/// A zeroed page of the hypervisor's that `owner` may map and both may write.
pub fn shared_page(owner: DomId, held: &mut Held<'_, 0>) -> Result<SharedPage, Errno> {
    let block = alloc(0, Zone::Any, held).map_err(|_| Errno::ENOMEM)?;
    match block.share_page(frames(), owner) {
        Ok(frame) => {
            if let Some(f) = frames().ram(frame.mfn()) {
                pv_pte::set_m2p(f, u64::MAX);
            }
            Ok(SharedPage::new(frame))
        }
        Err(block) => {
            free(block, held);
            Err(Errno::ENOMEM)
        }
    }
}

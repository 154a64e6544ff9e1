//! The global allocator: talc, which takes runs of free frames from the direct map when it needs more.
//!
//! Unsafe: a global allocator.

use crate::mem::{PAGE_SIZE, address, frames};
use core::alloc::Layout;
use talc::base::Talc;
use talc::base::binning::Binning;
use talc::{TalcLock, source::Source};

/// Memory is taken in pieces of at least this many pages: 1 MiB.
const PIECE: u64 = 256;

#[derive(Debug)]
struct Frames;

// SAFETY: `acquire` takes frames only and allocates nothing.
unsafe impl Source for Frames {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        // Room for the allocation, its alignment and talc's own notes.
        let need = (layout.size() as u64 + layout.align() as u64).div_ceil(PAGE_SIZE) + 4;
        let run = |pages| frames::take_run(pages).map(|pfn| (pfn, pages));
        let (pfn, pages) = run(need.max(PIECE)).or_else(|| run(need)).ok_or(())?;
        // SAFETY: the run is mapped writable and nobody else's.
        let claimed = unsafe { talc.claim(address(pfn) as *mut u8, (pages * PAGE_SIZE) as usize) };
        claimed.map(drop).ok_or(())
    }
}

#[cfg_attr(target_os = "none", global_allocator)]
static HEAP: TalcLock<spin::Mutex<()>, Frames> = TalcLock::new(Frames);

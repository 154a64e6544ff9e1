//! The hypervisor's heap: talc, first on a small static arena, then on whole runs of frames of the direct map.

use crate::mailbox::Poll;
use core::alloc::Layout;
use core::sync::atomic::{AtomicUsize, Ordering};
use spin::mutex::SpinMutex;
use talc::TalcLock;
use talc::base::Talc;
use talc::base::binning::Binning;
use talc::source::Source;

/// What the heap has before there is a frame allocator: enough for the memory map and the loader's strings.
const EARLY: usize = 128 * 1024;
/// The heap grows by at least this much at a time, to stay in few pieces.
const STEP: usize = 2 << 20;

#[repr(align(4096))]
struct Arena(core::cell::UnsafeCell<[u8; EARLY]>);

// SAFETY: the bytes belong to the allocator from `init_early` on, which has a lock.
unsafe impl Sync for Arena {}

static ARENA: Arena = Arena(core::cell::UnsafeCell::new([0; EARLY]));

#[cfg_attr(target_os = "none", global_allocator)]
static HEAP: TalcLock<SpinMutex<(), Poll>, Frames> = TalcLock::new(Frames);

/// Where more memory comes from: a function `fn(bytes: usize) -> *mut u8`, 0: from nowhere.
static MORE: AtomicUsize = AtomicUsize::new(0);

/// Bytes given to the heap so far.
static SIZE: AtomicUsize = AtomicUsize::new(0);

/// Talc's view of where memory comes from.
#[derive(Debug)]
struct Frames;

// SAFETY: `acquire` uses the allocator only through the reference it is given; the function behind `MORE` promises not
// to allocate from the heap (see `set_source`).
unsafe impl Source for Frames {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        let more = MORE.load(Ordering::Acquire);
        if more == 0 {
            return Err(());
        }
        // SAFETY: only `set_source` stores here, and it stores such a function.
        let more = unsafe { core::mem::transmute::<usize, unsafe fn(usize) -> *mut u8>(more) };
        // Talc's own records need a little room too.
        let need = layout.size().saturating_add(layout.align()).saturating_add(4096);
        let bytes = need.checked_next_multiple_of(STEP).ok_or(())?;
        // SAFETY: the function's contract (see `set_source`).
        let base = unsafe { more(bytes) };
        if base.is_null() {
            return Err(());
        }
        SIZE.fetch_add(bytes, Ordering::Relaxed);
        // SAFETY: `bytes` bytes of fresh memory that belong to the heap for good.
        unsafe { talc.claim(base, bytes) }.map(|_| ()).ok_or(())
    }
}

/// Gives the static arena to the heap. Called once, first of all.
pub(crate) fn init_early() {
    SIZE.store(EARLY, Ordering::Relaxed);
    // SAFETY: the arena is static and nobody else uses it.
    unsafe { HEAP.lock().claim(ARENA.0.get().cast(), EARLY) };
}

/// Says where further memory comes from.
///
/// # Safety
/// `more(bytes)` returns null or mapped, writable, page-aligned memory of that size which nobody else uses any more, and
/// never allocates from the heap itself.
pub(crate) unsafe fn set_source(more: unsafe fn(usize) -> *mut u8) {
    MORE.store(more as usize, Ordering::Release);
}

/// Bytes that the heap has taken so far, used or not.
#[must_use]
pub fn size() -> usize {
    SIZE.load(Ordering::Relaxed)
}

/// Gives the heap its share of the machine at boot: a 64th, within bounds.
pub(crate) fn grow_at_boot(frames: &mut super::boot_frames::BootFrames) {
    let share = (frames.free_bytes() / 64).clamp(4 << 20, 32 << 20) & !(STEP as u64 - 1);
    let Some(phys) = frames.take(share, STEP as u64) else {
        panic!("no memory for the heap");
    };
    SIZE.fetch_add(share as usize, Ordering::Relaxed);
    // SAFETY: fresh memory of the direct map, given away for good.
    unsafe {
        HEAP.lock()
            .claim(super::direct_map::va_of_phys(phys) as *mut u8, share as usize)
    };
}

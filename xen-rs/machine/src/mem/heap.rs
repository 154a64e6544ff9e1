//! The hypervisor's heap: talc, first on a small static arena, then on whole blocks of frames of the direct map.
//!
//! It never takes frames by itself: an allocation may happen under any lock. Whoever holds none looks now and then whether
//! the heap [`is_low`] and [`donate`]s a block; what a guest asks for is refused while it is low.
//!
//! Unsafe: a global allocator.

use super::boot_frames::BootFrames;
use super::direct_map::{va_of, va_of_phys};
use super::layout::PAGE_SHIFT;
use crate::mailbox::Poll;
use core::alloc::{GlobalAlloc, Layout};
use core::sync::atomic::{AtomicUsize, Ordering};
use spin::mutex::SpinMutex;
use talc::TalcLock;
use talc::source::Manual;

/// What the heap has before there is a frame allocator: enough for the memory map and the loader's strings.
const EARLY: usize = 128 * 1024;
/// With less than this left the heap is low.
const RESERVE: usize = 1 << 20;

#[repr(align(4096))]
struct Arena(core::cell::UnsafeCell<[u8; EARLY]>);

// SAFETY: the bytes belong to the allocator from `init_early` on, which has a lock.
unsafe impl Sync for Arena {}

static ARENA: Arena = Arena(core::cell::UnsafeCell::new([0; EARLY]));

/// Talc, and a count of what it has handed out.
struct Heap {
    talc: TalcLock<SpinMutex<(), Poll>, Manual>,
    size: AtomicUsize,
    used: AtomicUsize,
}

#[cfg_attr(target_os = "none", global_allocator)]
static HEAP: Heap = Heap { talc: TalcLock::new(Manual), size: AtomicUsize::new(0), used: AtomicUsize::new(0) };

// SAFETY: talc does the work; counting changes nothing.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.used.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { self.talc.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        self.used.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { self.talc.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        self.used.fetch_add(size, Ordering::Relaxed);
        self.used.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { self.talc.realloc(at, layout, size) }
    }
}

impl Heap {
    /// # Safety
    /// Mapped, writable memory that nobody else uses any more.
    unsafe fn claim(&self, base: u64, bytes: usize) {
        // SAFETY: the caller's promise.
        let claimed = unsafe { self.talc.lock().claim(base as *mut u8, bytes) };
        if claimed.is_some() {
            self.size.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

/// Gives the static arena to the heap. Called once, first of all.
pub(crate) fn init_early() {
    // SAFETY: the arena is static and nobody else uses it.
    unsafe { HEAP.claim(ARENA.0.get() as u64, EARLY) };
}

/// Gives the heap its share of the machine at boot: a 128th, within bounds.
pub(crate) fn grow_at_boot(frames: &mut BootFrames) {
    const LARGE: u64 = 2 << 20;
    let share = (frames.free_bytes() / 128).clamp(2 * LARGE, 16 * LARGE) & !(LARGE - 1);
    let Some(phys) = frames.take(share, LARGE) else {
        panic!("no memory for the heap");
    };
    // SAFETY: fresh memory of the direct map, given away for good.
    unsafe { HEAP.claim(va_of_phys(phys), share as usize) };
}

/// Bytes that the heap has taken so far, used or not.
#[must_use]
pub fn size() -> usize {
    HEAP.size.load(Ordering::Relaxed)
}

/// Bytes that are in use.
#[must_use]
pub fn used() -> usize {
    HEAP.used.load(Ordering::Relaxed)
}

/// Whether the heap should get more before anything large is begun.
#[must_use]
pub fn is_low() -> bool {
    size().saturating_sub(used()) < RESERVE + size() / 8
}

/// Gives the heap a block for good.
#[cfg(target_os = "none")]
pub fn donate(block: logic::frames::Block) {
    let (mfn, order) = block.keep(super::frame_table::frames());
    // SAFETY: memory of the direct map that the block's holder has given away.
    unsafe { HEAP.claim(va_of(mfn), 1 << (u32::from(order) + PAGE_SHIFT)) };
}

/// Memory that the heap has for a while, for example for the dictionary of a decoder.
#[cfg(target_os = "none")]
#[derive(Debug)]
pub struct Lent {
    memory: crate::boot_info::Module,
    end: core::ptr::NonNull<u8>,
}

/// Lends the heap some memory. Gives it back if the heap cannot use it.
#[cfg(target_os = "none")]
pub fn lend(memory: crate::boot_info::Module) -> Result<Lent, crate::boot_info::Module> {
    let phys = memory.phys();
    let bytes = (phys.end - phys.start) as usize;
    // SAFETY: memory of the direct map that nobody uses while the heap has it.
    match unsafe { HEAP.talc.lock().claim(va_of_phys(phys.start) as *mut u8, bytes) } {
        Some(end) => {
            HEAP.size.fetch_add(bytes, Ordering::Relaxed);
            Ok(Lent { memory, end })
        }
        None => Err(memory),
    }
}

#[cfg(target_os = "none")]
impl Lent {
    /// Takes the memory back. `None` if something still lies in it: then it is the heap's for good.
    #[must_use]
    pub fn take_back(self) -> Option<crate::boot_info::Module> {
        let phys = self.memory.phys();
        // SAFETY: `end` is what `claim` gave, and nothing has changed this region since.
        let left = unsafe { HEAP.talc.lock().truncate(self.end, core::ptr::null_mut()) };
        if left.is_some() {
            return None;
        }
        HEAP.size.fetch_sub((phys.end - phys.start) as usize, Ordering::Relaxed);
        Some(self.memory)
    }
}

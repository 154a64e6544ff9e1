//! The global allocator: talc over frames of the direct map.

use core::ops::Range;
use talc::{TalcLock, source::Manual};

#[cfg_attr(target_os = "none", global_allocator)]
static HEAP: TalcLock<spin::Mutex<()>, Manual> = TalcLock::new(Manual);

/// Gives the heap its first memory.
#[cfg_attr(not(target_os = "none"), expect(dead_code))]
pub(crate) fn init(memory: Range<u64>) {
    let size = (memory.end - memory.start) as usize;
    // SAFETY: `mem::init` hands out memory that is mapped writable and that nothing else uses.
    unsafe { HEAP.lock().claim(memory.start as *mut u8, size) };
}

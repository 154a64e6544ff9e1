//! Free frames of the direct map: a bitmap with one bit per pseudo-physical frame.
//!
//! Unsafe: free memory becomes a slice.

use super::{PAGE_BYTES, PAGE_SIZE, address, p2m};
use spin::Mutex;
use xen_abi::ids::{Mfn, Pfn};

struct Bitmap {
    /// A set bit is a free frame.
    words: &'static mut [u64],
    /// No word before this one has a free bit.
    first: usize,
    free: u64,
}

static FREE: Mutex<Bitmap> = Mutex::new(Bitmap { words: &mut [], first: 0, free: 0 });

impl Bitmap {
    fn take_one(&mut self) -> Option<Pfn> {
        while let Some(word) = self.words.get_mut(self.first) {
            if *word != 0 {
                let bit = word.trailing_zeros();
                *word &= *word - 1;
                self.free -= 1;
                return Some(Pfn(self.first as u64 * 64 + u64::from(bit)));
            }
            self.first += 1;
        }
        None
    }

    fn is_free(&self, pfn: u64) -> bool {
        self.words[(pfn / 64) as usize] & 1 << (pfn % 64) != 0
    }

    fn take_run(&mut self, count: u64) -> Option<Pfn> {
        let end = self.words.len() as u64 * 64;
        let mut start = self.first as u64 * 64;
        let mut at = start;
        while at < end {
            if at.is_multiple_of(64) && self.words[(at / 64) as usize] == 0 {
                at += 64;
                start = at;
            } else if self.is_free(at) {
                at += 1;
                if at - start == count {
                    (start..at).for_each(|pfn| self.words[(pfn / 64) as usize] &= !(1 << (pfn % 64)));
                    self.free -= count;
                    return Some(Pfn(start));
                }
            } else {
                at += 1;
                start = at;
            }
        }
        None
    }

    fn give(&mut self, pfn: Pfn) {
        let word = (pfn.0 / 64) as usize;
        self.words[word] |= 1 << (pfn.0 % 64);
        self.first = self.first.min(word);
        self.free += 1;
    }
}

/// Sets up the bitmap for `frames` frames. It is put at frame `at`, which is mapped and free, and whose followers are
/// too (the builder maps at least 512 KiB after the boot stack). `is_free` answers for all other frames.
pub(super) fn init(frames: u64, at: u64, is_free: impl Fn(u64) -> bool) {
    let len = (frames.div_ceil(64)) as usize;
    let pages = (len as u64 * 8).div_ceil(PAGE_SIZE);
    // SAFETY: these frames are mapped and unused, and are marked as taken below.
    let words = unsafe { core::slice::from_raw_parts_mut(address(Pfn(at)) as *mut u64, len) };
    words.fill(0);
    let mut bitmap = Bitmap { words, first: 0, free: 0 };
    for pfn in (0..frames).filter(|&pfn| !(at..at + pages).contains(&pfn) && is_free(pfn)) {
        bitmap.give(Pfn(pfn));
    }
    bitmap.first = 0;
    *FREE.lock() = bitmap;
}

/// Frames that can still be allocated.
pub fn free() -> u64 {
    FREE.lock().free
}

/// Takes `count` neighbouring frames out of the allocator for good. Their memory is mapped and has arbitrary contents.
pub(crate) fn take_run(count: u64) -> Option<Pfn> {
    FREE.lock().take_run(count)
}

/// Takes one frame out of the allocator.
pub(crate) fn take() -> Option<Pfn> {
    FREE.lock().take_one()
}

/// Hands a frame to the allocator.
pub(crate) fn give(pfn: Pfn) {
    FREE.lock().give(pfn);
}

/// A page of our own memory, freed when dropped.
#[derive(Debug)]
pub struct Frame(Pfn);

impl Frame {
    /// A page full of zeros.
    pub fn zeroed() -> Option<Self> {
        let mut frame = Self(take()?);
        frame.bytes_mut().fill(0);
        Some(frame)
    }

    /// A frame that is not in the allocator and that nobody else uses.
    pub(crate) fn from_pfn(pfn: Pfn) -> Self {
        Self(pfn)
    }

    /// Its number in the domain.
    pub fn pfn(&self) -> Pfn {
        self.0
    }

    /// Its number in the machine.
    pub fn mfn(&self) -> Mfn {
        p2m(self.0).expect("an allocated frame has memory")
    }

    /// Where it is mapped.
    pub fn address(&self) -> u64 {
        address(self.0)
    }

    /// Its contents.
    pub fn bytes(&self) -> &[u8; PAGE_BYTES] {
        // SAFETY: the frame is mapped and belongs to `self`.
        unsafe { &*(self.address() as *const [u8; PAGE_BYTES]) }
    }

    /// Its contents, to be changed.
    pub fn bytes_mut(&mut self) -> &mut [u8; PAGE_BYTES] {
        // SAFETY: the frame is mapped writable and belongs to `self`.
        unsafe { &mut *(self.address() as *mut [u8; PAGE_BYTES]) }
    }

    /// Gives up ownership: the frame is never freed.
    pub fn leak(self) -> Pfn {
        let pfn = self.0;
        core::mem::forget(self);
        pfn
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        give(self.0);
    }
}

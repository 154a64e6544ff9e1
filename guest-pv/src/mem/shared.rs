//! Memory that someone else reads and writes too. There are no references into it: everything is copied in or out.
//!
//! Unsafe: volatile and atomic access to memory that others write.

use core::arch::asm;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

/// A range of bytes that another domain or the hypervisor shares. Offsets out of range panic.
#[derive(Debug)]
pub struct SharedBytes {
    base: *mut u8,
    len: usize,
}

// SAFETY: all access is by atomics or by opaque copies, which tolerate any other access.
unsafe impl Send for SharedBytes {}
// SAFETY: as above.
unsafe impl Sync for SharedBytes {}

macro_rules! cell {
    ($atomic:ident, $ty:ty, $cell:ident) => {
        /// An integer at an offset (a multiple of its size), as an atomic. Writing faults where the memory is mapped
        /// read-only.
        pub fn $cell(&self, offset: usize) -> &$atomic {
            self.check(offset, size_of::<$ty>());
            assert!(offset % size_of::<$ty>() == 0, "misaligned shared integer");
            // SAFETY: in range, aligned (the base is page aligned), and atomics allow for other writers.
            unsafe { &*self.base.add(offset).cast::<$atomic>() }
        }
    };
}

impl SharedBytes {
    /// # Safety
    /// `base` is page aligned, and `len` bytes from there stay mapped as long as the value lives; no Rust reference to
    /// them exists.
    pub const unsafe fn new(base: *mut u8, len: usize) -> Self {
        Self { base, len }
    }

    fn check(&self, offset: usize, len: usize) {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len), "outside of the shared bytes");
    }

    /// Bytes in the range.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Has it no bytes?
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where it is mapped.
    pub fn address(&self) -> u64 {
        self.base as u64
    }

    cell!(AtomicU8, u8, u8_at);
    cell!(AtomicU16, u16, u16_at);
    cell!(AtomicU32, u32, u32_at);
    cell!(AtomicU64, u64, u64_at);

    /// `N` u64 in a row.
    pub fn words<const N: usize>(&self, offset: usize) -> &[AtomicU64; N] {
        self.check(offset, N * 8);
        assert!(offset.is_multiple_of(8), "misaligned shared integers");
        // SAFETY: in range, aligned (the base is page aligned), and atomics allow for other writers.
        unsafe { &*self.base.add(offset).cast() }
    }

    /// Reads a u32 (acquire).
    pub fn load_u32(&self, offset: usize) -> u32 {
        self.u32_at(offset).load(Ordering::Acquire)
    }

    /// Writes a u32 (release).
    pub fn store_u32(&self, offset: usize, value: u32) {
        self.u32_at(offset).store(value, Ordering::Release);
    }

    /// Reads a u64 (acquire).
    pub fn load_u64(&self, offset: usize) -> u64 {
        self.u64_at(offset).load(Ordering::Acquire)
    }

    /// Writes a u64 (release).
    pub fn store_u64(&self, offset: usize, value: u64) {
        self.u64_at(offset).store(value, Ordering::Release);
    }

    /// Copies from the shared memory.
    pub fn read(&self, offset: usize, to: &mut [u8]) {
        self.check(offset, to.len());
        // SAFETY: both ranges are valid for the length.
        unsafe { copy(self.base.add(offset), to.as_mut_ptr(), to.len()) };
    }

    /// Copies to the shared memory.
    pub fn write(&self, offset: usize, from: &[u8]) {
        self.check(offset, from.len());
        // SAFETY: both ranges are valid for the length.
        unsafe { copy(from.as_ptr(), self.base.add(offset), from.len()) };
    }

    /// Fills a range with zeros.
    pub fn zero(&self, offset: usize, len: usize) {
        self.check(offset, len);
        // SAFETY: the range was checked; string instructions are opaque to the compiler. The direction flag is clear.
        unsafe {
            asm!("rep stosq", "mov rcx, {tail}", "rep stosb", tail = in(reg) len % 8,
                 inout("rcx") len / 8 => _, inout("rdi") self.base.add(offset) => _, in("rax") 0u64,
                 options(nostack, preserves_flags));
        }
    }
}

/// Copies bytes by string instructions, which the compiler neither splits nor repeats nor assumes anything about.
///
/// # Safety
/// Both ranges are mapped for `len` bytes and do not overlap.
unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: by the contract above. The direction flag is clear (System V ABI).
    unsafe {
        asm!("rep movsq", "mov rcx, {tail}", "rep movsb", tail = in(reg) len % 8,
             inout("rcx") len / 8 => _, inout("rsi") from => _, inout("rdi") to => _,
             options(nostack, preserves_flags));
    }
}

impl ring_protocol::page::Page for SharedBytes {
    fn load_u32(&self, offset: usize) -> u32 {
        Self::load_u32(self, offset)
    }

    fn store_u32(&self, offset: usize, value: u32) {
        Self::store_u32(self, offset, value);
    }

    fn read(&self, offset: usize, to: &mut [u8]) {
        Self::read(self, offset, to);
    }

    fn write(&self, offset: usize, from: &[u8]) {
        Self::write(self, offset, from);
    }

    fn fence(&self) {
        core::sync::atomic::fence(Ordering::SeqCst);
    }
}

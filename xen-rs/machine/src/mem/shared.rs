//! Memory that a guest and the hypervisor both write: single atomic accesses, never a reference to plain data.
//!
//! Offsets are brought into the page and onto their alignment by masking, so that a wrong one can hit the wrong field of
//! this page and nothing else.

use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use logic::page::SharedFrame;
use xen_abi::ids::Mfn;

use super::direct_map;

/// A shared page through the direct map.
#[derive(Debug)]
pub struct SharedPage {
    va: u64,
    frame: SharedFrame<'static>,
}

impl SharedPage {
    /// The page of a frame.
    #[must_use]
    pub fn new(frame: SharedFrame<'static>) -> Self {
        SharedPage { va: direct_map::va_of(frame.mfn()), frame }
    }

    /// Its frame number.
    #[must_use]
    pub const fn mfn(&self) -> Mfn {
        self.frame.mfn()
    }

    /// Ends the use of the page as one.
    #[must_use = "the page would be lost"]
    pub fn into_frame(self) -> SharedFrame<'static> {
        self.frame
    }

    #[inline(always)]
    fn word8(&self, offset: usize) -> &AtomicU8 {
        // SAFETY: `SharedFrame` proves that the frame is memory that may be written at any time, and memory is in the
        // direct map; the offset is below a page; all accesses, the guest's aside, are atomic.
        unsafe { &*((self.va + (offset as u64 & 0xfff)) as *const AtomicU8) }
    }

    #[inline(always)]
    fn word32(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: as in `word8`; aligned by the mask.
        unsafe { &*((self.va + (offset as u64 & 0xffc)) as *const AtomicU32) }
    }

    #[inline(always)]
    fn word64(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: as in `word8`; aligned by the mask.
        unsafe { &*((self.va + (offset as u64 & 0xff8)) as *const AtomicU64) }
    }

    /// Reads a byte.
    #[inline(always)]
    #[must_use]
    pub fn load8(&self, offset: usize) -> u8 {
        self.word8(offset).load(Ordering::SeqCst)
    }

    /// Writes a byte.
    #[inline(always)]
    pub fn store8(&self, offset: usize, value: u8) {
        self.word8(offset).store(value, Ordering::Release);
    }

    /// Writes a byte and reads the old one, as a full barrier.
    #[inline(always)]
    pub fn swap8(&self, offset: usize, value: u8) -> u8 {
        self.word8(offset).swap(value, Ordering::SeqCst)
    }

    /// Reads 32 bits.
    #[inline(always)]
    #[must_use]
    pub fn load32(&self, offset: usize) -> u32 {
        self.word32(offset).load(Ordering::Acquire)
    }

    /// Writes 32 bits, after everything written before.
    #[inline(always)]
    pub fn store32(&self, offset: usize, value: u32) {
        self.word32(offset).store(value, Ordering::Release);
    }

    /// Reads 64 bits.
    #[inline(always)]
    #[must_use]
    pub fn load64(&self, offset: usize) -> u64 {
        self.word64(offset).load(Ordering::SeqCst)
    }

    /// Writes 64 bits, after everything written before.
    #[inline(always)]
    pub fn store64(&self, offset: usize, value: u64) {
        self.word64(offset).store(value, Ordering::Release);
    }

    /// Sets bits; the old value.
    #[inline(always)]
    pub fn or64(&self, offset: usize, bits: u64) -> u64 {
        self.word64(offset).fetch_or(bits, Ordering::SeqCst)
    }

    /// Keeps bits; the old value.
    #[inline(always)]
    pub fn and64(&self, offset: usize, mask: u64) -> u64 {
        self.word64(offset).fetch_and(mask, Ordering::SeqCst)
    }

    /// Exchanges 64 bits if they are `old`; else what they are.
    #[inline(always)]
    pub fn compare_exchange64(&self, offset: usize, old: u64, new: u64) -> Result<(), u64> {
        self.word64(offset).compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).map(drop)
    }
}

impl logic::grant::EntryPage for SharedPage {
    fn mfn(&self) -> Mfn {
        self.mfn()
    }

    #[inline(always)]
    fn load(&self, index: usize) -> u64 {
        self.load64(index * 8)
    }

    #[inline(always)]
    fn store(&self, index: usize, word: u64) {
        self.store64(index * 8, word);
    }

    #[inline(always)]
    fn compare_exchange(&self, index: usize, old: u64, new: u64) -> Result<(), u64> {
        self.compare_exchange64(index * 8, old, new)
    }

    #[inline(always)]
    fn and(&self, index: usize, mask: u64) {
        self.and64(index * 8, mask);
    }
}

//! Memory that a guest and the hypervisor both write: single atomic accesses, never a reference to plain data.
//!
//! Offsets are brought into the page and onto their alignment by masking, so that a wrong one can hit the wrong field of
//! this page and nothing else.
//!
//! Unsafe: atomic access to pages that guests write.

use alloc::sync::Arc;
use core::borrow::Borrow;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use arrayvec::ArrayVec;

use logic::grant::EntryPage;
use logic::lock::{SpinLock, rank};
use logic::page::SharedFrame;
use xen_abi::ids::Mfn;

use super::direct_map;
use crate::mailbox::Poll;

/// A shared page through the direct map.
#[derive(Debug)]
pub struct SharedPage {
    frame: SharedFrame<'static>,
    /// Where it is in the direct map.
    va: u64,
}

impl SharedPage {
    /// The page of a frame.
    #[must_use]
    pub const fn new(frame: SharedFrame<'static>) -> Self {
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

    /// Access to it.
    #[inline(always)]
    #[must_use]
    pub const fn view(&self) -> SharedView<'_> {
        SharedView { va: self.va, page: PhantomData }
    }
}

/// Proof that every CPU has left the hypervisor, or waited in it, since a page could last be found in its slot. So no
/// CPU is in the middle of an access to it.
#[derive(Debug)]
pub struct Quiesced(());

impl Quiesced {
    /// Has every CPU answer a message, which none does in the middle of an access: accesses do not wait.
    #[cfg(target_os = "none")]
    #[must_use]
    pub fn wait() -> Self {
        crate::mailbox::call(crate::mailbox::online(), |_| {}, 0);
        Quiesced(())
    }
}

/// A place for one shared page that other CPUs find without a lock. It holds the page itself, or a share in it.
#[derive(Debug, Default)]
pub struct SharedSlot<P = SharedPage> {
    /// 0: empty.
    va: AtomicU64,
    page: SpinLock<Option<P>, { rank::LEAF }, Poll>,
}

impl<P> SharedSlot<P> {
    /// Empty.
    #[must_use]
    pub const fn new() -> Self {
        SharedSlot { va: AtomicU64::new(0), page: SpinLock::new(None) }
    }
}

impl<P: Borrow<SharedPage>> SharedSlot<P> {
    /// Fills it; the page comes back if it is full.
    pub fn fill(&self, page: P) -> Result<(), P> {
        self.page.lock_leaf(|slot| {
            if slot.is_some() {
                return Err(page);
            }
            let page: &P = slot.insert(page);
            self.va.store(page.borrow().view().va, Ordering::Release);
            Ok(())
        })
    }

    /// Access to the page, if there is one. Not to be kept while this CPU waits for anything.
    #[inline(always)]
    #[must_use]
    pub fn view(&self) -> Option<SharedView<'_>> {
        let va = self.va.load(Ordering::Acquire);
        (va != 0).then_some(SharedView { va, page: PhantomData })
    }

    /// The frame of the page, if there is one.
    #[must_use]
    pub fn mfn(&self) -> Option<Mfn> {
        self.page.lock_leaf(|slot| slot.as_ref().map(|page| page.borrow().mfn()))
    }

    /// One more share in the page, if there is one.
    #[must_use]
    pub fn share(&self) -> Option<P>
    where
        P: Clone,
    {
        self.page.lock_leaf(|slot| slot.clone())
    }

    /// Nobody finds the page any more. Those who have found it may still use it: see [`SharedSlot::take`].
    pub fn close(&self) {
        self.va.store(0, Ordering::SeqCst);
    }

    /// Takes the page out, once it was closed and all CPUs have passed a point without access since.
    pub fn take(&self, _proof: &Quiesced) -> Option<P> {
        self.page.lock_leaf(Option::take)
    }
}

/// Bytes of a record in a [`RecordSlot`].
pub const RECORD: usize = 64;

/// A place for one record of [`RECORD`] bytes in a shared page that other CPUs find without a lock. The record can move to
/// another page once; the slot holds on to both, since others may still use the first.
#[derive(Debug, Default)]
pub struct RecordSlot {
    /// 0: empty.
    va: AtomicU64,
    pages: SpinLock<ArrayVec<Arc<SharedPage>, 2>, { rank::LEAF }, Poll>,
}

impl RecordSlot {
    /// Empty.
    #[must_use]
    pub const fn new() -> Self {
        RecordSlot { va: AtomicU64::new(0), pages: SpinLock::new(ArrayVec::new_const()) }
    }

    /// The record is at `offset` of a page now. The page comes back if the record has moved before, or does not fit there
    /// (its offset is a multiple of 8).
    pub fn point(&self, page: Arc<SharedPage>, offset: usize) -> Result<(), Arc<SharedPage>> {
        if !offset.is_multiple_of(8) || offset > 4096 - RECORD {
            return Err(page);
        }
        self.pages.lock_leaf(|pages| {
            let va = page.view().va + offset as u64;
            pages.try_push(page).map_err(arrayvec::CapacityError::element)?;
            self.va.store(va, Ordering::Release);
            Ok(())
        })
    }

    /// Access to the record, if there is one. Not to be kept while this CPU waits for anything.
    #[inline(always)]
    #[must_use]
    pub fn view(&self) -> Option<SharedRecord<'_>> {
        let va = self.va.load(Ordering::Acquire);
        (va != 0).then_some(SharedRecord { va, page: PhantomData })
    }

    /// The frames of the pages that it is and was in.
    pub fn frames(&self, each: impl FnMut(Mfn)) {
        self.pages.lock_leaf(|pages| pages.iter().map(|page| page.mfn()).for_each(each));
    }

    /// Nobody finds the record any more. Those who have found it may still use it: see [`RecordSlot::take`].
    pub fn close(&self) {
        self.va.store(0, Ordering::SeqCst);
    }

    /// Takes a page out, once it was closed and all CPUs have passed a point without access since.
    pub fn take(&self, _proof: &Quiesced) -> Option<Arc<SharedPage>> {
        self.pages.lock_leaf(ArrayVec::pop)
    }
}

/// Access to `SIZE` bytes of a shared page, a power of two.
#[derive(Clone, Copy, Debug)]
pub struct Shared<'a, const SIZE: usize> {
    va: u64,
    page: PhantomData<&'a SharedPage>,
}

/// Access to a whole shared page.
pub type SharedView<'a> = Shared<'a, 4096>;
/// Access to one record of a shared page.
pub type SharedRecord<'a> = Shared<'a, RECORD>;

impl<'a> SharedView<'a> {
    /// Access to the record at `offset`, which is brought into the page.
    #[must_use]
    pub const fn record(self, offset: usize) -> SharedRecord<'a> {
        self.part(offset)
    }

    /// Access to a part of the page at `offset`, which is brought into the page and onto a multiple of 8.
    #[inline(always)]
    #[must_use]
    pub const fn part<const PART: usize>(self, offset: usize) -> Shared<'a, PART> {
        let last = const { 4096 - PART };
        let offset = if offset > last { last } else { offset & !7 };
        Shared { va: self.va + offset as u64, page: PhantomData }
    }
}

impl<'a, const SIZE: usize> Shared<'a, SIZE> {
    /// The address of an offset, brought into the bytes and aligned to `align`.
    #[inline(always)]
    const fn at(self, offset: usize, align: usize) -> u64 {
        const { assert!(SIZE.is_power_of_two() && SIZE >= 8) };
        self.va + (offset & (SIZE - align)) as u64
    }

    #[inline(always)]
    fn word8(self, offset: usize) -> &'a AtomicU8 {
        // SAFETY: `SharedFrame` proves that the frame is memory that may be written at any time, and memory is in the
        // direct map; the bytes are in it; all accesses, the guest's aside, are atomic. A view from a slot is not kept
        // across a point where its CPU answers messages, so the page is not taken out under it.
        unsafe { &*(self.at(offset, 1) as *const AtomicU8) }
    }

    #[inline(always)]
    fn word16(self, offset: usize) -> &'a AtomicU16 {
        // SAFETY: as in `word8`; the bytes begin at a multiple of 8, and the offset is aligned.
        unsafe { &*(self.at(offset, 2) as *const AtomicU16) }
    }

    #[inline(always)]
    fn word32(self, offset: usize) -> &'a AtomicU32 {
        // SAFETY: as in `word16`.
        unsafe { &*(self.at(offset, 4) as *const AtomicU32) }
    }

    #[inline(always)]
    fn word64(self, offset: usize) -> &'a AtomicU64 {
        // SAFETY: as in `word16`.
        unsafe { &*(self.at(offset, 8) as *const AtomicU64) }
    }

    /// Reads a byte.
    #[inline(always)]
    #[must_use]
    pub fn load8(self, offset: usize) -> u8 {
        self.word8(offset).load(Ordering::SeqCst)
    }

    /// Writes a byte.
    #[inline(always)]
    pub fn store8(self, offset: usize, value: u8) {
        self.word8(offset).store(value, Ordering::Release);
    }

    /// Writes a byte and reads the old one, as a full barrier.
    #[inline(always)]
    pub fn swap8(self, offset: usize, value: u8) -> u8 {
        self.word8(offset).swap(value, Ordering::SeqCst)
    }

    /// Reads 16 bits.
    #[inline(always)]
    #[must_use]
    pub fn load16(self, offset: usize) -> u16 {
        self.word16(offset).load(Ordering::SeqCst)
    }

    /// Reads 32 bits.
    #[inline(always)]
    #[must_use]
    pub fn load32(self, offset: usize) -> u32 {
        self.word32(offset).load(Ordering::Acquire)
    }

    /// Writes 32 bits, after everything written before.
    #[inline(always)]
    pub fn store32(self, offset: usize, value: u32) {
        self.word32(offset).store(value, Ordering::Release);
    }

    /// Sets bits of 32; the old value.
    #[inline(always)]
    pub fn or32(self, offset: usize, bits: u32) -> u32 {
        self.word32(offset).fetch_or(bits, Ordering::SeqCst)
    }

    /// Keeps bits of 32; the old value.
    #[inline(always)]
    pub fn and32(self, offset: usize, mask: u32) -> u32 {
        self.word32(offset).fetch_and(mask, Ordering::SeqCst)
    }

    /// Exchanges 32 bits if they are `old`; else what they are.
    #[inline(always)]
    pub fn compare_exchange32(self, offset: usize, old: u32, new: u32) -> Result<(), u32> {
        self.word32(offset).compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).map(drop)
    }

    /// Reads 64 bits.
    #[inline(always)]
    #[must_use]
    pub fn load64(self, offset: usize) -> u64 {
        self.word64(offset).load(Ordering::SeqCst)
    }

    /// Writes 64 bits, after everything written before.
    #[inline(always)]
    pub fn store64(self, offset: usize, value: u64) {
        self.word64(offset).store(value, Ordering::Release);
    }

    /// Sets bits; the old value.
    #[inline(always)]
    pub fn or64(self, offset: usize, bits: u64) -> u64 {
        self.word64(offset).fetch_or(bits, Ordering::SeqCst)
    }

    /// Sets a bit of a word, below 64; whether it was set. A full barrier.
    #[inline(always)]
    pub fn test_and_set(self, offset: usize, bit: u32) -> bool {
        #[cfg(target_os = "none")]
        {
            // SAFETY: the word is in the page (see `word8`), and the bit in the word by the mask; one locked access.
            unsafe {
                core::arch::asm!("lock bts qword ptr [{word}], {bit}", "jc {set}",
                    word = in(reg) self.word64(offset).as_ptr(), bit = in(reg) u64::from(bit & 63),
                    set = label { return true }, options(nostack));
            }
            false
        }
        #[cfg(not(target_os = "none"))]
        {
            let mask = 1 << (bit & 63);
            self.or64(offset, mask) & mask != 0
        }
    }

    /// Keeps bits; the old value.
    #[inline(always)]
    pub fn and64(self, offset: usize, mask: u64) -> u64 {
        self.word64(offset).fetch_and(mask, Ordering::SeqCst)
    }

    /// Exchanges 64 bits if they are `old`; else what they are.
    #[inline(always)]
    pub fn compare_exchange64(self, offset: usize, old: u64, new: u64) -> Result<(), u64> {
        self.word64(offset).compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).map(drop)
    }
}

impl EntryPage for SharedPage {
    type Cell<'a> = &'a AtomicU64;

    fn mfn(&self) -> Mfn {
        SharedPage::mfn(self)
    }

    #[inline(always)]
    fn cell(&self, index: usize) -> &AtomicU64 {
        self.view().word64(index * 8)
    }

    #[cfg(target_os = "none")]
    fn empty(&self) {
        // SAFETY: all of the page, which nobody has a reference to but as atomic words; a guest that looks meanwhile sees
        // words that are zero already or not yet.
        unsafe {
            core::arch::asm!("rep stosq", inout("rdi") self.cell(0).as_ptr() => _, inout("rcx") 512u64 => _,
                in("rax") 0u64, options(nostack));
        }
    }

    #[cfg(not(target_os = "none"))]
    fn is_mapped(&self) -> bool {
        // Nobody maps anything on the host.
        false
    }

    #[cfg(target_os = "none")]
    fn is_mapped(&self) -> bool {
        // The allocation is one reference.
        super::frame_table::frames().ram(self.mfn()).is_some_and(|frame| frame.info().references() > 1)
    }
}

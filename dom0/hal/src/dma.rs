//! Memory that devices read and write.
//!
//! A driver names memory to a device by a [`Segment`], and a segment holds its memory: it can neither be freed nor given
//! back to the domain that granted it before the driver drops the segment. A driver does that when the device has
//! answered, or after it has reset the device.
//!
//! Unsafe: pages of our own become memory that a device writes.

use alloc::rc::Rc;
use core::ops::Deref;
use guest_pv::mem::contiguous::Run;
use guest_pv::mem::{Frame, Mapping, PAGE_BYTES, SharedBytes};

/// A page of our own for a device, full of zeros. Its contents are reached as [`SharedBytes`]: there are no references
/// into it, since the device writes it when it likes.
#[derive(Debug)]
pub struct Page {
    bytes: SharedBytes,
    frame: Frame,
}

impl Page {
    /// Takes a page.
    #[must_use]
    pub fn new() -> Option<Self> {
        let frame = Frame::zeroed()?;
        // SAFETY: the frame is mapped for as long as it lives, which is as long as this does, and nothing else refers
        // to its contents.
        let bytes = unsafe { SharedBytes::new(frame.address() as *mut u8, PAGE_BYTES) };
        Some(Self { bytes, frame })
    }

    /// Its address for the device.
    #[must_use]
    pub fn machine_address(&self) -> u64 {
        self.frame.mfn().0 << 12
    }
}

impl Deref for Page {
    type Target = SharedBytes;

    fn deref(&self) -> &SharedBytes {
        &self.bytes
    }
}

/// Some pages of our own for a device, in one piece for it as well, full of zeros; otherwise as [`Page`].
#[derive(Debug)]
pub struct Area {
    bytes: SharedBytes,
    run: Run,
}

impl Area {
    /// Takes `1 << order` pages.
    #[must_use]
    pub fn new(order: u32) -> Option<Self> {
        let run = Run::zeroed(order)?;
        // SAFETY: the pages are mapped for as long as the run lives, which is as long as this does, and nothing else refers
        // to their contents.
        let bytes = unsafe { SharedBytes::new(run.address() as *mut u8, run.len()) };
        Some(Self { bytes, run })
    }

    /// Its address for the device.
    #[must_use]
    pub fn machine_address(&self) -> u64 {
        self.run.mfn().0 << 12
    }
}

impl Deref for Area {
    type Target = SharedBytes;

    fn deref(&self) -> &SharedBytes {
        &self.bytes
    }
}

/// Pages in one place of our address space.
#[derive(Debug)]
pub enum Memory {
    /// One of ours.
    Own(Page),
    /// Some that another domain granted.
    Granted(Mapping),
}

impl Memory {
    fn bytes(&self) -> &SharedBytes {
        match self {
            Self::Own(page) => page,
            Self::Granted(mapping) => mapping,
        }
    }

    fn machine_address(&self, page: usize) -> Option<u64> {
        match self {
            Self::Own(own) => (page == 0).then(|| own.machine_address()),
            Self::Granted(mapping) => mapping.machine_address(page),
        }
    }
}

/// A part of a page, held.
#[derive(Clone, Debug)]
pub struct Segment {
    memory: Rc<Memory>,
    /// Machine address of its first byte.
    address: u64,
    /// Where it begins in the memory.
    offset: usize,
    len: usize,
}

impl Segment {
    /// `len` bytes of page number `page` of some memory, from `offset` within the page on; `None` where it has no such
    /// bytes.
    #[must_use]
    pub fn new(memory: &Rc<Memory>, page: usize, offset: usize, len: usize) -> Option<Self> {
        if offset.checked_add(len)? > PAGE_BYTES {
            return None;
        }
        let address = memory.machine_address(page)? + offset as u64;
        Some(Self { memory: memory.clone(), address, offset: page * PAGE_BYTES + offset, len })
    }

    /// A new page of our own, whole.
    #[must_use]
    pub fn own() -> Option<Self> {
        Self::new(&Rc::new(Memory::Own(Page::new()?)), 0, 0, PAGE_BYTES)
    }

    /// Its address for the device.
    #[must_use]
    pub fn machine_address(&self) -> u64 {
        self.address
    }

    /// Its bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies from it, from `at` on; what is past its end is left alone.
    pub fn read(&self, at: usize, to: &mut [u8]) {
        let len = to.len().min(self.len.saturating_sub(at));
        self.memory.bytes().read(self.offset + at.min(self.len), &mut to[..len]);
    }

    /// Copies to it, from `at` on; what is past its end goes nowhere.
    pub fn write(&self, at: usize, from: &[u8]) {
        let len = from.len().min(self.len.saturating_sub(at));
        self.memory.bytes().write(self.offset + at.min(self.len), &from[..len]);
    }

    /// All but the first `at` bytes of it.
    #[must_use]
    pub fn rest(&self, at: usize) -> Self {
        let at = at.min(self.len);
        let (address, offset) = (self.address + at as u64, self.offset + at);
        Self { memory: self.memory.clone(), address, offset, len: self.len - at }
    }

    /// The first `len` bytes of it.
    #[must_use]
    pub fn shortened(&self, len: usize) -> Self {
        Self { len: len.min(self.len), ..self.clone() }
    }
}

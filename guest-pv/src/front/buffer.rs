//! Pages of our own that a back end may read and write.

use super::Error;
use crate::grants;
use crate::mem::{Access, Frame, Mapping, PAGE_BYTES, SharedBytes};
use alloc::vec::Vec;
use core::ops::Deref;
use xen_abi::errno::Errno;
use xen_abi::ids::{DomId, GrantRef};

/// Pages granted to one domain, mapped side by side. Their contents are reached as [`SharedBytes`] alone: the other domain
/// writes them when it likes.
///
/// When it is dropped the permission is taken back. Pages that the other domain has mapped at that moment are never used
/// again, since it may write them still.
#[derive(Debug)]
pub struct Buffer {
    bytes: Option<Mapping>,
    pages: Vec<(Frame, GrantRef)>,
}

impl Buffer {
    /// So many pages of zeros, for `dom`.
    ///
    /// # Errors
    /// `ENOMEM` without memory, else those of granting.
    pub fn new(dom: DomId, pages: usize, access: Access) -> Result<Self, Error> {
        let mut this = Self { bytes: None, pages: Vec::with_capacity(pages) };
        let mut frames = Vec::with_capacity(pages);
        for _ in 0..pages {
            let frame = Frame::zeroed().ok_or(Errno::ENOMEM)?;
            let reference = grants::grant(dom, frame.mfn(), access)?;
            frames.push(frame.mfn().0);
            this.pages.push((frame, reference));
        }
        this.bytes = Some(Mapping::own(&frames, Access::ReadWrite).map_err(|error| error.errno)?);
        Ok(this)
    }

    /// The permissions, page by page.
    pub fn references(&self) -> impl Iterator<Item = GrantRef> {
        self.pages.iter().map(|(_, reference)| *reference)
    }

    /// The permission for one page.
    ///
    /// # Panics
    /// Where there is no such page.
    pub fn reference(&self, page: usize) -> GrantRef {
        self.pages[page].1
    }

    /// How many pages.
    pub fn pages(&self) -> usize {
        self.pages.len()
    }

    /// How many of its pages the other domain has mapped.
    pub fn mapped(&self) -> usize {
        self.references().filter(|reference| grants::is_mapped(*reference)).count()
    }

    /// Its bytes.
    pub fn size(&self) -> usize {
        self.pages.len() * PAGE_BYTES
    }
}

impl Deref for Buffer {
    type Target = SharedBytes;

    fn deref(&self) -> &SharedBytes {
        self.bytes.as_deref().expect("a buffer that was made is mapped")
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // First our own second mapping: a frame in the allocator is mapped once.
        self.bytes = None;
        for (frame, reference) in self.pages.drain(..) {
            if grants::revoke(reference).is_err() {
                frame.leak();
            }
        }
    }
}

//! A shared page, as something that can be copied from and copied to; there are no references into it.

/// Memory that a peer reads and writes at the same time.
///
/// Offsets given by this crate are constants or were reduced to their ring, so an implementation may panic on others.
pub trait Page {
    /// Reads a u32 at a multiple of 4. Later reads of the page do not move before it (acquire).
    fn load_u32(&self, offset: usize) -> u32;
    /// Writes a u32 at a multiple of 4. Earlier accesses to the page do not move behind it (release).
    fn store_u32(&self, offset: usize, value: u32);
    /// Copies from the page.
    fn read(&self, offset: usize, to: &mut [u8]);
    /// Copies to the page.
    fn write(&self, offset: usize, from: &[u8]);
    /// Orders all earlier accesses before all later ones: between telling the peer an index and looking at its index
    /// once more before going to sleep.
    fn fence(&self);
}

impl<P: Page + ?Sized> Page for &P {
    fn load_u32(&self, offset: usize) -> u32 {
        (**self).load_u32(offset)
    }
    fn store_u32(&self, offset: usize, value: u32) {
        (**self).store_u32(offset, value);
    }
    fn read(&self, offset: usize, to: &mut [u8]) {
        (**self).read(offset, to);
    }
    fn write(&self, offset: usize, from: &[u8]) {
        (**self).write(offset, from);
    }
    fn fence(&self) {
        (**self).fence();
    }
}

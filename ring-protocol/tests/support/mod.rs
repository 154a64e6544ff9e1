//! Memory for rings, in one thread.

use ring_protocol::page::Page;
use std::cell::RefCell;

/// Pages of zeros.
pub struct Memory(RefCell<Vec<u8>>);

impl Memory {
    /// So many of them.
    pub fn new(pages: usize) -> Self {
        Self(RefCell::new(vec![0; 4096 * pages]))
    }

    /// Their bytes.
    #[allow(dead_code, reason = "not every user asks")]
    pub fn len(&self) -> usize {
        self.0.borrow().len()
    }
}

impl Page for Memory {
    fn load_u32(&self, offset: usize) -> u32 {
        let mut bytes = [0; 4];
        self.read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }
    fn store_u32(&self, offset: usize, value: u32) {
        self.write(offset, &value.to_le_bytes());
    }
    fn read(&self, offset: usize, to: &mut [u8]) {
        to.copy_from_slice(&self.0.borrow()[offset..offset + to.len()]);
    }
    fn write(&self, offset: usize, from: &[u8]) {
        self.0.borrow_mut()[offset..offset + from.len()].copy_from_slice(from);
    }
    fn fence(&self) {}
}

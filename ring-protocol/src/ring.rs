//! A ring of bytes with one writer and one reader, as xenstore and consoles use it.
//!
//! Indices run freely modulo 2^32; the place of a byte is its index modulo the size, a power of two.

use crate::page::Page;
use crate::peer::Fault;

/// Where a ring lies in its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    data: usize,
    size: u32,
    consumer: usize,
    producer: usize,
}

impl Layout {
    /// A ring of `size` bytes at offset `data`, with its indices at the other offsets.
    ///
    /// # Panics
    /// When the size is not a power of two; layouts are constants, so the compiler sees that.
    #[must_use]
    pub const fn new(data: usize, size: usize, consumer: usize, producer: usize) -> Self {
        assert!(size.is_power_of_two() && size <= 1 << 30 && consumer.is_multiple_of(4) && producer.is_multiple_of(4));
        #[allow(clippy::cast_possible_truncation, reason = "checked above")]
        Self { data, size: size as u32, consumer, producer }
    }

    /// Bytes in use, if the indices are possible at all.
    const fn used(&self, consumer: u32, producer: u32) -> Result<u32, Fault> {
        let used = producer.wrapping_sub(consumer);
        if used > self.size { Err(Fault::Indices { consumer, producer }) } else { Ok(used) }
    }

    /// Splits `len` bytes from `index` on at the end of the ring: offset and length of the first part; the rest begins
    /// at `data`.
    fn split(&self, index: u32, len: usize) -> (usize, usize) {
        let at = (index & (self.size - 1)) as usize;
        (self.data + at, len.min(self.size as usize - at))
    }
}

/// Advances an index by a length that was limited by a ring's size.
fn advance(index: u32, len: usize) -> u32 {
    index.wrapping_add(u32::try_from(len).unwrap_or(0))
}

/// The writer's end.
#[derive(Debug)]
pub struct Writer {
    ring: Layout,
    producer: u32,
}

impl Writer {
    /// The end of a ring that starts empty at index 0.
    #[must_use]
    pub const fn new(ring: Layout) -> Self {
        Self { ring, producer: 0 }
    }

    /// The end of a ring that may have been in use: goes on where its indices stand.
    ///
    /// # Errors
    /// When they are impossible.
    pub fn attach(ring: Layout, page: &impl Page) -> Result<Self, Fault> {
        let producer = page.load_u32(ring.producer);
        ring.used(page.load_u32(ring.consumer), producer)?;
        Ok(Self { ring, producer })
    }

    /// Bytes that can be written now.
    ///
    /// # Errors
    /// When the reader's index is impossible.
    pub fn room(&self, page: &impl Page) -> Result<usize, Fault> {
        let used = self.ring.used(page.load_u32(self.ring.consumer), self.producer)?;
        Ok((self.ring.size - used) as usize)
    }

    /// Writes as much as there is room for and returns how much that was.
    ///
    /// # Errors
    /// When the reader's index is impossible.
    pub fn write(&mut self, page: &impl Page, bytes: &[u8]) -> Result<usize, Fault> {
        let count = self.room(page)?.min(bytes.len());
        let (bytes, _) = bytes.split_at(count);
        if count > 0 {
            let (at, first) = self.ring.split(self.producer, count);
            let (head, tail) = bytes.split_at(first);
            page.write(at, head);
            if !tail.is_empty() {
                page.write(self.ring.data, tail);
            }
            self.producer = advance(self.producer, count);
            page.store_u32(self.ring.producer, self.producer);
        }
        Ok(count)
    }
}

/// The reader's end.
#[derive(Debug)]
pub struct Reader {
    ring: Layout,
    consumer: u32,
}

impl Reader {
    /// The end of a ring that starts empty at index 0.
    #[must_use]
    pub const fn new(ring: Layout) -> Self {
        Self { ring, consumer: 0 }
    }

    /// The end of a ring that may have been in use: goes on where its indices stand.
    ///
    /// # Errors
    /// When they are impossible.
    pub fn attach(ring: Layout, page: &impl Page) -> Result<Self, Fault> {
        let consumer = page.load_u32(ring.consumer);
        ring.used(consumer, page.load_u32(ring.producer))?;
        Ok(Self { ring, consumer })
    }

    /// Bytes that can be read now.
    ///
    /// # Errors
    /// When the writer's index is impossible.
    pub fn available(&self, page: &impl Page) -> Result<usize, Fault> {
        Ok(self.ring.used(self.consumer, page.load_u32(self.ring.producer))? as usize)
    }

    /// Reads as much as there is and fits, and returns how much that was.
    ///
    /// # Errors
    /// When the writer's index is impossible.
    pub fn read(&mut self, page: &impl Page, to: &mut [u8]) -> Result<usize, Fault> {
        let count = self.available(page)?.min(to.len());
        if count > 0 {
            let (to, _) = to.split_at_mut(count);
            let (at, first) = self.ring.split(self.consumer, count);
            let (head, tail) = to.split_at_mut(first);
            page.read(at, head);
            if !tail.is_empty() {
                page.read(self.ring.data, tail);
            }
            self.consumer = advance(self.consumer, count);
            page.store_u32(self.ring.consumer, self.consumer);
        }
        Ok(count)
    }
}

//! A split virtqueue (virtio 1.2, 2.7) all of whose requests are indirect: descriptor N always names table N, so nothing
//! has to be allocated per request.
//!
//! What the device writes is checked like what a guest writes: it names a request that is under way, or it is broken.

use super::transport::{Places, Transport};
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{Ordering, fence};
use dom0_hal::dma::Page;

/// Requests under way at most.
const SLOTS: u16 = 64;
/// Descriptors of a page.
const LONGEST: u16 = 256;
/// Bytes of a descriptor.
const DESCRIPTOR: usize = 16;
/// In a table's page: descriptors up to here, then what belongs to the request itself.
pub const PRIVATE: usize = 3840;
/// Parts that a request may have.
pub const PARTS: usize = PRIVATE / DESCRIPTOR;

/// Flags of a descriptor.
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// Flag of the used ring: the device need not be told.
const NO_NOTIFY: u16 = 1;

/// A part of a request.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Its machine address.
    pub address: u64,
    /// Its bytes.
    pub len: u32,
    /// The device writes it.
    pub written: bool,
}

/// A queue.
#[derive(Debug)]
pub struct Queue {
    number: u16,
    size: u16,
    descriptors: Page,
    available: Page,
    used: Page,
    /// A page for each request: its descriptors, and what belongs to it.
    tables: Vec<Page>,
    free: VecDeque<u16>,
    busy: u64,
    next_available: u16,
    next_used: u16,
    notify_at: usize,
}

/// The device named a request that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

impl Queue {
    /// Makes a queue and gives it to the device.
    pub fn new(transport: &Transport, number: u16, vector: u16) -> Result<Self, String> {
        let size = transport.queue_size(number).min(LONGEST);
        if size == 0 || !size.is_power_of_two() {
            return Err(String::from("it has no queue"));
        }
        let page = || Page::new().ok_or_else(|| String::from("no memory"));
        let slots = size.min(SLOTS);
        let tables = (0..slots).map(|_| page()).collect::<Result<Vec<Page>, String>>()?;
        let mut this = Self {
            number,
            size,
            descriptors: page()?,
            available: page()?,
            used: page()?,
            tables,
            free: (0..slots).collect(),
            busy: 0,
            next_available: 0,
            next_used: 0,
            notify_at: 0,
        };
        this.hand_over(transport, vector)?;
        Ok(this)
    }

    /// Gives the queue to a device that was reset.
    pub fn hand_over(&mut self, transport: &Transport, vector: u16) -> Result<(), String> {
        for page in [&self.descriptors, &self.available, &self.used] {
            page.zero(0, page.len());
        }
        self.release_all();
        (self.next_available, self.next_used) = (0, 0);
        let places = Places {
            descriptors: self.descriptors.machine_address(),
            driver: self.available.machine_address(),
            device: self.used.machine_address(),
        };
        self.notify_at = transport.set_queue(self.number, self.size, vector, places)?;
        Ok(())
    }

    /// No request is under way: the device was reset or is gone.
    pub fn release_all(&mut self) {
        self.free = (0..u16::try_from(self.tables.len()).unwrap_or(0)).collect();
        self.busy = 0;
    }

    /// A free request, and its page.
    pub fn reserve(&mut self) -> Option<u16> {
        self.free.pop_front()
    }

    /// A request's page.
    pub fn table(&self, slot: u16) -> Option<&Page> {
        self.tables.get(usize::from(slot))
    }

    /// Queues a request that was reserved. It has at most [`PARTS`] parts.
    pub fn push(&mut self, slot: u16, parts: impl ExactSizeIterator<Item = Part>) {
        let Some(table) = self.tables.get(usize::from(slot)) else {
            return;
        };
        let count = parts.len().min(PARTS);
        for (index, part) in (0u16..).zip(parts.take(count)) {
            let last = usize::from(index) + 1 == count;
            let flags = if part.written { WRITE } else { 0 } | if last { 0 } else { NEXT };
            write(table, index, part.address, part.len, flags, index + 1);
        }
        let bytes = u32::try_from(count * DESCRIPTOR).unwrap_or(0);
        write(&self.descriptors, slot, table.machine_address(), bytes, INDIRECT, 0);
        // The ring of what is available: flags, index, entries.
        self.available.u16_at(4 + usize::from(self.next_available % self.size) * 2).store(slot, Ordering::Relaxed);
        self.next_available = self.next_available.wrapping_add(1);
        self.busy |= 1 << slot;
    }

    /// Shows what was queued; the device is told if it wants to be.
    pub fn kick(&mut self, transport: &Transport) {
        self.available.u16_at(2).store(self.next_available, Ordering::Release);
        // The index must be seen before we look whether the device sleeps.
        fence(Ordering::SeqCst);
        if self.used.u16_at(0).load(Ordering::Acquire) & NO_NOTIFY == 0 {
            transport.notify(self.number, self.notify_at);
        }
    }

    /// The next request that is done; it is free again after [`Queue::release`].
    pub fn pop(&mut self) -> Result<Option<u16>, Broken> {
        let index = self.used.u16_at(2).load(Ordering::Acquire);
        if index == self.next_used {
            return Ok(None);
        }
        if usize::from(index.wrapping_sub(self.next_used)) > self.tables.len() {
            return Err(Broken);
        }
        let id = self.used.load_u32(4 + usize::from(self.next_used % self.size) * 8);
        let slot = u16::try_from(id).map_err(|_| Broken)?;
        if usize::from(slot) >= self.tables.len() || self.busy & 1 << slot == 0 {
            return Err(Broken);
        }
        self.next_used = self.next_used.wrapping_add(1);
        self.busy &= !(1 << slot);
        Ok(Some(slot))
    }

    /// Nobody looks at the request's page any more.
    pub fn release(&mut self, slot: u16) {
        self.free.push_back(slot);
    }
}

fn write(table: &Page, index: u16, address: u64, len: u32, flags: u16, next: u16) {
    let at = usize::from(index) * DESCRIPTOR;
    table.store_u64(at, address);
    table.store_u32(at + 8, len);
    table.u16_at(at + 12).store(flags, Ordering::Relaxed);
    table.u16_at(at + 14).store(next, Ordering::Relaxed);
}

//! The front end of block devices.
//!
//! Data lies in [`Buffer`]s, which stay granted for as long as they live; with a back end that keeps grants each page is
//! mapped once (`feature-persistent`). A request with more segments than fit its slot gets a page that lists them.

use super::device::Channel;
use super::{Buffer, Device, Error};
use crate::call::sched;
use crate::events;
use crate::mem::{Access, PAGE_BYTES};
use crate::xenstore::Xenstore;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use ring_protocol::blk::front::{Queue, Tag};
use ring_protocol::blk::wire::{
    Direction, Layout, Operation, SECTOR, SECTORS_PER_PAGE, SEGMENT, SEGMENTS_PER_PAGE, Segment, Status, segment_bytes,
};
use ring_protocol::sring::Wake;
use ring_protocol::xenbus::State;
use xen_abi::ids::DomId;
use xen_abi::io::blkif::{BLKIF_MAX_SEGMENTS_PER_REQUEST, VDISK_READONLY};

/// Bytes of a sector, for sizes of memory.
const BYTES: usize = SECTOR as usize;

/// How to connect.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// Pages of each ring, as an order; fewer where the back end does not offer so many.
    pub order: u32,
    /// Queues; fewer where the back end does not offer so many.
    pub queues: u32,
    /// Let the back end keep our pages mapped, if it can.
    pub persistent: bool,
    /// How requests are laid out.
    pub layout: Layout,
}

impl Default for Wish {
    fn default() -> Self {
        Self { order: 0, queues: 1, persistent: true, layout: Layout::default() }
    }
}

/// What the disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Its size in sectors of 512 bytes.
    pub sectors: u64,
    /// Bytes of its own sectors.
    pub sector_size: u64,
    /// It takes no writes.
    pub read_only: bool,
    /// It can flush.
    pub flush: bool,
    /// It can write between two flushes.
    pub barrier: bool,
    /// It can discard.
    pub discard: bool,
    /// Segments of an indirect request, 0 where there are none.
    pub indirect: usize,
}

/// A part of a buffer, in sectors of 512 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// The buffer.
    pub buffer: &'a Buffer,
    /// Its first sector.
    pub first: usize,
    /// How many.
    pub count: usize,
}

impl<'a> Part<'a> {
    /// All of a buffer.
    pub fn whole(buffer: &'a Buffer) -> Self {
        Self { buffer, first: 0, count: buffer.size() / BYTES }
    }

    /// Its segments, a page each.
    fn segments(self) -> Result<Vec<Segment>, Error> {
        let per_page = usize::from(SECTORS_PER_PAGE);
        let end = self.first + self.count;
        if self.count == 0 || end > self.buffer.pages() * per_page {
            return Err(Error::Unfit);
        }
        let pages = self.first / per_page..end.div_ceil(per_page);
        let segment = |page: usize| {
            let first = self.first.saturating_sub(page * per_page);
            let last = (end - page * per_page).min(per_page) - 1;
            Segment::new(self.buffer.reference(page), first as u8, last as u8).ok_or(Error::Unfit)
        };
        pages.map(segment).collect()
    }
}

/// A request under way: of which queue, and its name there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token {
    queue: usize,
    tag: Tag,
}

#[derive(Debug)]
struct End {
    channel: Channel,
    queue: Queue,
}

/// A connected disk.
#[derive(Debug)]
pub struct Disk {
    device: Device,
    geometry: Geometry,
    ends: Vec<End>,
    /// Pages that list segments, of requests under way.
    lists: BTreeMap<Token, Buffer>,
    /// Others, to be used again.
    spare: Vec<Buffer>,
}

impl Disk {
    /// Connects the disk with this number (51712 is `xvda`).
    ///
    /// # Errors
    /// When there is none, or its back end does not answer as it should.
    pub fn connect(store: &mut Xenstore, number: u32, wish: Wish) -> Result<Self, Error> {
        let device = Device::find(store, "vbd", number)?;
        device.set_state(store, State::Initialising)?;
        // What it was before does not matter: it may be closing still.
        device.wait_for(store, &[State::InitWait], &[])?;
        let mut offered = |name| device.published(store, name).map(|value| value.unwrap_or(0) as u32);
        let order = wish.order.min(offered("max-ring-page-order")?);
        let queues = wish.queues.min(offered("multi-queue-max-queues")?).max(1);
        let mut ends = Vec::new();
        for _ in 0..queues {
            let channel = Channel::new(device.dom(), 1 << order)?;
            let queue = Queue::new(&*channel.ring, channel.ring.size(), wish.layout).ok_or(Error::Unfit)?;
            ends.push(End { channel, queue });
        }
        publish(store, &device, &ends, order, wish)?;
        device.set_state(store, State::Initialised)?;
        device.wait_for(store, &[State::Connected], &[State::Closing, State::Closed, State::Unknown])?;
        let mut told = |name| device.published(store, name).map(|value| value.unwrap_or(0));
        let geometry = Geometry {
            sectors: told("sectors")?,
            sector_size: told("sector-size")?,
            read_only: told("info")? & u64::from(VDISK_READONLY) != 0,
            flush: told("feature-flush-cache")? == 1,
            barrier: told("feature-barrier")? == 1,
            discard: told("feature-discard")? == 1,
            indirect: (told("feature-max-indirect-segments")? as usize).min(SEGMENTS_PER_PAGE),
        };
        device.set_state(store, State::Connected)?;
        Ok(Self { device, geometry, ends, lists: BTreeMap::new(), spare: Vec::new() })
    }

    /// What it is.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The domain that serves it: for whom buffers are made.
    pub fn dom(&self) -> DomId {
        self.device.dom()
    }

    /// How many queues it has.
    pub fn queues(&self) -> usize {
        self.ends.len()
    }

    /// Requests that one of its queues holds.
    pub fn slots(&self) -> usize {
        self.ends.first().map_or(0, |end| end.queue.slots().into())
    }

    /// Sectors of 512 bytes that one request moves at most, from the start of a page on.
    pub fn most(&self) -> usize {
        self.geometry.indirect.max(BLKIF_MAX_SEGMENTS_PER_REQUEST) * usize::from(SECTORS_PER_PAGE)
    }

    /// A buffer for it.
    ///
    /// # Errors
    /// Those of [`Buffer::new`].
    pub fn buffer(&self, pages: usize) -> Result<Buffer, Error> {
        Buffer::new(self.dom(), pages, Access::ReadWrite)
    }

    /// Writes a request to a queue; `None` while there is no room. The back end sees it after [`Disk::kick`].
    ///
    /// # Errors
    /// For what cannot be a request.
    pub fn ask(&mut self, queue: usize, operation: &Operation) -> Result<Option<Token>, Error> {
        let end = self.ends.get_mut(queue).ok_or(Error::Unfit)?;
        Ok(end.queue.ask(&*end.channel.ring, 0, operation).map(|tag| Token { queue, tag }))
    }

    /// Writes a request that moves data; `None` while there is no room.
    ///
    /// # Errors
    /// When it is more than a request may move, or without memory for the list of its segments.
    pub fn transfer(
        &mut self,
        queue: usize,
        direction: Direction,
        sector: u64,
        part: Part<'_>,
    ) -> Result<Option<Token>, Error> {
        let segments = part.segments()?;
        if let Ok(segments) = segments.as_slice().try_into() {
            return self.ask(queue, &Operation::Transfer { direction, sector, segments });
        }
        if segments.len() > self.geometry.indirect {
            return Err(Error::Unfit);
        }
        let list = match self.spare.pop() {
            Some(list) => list,
            None => self.buffer(1)?,
        };
        for (index, segment) in segments.iter().enumerate() {
            list.write(index * SEGMENT, &segment_bytes(*segment));
        }
        let lists = [list.reference(0)].into_iter().collect();
        let count = segments.len() as u16;
        let token = self.ask(queue, &Operation::Indirect { direction, sector, count, lists })?;
        match token {
            Some(token) => drop(self.lists.insert(token, list)),
            None => self.spare.push(list),
        }
        Ok(token)
    }

    /// Shows all requests written so far, and wakes the back end where it sleeps.
    pub fn kick(&mut self) {
        for end in &mut self.ends {
            if end.queue.announce(&*end.channel.ring) == Wake::Yes {
                // A back end that is gone is noticed by its state.
                let _ = events::notify(end.channel.port);
            }
        }
    }

    /// The next answer of any queue, if there is one.
    ///
    /// # Errors
    /// When the back end broke the protocol.
    pub fn collect(&mut self) -> Result<Option<(Token, Status)>, Error> {
        for (queue, end) in self.ends.iter_mut().enumerate() {
            if let Some((tag, status)) = end.queue.take(&*end.channel.ring).map_err(|_| Error::Broken)? {
                let token = Token { queue, tag };
                self.spare.extend(self.lists.remove(&token));
                return Ok(Some((token, status)));
            }
        }
        Ok(None)
    }

    /// Waits for the next answer.
    ///
    /// # Errors
    /// When the back end broke the protocol.
    pub fn wait(&mut self) -> Result<(Token, Status), Error> {
        loop {
            if let Some(answer) = self.collect()? {
                return Ok(answer);
            }
            for end in &self.ends {
                events::clear(end.channel.port);
            }
            let mut ready = false;
            for end in &mut self.ends {
                ready |= end.queue.sleep(&*end.channel.ring).map_err(|_| Error::Broken)?;
            }
            if !ready {
                let ports: Vec<_> = self.ends.iter().map(|end| end.channel.port).collect();
                sched::poll(&ports, 0)?;
            }
        }
    }

    /// Asks for one thing and waits for its answer, while nothing else is under way.
    ///
    /// # Errors
    /// How it ended, if not well.
    pub fn do_now(&mut self, operation: &Operation) -> Result<(), Error> {
        let token = self.ask(0, operation)?.ok_or(Error::Unfit)?;
        self.finish(token)
    }

    /// Moves data of any length and waits, while nothing else is under way.
    ///
    /// # Errors
    /// How it ended, if not well.
    pub fn move_now(&mut self, direction: Direction, sector: u64, part: Part<'_>) -> Result<(), Error> {
        let mut done = 0;
        while done < part.count {
            let first = part.first + done;
            // Requests end where pages end, so that each moves as much as it can.
            let lead = first % usize::from(SECTORS_PER_PAGE);
            let count = (part.count - done).min(self.most() - lead);
            let token = self.transfer(0, direction, sector + done as u64, Part { first, count, ..part })?;
            self.finish(token.ok_or(Error::Unfit)?)?;
            done += count;
        }
        Ok(())
    }

    fn finish(&mut self, token: Token) -> Result<(), Error> {
        self.kick();
        match self.wait()? {
            (answered, _) if answered != token => Err(Error::Broken),
            (_, Status::Okay) => Ok(()),
            (_, Status::Error) => Err(Error::Failed),
            (_, Status::Unsupported) => Err(Error::Unsupported),
        }
    }

    /// Says goodbye, and waits until the back end has let go of everything.
    ///
    /// # Errors
    /// Those of the store.
    pub fn disconnect(self, store: &mut Xenstore) -> Result<(), Error> {
        self.device.set_state(store, State::Closing)?;
        self.device.wait_for(store, &[State::Closing, State::Closed, State::Unknown], &[])?;
        self.device.set_state(store, State::Closed)?;
        self.device.wait_for(store, &[State::Closed, State::InitWait, State::Unknown], &[])?;
        Ok(())
    }
}

/// Tells the back end where the rings are, in the words of Linux's front end: names without a number where there is one
/// of the kind.
fn publish(store: &mut Xenstore, device: &Device, ends: &[End], order: u32, wish: Wish) -> Result<(), Error> {
    device.publish(store, "protocol", &wish.layout.name())?;
    device.publish(store, "feature-persistent", &u32::from(wish.persistent))?;
    // What an earlier connection said must not stay.
    match order {
        0 => device.withdraw(store, "ring-page-order")?,
        order => device.publish(store, "ring-page-order", &order)?,
    }
    match ends.len() {
        1 => device.withdraw(store, "multi-queue-num-queues")?,
        queues => device.publish(store, "multi-queue-num-queues", &queues)?,
    }
    for (queue, end) in ends.iter().enumerate() {
        let prefix = if ends.len() > 1 { format!("queue-{queue}/") } else { String::new() };
        device.publish(store, &format!("{prefix}event-channel"), &end.channel.port.0)?;
        for (page, reference) in end.channel.ring.references().enumerate() {
            let number = if order > 0 { format!("{page}") } else { String::new() };
            device.publish(store, &format!("{prefix}ring-ref{number}"), &reference.0)?;
        }
    }
    Ok(())
}

// A list of segments fits one page.
const _: () = assert!(SEGMENTS_PER_PAGE * SEGMENT == PAGE_BYTES);

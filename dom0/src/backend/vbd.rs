//! One virtual disk of one guest: its connection, its requests under way.

use super::copies::Copies;
use super::grants::{Page, Pages};
use super::limit::Limit;
use crate::disk::{Disks, Volume};
use crate::drivers::{Action, Failure, Geometry, Request, Tag};
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use dom0_hal::dma::{Memory, Segment};
use guest_pv::mem::{Access, Mapping};
use guest_pv::{events, grants, time};
use ring_protocol::blk::back::{self, Pages as Place, Queue, Taken, Work};
use ring_protocol::blk::connect::Frontend;
use ring_protocol::blk::wire::{self, Direction, SEGMENT, Status};
use ring_protocol::peer::Fault;
use ring_protocol::sring::Wake;
use xen_abi::errno::Errno;
use xen_abi::ids::{DomId, GrantRef, Port};

/// Requests that a queue gets before others have their turn.
const TURN: usize = 32;
/// Segments of an indirect request, at most.
const INDIRECT: usize = 128;

/// What a request goes through: most are one step.
#[derive(Debug)]
enum Next {
    /// When all parts are done it is answered.
    Answer,
    /// Then this is written, and flushed.
    Write { sector: u64, segments: Vec<Segment> },
    /// Then it is flushed.
    Flush,
}

/// A request under way.
#[derive(Debug)]
struct UnderWay {
    queue: usize,
    taken: Taken,
    /// Parts that the disk has not answered.
    parts: usize,
    status: Status,
    next: Next,
}

/// One queue.
#[derive(Debug)]
struct End {
    ring: Mapping,
    queue: Queue,
    port: Port,
    /// There is more than one turn's work, or may be.
    busy: bool,
    /// Answers were written and not shown yet.
    answered: bool,
}

impl End {
    fn answer(&mut self, taken: Taken, status: Status) {
        self.queue.answer(&*self.ring, taken, status);
        self.answered = true;
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let _ = events::close(self.port);
    }
}

/// A connected device. What is under way when it is dropped is finished by the disk and answered to nobody; the pages are
/// given back when the disk is done with them.
#[derive(Debug)]
pub struct Connection {
    dom: DomId,
    disk: back::Disk,
    volume: Volume,
    segments: usize,
    ends: Vec<End>,
    pages: Pages,
    under_way: BTreeMap<Tag, UnderWay>,
    limit: Limit,
}

/// What guests are told of a disk.
pub fn disk_of(geometry: &Geometry, read_only: bool) -> back::Disk {
    back::Disk {
        sectors: geometry.sectors,
        sector_size: geometry.sector_size,
        read_only: read_only || geometry.read_only,
        flush: geometry.flush,
        discard: geometry.discard && !read_only,
        indirect: u16::try_from(geometry.segments.min(INDIRECT)).unwrap_or(0),
    }
}

/// Tags for the disks: never used twice.
#[derive(Debug, Default)]
pub struct Tags(u64);

impl Tags {
    fn next(&mut self) -> Tag {
        self.0 += 1;
        Tag(self.0)
    }
}

impl Connection {
    /// The disk has another size now.
    pub fn resize(&mut self, volume: &Volume) {
        self.disk.sectors = volume.sectors();
        self.volume = volume.clone();
    }

    /// When it may go on, where only its limit keeps it from that.
    pub fn deadline(&self) -> Option<u64> {
        self.limit.next().filter(|_| self.ends.iter().any(|end| end.busy))
    }

    fn may_begin(&self) -> bool {
        self.limit.next().is_none_or(|next| next <= time::now())
    }

    /// Maps the rings and binds the event channels.
    pub fn new(
        dom: DomId,
        frontend: &Frontend,
        disk: back::Disk,
        volume: &Volume,
        segments: usize,
        limit: Limit,
    ) -> Result<Self, Errno> {
        let mut ends = Vec::new();
        for nodes in &frontend.queues {
            let ring = grants::map(dom, &nodes.ring, Access::ReadWrite).map_err(|_| Errno::EINVAL)?;
            let queue = Queue::attach(&*ring, ring.len(), frontend.layout).map_err(|_| Errno::EINVAL)?;
            let port = events::bind_interdomain(dom, nodes.port)?;
            ends.push(End { ring, queue, port, busy: true, answered: false });
        }
        let pages = Pages::new(dom, frontend.persistent);
        Ok(Self { dom, disk, volume: volume.clone(), segments, ends, pages, under_way: BTreeMap::new(), limit })
    }

    /// The event channels.
    pub fn ports(&self) -> impl Iterator<Item = Port> {
        self.ends.iter().map(|end| end.port)
    }

    /// The guest's event came.
    pub fn woken(&mut self, port: Port) {
        for end in self.ends.iter_mut().filter(|end| end.port == port) {
            end.busy = true;
        }
    }

    /// Whether the disk has requests of it.
    pub fn has_requests(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// Whether there is more to do at once.
    pub fn is_busy(&self) -> bool {
        self.ends.iter().any(|end| end.busy) && self.may_begin()
    }

    /// Takes requests until there are none, or the turn is over.
    pub fn serve(&mut self, disks: &mut Disks, tags: &mut Tags, copies: &mut Copies) -> Result<(), Fault> {
        let took = self.take(disks, tags, copies);
        self.copy(disks, copies);
        self.show();
        took
    }

    fn take(&mut self, disks: &mut Disks, tags: &mut Tags, copies: &mut Copies) -> Result<(), Fault> {
        let in_memory = disks.bytes(&self.volume).is_some();
        for queue in 0..self.ends.len() {
            for _ in 0..TURN {
                if !self.may_begin() {
                    break;
                }
                let Some(end) = self.ends.get_mut(queue).filter(|end| end.busy) else {
                    break;
                };
                let Some((taken, operation)) = end.queue.take(&*end.ring)? else {
                    end.busy = end.queue.sleep(&*end.ring)?;
                    continue;
                };
                match self.disk.check(operation) {
                    Ok(Work::Transfer { direction, sector, pages }) if in_memory => {
                        copies.add(queue, taken, direction, sector, pages);
                        // How much it is may stand in its lists only, and decides whether the next one may begin.
                        if self.limit.next().is_some() {
                            let bytes = self.copy(disks, copies);
                            self.limit.charge(bytes as u64, time::now());
                        }
                    }
                    Ok(work) => self.begin(queue, taken, work, disks, tags),
                    Err(status) => self.answer(queue, taken, status),
                }
            }
        }
        Ok(())
    }

    /// Copies what was gathered, and answers it; how many bytes that was.
    fn copy(&mut self, disks: &mut Disks, copies: &mut Copies) -> usize {
        let bytes = disks.bytes(&self.volume).unwrap_or_default();
        let ends = &mut self.ends;
        copies.run(self.dom, &self.disk, bytes, |queue, taken, status| {
            if let Some(end) = ends.get_mut(queue) {
                end.answer(taken, status);
            }
        })
    }

    /// Shows answers, and wakes the guest where it sleeps.
    fn show(&mut self) {
        for end in self.ends.iter_mut().filter(|end| end.answered) {
            end.answered = false;
            if end.queue.announce(&*end.ring) == Wake::Yes {
                // The other end may be closed already: then nobody listens any more.
                let _ = events::notify(end.port);
            }
        }
    }

    fn answer(&mut self, queue: usize, taken: Taken, status: Status) {
        if let Some(end) = self.ends.get_mut(queue) {
            end.answer(taken, status);
        }
    }

    fn begin(&mut self, queue: usize, taken: Taken, work: Work, disks: &mut Disks, tags: &mut Tags) {
        let work = self.actions(work).map(|(actions, next)| (self.placed(actions), next));
        match work {
            Ok((actions, next)) => {
                let bytes: usize = actions.iter().flat_map(Action::segments).map(Segment::len).sum();
                if self.limit.next().is_some() {
                    self.limit.charge(bytes as u64, time::now());
                }
                let tag = tags.next();
                let (parts, lane) = (actions.len(), queue);
                self.under_way.insert(tag, UnderWay { queue, taken, parts, status: Status::Okay, next });
                for action in actions {
                    disks.submit(&self.volume, Request { tag, lane, action });
                }
            }
            Err(status) => self.answer(queue, taken, status),
        }
    }

    /// What the disk has to do first, and what comes then.
    fn actions(&mut self, work: Work) -> Result<(Vec<Action>, Next), Status> {
        match work {
            Work::Transfer { direction, sector, pages } => {
                let segments = match pages {
                    Place::Direct(segments) => self.map(direction, &segments)?,
                    Place::Listed { count, lists } => {
                        let listed = self.listed(direction, sector, count, &lists)?;
                        self.map(direction, &listed)?
                    }
                };
                Ok((self.transfer(direction, sector, &segments), Next::Answer))
            }
            Work::Barrier { segments, .. } if segments.is_empty() => Ok((vec![Action::Flush], Next::Answer)),
            Work::Barrier { sector, segments } => {
                let segments = self.map(Direction::Write, &segments)?;
                Ok((vec![Action::Flush], Next::Write { sector, segments }))
            }
            Work::Flush => Ok((vec![Action::Flush], Next::Answer)),
            Work::Discard { sector, count } => {
                /// A discard is a hint: of one that is longer than any device takes at once, the beginning is done.
                const MOST: u64 = 1 << 21;
                Ok((vec![Action::Discard { sector, count: count.min(MOST) }], Next::Answer))
            }
        }
    }

    /// What the disk is to do for what the volume is to.
    fn placed(&self, actions: Vec<Action>) -> Vec<Action> {
        actions.into_iter().flat_map(|action| self.volume.actions(action)).collect()
    }

    /// One action, or several where the disk does not take so many segments at once.
    fn transfer(&self, direction: Direction, sector: u64, segments: &[Segment]) -> Vec<Action> {
        let mut at = sector;
        let action = |part: &[Segment]| {
            let sector = at;
            at += part.iter().map(|segment| segment.len() as u64).sum::<u64>() / wire::SECTOR;
            let segments = part.to_vec();
            match direction {
                Direction::Read => Action::Read { sector, segments },
                Direction::Write => Action::Write { sector, segments },
            }
        };
        segments.chunks(self.segments.max(1)).map(action).collect()
    }

    /// Maps the pages of segments.
    fn map(&mut self, direction: Direction, segments: &[wire::Segment]) -> Result<Vec<Segment>, Status> {
        let access = match direction {
            Direction::Read => Access::ReadWrite,
            Direction::Write => Access::ReadOnly,
        };
        let references: Vec<GrantRef> = segments.iter().map(|segment| segment.page).collect();
        let pages = self.pages.get(&references, access).map_err(|_| Status::Error)?;
        let held = |(page, segment): (&Page, &wire::Segment)| {
            Segment::new(&page.memory, page.index, segment.offset(), segment.len()).ok_or(Status::Error)
        };
        pages.iter().zip(segments).map(held).collect()
    }

    /// Copies the lists of an indirect request and checks them.
    fn listed(
        &mut self,
        direction: Direction,
        sector: u64,
        count: u16,
        lists: &[GrantRef],
    ) -> Result<Vec<wire::Segment>, Status> {
        let pages = self.pages.get(lists, Access::ReadOnly).map_err(|_| Status::Error)?;
        let mut copy = vec![0; usize::from(count) * SEGMENT];
        for (page, part) in pages.iter().zip(copy.chunks_mut(guest_pv::mem::PAGE_BYTES)) {
            let Memory::Granted(mapping) = &*page.memory else {
                return Err(Status::Error);
            };
            mapping.read(page.index * guest_pv::mem::PAGE_BYTES, part);
        }
        let mut segments = Vec::with_capacity(count.into());
        self.disk.segments(direction, sector, count, &copy, |segment| segments.push(segment))?;
        Ok(segments)
    }

    /// The disk answered. False where the request is not this connection's.
    pub fn done(&mut self, tag: Tag, result: Result<(), Failure>, disks: &mut Disks) -> bool {
        let Some(under_way) = self.under_way.get_mut(&tag) else {
            return false;
        };
        match result {
            Ok(()) => {}
            Err(Failure::Unsupported) => under_way.status = Status::Unsupported,
            Err(Failure::Device | Failure::Timeout) => under_way.status = Status::Error,
        }
        under_way.parts = under_way.parts.saturating_sub(1);
        if under_way.parts > 0 {
            return true;
        }
        let next = core::mem::replace(&mut under_way.next, Next::Answer);
        let actions: Vec<Action> = match next {
            _ if under_way.status != Status::Okay => Vec::new(),
            Next::Answer => Vec::new(),
            Next::Write { sector, segments } => {
                under_way.next = Next::Flush;
                self.transfer(Direction::Write, sector, &segments)
            }
            Next::Flush => vec![Action::Flush],
        };
        let actions = self.placed(actions);
        if actions.is_empty() {
            if let Some(UnderWay { queue, taken, status, .. }) = self.under_way.remove(&tag) {
                self.answer(queue, taken, status);
            }
            return true;
        }
        let Some(under_way) = self.under_way.get_mut(&tag) else {
            return true;
        };
        under_way.parts = actions.len();
        let lane = under_way.queue;
        for action in actions {
            disks.submit(&self.volume, Request { tag, lane, action });
        }
        true
    }

    /// Shows what [`Connection::done`] has answered.
    pub fn settle(&mut self) {
        self.show();
    }
}

//! Transfers of a disk that is memory: what a turn brings is gathered and copied at once, between that memory and the
//! guest's pages, which need not be mapped for it.

use alloc::vec::Vec;
use guest_pv::grants::{Copier, Move, Way};
use guest_pv::mem::PAGE_BYTES;
use ring_protocol::blk::back::{Disk, Pages, Taken};
use ring_protocol::blk::wire::{self, Direction, SEGMENT, Status};
use xen_abi::grant_table::GNTST_OKAY;
use xen_abi::ids::{DomId, GrantRef};

/// A transfer.
#[derive(Debug)]
struct Transfer {
    queue: usize,
    taken: Taken,
    status: Status,
    /// How many of the moves are its.
    moves: usize,
}

/// A transfer whose segments are in pages of the guest's.
#[derive(Debug)]
struct Listed {
    queue: usize,
    taken: Taken,
    direction: Direction,
    sector: u64,
    count: u16,
    /// How many pages.
    lists: usize,
}

/// What was gathered. The memory for it is used again and again.
#[derive(Debug, Default)]
pub struct Copies {
    transfers: Vec<Transfer>,
    moves: Vec<Move>,
    listed: Vec<Listed>,
    /// The moves that fetch the lists, and the lists.
    fetches: Vec<Move>,
    lists: Vec<u8>,
    copier: Copier,
}

impl Copies {
    /// Takes up a transfer that passed the checks.
    pub fn add(&mut self, queue: usize, taken: Taken, direction: Direction, sector: u64, pages: Pages) {
        match pages {
            Pages::Direct(segments) => {
                let moves = push(&mut self.moves, direction, sector, segments);
                self.transfers.push(Transfer { queue, taken, status: Status::Okay, moves });
            }
            Pages::Listed { count, lists } => {
                self.fetch(usize::from(count) * SEGMENT, &lists);
                self.listed.push(Listed { queue, taken, direction, sector, count, lists: lists.len() });
            }
        }
    }

    fn fetch(&mut self, bytes: usize, lists: &[GrantRef]) {
        let mut left = bytes;
        for &reference in lists {
            let len = left.min(PAGE_BYTES);
            let at = self.lists.len();
            self.lists.resize(at + len, 0);
            self.fetches.push(Move { way: Way::In, reference, offset: 0, at, len, status: GNTST_OKAY });
            left -= len;
        }
    }

    /// Copies, and says how each transfer is answered; how many bytes were moved.
    pub fn run(
        &mut self,
        dom: DomId,
        disk: &Disk,
        bytes: &mut [u8],
        mut each: impl FnMut(usize, Taken, Status),
    ) -> usize {
        self.read_lists(dom, disk);
        self.copier.run(dom, bytes, &mut self.moves);
        let mut moves = self.moves.as_slice();
        let mut moved = 0;
        for Transfer { queue, taken, status, moves: count } in self.transfers.drain(..) {
            let (its, rest) = moves.split_at(count.min(moves.len()));
            moves = rest;
            moved += its.iter().map(|one| one.len).sum::<usize>();
            let whole = its.iter().all(|one| one.status == GNTST_OKAY);
            each(queue, taken, if whole { status } else { Status::Error });
        }
        self.moves.clear();
        moved
    }

    /// Fetches the lists, and makes moves of what they say.
    fn read_lists(&mut self, dom: DomId, disk: &Disk) {
        if self.listed.is_empty() {
            return;
        }
        self.copier.run(dom, &mut self.lists, &mut self.fetches);
        let mut fetches = self.fetches.as_slice();
        let mut segments: Vec<wire::Segment> = Vec::new();
        for Listed { queue, taken, direction, sector, count, lists } in self.listed.drain(..) {
            let (its, rest) = fetches.split_at(lists.min(fetches.len()));
            fetches = rest;
            segments.clear();
            let from = its.first().map_or(0, |one| one.at);
            let list = self.lists.get(from..from + usize::from(count) * SEGMENT).unwrap_or_default();
            let fetched = its.iter().all(|one| one.status == GNTST_OKAY);
            let checked = disk.segments(direction, sector, count, list, |segment| segments.push(segment));
            let status = if fetched { checked.err() } else { Some(Status::Error) };
            let moves = if status.is_none() { push(&mut self.moves, direction, sector, segments.drain(..)) } else { 0 };
            self.transfers.push(Transfer { queue, taken, status: status.unwrap_or(Status::Okay), moves });
        }
        self.fetches.clear();
        self.lists.clear();
    }
}

/// Adds moves of segments that lie one after the other on the disk; how many.
fn push(
    moves: &mut Vec<Move>,
    direction: Direction,
    sector: u64,
    segments: impl IntoIterator<Item = wire::Segment>,
) -> usize {
    let way = match direction {
        Direction::Read => Way::Out,
        Direction::Write => Way::In,
    };
    let before = moves.len();
    let mut at = usize::try_from(sector * wire::SECTOR).unwrap_or(usize::MAX);
    for segment in segments {
        let (reference, offset, len) = (segment.page, segment.offset(), segment.len());
        moves.push(Move { way, reference, offset, at, len, status: GNTST_OKAY });
        at = at.saturating_add(len);
    }
    moves.len() - before
}

//! Requests and responses, between bytes of a ring slot and what they mean.

use arrayvec::ArrayVec;
use xen_abi::ids::GrantRef;
use xen_abi::io::blkif::{
    BLKIF_DISCARD_SECURE, BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST, BLKIF_MAX_SEGMENTS_PER_REQUEST, BLKIF_OP_DISCARD,
    BLKIF_OP_FLUSH_DISKCACHE, BLKIF_OP_INDIRECT, BLKIF_OP_READ, BLKIF_OP_WRITE, BLKIF_OP_WRITE_BARRIER,
    BLKIF_RSP_EOPNOTSUPP, BLKIF_RSP_ERROR, BLKIF_RSP_OKAY, BlkifRequest, BlkifRequestDiscard, BlkifRequestIndirect,
    BlkifRequestSegment, BlkifResponse, SLOT,
};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// Bytes of a sector as the protocol counts them, whatever the disk's own are.
pub const SECTOR: u64 = 512;
/// Sectors of a page.
pub const SECTORS_PER_PAGE: u8 = 8;
/// Segments that a page of an indirect request holds.
pub const SEGMENTS_PER_PAGE: usize = 512;
/// Bytes of a segment in such a page.
pub const SEGMENT: usize = size_of::<BlkifRequestSegment>();

/// How the front end's compiler lays requests out (the node `protocol`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// `x86_64-abi`, which is also what there is where the front end does not say.
    #[default]
    X86_64,
    /// `x86_32-abi`, where numbers of 64 bits are aligned to four bytes.
    X86_32,
}

impl Layout {
    /// Bytes of the padding that only the 64-bit layout has, and where it is. All requests have it there.
    const PADDING: core::ops::Range<usize> = 4..8;

    /// The layout of that name.
    #[must_use]
    pub fn named(name: &[u8]) -> Option<Self> {
        match name {
            b"x86_64-abi" => Some(Self::X86_64),
            b"x86_32-abi" => Some(Self::X86_32),
            _ => None,
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-abi",
            Self::X86_32 => "x86_32-abi",
        }
    }

    /// Bytes of a slot of the ring. A response is shorter than a request in both.
    #[must_use]
    pub const fn slot(self) -> usize {
        match self {
            Self::X86_64 => SLOT,
            Self::X86_32 => SLOT - Self::PADDING.end + Self::PADDING.start,
        }
    }

    /// The 64-bit form of a request whose [`Layout::slot`] bytes begin `slot`.
    pub fn widen(self, slot: &mut [u8; SLOT]) {
        if self == Self::X86_32 {
            slot.copy_within(Self::PADDING.start..self.slot(), Self::PADDING.end);
            slot[Self::PADDING].fill(0);
        }
    }

    /// The other way.
    pub fn narrow(self, slot: &mut [u8; SLOT]) {
        if self == Self::X86_32 {
            slot.copy_within(Self::PADDING.end.., Self::PADDING.start);
        }
    }
}

/// Where the data of a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the disk.
    Read,
    /// To the disk.
    Write,
}

/// A part of a page: sectors `first ..= last` of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The page.
    pub page: GrantRef,
    /// First sector within the page.
    pub first: u8,
    /// Last sector within the page.
    pub last: u8,
}

impl Segment {
    /// A segment whose sectors are within the page and in order.
    #[must_use]
    pub const fn new(page: GrantRef, first: u8, last: u8) -> Option<Self> {
        if first <= last && last < SECTORS_PER_PAGE { Some(Self { page, first, last }) } else { None }
    }

    fn of(raw: &BlkifRequestSegment) -> Option<Self> {
        Self::new(raw.gref, raw.first_sect, raw.last_sect)
    }

    /// How many sectors.
    #[must_use]
    pub const fn sectors(self) -> u64 {
        (self.last - self.first + 1) as u64
    }

    /// Where it begins in its page, in bytes.
    #[must_use]
    pub const fn offset(self) -> usize {
        self.first as usize * 512
    }

    /// Its bytes.
    #[must_use]
    pub const fn len(self) -> usize {
        (self.last - self.first + 1) as usize * 512
    }

    /// Never: a segment has a sector at least.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        false
    }
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Move data; the pages are named in the request.
    Transfer {
        /// Which way.
        direction: Direction,
        /// First sector on the disk.
        sector: u64,
        /// The pages.
        segments: ArrayVec<Segment, BLKIF_MAX_SEGMENTS_PER_REQUEST>,
    },
    /// Move data; the pages are named in further pages.
    Indirect {
        /// Which way.
        direction: Direction,
        /// First sector on the disk.
        sector: u64,
        /// How many segments.
        count: u16,
        /// The pages that list them.
        lists: ArrayVec<GrantRef, BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST>,
    },
    /// All that was written before is to be on the disk; the request may write, too.
    Barrier {
        /// First sector on the disk.
        sector: u64,
        /// The pages; none for a bare barrier.
        segments: ArrayVec<Segment, BLKIF_MAX_SEGMENTS_PER_REQUEST>,
    },
    /// All that was answered before is to be on the disk.
    Flush,
    /// These sectors are not needed any more.
    Discard {
        /// First sector.
        sector: u64,
        /// How many.
        count: u64,
        /// Nobody is to read them again.
        secure: bool,
    },
    /// No operation of this protocol.
    Unknown,
    /// An operation that cannot be: too many segments, or sectors outside of a page.
    Malformed,
}

/// A request, copied and taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The asker's name for it.
    pub id: u64,
    /// `BLKIF_OP_*` for the answer: of an indirect request the operation behind it, since Linux's front end gives up a
    /// disk that answers otherwise.
    pub code: u8,
    /// What is asked for.
    pub operation: Operation,
}

/// Takes a slot apart.
#[must_use]
pub fn decode(slot: &[u8; SLOT]) -> Request {
    let code = slot.first().copied().unwrap_or(0);
    let operation = match code {
        BLKIF_OP_INDIRECT => return indirect(slot),
        BLKIF_OP_DISCARD => {
            let Ok((raw, _)) = BlkifRequestDiscard::read_from_prefix(slot) else {
                return Request { id: 0, code, operation: Operation::Malformed };
            };
            let secure = raw.flag & BLKIF_DISCARD_SECURE != 0;
            let operation = Operation::Discard { sector: raw.sector_number, count: raw.nr_sectors, secure };
            return Request { id: raw.id, code, operation };
        }
        code => code,
    };
    let Ok(raw) = BlkifRequest::read_from_bytes(slot) else {
        return Request { id: 0, code, operation: Operation::Malformed };
    };
    let sector = raw.sector_number;
    let segments = || -> Option<ArrayVec<Segment, BLKIF_MAX_SEGMENTS_PER_REQUEST>> {
        raw.seg.get(..raw.nr_segments.into())?.iter().map(Segment::of).collect()
    };
    let transfer = |direction| match segments() {
        Some(segments) if !segments.is_empty() => Operation::Transfer { direction, sector, segments },
        _ => Operation::Malformed,
    };
    let operation = match operation {
        BLKIF_OP_READ => transfer(Direction::Read),
        BLKIF_OP_WRITE => transfer(Direction::Write),
        BLKIF_OP_WRITE_BARRIER => match segments() {
            Some(segments) => Operation::Barrier { sector, segments },
            None => Operation::Malformed,
        },
        // One with data is Linux's way to write through; nobody sends it to a back end that does not ask for it.
        BLKIF_OP_FLUSH_DISKCACHE if raw.nr_segments == 0 => Operation::Flush,
        BLKIF_OP_FLUSH_DISKCACHE => match segments() {
            Some(segments) => Operation::Barrier { sector, segments },
            None => Operation::Malformed,
        },
        _ => Operation::Unknown,
    };
    Request { id: raw.id, code, operation }
}

fn indirect(slot: &[u8; SLOT]) -> Request {
    let Ok((raw, _)) = BlkifRequestIndirect::read_from_prefix(slot) else {
        return Request { id: 0, code: BLKIF_OP_INDIRECT, operation: Operation::Malformed };
    };
    let direction = match raw.indirect_op {
        BLKIF_OP_READ => Some(Direction::Read),
        BLKIF_OP_WRITE => Some(Direction::Write),
        _ => None,
    };
    let count = raw.nr_segments;
    let lists = raw.indirect_grefs.get(..usize::from(count).div_ceil(SEGMENTS_PER_PAGE));
    let operation = match (direction, lists) {
        (Some(direction), Some(lists)) if count > 0 => {
            Operation::Indirect { direction, sector: raw.sector_number, count, lists: lists.iter().copied().collect() }
        }
        _ => Operation::Malformed,
    };
    Request { id: raw.id, code: raw.indirect_op, operation }
}

/// One segment of a list in an indirect request's page; `None` where it cannot be one.
#[must_use]
pub fn segment(bytes: &[u8; SEGMENT]) -> Option<Segment> {
    Segment::of(&BlkifRequestSegment::read_from_bytes(bytes).ok()?)
}

/// The bytes of a segment for such a list.
#[must_use]
pub fn segment_bytes(segment: Segment) -> [u8; SEGMENT] {
    let raw = raw_segment(segment);
    let mut bytes = [0; SEGMENT];
    bytes.copy_from_slice(raw.as_bytes());
    bytes
}

fn raw_segment(segment: Segment) -> BlkifRequestSegment {
    BlkifRequestSegment { gref: segment.page, first_sect: segment.first, last_sect: segment.last, _pad: 0 }
}

/// Puts a request together; `None` for what is none.
#[must_use]
pub fn encode(id: u64, handle: u16, operation: &Operation) -> Option<[u8; SLOT]> {
    let mut slot = [0; SLOT];
    let direct = |operation, sector, segments: &[Segment]| -> Option<BlkifRequest> {
        let mut raw = BlkifRequest { operation, handle, id, sector_number: sector, ..BlkifRequest::new_zeroed() };
        raw.nr_segments = u8::try_from(segments.len()).ok()?;
        for (to, from) in raw.seg.iter_mut().zip(segments) {
            *to = raw_segment(*from);
        }
        Some(raw)
    };
    let code = |direction: &Direction| match direction {
        Direction::Read => BLKIF_OP_READ,
        Direction::Write => BLKIF_OP_WRITE,
    };
    match operation {
        Operation::Transfer { direction, sector, segments } => {
            slot.copy_from_slice(direct(code(direction), *sector, segments)?.as_bytes());
        }
        Operation::Barrier { sector, segments } => {
            slot.copy_from_slice(direct(BLKIF_OP_WRITE_BARRIER, *sector, segments)?.as_bytes());
        }
        Operation::Flush => slot.copy_from_slice(direct(BLKIF_OP_FLUSH_DISKCACHE, 0, &[])?.as_bytes()),
        Operation::Discard { sector, count, secure } => {
            let flag = if *secure { BLKIF_DISCARD_SECURE } else { 0 };
            let raw = BlkifRequestDiscard {
                operation: BLKIF_OP_DISCARD,
                flag,
                handle,
                id,
                sector_number: *sector,
                nr_sectors: *count,
                ..BlkifRequestDiscard::new_zeroed()
            };
            raw.write_to_prefix(&mut slot).ok()?;
        }
        Operation::Indirect { direction, sector, count, lists } => {
            let mut raw = BlkifRequestIndirect {
                operation: BLKIF_OP_INDIRECT,
                indirect_op: code(direction),
                nr_segments: *count,
                handle,
                id,
                sector_number: *sector,
                ..BlkifRequestIndirect::new_zeroed()
            };
            for (to, from) in raw.indirect_grefs.iter_mut().zip(lists) {
                *to = *from;
            }
            raw.write_to_prefix(&mut slot).ok()?;
        }
        Operation::Unknown | Operation::Malformed => return None,
    }
    Some(slot)
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Well.
    Okay,
    /// It did not work.
    Error,
    /// There is no such operation here.
    Unsupported,
}

impl Status {
    /// `BLKIF_RSP_*`.
    #[must_use]
    pub const fn code(self) -> i16 {
        match self {
            Self::Okay => BLKIF_RSP_OKAY,
            Self::Error => BLKIF_RSP_ERROR,
            Self::Unsupported => BLKIF_RSP_EOPNOTSUPP,
        }
    }

    /// What a code means; an unknown one is an error.
    #[must_use]
    pub const fn of(code: i16) -> Self {
        match code {
            BLKIF_RSP_OKAY => Self::Okay,
            BLKIF_RSP_EOPNOTSUPP => Self::Unsupported,
            _ => Self::Error,
        }
    }
}

/// The bytes of a response: a whole one, so that nothing of ours leaks in its padding.
#[must_use]
pub fn response(id: u64, code: u8, status: Status) -> [u8; size_of::<BlkifResponse>()] {
    let raw = BlkifResponse { id, operation: code, status: status.code(), ..BlkifResponse::new_zeroed() };
    let mut bytes = [0; size_of::<BlkifResponse>()];
    bytes.copy_from_slice(raw.as_bytes());
    bytes
}

/// Takes a response apart: the request's name and how it ended.
#[must_use]
pub fn decode_response(bytes: &[u8; size_of::<BlkifResponse>()]) -> (u64, Status) {
    match BlkifResponse::read_from_bytes(bytes) {
        Ok(raw) => (raw.id, Status::of(raw.status)),
        Err(_) => (0, Status::Error),
    }
}

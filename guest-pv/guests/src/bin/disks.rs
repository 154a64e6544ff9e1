//! Its disks, by the front end of the runtime: each is written, read, flushed, discarded, by requests of all shapes, with
//! one queue and with several, and its contents are checked. For a domain that has disks; others have nothing to try.
//!
//! With `watch=SECONDS least=N` on its command line it uses its first disk for so long, beside whatever goes on elsewhere:
//! each read must give what was written last, and no second may have fewer than N requests.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(clippy::cast_possible_truncation)] // x86-64 only: usize is 64 bits wide.

use core::fmt::{self, Display, Formatter};
use core::ops::Range;
use guest_pv::alloc::collections::BTreeMap;
use guest_pv::alloc::vec;
use guest_pv::alloc::vec::Vec;
use guest_pv::front::blk::{Disk, Part, Wish};
use guest_pv::front::{Buffer, Device, Error};
use guest_pv::tap::Tap;
use guest_pv::time;
use guest_pv::xenstore::Xenstore;
use guests::hostile::values::Chance;
use ring_protocol::blk::wire::{Direction, Layout, Operation, Segment, Status};
use xen_abi::ids::GrantRef;

guest_pv::test!(run);

/// Bytes of a sector.
const SECTOR: usize = 512;
/// Sectors of the disk that are used; what is copied in memory is as large.
const AREA: usize = 4096;
/// Sectors of it that one request has for itself.
const SLICE: usize = 128;

fn run(tap: &mut Tap) {
    let Some(mut store) = Xenstore::connect() else {
        tap.skip("disks", "no ring page");
        return;
    };
    let disks = Device::all(&mut store, "vbd").unwrap_or_default();
    tap.ok(!disks.is_empty(), "there are disks");
    let number = |name| guest_pv::boot().option(name).and_then(|text| text.parse().ok());
    if let (Some(seconds), Some(&disk)) = (number("watch"), disks.first()) {
        if let Err(error) = watch(tap, &mut store, disk, seconds, number("least").unwrap_or(1)) {
            tap.ok(false, "the disk works");
            tap.note(format_args!("{error}"));
        }
        return;
    }
    for number in disks {
        tap.note(format_args!("disk {number}"));
        if let Err(error) = one(tap, &mut store, number) {
            tap.ok(false, "the disk works");
            tap.note(format_args!("{error}"));
        }
    }
}

fn one(tap: &mut Tap, store: &mut Xenstore, number: u32) -> Result<(), Error> {
    let mut disk = Disk::connect(store, number, Wish::default())?;
    tap.ok(disk.geometry().sectors >= AREA as u64, "it is connected and has sectors");
    tap.note(format_args!("{:?}, {} slots", disk.geometry(), disk.slots()));
    if disk.geometry().read_only {
        return read_only(tap, &mut disk);
    }
    shapes(tap, &mut disk)?;
    refused(tap, &mut disk)?;
    let mut copy = Copy::read(&mut disk)?;
    tap.is(random(&mut disk, &mut copy, 600, 1)?, 0, "many requests at once, all of them right");
    tap.note(format_args!("usual: {copy}"));
    disk.disconnect(store)?;
    let mut bytes = copy.bytes;

    let wishes = [
        ("rings of four pages", Wish { order: 2, ..Wish::default() }),
        ("pages that are not kept", Wish { persistent: false, ..Wish::default() }),
        ("several queues of rings of two pages", Wish { order: 1, queues: 4, ..Wish::default() }),
        ("requests of 32-bit code", Wish { layout: Layout::X86_32, ..Wish::default() }),
        (
            "the same, several queues of rings of four pages",
            Wish { order: 2, queues: 4, persistent: false, layout: Layout::X86_32 },
        ),
    ];
    for ((name, wish), seed) in wishes.into_iter().zip(2..) {
        let mut disk = Disk::connect(store, number, wish)?;
        tap.ok(true, "it is connected again");
        let mut copy = Copy::new(&disk, core::mem::take(&mut bytes))?;
        tap.note(format_args!("{name}: {} queues of {} slots", disk.queues(), disk.slots()));
        tap.is(random(&mut disk, &mut copy, 600, seed)?, 0, "many requests at once, all of them right");
        tap.note(format_args!("{name}: {copy}"));
        disk.disconnect(store)?;
        bytes = copy.bytes;
    }
    Ok(())
}

/// Uses a disk for some seconds.
fn watch(tap: &mut Tap, store: &mut Xenstore, number: u32, seconds: u64, least: u64) -> Result<(), Error> {
    const SECOND: u64 = 1_000_000_000;
    let mut disk = Disk::connect(store, number, Wish::default())?;
    let mut copy = Copy::read(&mut disk)?;
    let (mut slowest, mut fastest) = (u64::MAX, 0);
    for seed in 0..seconds {
        let (start, mut count, mut broken) = (time::now(), 0, 0);
        while time::now() < start + SECOND {
            broken += random(&mut disk, &mut copy, 50, seed << 32 | count)?;
            count += 50;
        }
        let per_second = count * SECOND / (time::now() - start);
        tap.is(broken, 0, "a second of requests, all of them right");
        tap.note(format_args!("{per_second} requests"));
        (slowest, fastest) = (slowest.min(per_second), fastest.max(per_second));
    }
    tap.note(format_args!("{slowest} to {fastest} requests in a second"));
    tap.ok(slowest >= least, "no second had too few of them");
    disk.disconnect(store)
}

fn pattern(bytes: &mut [u8], seed: u64) {
    let mut chance = Chance::new(seed);
    bytes.chunks_mut(8).for_each(|part| part.copy_from_slice(&chance.any().to_le_bytes()[..part.len()]));
}

fn read_only(tap: &mut Tap, disk: &mut Disk) -> Result<(), Error> {
    let page = disk.buffer(1)?;
    disk.move_now(Direction::Read, 0, Part::whole(&page))?;
    tap.ok(true, "it is read");
    let written = disk.move_now(Direction::Write, 0, Part::whole(&page));
    tap.is(written, Err(Error::Failed), "and takes no write");
    Ok(())
}

/// One request of each shape.
fn shapes(tap: &mut Tap, disk: &mut Disk) -> Result<(), Error> {
    let grain = (disk.geometry().sector_size as usize / SECTOR).max(1);
    let (from, to) = (disk.buffer(64)?, disk.buffer(64)?);
    let mut bytes = vec![0; from.size()];
    // A sector; a page; sectors of two pages; what fits a slot; one page more, which needs a list; all of it.
    for (first, count, what) in [
        (0, grain, "a sector"),
        (0, 8, "a page"),
        (8 - grain, 2 * grain, "sectors of two pages"),
        (0, 88, "as many pages as fit a slot"),
        (0, 96, "one page more"),
        (0, 512, "all pages"),
        (8 * 50 - grain, 8 * 12 + 2 * grain, "parts of the first and the last"),
    ] {
        pattern(&mut bytes, count as u64);
        from.write(0, &bytes);
        disk.move_now(Direction::Write, 64, Part { buffer: &from, first, count })?;
        to.zero(0, to.size());
        disk.move_now(Direction::Read, 64, Part { buffer: &to, first, count })?;
        let mut got = vec![0; to.size()];
        to.read(0, &mut got);
        let range = first * SECTOR..(first + count) * SECTOR;
        let outside = got[..range.start].iter().chain(&got[range.end..]).all(|&byte| byte == 0);
        tap.ok(got[range.clone()] == bytes[range] && outside, what);
    }
    if disk.geometry().flush {
        tap.is(disk.do_now(&Operation::Flush), Ok(()), "a flush");
    }
    if disk.geometry().barrier {
        let segments = [Segment::new(from.reference(3), 0, 7).ok_or(Error::Unfit)?].into_iter().collect();
        tap.is(disk.do_now(&Operation::Barrier { sector: 8, segments }), Ok(()), "a barrier that writes");
        disk.move_now(Direction::Read, 8, Part { buffer: &to, first: 0, count: 8 })?;
        let mut got = vec![0; 4096];
        to.read(0, &mut got);
        tap.ok(got == bytes[3 * 4096..4 * 4096], "what it wrote");
        tap.is(
            disk.do_now(&Operation::Barrier { sector: 0, segments: [].into_iter().collect() }),
            Ok(()),
            "a bare one",
        );
    }
    if disk.geometry().discard {
        let discard = Operation::Discard { sector: 64, count: 64, secure: false };
        tap.is(disk.do_now(&discard), Ok(()), "a discard");
        disk.move_now(Direction::Read, 64, Part { buffer: &to, first: 0, count: 64 })?;
        let mut got = vec![1; 64 * SECTOR];
        to.read(0, &mut got);
        let holds = if got.iter().all(|&byte| byte == 0) { "zeros" } else { "something" };
        tap.note(format_args!("where it was is {holds}"));
    }
    Ok(())
}

/// What the back end must answer with an error.
fn refused(tap: &mut Tap, disk: &mut Disk) -> Result<(), Error> {
    let sectors = disk.geometry().sectors;
    let page = disk.buffer(1)?;
    let good = Segment::new(page.reference(0), 0, 7).ok_or(Error::Unfit)?;
    let read = |sector, segments: &[Segment]| Operation::Transfer {
        direction: Direction::Read,
        sector,
        segments: segments.iter().copied().collect(),
    };
    let failed = Err(Error::Failed);
    tap.is(disk.do_now(&read(sectors, &[good])), failed.clone(), "past the end");
    tap.is(disk.do_now(&read(sectors - 8, &[good, good])), failed.clone(), "across the end");
    tap.is(disk.do_now(&read(u64::MAX - 3, &[good])), failed.clone(), "around the end of numbers");
    tap.is(disk.do_now(&read(0, &[])), failed.clone(), "no segment at all");
    // 0 and 1 are the rings of the console and of the store, which dom0 may map.
    let gone = disk.buffer(1)?.reference(0).0;
    for bad in [2, 7, gone, 70_000, u32::MAX] {
        let bad = Segment::new(GrantRef(bad), 0, 7).ok_or(Error::Unfit)?;
        tap.is(disk.do_now(&read(0, &[good, bad])), failed.clone(), "a page that was not granted");
    }
    let lists = |count, lists: &[u32]| Operation::Indirect {
        direction: Direction::Read,
        sector: 0,
        count,
        lists: lists.iter().map(|&list| GrantRef(list)).collect(),
    };
    let own = page.reference(0).0;
    tap.is(disk.do_now(&lists(20, &[7])), failed.clone(), "a list that was not granted");
    tap.is(disk.do_now(&lists(4000, &[own; 8])), failed.clone(), "a list that is too long");
    page.write(0, &[0xff; 4096]);
    tap.is(disk.do_now(&lists(20, &[own])), failed.clone(), "a list of nonsense");
    tap.is(disk.do_now(&read(0, &[good])), Ok(()), "and a good one still works");
    Ok(())
}

/// What the disk should hold, and memory for requests: a buffer for each slice of it. They are one to a connection, since
/// a back end that keeps grants does so until the end.
struct Copy {
    bytes: Vec<u8>,
    buffers: Vec<Buffer>,
}

impl Copy {
    /// For a disk that holds these bytes.
    fn new(disk: &Disk, bytes: Vec<u8>) -> Result<Self, Error> {
        let buffers = (0..AREA / SLICE).map(|_| disk.buffer(SLICE * SECTOR / 4096)).collect::<Result<_, _>>()?;
        Ok(Self { bytes, buffers })
    }

    /// For a disk that holds anything.
    fn read(disk: &mut Disk) -> Result<Self, Error> {
        let mut this = Self::new(disk, vec![0; AREA * SECTOR])?;
        for ((slice, buffer), bytes) in this.buffers.iter().enumerate().zip(this.bytes.chunks_mut(SLICE * SECTOR)) {
            disk.move_now(Direction::Read, (slice * SLICE) as u64, Part::whole(buffer))?;
            buffer.read(0, bytes);
        }
        Ok(this)
    }
}

/// How many of its pages the back end keeps.
impl Display for Copy {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let sum = |of: fn(&Buffer) -> usize| self.buffers.iter().map(of).sum::<usize>();
        write!(f, "{} of {} pages are kept", sum(Buffer::mapped), sum(Buffer::pages))
    }
}

/// A request under way: its direction, where its data lies in its slice's buffer, and where in the copy.
struct Asked {
    slice: usize,
    direction: Direction,
    first: usize,
    at: Range<usize>,
}

/// Random requests on all queues, as many at once as there is room for; how many ended badly or gave what was not written
/// last. Each has a slice of the disk for itself, so that it is known what a read must find; there are no more slices than
/// slots in the smallest ring.
fn random(disk: &mut Disk, memory: &mut Copy, requests: u64, seed: u64) -> Result<u64, Error> {
    let Copy { bytes: copy, buffers } = memory;
    let mut chance = Chance::new(seed);
    let grain = (disk.geometry().sector_size as usize / SECTOR).max(1);
    let most = disk.most().min(SLICE);
    let mut free: Vec<usize> = (0..buffers.len()).collect();
    let mut under_way = BTreeMap::new();
    let (mut wrong, mut asked) = (0, 0);
    while asked < requests || !under_way.is_empty() {
        while asked < requests && !free.is_empty() {
            let slice = free.swap_remove(chance.below(free.len() as u64) as usize);
            let first = chance.below((SLICE / grain) as u64) as usize * grain;
            let count = (chance.below(((SLICE - first) / grain) as u64) as usize + 1) * grain;
            let count = count.min(most - first % 8);
            let direction = if chance.rarely(2) { Direction::Read } else { Direction::Write };
            let at = (slice * SLICE + first) * SECTOR..(slice * SLICE + first + count) * SECTOR;
            if direction == Direction::Write {
                pattern(&mut copy[at.clone()], chance.any());
                buffers[slice].write(first * SECTOR, &copy[at.clone()]);
            } else {
                buffers[slice].zero(first * SECTOR, count * SECTOR);
            }
            let queue = chance.below(disk.queues() as u64) as usize;
            let part = Part { buffer: &buffers[slice], first, count };
            let token = disk.transfer(queue, direction, (slice * SLICE + first) as u64, part)?.ok_or(Error::Unfit)?;
            under_way.insert(token, Asked { slice, direction, first, at });
            asked += 1;
            if chance.rarely(3) {
                disk.kick();
            }
        }
        disk.kick();
        let (token, status) = disk.wait()?;
        let Asked { slice, direction, first, at } = under_way.remove(&token).ok_or(Error::Broken)?;
        let mut holds = status == Status::Okay;
        if direction == Direction::Read {
            let mut got = vec![0; at.len()];
            buffers[slice].read(first * SECTOR, &mut got);
            holds &= got == copy[at];
        }
        wrong += u64::from(!holds);
        free.push(slice);
    }
    Ok(wrong)
}

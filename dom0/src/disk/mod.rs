//! The disks there are, and the volumes on them: whole disks and partitions, under the names that Linux would give them.

mod volume;

use crate::drivers::{self, Action, Done, Driver, Failure, Geometry, Name, Request, Tag, ram};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use dom0_hal::dma::Segment;
use file_places::partition::{self, Partition};
use guest_pv::{events, time};
pub use volume::{Part, Volume, within};
use xen_abi::ids::Port;

/// Sectors of the interface to drivers.
const SECTOR: u64 = 512;
/// How often it is looked whether a device takes too long, in nanoseconds.
const PERIOD: u64 = 1_000_000_000;
/// Tags of requests of our own begin here; others' count from 0.
const OWN_FIRST: u64 = 1 << 63;
/// The one that is waited for at the start.
const OWN: Tag = Tag(u64::MAX);
/// Those that look again how large a disk is.
const LOOK: Tag = Tag(u64::MAX - 1);
/// The most that is read at once: it takes a page for each 4096 bytes.
const MOST: u64 = 4096;

/// All disks.
#[derive(Debug, Default)]
pub struct Disks {
    disks: Vec<Disk>,
    /// When it is to be looked next whether a device takes too long.
    look: u64,
    /// Volumes that are files, by their paths.
    files: BTreeMap<String, Volume>,
    /// What dom0 itself reads: requests not done, and whether one failed.
    readings: BTreeMap<u64, (usize, Result<(), Failure>)>,
    next_reading: u64,
    /// Disks that are being looked at again.
    looking: usize,
    resized: bool,
}

/// Something that dom0 itself reads.
#[derive(Debug)]
pub struct Reading {
    number: u64,
    segments: Vec<Segment>,
}

#[derive(Debug)]
struct Disk {
    name: String,
    driver: Box<dyn Driver>,
    partitions: Vec<Partition>,
    /// Requests for which the driver has no room yet.
    waiting: VecDeque<Request>,
    under_way: usize,
}

/// One letter per disk of a kind, as Linux counts: `vda`, then `vdb`.
fn letter(index: usize) -> char {
    char::from(b'a' + u8::try_from(index % 26).unwrap_or(0))
}

impl Disks {
    /// Finds all disks and reads their partition tables.
    pub fn probe() -> Self {
        let mut this = Self::default();
        let mut counts: BTreeMap<&'static str, usize> = BTreeMap::new();
        for found in drivers::probe() {
            let name = match found.name {
                Name::Namespace { controller, namespace } => format!("nvme{controller}n{namespace}"),
                Name::Letter(prefix) => {
                    let count = counts.entry(prefix).or_default();
                    *count += 1;
                    format!("{prefix}{}", letter(*count - 1))
                }
            };
            this.add(name, found.driver);
        }
        this
    }

    fn add(&mut self, name: String, driver: Box<dyn Driver>) {
        let disk = Disk { name, driver, partitions: Vec::new(), waiting: VecDeque::new(), under_way: 0 };
        self.disks.push(disk);
        self.read_partitions(self.disks.len() - 1);
    }

    /// Makes a disk in memory; its path. `None` where there is not so much memory.
    pub fn add_ram(&mut self, mebibytes: usize) -> Option<String> {
        let count = self.disks.iter().filter(|disk| disk.name.starts_with("ram")).count();
        let name = format!("ram{count}");
        let path = format!("/dev/{name}");
        self.add(name, Box::new(ram::Disk::new(mebibytes)?));
        Some(path)
    }

    fn read_partitions(&mut self, index: usize) {
        let partitions = partition::read(&mut Scan { disks: self, index });
        if let Some(disk) = self.disks.get_mut(index) {
            disk.partitions = partitions;
        }
    }

    /// All volumes, and what they are.
    pub fn list(&self) -> Vec<(Volume, String)> {
        let mut all = Vec::new();
        for (index, disk) in self.disks.iter().enumerate() {
            let geometry = disk.driver.geometry();
            let lost = if disk.driver.is_dead() { " (lost)" } else { "" };
            all.push((whole(index, disk), format!("{}{lost}", disk.driver.model())));
            let grain = u64::from(geometry.sector_size) / SECTOR;
            for part in &disk.partitions {
                let separator = if disk.name.ends_with(|c: char| c.is_ascii_digit()) { "p" } else { "" };
                let path = format!("/dev/{}{separator}{}", disk.name, part.number);
                let volume = Volume::new(path, index, (part.start * grain, part.sectors * grain));
                all.push((volume, "partition".to_string()));
            }
        }
        all.extend(self.files.values().map(|volume| (volume.clone(), "file".to_string())));
        all
    }

    /// Makes a volume of a file's pieces on another volume; it takes the place of one by the same path.
    pub fn add_file(&mut self, path: String, volume: &Volume, pieces: &[Part], read_only: bool) {
        let parts = pieces.iter().flat_map(|&(first, count)| volume.place(first, count)).collect();
        let file = Volume { path: path.clone(), disk: volume.disk, parts, read_only: read_only || volume.read_only };
        self.files.insert(path, file);
    }

    /// Begins to read sectors of a volume; `None` where there is no memory for them.
    pub fn begin_read(&mut self, volume: &Volume, first: u64, count: u64) -> Option<Reading> {
        const PER_PAGE: u64 = 8;
        if count == 0 || count > MOST * PER_PAGE {
            return None;
        }
        let pages = usize::try_from(count.div_ceil(PER_PAGE)).ok()?;
        let mut segments: Vec<Segment> = (0..pages).map(|_| Segment::own()).collect::<Option<_>>()?;
        if let Some(last) = segments.last_mut() {
            let over = usize::try_from((PER_PAGE - count % PER_PAGE) % PER_PAGE * SECTOR).ok()?;
            *last = last.shortened(last.len() - over);
        }
        let most = self.geometry(volume)?.segments.max(1);
        let (number, mut sector, mut requests) = (OWN_FIRST + self.next_reading, first, 0);
        self.next_reading += 1;
        for part in segments.chunks(most) {
            let action = Action::Read { sector, segments: part.to_vec() };
            sector += part.iter().map(|segment| segment.len() as u64).sum::<u64>() / SECTOR;
            for action in volume.actions(action) {
                requests += 1;
                self.submit_raw(volume.disk, Request { tag: Tag(number), lane: 0, action });
            }
        }
        self.readings.insert(number, (requests, Ok(())));
        self.kick();
        Some(Reading { number, segments })
    }

    /// What was read, once it is there.
    pub fn end_read(&mut self, reading: &Reading) -> Option<Result<Vec<u8>, Failure>> {
        let (left, result) = self.readings.get(&reading.number)?;
        if *left > 0 {
            return None;
        }
        let result = *result;
        self.readings.remove(&reading.number);
        Some(result.map(|()| {
            let mut bytes = vec![0; reading.segments.iter().map(Segment::len).sum()];
            let mut at = 0;
            for segment in &reading.segments {
                segment.read(0, bytes.get_mut(at..at + segment.len()).unwrap_or_default());
                at += segment.len();
            }
            bytes
        }))
    }

    /// Takes the end of a request if it is one of our own; whether it was.
    pub fn take_own(&mut self, done: &Done) -> bool {
        if let Some((left, result)) = self.readings.get_mut(&done.tag.0) {
            *left = left.saturating_sub(1);
            *result = result.and(done.result);
        }
        if done.tag == LOOK {
            self.looking = self.looking.saturating_sub(1);
            self.resized = true;
        }
        done.tag.0 >= OWN_FIRST
    }

    /// Asks all disks again how large they are. One of another size is told of by [`Disks::take_resized`].
    pub fn look_again(&mut self) {
        for disk in 0..self.disks.len() {
            self.looking += 1;
            self.submit_raw(disk, Request { tag: LOOK, lane: 0, action: Action::Look });
        }
        self.kick();
    }

    /// Whether not all have answered that.
    pub fn is_looking(&self) -> bool {
        self.looking > 0
    }

    /// The volume of a path.
    pub fn find(&self, path: &str) -> Option<Volume> {
        let path = if path.starts_with('/') { path.to_string() } else { format!("/dev/{path}") };
        self.list().into_iter().map(|(volume, _)| volume).find(|volume| volume.path == path)
    }

    /// What a volume's disk is; the size is the volume's.
    pub fn geometry(&self, volume: &Volume) -> Option<Geometry> {
        let geometry = self.disks.get(volume.disk)?.driver.geometry();
        Some(Geometry {
            sectors: volume.sectors(),
            read_only: geometry.read_only || volume.read_only,
            discard: geometry.discard && volume.is_whole(),
            ..geometry
        })
    }

    /// All of a volume, where it lies in one piece on a disk that is memory.
    pub fn bytes(&mut self, volume: &Volume) -> Option<&mut [u8]> {
        let &[(start, count)] = volume.parts.as_slice() else { return None };
        let range = |sector: u64| usize::try_from(sector * SECTOR).unwrap_or(usize::MAX);
        self.disks.get_mut(volume.disk)?.driver.bytes()?.get_mut(range(start)..range(start + count))
    }

    /// Begins what [`Volume::actions`] said.
    pub fn submit(&mut self, volume: &Volume, request: Request) {
        self.submit_raw(volume.disk, request);
    }

    fn submit_raw(&mut self, disk: usize, request: Request) {
        let Some(disk) = self.disks.get_mut(disk) else {
            return;
        };
        disk.under_way += 1;
        if !disk.waiting.is_empty() {
            disk.waiting.push_back(request);
        } else if let Some(back) = disk.driver.submit(request) {
            disk.waiting.push_back(back);
        }
        if self.look == 0 {
            self.look = time::now() + PERIOD;
        }
    }

    /// Tells the devices of what was submitted.
    pub fn kick(&mut self) {
        for disk in &mut self.disks {
            disk.driver.kick();
        }
    }

    /// Collects what is done, and goes on with what waited.
    pub fn collect(&mut self) -> Vec<Done> {
        let mut done = Vec::new();
        for disk in &mut self.disks {
            disk.collect(&mut done);
        }
        done
    }

    /// Gives up what takes too long.
    pub fn expire(&mut self) -> Vec<Done> {
        let mut done = Vec::new();
        if self.look == 0 {
            return done;
        }
        let now = time::now();
        if now < self.look {
            return done;
        }
        for disk in &mut self.disks {
            let before = done.len();
            disk.driver.expire(now, &mut done);
            disk.under_way = disk.under_way.saturating_sub(done.len() - before);
            disk.go_on();
        }
        let busy = self.disks.iter().any(|disk| disk.under_way > 0);
        self.look = if busy { now + PERIOD } else { 0 };
        done
    }

    /// When [`Disks::expire`] is to be called next.
    pub fn deadline(&self) -> Option<u64> {
        (self.look != 0).then_some(self.look)
    }

    /// Whether something may have come to its end of which no event tells.
    pub fn has_news(&self) -> bool {
        self.disks.iter().any(|disk| disk.under_way > 0 && (disk.driver.ports().is_empty() || disk.driver.is_dead()))
    }

    /// Takes an event, if it is a disk's; whether it was.
    pub fn event(&mut self, port: Port) -> bool {
        let mut any = false;
        // Several disks of a controller have one port for that, and it may be the one of a queue, too.
        for disk in self.disks.iter_mut().filter(|disk| disk.driver.change_port() == Some(port)) {
            self.resized |= disk.driver.refresh();
            any = true;
        }
        // That something is done says no more than that something is to be collected.
        any || self.disks.iter().any(|disk| disk.driver.ports().contains(&port))
    }

    /// Whether a disk's size may have changed since this was asked last.
    pub fn take_resized(&mut self) -> bool {
        core::mem::take(&mut self.resized)
    }

    /// Event channels in use.
    pub fn ports(&self) -> usize {
        let ports = |disk: &Disk| {
            let of_queues = disk.driver.ports();
            of_queues.len() + usize::from(disk.driver.change_port().is_some_and(|port| !of_queues.contains(&port)))
        };
        self.disks.iter().map(ports).sum()
    }

    /// Reads sectors (of 512 bytes) of a disk and waits for them. Only while nobody else uses the disk.
    fn read_now(&mut self, disk: usize, sector: u64, count: usize) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        let mut sector = sector;
        let mut left = count;
        while left > 0 {
            let page = Segment::own().ok_or(Failure::Device)?;
            let some = left.min(page.len() / 512);
            let segment = page.shortened(some * 512);
            let action = Action::Read { sector, segments: vec![segment.clone()] };
            self.submit_raw(disk, Request { tag: OWN, lane: 0, action });
            self.kick();
            self.wait()?;
            let mut part = vec![0; segment.len()];
            segment.read(0, &mut part);
            bytes.append(&mut part);
            sector += some as u64;
            left -= some;
        }
        Ok(bytes)
    }

    /// Waits for the request of our own that is under way.
    fn wait(&mut self) -> Result<(), Failure> {
        loop {
            let done = self.collect().into_iter().chain(self.expire()).find(|done| done.tag == OWN);
            if let Some(done) = done {
                return done.result;
            }
            events::wait(Some(time::now() + PERIOD));
            // The event itself says no more than that there is something to collect. Others than disks' are taken up by
            // looking at everything once at the start.
            while events::poll().is_some() {}
        }
    }
}

fn whole(index: usize, disk: &Disk) -> Volume {
    Volume::new(format!("/dev/{}", disk.name), index, (0, disk.driver.geometry().sectors))
}

impl Disk {
    fn collect(&mut self, done: &mut Vec<Done>) {
        let before = done.len();
        self.driver.collect(done);
        self.under_way = self.under_way.saturating_sub(done.len() - before);
        self.go_on();
    }

    fn go_on(&mut self) {
        while let Some(next) = self.waiting.pop_front() {
            if let Some(back) = self.driver.submit(next) {
                self.waiting.push_front(back);
                break;
            }
        }
    }
}

/// Reads a disk's partition table.
struct Scan<'a> {
    disks: &'a mut Disks,
    index: usize,
}

impl Scan<'_> {
    fn geometry(&self) -> Option<Geometry> {
        self.disks.disks.get(self.index).map(|disk| disk.driver.geometry())
    }
}

impl partition::Reader for Scan<'_> {
    fn sector_size(&self) -> usize {
        self.geometry().map_or(512, |geometry| usize::try_from(geometry.sector_size).unwrap_or(512))
    }

    fn sectors(&self) -> u64 {
        self.geometry().map_or(0, |geometry| geometry.sectors * SECTOR / u64::from(geometry.sector_size))
    }

    fn read(&mut self, first: u64, count: usize) -> Option<Vec<u8>> {
        /// More than any table takes.
        const MOST: usize = 1 << 20;
        let end = first.checked_add(count as u64)?;
        if end > self.sectors() || count * self.sector_size() > MOST {
            return None;
        }
        let grain = self.sector_size() / 512;
        self.disks.read_now(self.index, first * grain as u64, count * grain).ok()
    }
}

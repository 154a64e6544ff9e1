//! The disks there are, and the volumes on them: whole disks and partitions, under the names that Linux would give them.

pub mod partition;

use crate::drivers::{self, Action, Done, Driver, Failure, Geometry, Name, Request, Tag, ram};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use dom0_hal::dma::Segment;
use guest_pv::{events, time};
use partition::Partition;
use xen_abi::ids::Port;

/// Sectors of the interface to drivers.
const SECTOR: u64 = 512;
/// How often it is looked whether a device takes too long, in nanoseconds.
const PERIOD: u64 = 1_000_000_000;
/// Tags of requests of our own; others' count from 0.
const OWN: Tag = Tag(u64::MAX);

/// All disks.
#[derive(Debug, Default)]
pub struct Disks {
    disks: Vec<Disk>,
    /// When it is to be looked next whether a device takes too long.
    look: u64,
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

/// A disk, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Its path: `/dev/vda1`.
    pub path: String,
    disk: usize,
    /// Where it begins, in sectors of 512 bytes.
    start: u64,
    /// Its size in such sectors.
    pub sectors: u64,
}

impl Volume {
    /// Whether it shares sectors with another one.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.disk == other.disk && self.start < other.start + other.sectors && other.start < self.start + self.sectors
    }
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
                let volume = Volume { path, disk: index, start: part.start * grain, sectors: part.sectors * grain };
                all.push((volume, "partition".to_string()));
            }
        }
        all
    }

    /// The volume of a path.
    pub fn find(&self, path: &str) -> Option<Volume> {
        let path = if path.starts_with('/') { path.to_string() } else { format!("/dev/{path}") };
        self.list().into_iter().map(|(volume, _)| volume).find(|volume| volume.path == path)
    }

    /// What a volume's disk is; the size is the volume's.
    pub fn geometry(&self, volume: &Volume) -> Option<Geometry> {
        let geometry = self.disks.get(volume.disk)?.driver.geometry();
        Some(Geometry { sectors: volume.sectors, ..geometry })
    }

    /// Begins a request on a volume; its sectors count from the volume's start and are within it.
    pub fn submit(&mut self, volume: &Volume, mut request: Request) {
        match &mut request.action {
            Action::Read { sector, .. } | Action::Write { sector, .. } | Action::Discard { sector, .. } => {
                *sector += volume.start;
            }
            Action::Flush => {}
        }
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
        let now = time::now();
        if self.look == 0 || now < self.look {
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

    /// Whether an event is a disk's.
    pub fn has_port(&self, port: Port) -> bool {
        self.disks.iter().any(|disk| disk.driver.port() == Some(port))
    }

    /// Event channels in use.
    pub fn ports(&self) -> usize {
        self.disks.iter().filter(|disk| disk.driver.port().is_some()).count()
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
            self.submit_raw(disk, Request { tag: OWN, action });
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
    Volume { path: format!("/dev/{}", disk.name), disk: index, start: 0, sectors: disk.driver.geometry().sectors }
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

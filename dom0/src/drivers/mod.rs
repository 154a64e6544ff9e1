//! Drivers of disks: what they have in common.
//!
//! A driver takes requests without waiting, and gives each back as [`Done`]: when the device has answered, when it did
//! not in time and was reset, or when it is gone. Until then it holds the request's memory.

pub mod ahci;
pub mod nvme;
pub mod ram;
pub mod virtio;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Debug;
use dom0_hal::dma::Segment;
use dom0_hal::pci::{self, Device};
use guest_pv::{println, time};
use xen_abi::ids::Port;

/// A request may take so long, in nanoseconds.
const PATIENCE: u64 = 20_000_000_000;
/// So long a device may take to stop, to start, to say what it is, while dom0 itself starts and nobody waits.
const SOON: u64 = 5_000_000_000;
/// And so long each of that while dom0 runs: all others wait meanwhile.
const BRIEFLY: u64 = 1_000_000_000;

/// Queues of a disk, at most: those of a guest's front end.
pub const LANES: u16 = 4;

/// How many queues a disk has, for its model.
fn queues(count: usize) -> String {
    if count == 1 { String::new() } else { format!(", {count} queues") }
}

/// Names a request to whoever made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag(pub u64);

/// What to do. Sectors are of 512 bytes.
#[derive(Clone, Debug)]
pub enum Action {
    /// Fill the segments.
    Read {
        /// From here on.
        sector: u64,
        /// The memory, in whole sectors of the disk's own.
        segments: Vec<Segment>,
    },
    /// Write the segments.
    Write {
        /// From here on.
        sector: u64,
        /// The memory, in whole sectors of the disk's own.
        segments: Vec<Segment>,
    },
    /// All that was done is to survive a power cut.
    Flush,
    /// These sectors are not needed any more.
    Discard {
        /// From here on.
        sector: u64,
        /// So many.
        count: u64,
    },
    /// The driver asks the disk again how large it is; [`Driver::geometry`] says so then.
    Look,
}

impl Action {
    /// The memory it moves.
    pub fn segments(&self) -> &[Segment] {
        match self {
            Self::Read { segments, .. } | Self::Write { segments, .. } => segments,
            Self::Flush | Self::Discard { .. } | Self::Look => &[],
        }
    }
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its name.
    pub tag: Tag,
    /// By which of the disk's queues, counted on beyond those it has.
    pub lane: usize,
    /// What to do.
    pub action: Action,
}

/// A request that a device has. It holds the memory.
#[derive(Debug)]
pub struct UnderWay {
    /// The request.
    pub request: Request,
    /// When it was submitted.
    pub since: u64,
}

impl UnderWay {
    fn new(request: Request) -> Self {
        Self { request, since: time::now() }
    }

    /// Whether it takes too long.
    fn is_late(&self, now: u64) -> bool {
        now.saturating_sub(self.since) > PATIENCE
    }

    /// Its end.
    fn done(&self, result: Result<(), Failure>) -> Done {
        Done { tag: self.request.tag, result }
    }
}

/// Waits, so long at most, until something is so.
fn wait(what: &str, limit: u64, mut so: impl FnMut() -> bool) -> Result<(), String> {
    let end = time::now() + limit;
    while !so() {
        if time::now() > end {
            return Err(format!("{what} takes too long"));
        }
    }
    Ok(())
}

/// Why something did not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The device says so, or is gone.
    Device,
    /// The device cannot do that.
    Unsupported,
    /// It took too long.
    Timeout,
}

/// The end of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// Which.
    pub tag: Tag,
    /// How.
    pub result: Result<(), Failure>,
}

/// What a disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Its size in sectors of 512 bytes.
    pub sectors: u64,
    /// Bytes of its own sectors, in which everything moves.
    pub sector_size: u32,
    /// Bytes of what it writes at once inside.
    pub physical_sector_size: u32,
    /// It takes no writes.
    pub read_only: bool,
    /// It has a cache that can be flushed, or none at all.
    pub flush: bool,
    /// It can discard.
    pub discard: bool,
    /// Segments of one request, at most.
    pub segments: usize,
}

/// A disk's driver.
pub trait Driver: Debug {
    /// What it is, in a few words.
    fn model(&self) -> String;
    /// What the disk is.
    fn geometry(&self) -> Geometry;
    /// All of it, where it is memory: then data can be copied without a request.
    fn bytes(&mut self) -> Option<&mut [u8]> {
        None
    }
    /// It is lost: every request fails.
    fn is_dead(&self) -> bool;
    /// Takes a request, or gives it back while there is no room for it.
    fn submit(&mut self, request: Request) -> Option<Request>;
    /// Tells the device of what was submitted.
    fn kick(&mut self);
    /// Looks what is done.
    fn collect(&mut self, done: &mut Vec<Done>);
    /// Looks after the device: collects what no interrupt told of, gives up what takes too long. To be called from time
    /// to time while requests are under way.
    fn expire(&mut self, now: u64, done: &mut Vec<Done>);
    /// The events that say that something is done.
    fn ports(&self) -> &[Port];
    /// The event that says that the disk has changed.
    fn change_port(&self) -> Option<Port> {
        None
    }
    /// Looks what that event was about; whether the disk has another size now.
    fn refresh(&mut self) -> bool {
        false
    }
}

/// How Linux names disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// By a letter after this.
    Letter(&'static str),
    /// By its controller and its namespace there.
    Namespace {
        /// The controller: the how manieth.
        controller: usize,
        /// The namespace.
        namespace: u32,
    },
}

/// A disk that was found.
#[derive(Debug)]
pub struct Found {
    /// How it is named.
    pub name: Name,
    /// Its driver.
    pub driver: Box<dyn Driver>,
}

/// Finds all disks.
pub fn probe() -> Vec<Found> {
    if let Err(errno) = dom0_hal::init() {
        println!("pci: no access to I/O ports: {errno}");
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut controllers = 0;
    let devices = pci::enumerate();
    let (all, in_memory) = (devices.len(), devices.iter().filter(|device| device.is_in_memory()).count());
    println!("pci: {all} functions, {in_memory} with configuration space in memory");
    for device in devices {
        match start(&device, &mut controllers) {
            None => {}
            Some(Ok(disks)) => found.extend(disks),
            Some(Err(why)) => println!("pci {}: {why}", device.address()),
        }
    }
    found
}

/// Starts a device that is of a known kind. `controllers` counts those that Linux counts.
fn start(device: &Device, controllers: &mut usize) -> Option<Result<Vec<Found>, String>> {
    fn all<D: Driver + 'static>(disks: Vec<D>, name: impl Fn(&D) -> Name) -> Vec<Found> {
        disks.into_iter().map(|disk| Found { name: name(&disk), driver: Box::new(disk) }).collect()
    }
    if virtio::blk::is_one(device) {
        let disk = virtio::blk::Disk::start(device);
        return Some(disk.map(|disk| all(Vec::from([disk]), |_| Name::Letter("vd"))));
    }
    if nvme::is_one(device) {
        let controller = *controllers;
        *controllers += 1;
        let name = |disk: &nvme::Disk| Name::Namespace { controller, namespace: disk.namespace() };
        return Some(nvme::start(device).map(|disks| all(disks, name)));
    }
    if ahci::is_one(device) {
        return Some(ahci::start(device).map(|disks| all(disks, |_| Name::Letter("sd"))));
    }
    None
}

//! Drivers of disks: what they have in common.
//!
//! A driver takes requests without waiting, and gives each back as [`Done`]: when the device has answered, when it did
//! not in time and was reset, or when it is gone. Until then it holds the request's memory.

pub mod ahci;
pub mod nvme;
pub mod ram;
pub mod virtio;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Debug;
use dom0_hal::dma::Segment;
use dom0_hal::pci::{self, Device};
use guest_pv::println;
use xen_abi::ids::Port;

/// A request may take so long, in nanoseconds.
pub const PATIENCE: u64 = 20_000_000_000;

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
}

impl Action {
    /// The memory it moves.
    pub fn segments(&self) -> &[Segment] {
        match self {
            Self::Read { segments, .. } | Self::Write { segments, .. } => segments,
            Self::Flush | Self::Discard { .. } => &[],
        }
    }
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its name.
    pub tag: Tag,
    /// What to do.
    pub action: Action,
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
    /// Takes a request, or gives it back while there is no room for it.
    fn submit(&mut self, request: Request) -> Option<Request>;
    /// Tells the device of what was submitted.
    fn kick(&mut self);
    /// Looks what is done.
    fn collect(&mut self, done: &mut Vec<Done>);
    /// Gives up what takes too long. To be called from time to time.
    fn expire(&mut self, now: u64, done: &mut Vec<Done>);
    /// The event that says that something is done.
    fn port(&self) -> Option<Port>;
}

/// A disk that was found.
#[derive(Debug)]
pub struct Found {
    /// How its name begins: as Linux names such disks.
    pub prefix: &'static str,
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
    for device in pci::enumerate() {
        let started = match start(&device) {
            Some(started) => started,
            None => continue,
        };
        match started {
            Ok(disks) => found.extend(disks),
            Err(why) => println!("pci {}: {why}", device.address()),
        }
    }
    found
}

/// Starts a device that is of a known kind.
fn start(device: &Device) -> Option<Result<Vec<Found>, String>> {
    if virtio::blk::is_one(device) {
        return Some(virtio::blk::Disk::start(device).map(|disk| {
            let driver: Box<dyn Driver> = Box::new(disk);
            Vec::from([Found { prefix: "vd", driver }])
        }));
    }
    if nvme::is_one(device) {
        return Some(
            nvme::Disk::start(device).map(|disk| Vec::from([Found { prefix: "nvme", driver: Box::new(disk) }])),
        );
    }
    if ahci::is_one(device) {
        let found = |disk| Found { prefix: "sd", driver: Box::new(disk) };
        return Some(ahci::start(device).map(|disks| disks.into_iter().map(found).collect()));
    }
    None
}

//! Virtio disks (virtio 1.2, 5.2).

use super::queue::{Broken, PARTS, PRIVATE, Part, Queue};
use super::transport::{INDIRECT, Transport};
use crate::drivers::{Action, Done, Driver, Failure, Geometry, LANES, Request, UnderWay, queues};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use dom0_hal::msi::Interrupt;
use dom0_hal::pci::Device;
use guest_pv::println;
use xen_abi::ids::Port;

const VENDOR: u16 = 0x1af4;
/// The same device with and without the old interface beside the new one.
const DEVICES: [u16; 2] = [0x1001, 0x1042];

/// Features (`VIRTIO_BLK_F_*`).
const SEG_MAX: u64 = 1 << 2;
const RO: u64 = 1 << 5;
const BLK_SIZE: u64 = 1 << 6;
const FLUSH: u64 = 1 << 9;
const TOPOLOGY: u64 = 1 << 10;
const MQ: u64 = 1 << 12;
const DISCARD: u64 = 1 << 13;

/// Offsets in the configuration (`struct virtio_blk_config`).
mod config {
    pub const CAPACITY: usize = 0;
    pub const SEG_MAX: usize = 12;
    pub const BLK_SIZE: usize = 20;
    pub const PHYSICAL_BLOCK_EXP: usize = 24;
    pub const NUM_QUEUES: usize = 34;
}

/// Kinds of requests (`VIRTIO_BLK_T_*`).
const T_IN: u32 = 0;
const T_OUT: u32 = 1;
const T_FLUSH: u32 = 4;
const T_DISCARD: u32 = 11;

/// How they end (`VIRTIO_BLK_S_*`).
const S_OK: u8 = 0;
const S_UNSUPPORTED: u8 = 2;
/// What stands there before: none of the above.
const S_NONE: u8 = 0xff;

/// In a request's page: the header, the range to discard, the status.
const HEADER: usize = PRIVATE;
const HEADER_LEN: u32 = 16;
const RANGE: usize = PRIVATE + 16;
const RANGE_LEN: u32 = 16;
const STATUS: usize = PRIVATE + 32;

/// The message of the first queue; those of others follow the one that says that the configuration has changed.
const FIRST: u16 = 0;
const CHANGED: u16 = 1;

/// A disk.
#[derive(Debug)]
pub struct Disk {
    device: Device,
    transport: Transport,
    lanes: Vec<Lane>,
    /// The events of the lanes' interrupts.
    ports: Vec<Port>,
    /// Not every device has as many messages.
    changed: Option<Interrupt>,
    geometry: Geometry,
    /// Requests that are done without the device: its configuration says how large it is.
    looked: Vec<Done>,
    /// It was reset in vain, or is gone: everything fails.
    dead: bool,
}

/// A queue and what is in it.
#[derive(Debug)]
struct Lane {
    queue: Queue,
    vector: u16,
    interrupt: Interrupt,
    /// By slot.
    under_way: Vec<Option<UnderWay>>,
    queued: bool,
}

/// Is it a virtio disk?
pub fn is_one(device: &Device) -> bool {
    device.vendor == VENDOR && DEVICES.contains(&device.device)
}

const WANTED: u64 = INDIRECT | SEG_MAX | RO | BLK_SIZE | FLUSH | TOPOLOGY | MQ | DISCARD;

impl Disk {
    /// Starts a disk.
    pub fn start(device: &Device) -> Result<Self, String> {
        let transport = Transport::new(device)?;
        let features = transport.negotiate(WANTED)?;
        if features & INDIRECT == 0 {
            return Err(String::from("a virtio disk without indirect descriptors is not supported"));
        }
        let interrupt = Interrupt::message(device, FIRST).map_err(|errno| format!("no interrupt: {errno}"))?;
        let changed = Interrupt::message(device, CHANGED).ok();
        transport.set_change_vector(changed.as_ref().map(|_| CHANGED));
        let config = &transport.config;
        let has = |bit| features & bit != 0;
        let queues = if has(MQ) { config.read16(config::NUM_QUEUES) } else { 1 };
        let mut lanes = Vec::from([Lane::new(&transport, 0, FIRST, interrupt)?]);
        for number in 1..queues.min(LANES) {
            let vector = CHANGED + number;
            // Where there is no message or no memory for one more, there are enough.
            let Ok(interrupt) = Interrupt::message(device, vector) else { break };
            let Ok(lane) = Lane::new(&transport, number, vector, interrupt) else { break };
            lanes.push(lane);
        }
        transport.go();
        let sector_size = if has(BLK_SIZE) { config.read32(config::BLK_SIZE) } else { 512 };
        if !(512..=4096).contains(&sector_size) || !sector_size.is_power_of_two() {
            return Err(format!("sectors of {sector_size} bytes are not supported"));
        }
        let exponent = if has(TOPOLOGY) { config.read8(config::PHYSICAL_BLOCK_EXP).min(8) } else { 0 };
        let max = if has(SEG_MAX) { config.read32(config::SEG_MAX) } else { 1 };
        let geometry = Geometry {
            sectors: config.read64(config::CAPACITY),
            sector_size,
            physical_sector_size: sector_size << exponent,
            read_only: has(RO),
            flush: has(FLUSH),
            discard: has(DISCARD),
            // Header and status take a part each.
            segments: usize::try_from(max).unwrap_or(1).clamp(1, PARTS - 2),
        };
        let ports = lanes.iter().map(|lane| lane.interrupt.port()).collect();
        Ok(Self { device: device.clone(), transport, lanes, ports, changed, geometry, looked: Vec::new(), dead: false })
    }

    /// Ends all that is under way: the device was reset or is gone, so it does not touch the memory any more.
    fn give_up(&mut self, why: Failure, done: &mut Vec<Done>) {
        for lane in &mut self.lanes {
            lane.queue.release_all();
            done.extend(lane.under_way.iter_mut().filter_map(Option::take).map(|under_way| under_way.done(Err(why))));
        }
    }

    /// Begins anew with a device that does not do what it should.
    fn restart(&mut self, why: Failure, text: &str, done: &mut Vec<Done>) {
        println!("pci {}: virtio disk: reset, {text}", self.device.address());
        if let Err(error) = self.bring_up() {
            println!("pci {}: virtio disk: {error}", self.device.address());
            self.device.disable();
            self.dead = true;
        }
        self.give_up(why, done);
    }

    /// Resets the device and gives it its queues, which are empty.
    fn bring_up(&mut self) -> Result<(), String> {
        if !self.device.is_there() {
            return Err(String::from("it is gone"));
        }
        self.transport.negotiate(WANTED)?;
        for lane in &mut self.lanes {
            lane.queue.hand_over(&self.transport, lane.vector)?;
        }
        self.transport.set_change_vector(self.changed.as_ref().map(|_| CHANGED));
        self.transport.go();
        Ok(())
    }

    /// Looks how large it is; whether it is another size than before.
    fn look(&mut self) -> bool {
        let sectors = self.transport.config.read64(config::CAPACITY);
        // One that was pulled out says all kinds of things.
        let is_new = sectors != self.geometry.sectors && self.device.is_there();
        if is_new {
            self.geometry.sectors = sectors;
        }
        is_new
    }

    fn is_busy(&self) -> bool {
        self.lanes.iter().any(|lane| lane.under_way.iter().any(Option::is_some))
    }
}

impl Lane {
    fn new(transport: &Transport, number: u16, vector: u16, interrupt: Interrupt) -> Result<Self, String> {
        let queue = Queue::new(transport, number, vector)?;
        Ok(Self { queue, vector, interrupt, under_way: Vec::new(), queued: false })
    }

    /// Puts a request together in its slot.
    fn prepare(&mut self, slot: u16, request: &Request) {
        let Some(table) = self.queue.table(slot) else {
            return;
        };
        let base = table.machine_address();
        let (kind, sector) = match &request.action {
            Action::Read { sector, .. } => (T_IN, *sector),
            Action::Write { sector, .. } => (T_OUT, *sector),
            // That a disk is looked at takes no request.
            Action::Flush | Action::Look => (T_FLUSH, 0),
            Action::Discard { .. } => (T_DISCARD, 0),
        };
        table.store_u32(HEADER, kind);
        table.store_u32(HEADER + 4, 0);
        table.store_u64(HEADER + 8, sector);
        table.u8_at(STATUS).store(S_NONE, Ordering::Relaxed);
        let mut parts = Vec::with_capacity(request.action.segments().len() + 2);
        parts.push(Part { address: base + HEADER as u64, len: HEADER_LEN, written: false });
        if let Action::Discard { sector, count } = &request.action {
            table.store_u64(RANGE, *sector);
            table.store_u32(RANGE + 8, u32::try_from(*count).unwrap_or(u32::MAX));
            table.store_u32(RANGE + 12, 0);
            parts.push(Part { address: base + RANGE as u64, len: RANGE_LEN, written: false });
        }
        parts.extend(request.action.segments().iter().map(|segment| Part {
            address: segment.machine_address(),
            len: u32::try_from(segment.len()).unwrap_or(0),
            written: kind == T_IN,
        }));
        parts.push(Part { address: base + STATUS as u64, len: 1, written: true });
        self.queue.push(slot, parts.into_iter());
    }

    /// Takes what is done; whether the answers make sense.
    fn take(&mut self, done: &mut Vec<Done>) -> Result<(), Broken> {
        while let Some(slot) = self.queue.pop()? {
            let status = self.queue.table(slot).map(|table| table.u8_at(STATUS).load(Ordering::Acquire));
            self.queue.release(slot);
            let Some(under_way) = self.under_way.get_mut(usize::from(slot)).and_then(Option::take) else {
                continue;
            };
            let result = match status {
                Some(S_OK) => Ok(()),
                Some(S_UNSUPPORTED) => Err(Failure::Unsupported),
                _ => Err(Failure::Device),
            };
            done.push(under_way.done(result));
        }
        self.interrupt.done();
        Ok(())
    }
}

impl Driver for Disk {
    fn model(&self) -> String {
        format!("virtio disk at {}{}", self.device.address(), queues(self.lanes.len()))
    }

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn is_dead(&self) -> bool {
        self.dead
    }

    fn submit(&mut self, request: Request) -> Option<Request> {
        if let Action::Look = request.action {
            self.look();
            self.looked.push(Done { tag: request.tag, result: Ok(()) });
            return None;
        }
        let count = self.lanes.len().max(1);
        let Some(lane) = self.lanes.get_mut(request.lane % count) else {
            return Some(request);
        };
        let Some(slot) = lane.queue.reserve() else {
            return Some(request);
        };
        let at = usize::from(slot);
        if lane.under_way.len() <= at {
            lane.under_way.resize_with(at + 1, || None);
        }
        if !self.dead {
            lane.prepare(slot, &request);
            lane.queued = true;
        }
        if let Some(place) = lane.under_way.get_mut(at) {
            *place = Some(UnderWay::new(request));
        }
        None
    }

    fn kick(&mut self) {
        for lane in self.lanes.iter_mut().filter(|lane| lane.queued && !self.dead) {
            lane.queued = false;
            lane.queue.kick(&self.transport);
        }
    }

    fn collect(&mut self, done: &mut Vec<Done>) {
        done.append(&mut self.looked);
        if self.dead {
            self.give_up(Failure::Device, done);
        } else if self.lanes.iter_mut().any(|lane| lane.take(done).is_err()) {
            self.restart(Failure::Device, "it names requests that are not under way", done);
        }
    }

    fn expire(&mut self, now: u64, done: &mut Vec<Done>) {
        // An interrupt may have been lost.
        self.collect(done);
        if self.dead || !self.is_busy() {
            return;
        }
        let mut all = self.lanes.iter().flat_map(|lane| lane.under_way.iter().flatten());
        if !self.device.is_there() {
            self.restart(Failure::Device, "it does not work", done);
        } else if all.any(|under_way| under_way.is_late(now)) {
            self.restart(Failure::Timeout, "it does not answer", done);
        }
    }

    fn ports(&self) -> &[Port] {
        &self.ports
    }

    fn change_port(&self) -> Option<Port> {
        self.changed.as_ref().map(Interrupt::port)
    }

    fn refresh(&mut self) -> bool {
        let is_new = self.look();
        if let Some(changed) = &self.changed {
            changed.done();
        }
        is_new
    }
}

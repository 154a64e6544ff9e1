//! SATA disks behind an AHCI controller (Serial ATA AHCI 1.3.1). Each port with a disk is one; they share the controller's
//! interrupt. Commands are queued in the controller's 32 slots and done one after the other (no NCQ).

use crate::drivers::{Action, Done, Driver, Failure, Geometry, PATIENCE, Request};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use dom0_hal::dma::Page;
use dom0_hal::msi::Interrupt;
use dom0_hal::pci::Device;
use dom0_hal::registers::Registers;
use guest_pv::{println, time};
use xen_abi::ids::Port;

/// Class 1 (storage), subclass 6 (SATA), interface 1 (AHCI).
const CLASS: u32 = 0x01_06_01;
/// The region of the registers.
const BAR: u8 = 5;

/// The controller's registers.
mod host {
    pub const CONTROL: usize = 0x04;
    pub const STATUS: usize = 0x08;
    pub const PORTS: usize = 0x0c;
    pub const CAPABILITIES_2: usize = 0x24;
    pub const HANDOFF: usize = 0x28;
    pub const LEN: usize = 0x1100;
}
const CONTROL_AHCI: u32 = 1 << 31;
const CONTROL_INTERRUPT: u32 = 1 << 1;

/// A port's registers.
mod port {
    pub const LIST: usize = 0x00;
    pub const FIS: usize = 0x08;
    pub const STATUS: usize = 0x10;
    pub const ENABLE: usize = 0x14;
    pub const COMMAND: usize = 0x18;
    pub const TASK: usize = 0x20;
    pub const SIGNATURE: usize = 0x24;
    pub const LINK: usize = 0x28;
    pub const ERROR: usize = 0x30;
    pub const ISSUE: usize = 0x38;
}
const START: u32 = 1 << 0;
const FIS_RECEIVE: u32 = 1 << 4;
const FIS_RUNNING: u32 = 1 << 14;
const LIST_RUNNING: u32 = 1 << 15;
/// The disk is busy, or wants data.
const TASK_BUSY: u32 = 0x88;
/// What a port interrupts for: a command is done, the link has changed, an error.
const EVENTS: u32 = FAILURES | 1 << 22 | 0xf;
/// Errors after which the port stands still.
const FAILURES: u32 = 0x7800_0000;
/// A disk, not a drive for discs nor a port multiplier.
const DISK: u32 = 0x0000_0101;

/// ATA commands.
const READ: u8 = 0x25;
const WRITE: u8 = 0x35;
const FLUSH: u8 = 0xea;
const IDENTIFY: u8 = 0xec;

/// Slots of a port.
const SLOTS: usize = 32;
/// In a command's page: the list of its memory.
const PARTS: usize = 0x80;
/// How many fit, with room to spare.
const SEGMENTS: usize = 128;
/// How long a port may take to stop or start, and a disk to say what it is.
const SOON: u64 = 5_000_000_000;

/// Is it an AHCI controller?
pub fn is_one(device: &Device) -> bool {
    device.class == CLASS
}

/// The controller.
#[derive(Debug)]
struct Host {
    device: Device,
    registers: Registers,
    interrupt: Interrupt,
}

/// A disk.
#[derive(Debug)]
pub struct Disk {
    host: Rc<Host>,
    port: usize,
    /// The list of commands, and after it what the disk answers.
    list: Page,
    tables: Vec<Page>,
    under_way: [Option<UnderWay>; SLOTS],
    issued: u32,
    geometry: Geometry,
    model: String,
    dead: bool,
}

#[derive(Debug)]
struct UnderWay {
    request: Request,
    since: u64,
}

fn wait(what: &str, mut so: impl FnMut() -> bool) -> Result<(), String> {
    let end = time::now() + SOON;
    while !so() {
        if time::now() > end {
            return Err(format!("{what} takes too long"));
        }
    }
    Ok(())
}

/// Starts a controller and the disks at its ports.
pub fn start(device: &Device) -> Result<Vec<Disk>, String> {
    device.enable();
    let registers = device.map(BAR, 0, host::LEN).or_else(|_| device.map(BAR, 0, 0x400));
    let registers = registers.map_err(|errno| format!("no registers: {errno}"))?;
    // The firmware is to let go of it.
    if registers.read32(host::CAPABILITIES_2) & 1 != 0 {
        registers.write32(host::HANDOFF, registers.read32(host::HANDOFF) | 2);
        wait("the firmware", || registers.read32(host::HANDOFF) & 1 == 0)?;
    }
    registers.write32(host::CONTROL, CONTROL_AHCI);
    let interrupt = Interrupt::of(device).map_err(|errno| format!("no interrupt: {errno}"))?;
    let host = Rc::new(Host { device: device.clone(), registers, interrupt });
    let ports = host.registers.read32(host::PORTS);
    let mut disks = Vec::new();
    for port in (0..32).filter(|port| ports & 1 << port != 0) {
        match Disk::start(&host, port) {
            Ok(Some(disk)) => disks.push(disk),
            Ok(None) => {}
            Err(why) => println!("pci {}: port {port}: {why}", device.address()),
        }
    }
    host.registers.write32(host::STATUS, u32::MAX);
    host.registers.write32(host::CONTROL, CONTROL_AHCI | CONTROL_INTERRUPT);
    Ok(disks)
}

impl Disk {
    fn read(&self, register: usize) -> u32 {
        self.host.registers.read32(0x100 + self.port * 0x80 + register)
    }

    fn write(&self, register: usize, value: u32) {
        self.host.registers.write32(0x100 + self.port * 0x80 + register, value);
    }

    fn write64(&self, register: usize, value: u64) {
        self.host.registers.write64(0x100 + self.port * 0x80 + register, value);
    }

    /// The disk at a port, if there is one.
    fn start(host: &Rc<Host>, port: usize) -> Result<Option<Self>, String> {
        let page = || Page::new().ok_or_else(|| String::from("no memory"));
        let mut this = Self {
            host: host.clone(),
            port,
            list: page()?,
            tables: (0..SLOTS).map(|_| page()).collect::<Result<_, _>>()?,
            under_way: [const { None }; SLOTS],
            issued: 0,
            geometry: Geometry {
                sectors: 0,
                sector_size: 512,
                physical_sector_size: 512,
                read_only: false,
                flush: true,
                discard: false,
                segments: SEGMENTS,
            },
            model: String::new(),
            dead: false,
        };
        // A link that is up and active.
        if this.read(port::LINK) & 0xf0f != 0x103 {
            return Ok(None);
        }
        this.restart_port()?;
        if this.read(port::SIGNATURE) != DISK {
            return Ok(None);
        }
        this.identify()?;
        Ok(Some(this))
    }

    /// Stops the port: it does not touch any memory afterwards.
    fn stop(&self) -> Result<(), String> {
        self.write(port::COMMAND, self.read(port::COMMAND) & !START);
        wait("the port", || self.read(port::COMMAND) & LIST_RUNNING == 0)?;
        self.write(port::COMMAND, self.read(port::COMMAND) & !FIS_RECEIVE);
        wait("the port", || self.read(port::COMMAND) & FIS_RUNNING == 0)
    }

    fn restart_port(&mut self) -> Result<(), String> {
        /// The answers' place in the list's page.
        const ANSWERS: u64 = 1024;
        self.stop()?;
        self.issued = 0;
        self.write64(port::LIST, self.list.machine_address());
        self.write64(port::FIS, self.list.machine_address() + ANSWERS);
        self.write(port::ERROR, u32::MAX);
        self.write(port::STATUS, u32::MAX);
        self.write(port::COMMAND, self.read(port::COMMAND) | FIS_RECEIVE);
        wait("the disk", || self.read(port::TASK) & TASK_BUSY == 0)?;
        self.write(port::COMMAND, self.read(port::COMMAND) | START);
        self.write(port::ENABLE, EVENTS);
        Ok(())
    }

    /// Fills a slot; the port sees it when it is issued.
    fn prepare(&mut self, slot: usize, command: u8, sector: u64, sectors: u64, parts: &[(u64, usize)], writes: bool) {
        let Some(table) = self.tables.get(slot) else {
            return;
        };
        table.zero(0, PARTS);
        let (lba, count) = (sector.to_le_bytes(), sectors.to_le_bytes());
        // A register FIS from host to device (Serial ATA 3.x, 10.5.5), with LBA addressing.
        let fis =
            [0x27, 0x80, command, 0, lba[0], lba[1], lba[2], 0x40, lba[3], lba[4], lba[5], 0, count[0], count[1], 0, 0];
        table.write(0, &fis);
        for (index, &(address, len)) in parts.iter().enumerate().take(SEGMENTS) {
            let at = PARTS + index * 16;
            table.store_u64(at, address);
            table.store_u32(at + 8, 0);
            table.store_u32(at + 12, u32::try_from(len.saturating_sub(1)).unwrap_or(0));
        }
        let parts = u32::try_from(parts.len().min(SEGMENTS)).unwrap_or(0);
        let write = if writes { 1 << 6 } else { 0 };
        // Five words of FIS.
        self.list.store_u32(slot * 32, parts << 16 | write | 5);
        self.list.store_u32(slot * 32 + 4, 0);
        self.list.store_u64(slot * 32 + 8, table.machine_address());
    }

    fn identify(&mut self) -> Result<(), String> {
        let answer = Page::new().ok_or_else(|| String::from("no memory"))?;
        self.prepare(0, IDENTIFY, 0, 0, &[(answer.machine_address(), 512)], false);
        self.write(port::ISSUE, 1);
        let done = wait("the disk", || self.read(port::ISSUE) & 1 == 0 || self.read(port::STATUS) & FAILURES != 0);
        if done.is_err() || self.read(port::STATUS) & FAILURES != 0 {
            self.stop()?;
            return Err(String::from("the disk does not say what it is"));
        }
        self.write(port::STATUS, u32::MAX);
        let mut bytes = [0; 512];
        answer.read(0, &mut bytes);
        let words: Vec<u16> = bytes.as_chunks().0.iter().map(|word| u16::from_le_bytes(*word)).collect();
        let word = |at: usize| words.get(at).copied().unwrap_or(0);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 1)) << 16;
        if word(83) & 1 << 10 == 0 {
            return Err(String::from("a disk without 48-bit addresses is not supported"));
        }
        // Words of ACS-3, 7.12.7: sizes of sectors are told where bit 14 is set and bit 15 is not.
        let sizes = if word(106) >> 14 == 1 { word(106) } else { 0 };
        let size = if sizes & 1 << 12 != 0 { long(117) * 2 } else { 512 };
        let exponent = if sizes & 1 << 13 != 0 { (sizes & 0xf).min(8) } else { 0 };
        let sector_size = u32::try_from(size).ok().filter(|size| matches!(size, 512 | 4096));
        let sector_size = sector_size.ok_or_else(|| format!("sectors of {size} bytes are not supported"))?;
        self.geometry.sectors = (long(100) | long(102) << 32).saturating_mul(size / 512);
        self.geometry.sector_size = sector_size;
        self.geometry.physical_sector_size = sector_size << exponent;
        let name: Vec<u8> = words.get(27..47).unwrap_or_default().iter().flat_map(|word| word.to_be_bytes()).collect();
        self.model = String::from_utf8_lossy(&name).trim().into();
        Ok(())
    }

    fn give_up(&mut self, why: Failure, done: &mut Vec<Done>) {
        let all = self.under_way.iter_mut().filter_map(Option::take);
        done.extend(all.map(|under_way| Done { tag: under_way.request.tag, result: Err(why) }));
    }

    /// Begins anew after an error or a timeout. What was under way has failed.
    fn restart(&mut self, why: Failure, done: &mut Vec<Done>) {
        println!("pci {}: port {}: restarted ({why:?})", self.host.device.address(), self.port);
        let there = self.read(port::LINK) & 0xf == 3;
        if !there || self.restart_port().is_err() {
            println!("pci {}: port {}: the disk is gone", self.host.device.address(), self.port);
            self.dead = true;
            if self.stop().is_err() {
                self.host.device.disable();
            }
        }
        self.give_up(why, done);
    }
}

impl Driver for Disk {
    fn model(&self) -> String {
        format!("SATA disk at {} port {}: {}", self.host.device.address(), self.port, self.model)
    }

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn submit(&mut self, request: Request) -> Option<Request> {
        let Some(slot) = self.under_way.iter().position(Option::is_none) else {
            return Some(request);
        };
        let grain = u64::from(self.geometry.sector_size);
        let parts: Vec<(u64, usize)> =
            request.action.segments().iter().map(|segment| (segment.machine_address(), segment.len())).collect();
        let sectors = parts.iter().map(|(_, len)| *len as u64).sum::<u64>() / grain;
        let at = |sector: u64| sector * 512 / grain;
        if !self.dead {
            match &request.action {
                Action::Read { sector, .. } => self.prepare(slot, READ, at(*sector), sectors, &parts, false),
                Action::Write { sector, .. } => self.prepare(slot, WRITE, at(*sector), sectors, &parts, true),
                // Discarding is not offered.
                Action::Flush | Action::Discard { .. } => self.prepare(slot, FLUSH, 0, 0, &[], false),
            }
        }
        if let Some(place) = self.under_way.get_mut(slot) {
            *place = Some(UnderWay { request, since: time::now() });
        }
        None
    }

    fn kick(&mut self) {
        if self.dead {
            return;
        }
        let all = (0..).zip(&self.under_way).filter(|(_, place)| place.is_some());
        let wanted = all.fold(0, |mask, (slot, _): (u32, _)| mask | 1 << slot);
        let fresh = wanted & !self.issued;
        if fresh != 0 {
            self.issued |= fresh;
            self.write(port::ISSUE, fresh);
        }
    }

    fn collect(&mut self, done: &mut Vec<Done>) {
        if self.dead {
            self.give_up(Failure::Device, done);
            return;
        }
        let status = self.read(port::STATUS);
        if status != 0 {
            self.write(port::STATUS, status);
            self.host.registers.write32(host::STATUS, 1 << self.port);
        }
        let ended = self.issued & !self.read(port::ISSUE);
        self.issued &= !ended;
        for slot in (0..SLOTS).filter(|slot| ended & 1 << slot != 0) {
            if let Some(under_way) = self.under_way.get_mut(slot).and_then(Option::take) {
                done.push(Done { tag: under_way.request.tag, result: Ok(()) });
            }
        }
        let gone = self.issued != 0 && self.read(port::LINK) & 0xf != 3;
        if status & FAILURES != 0 || gone {
            self.restart(Failure::Device, done);
        }
        self.host.interrupt.done();
    }

    fn expire(&mut self, now: u64, done: &mut Vec<Done>) {
        let late = |under_way: &UnderWay| now.saturating_sub(under_way.since) > PATIENCE;
        if self.under_way.iter().flatten().any(late) {
            // The interrupt may have been lost.
            self.collect(done);
            if self.under_way.iter().flatten().any(late) {
                self.restart(Failure::Timeout, done);
            }
        }
    }

    fn port(&self) -> Option<Port> {
        Some(self.host.interrupt.port())
    }
}

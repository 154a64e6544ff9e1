//! A port of an AHCI controller: its registers, its list of commands, how it starts and stops.

use super::{Host, host};
use crate::drivers::wait;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use dom0_hal::dma::Page;

/// A port's registers.
mod register {
    pub const LIST: usize = 0x00;
    pub const FIS: usize = 0x08;
    pub const STATUS: usize = 0x10;
    pub const ENABLE: usize = 0x14;
    pub const COMMAND: usize = 0x18;
    pub const TASK: usize = 0x20;
    pub const SIGNATURE: usize = 0x24;
    pub const LINK: usize = 0x28;
    pub const LINK_CONTROL: usize = 0x2c;
    pub const ERROR: usize = 0x30;
    pub const ACTIVE: usize = 0x34;
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

/// The controller's limit: bits of a register.
pub const SLOTS: usize = 32;
/// In a command's page: the list of its memory.
const PARTS: usize = 0x80;
/// How many fit, with room to spare.
pub const SEGMENTS: usize = 128;
/// The answers' place in the list's page.
const ANSWERS: u64 = 1024;

/// A port.
#[derive(Debug)]
pub struct Port {
    pub host: Rc<Host>,
    pub number: usize,
    /// The list of commands, and after it what the disk answers.
    list: Page,
    tables: Vec<Page>,
}

/// A command for the disk.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    pub code: u8,
    /// In sectors of the disk's own.
    pub sector: u64,
    pub count: u64,
    /// It is a native queued one.
    pub queued: bool,
    /// The disk reads memory.
    pub writes: bool,
}

/// What a port says.
#[derive(Clone, Copy, Debug)]
pub struct Said {
    /// Slots whose commands are not done.
    pub busy: u32,
    /// Something went wrong, and nothing goes on before the port is restarted.
    pub failed: bool,
    /// There is a disk that is on.
    pub connected: bool,
}

impl Port {
    /// A port with `slots` slots.
    pub fn new(host: &Rc<Host>, number: usize, slots: usize) -> Option<Self> {
        let tables = (0..slots.min(SLOTS)).map(|_| Page::new()).collect::<Option<_>>()?;
        Some(Self { host: host.clone(), number, list: Page::new()?, tables })
    }

    fn read(&self, register: usize) -> u32 {
        self.host.registers.read32(0x100 + self.number * 0x80 + register)
    }

    fn write(&self, register: usize, value: u32) {
        self.host.registers.write32(0x100 + self.number * 0x80 + register, value);
    }

    fn write64(&self, register: usize, value: u64) {
        self.host.registers.write64(0x100 + self.number * 0x80 + register, value);
    }

    /// The link is up and active.
    pub fn is_connected(&self) -> bool {
        self.read(register::LINK) & 0xf0f == 0x103
    }

    /// What is connected is a disk.
    pub fn has_disk(&self) -> bool {
        self.read(register::SIGNATURE) == DISK
    }

    /// Stops the port: it does not touch any memory afterwards.
    pub fn stop(&self, limit: u64) -> Result<(), String> {
        self.write(register::COMMAND, self.read(register::COMMAND) & !START);
        wait("the port", limit, || self.read(register::COMMAND) & LIST_RUNNING == 0)?;
        self.write(register::COMMAND, self.read(register::COMMAND) & !FIS_RECEIVE);
        wait("the port", limit, || self.read(register::COMMAND) & FIS_RUNNING == 0)
    }

    /// Stops the port if it runs, resets the disk, and starts it: what was issued is forgotten on both sides.
    pub fn restart(&self, limit: u64) -> Result<(), String> {
        self.stop(limit)?;
        self.write64(register::LIST, self.list.machine_address());
        self.write64(register::FIS, self.list.machine_address() + ANSWERS);
        self.write(register::ERROR, u32::MAX);
        self.write(register::STATUS, u32::MAX);
        self.write(register::COMMAND, self.read(register::COMMAND) | FIS_RECEIVE);
        self.reset_link(limit)?;
        wait("the disk", limit, || self.read(register::TASK) & TASK_BUSY == 0)?;
        self.write(register::COMMAND, self.read(register::COMMAND) | START);
        self.write(register::ENABLE, EVENTS);
        Ok(())
    }

    /// Resets what is behind the link (AHCI 1.3.1, 10.4.2). No commands are taken meanwhile.
    fn reset_link(&self, limit: u64) -> Result<(), String> {
        /// For so long the link must be held in reset.
        const HOLD: u64 = 1_000_000;
        let control = self.read(register::LINK_CONTROL) & !0xf;
        self.write(register::LINK_CONTROL, control | 1);
        // Only time passes here.
        let _ = wait("the link", HOLD, || false);
        self.write(register::LINK_CONTROL, control);
        wait("the link", limit, || self.read(register::LINK) & 0xf == 3)?;
        self.write(register::ERROR, u32::MAX);
        Ok(())
    }

    /// Fills a slot; the port sees it when it is issued.
    pub fn prepare(&self, slot: usize, command: Command, parts: impl ExactSizeIterator<Item = (u64, usize)>) {
        let Some(table) = self.tables.get(slot) else {
            return;
        };
        table.zero(0, PARTS);
        let (lba, count) = (command.sector.to_le_bytes(), command.count.to_le_bytes());
        // A queued command has its count where others have features, and the slot's number in place of the count
        // (ACS-3, 7.47.3).
        let tag = [u8::try_from(slot << 3).unwrap_or(0), 0];
        let (features, count) =
            if command.queued { ([count[0], count[1]], tag) } else { ([0; 2], [count[0], count[1]]) };
        // A register FIS from host to device (Serial ATA 3.x, 10.5.5), with LBA addressing.
        let fis = [
            0x27,
            0x80,
            command.code,
            features[0],
            lba[0],
            lba[1],
            lba[2],
            0x40,
            lba[3],
            lba[4],
            lba[5],
            features[1],
            count[0],
            count[1],
            0,
            0,
        ];
        table.write(0, &fis);
        let len = parts.len().min(SEGMENTS);
        for (index, (address, len)) in parts.enumerate().take(SEGMENTS) {
            let at = PARTS + index * 16;
            table.store_u64(at, address);
            table.store_u32(at + 8, 0);
            table.store_u32(at + 12, u32::try_from(len.saturating_sub(1)).unwrap_or(0));
        }
        let write = if command.writes { 1 << 6 } else { 0 };
        // Five words of FIS.
        self.list.store_u32(slot * 32, u32::try_from(len).unwrap_or(0) << 16 | write | 5);
        self.list.store_u32(slot * 32 + 4, 0);
        self.list.store_u64(slot * 32 + 8, table.machine_address());
    }

    /// Issues slots.
    pub fn issue(&self, slots: u32, queued: bool) {
        if queued {
            self.write(register::ACTIVE, slots);
        }
        self.write(register::ISSUE, slots);
    }

    /// Looks what has come of what was issued, and takes back the interrupt.
    pub fn look(&self) -> Said {
        // In this order: an error that comes between is seen with what it ended; and a controller that was pulled reads
        // as nothing busy, but as not connected either.
        let busy = self.read(register::ACTIVE) | self.read(register::ISSUE);
        let status = self.read(register::STATUS);
        let connected = self.is_connected();
        if status != 0 {
            self.write(register::STATUS, status);
            self.host.registers.write32(host::STATUS, 1 << self.number);
        }
        Said { busy, failed: status & FAILURES != 0, connected }
    }
}

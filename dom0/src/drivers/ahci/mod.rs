//! SATA disks behind an AHCI controller (Serial ATA AHCI 1.3.1): the controller. Each port with a disk is a disk of its own
//! ([`disk`]); they share the controller's interrupt.

mod disk;
mod identity;
mod port;

use super::{SOON, wait};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use dom0_hal::msi::Interrupt;
use dom0_hal::pci::Device;
use dom0_hal::registers::Registers;
use guest_pv::println;

pub use disk::Disk;

/// Class 1 (storage), subclass 6 (SATA), interface 1 (AHCI).
const CLASS: u32 = 0x01_06_01;
/// The region of the registers.
const BAR: u8 = 5;

/// The controller's registers.
mod host {
    pub const CAPABILITIES: usize = 0x00;
    pub const CONTROL: usize = 0x04;
    pub const STATUS: usize = 0x08;
    pub const PORTS: usize = 0x0c;
    pub const CAPABILITIES_2: usize = 0x24;
    pub const HANDOFF: usize = 0x28;
    pub const LEN: usize = 0x1100;
}
const CONTROL_AHCI: u32 = 1 << 31;
const CONTROL_INTERRUPT: u32 = 1 << 1;
/// It reaches all memory; it takes native queued commands; its slots less one.
const CAPABLE_64: u32 = 1 << 31;
const CAPABLE_NCQ: u32 = 1 << 30;
const CAPABLE_SLOTS: u32 = 8;

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
    capabilities: u32,
}

impl Host {
    /// Commands that a port takes at once.
    fn slots(&self) -> usize {
        usize::try_from(self.capabilities >> CAPABLE_SLOTS & 0x1f).map_or(1, |last| last + 1)
    }

    fn queues(&self) -> bool {
        self.capabilities & CAPABLE_NCQ != 0
    }
}

/// Starts a controller and the disks at its ports.
pub fn start(device: &Device) -> Result<Vec<Disk>, String> {
    device.enable();
    let registers = device.map(BAR, 0, host::LEN).or_else(|_| device.map(BAR, 0, 0x400));
    let registers = registers.map_err(|errno| format!("no registers: {errno}"))?;
    // The firmware is to let go of it.
    if registers.read32(host::CAPABILITIES_2) & 1 != 0 {
        registers.write32(host::HANDOFF, registers.read32(host::HANDOFF) | 2);
        wait("the firmware", SOON, || registers.read32(host::HANDOFF) & 1 == 0)?;
    }
    registers.write32(host::CONTROL, CONTROL_AHCI);
    let capabilities = registers.read32(host::CAPABILITIES);
    if capabilities & CAPABLE_64 == 0 {
        return Err(String::from("it does not reach all memory"));
    }
    let interrupt = Interrupt::of(device).map_err(|errno| format!("no interrupt: {errno}"))?;
    let host = Rc::new(Host { device: device.clone(), registers, interrupt, capabilities });
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

//! PCI: the functions there are, their configuration space, and their memory.
//!
//! Configuration space is reached in memory where firmware says where that is ([`mmconfig`]), else by the two ports of the
//! host bridge (PCI local bus 3.0, 3.2.2.3.2), each access to which the hypervisor carries out.
//!
//! Unsafe: the ports of the host bridge.

use crate::registers::Registers;
use crate::{mmconfig, port};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::fmt;
use guest_pv::call::physdev;
use xen_abi::errno::Errno;

const ADDRESS: u16 = 0xcf8;
const DATA: u16 = 0xcfc;
const ENABLE: u32 = 1 << 31;

/// Registers of every function.
const COMMAND: u8 = 0x04;
const STATUS: u8 = 0x06;
const CLASS: u8 = 0x08;
const HEADER: u8 = 0x0c;
const BARS: u8 = 0x10;
const SECONDARY_BUS: u8 = 0x19;
const CAPABILITIES: u8 = 0x34;

const COMMAND_MEMORY: u16 = 1 << 1;
const COMMAND_MASTER: u16 = 1 << 2;
const COMMAND_NO_INTX: u16 = 1 << 10;
const STATUS_CAPABILITIES: u16 = 1 << 4;

/// Capability identifiers.
pub const VENDOR_SPECIFIC: u8 = 0x09;
/// See [`VENDOR_SPECIFIC`].
pub const MSI: u8 = 0x05;
/// See [`VENDOR_SPECIFIC`].
pub const MSI_X: u8 = 0x11;

/// A function's place on segment 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// Its bus.
    pub bus: u8,
    /// Device and function.
    pub devfn: u8,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0000:{:02x}:{:02x}.{}", self.bus, self.devfn >> 3, self.devfn & 7)
    }
}

impl Address {
    fn select(self, register: u8) {
        let value = ENABLE | u32::from(self.bus) << 16 | u32::from(self.devfn) << 8 | u32::from(register & !3);
        // SAFETY: the address port only chooses what the data port means.
        unsafe { port::out32(ADDRESS, value) };
    }

    fn read32(self, register: u8) -> u32 {
        self.select(register);
        // SAFETY: reading configuration space has no effects.
        unsafe { port::in32(DATA) }
    }
}

/// A function that answers.
#[derive(Clone, Debug)]
pub struct Device {
    address: Address,
    /// Its configuration space, where that is reached in memory.
    config: Option<Rc<Registers>>,
    /// Who made it.
    pub vendor: u16,
    /// Which of theirs it is.
    pub device: u16,
    /// Class, subclass and programming interface.
    pub class: u32,
}

/// A region of a function's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Its machine address.
    pub address: u64,
    /// Its bytes.
    pub len: u64,
}

impl Device {
    /// What answers there; `bus` is the part of its bus, where configuration space is reached in memory.
    fn at(address: Address, bus: Option<&Registers>) -> Option<Self> {
        let ids = bus.map_or_else(|| address.read32(0), |bus| bus.read32(usize::from(address.devfn) << 12));
        let (vendor, device) = (ids as u16, (ids >> 16) as u16);
        if vendor == u16::MAX {
            return None;
        }
        let config = bus.and_then(|_| mmconfig::function(address.bus, address.devfn)).map(Rc::new);
        let mut this = Self { address, config, vendor, device, class: 0 };
        this.class = this.read32(CLASS) >> 8;
        Some(this)
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> Address {
        self.address
    }

    /// Whether its configuration space is reached in memory.
    #[must_use]
    pub fn is_in_memory(&self) -> bool {
        self.config.is_some()
    }

    /// Reads its configuration space.
    #[must_use]
    pub fn read32(&self, register: u8) -> u32 {
        match &self.config {
            Some(config) => config.read32(usize::from(register & !3)),
            None => self.address.read32(register),
        }
    }

    /// Reads its configuration space.
    #[must_use]
    pub fn read16(&self, register: u8) -> u16 {
        (self.read32(register) >> (u32::from(register & 2) * 8)) as u16
    }

    /// Reads its configuration space.
    #[must_use]
    pub fn read8(&self, register: u8) -> u8 {
        (self.read32(register) >> (u32::from(register & 3) * 8)) as u8
    }

    pub(crate) fn write16(&self, register: u8, value: u16) {
        if let Some(config) = &self.config {
            return config.write16(usize::from(register & !1), value);
        }
        self.address.select(register);
        // SAFETY: callers write capabilities and the command register; where the device's memory lies stays as it is.
        unsafe { port::out16(DATA + u16::from(register & 2), value) };
    }

    fn write32(&self, register: u8, value: u32) {
        if let Some(config) = &self.config {
            return config.write32(usize::from(register & !3), value);
        }
        self.address.select(register);
        // SAFETY: only `bar` writes thus, and puts back what was there.
        unsafe { port::out32(DATA, value) };
    }

    /// The offset of its first capability of a kind.
    #[must_use]
    pub fn capability(&self, kind: u8) -> Option<u8> {
        self.capabilities().into_iter().find(|(_, this)| *this == kind).map(|(at, _)| at)
    }

    /// The offsets of its capabilities, and their kinds.
    #[must_use]
    pub fn capabilities(&self) -> Vec<(u8, u8)> {
        let mut all = Vec::new();
        if self.read16(STATUS) & STATUS_CAPABILITIES == 0 {
            return all;
        }
        let mut at = self.read8(CAPABILITIES) & !3;
        // No more fit into configuration space; a list that goes in a circle ends here too.
        while at >= 0x40 && all.len() < 48 {
            let header = self.read16(at);
            all.push((at, header as u8));
            at = (header >> 8) as u8 & !3;
        }
        all
    }

    /// A region of memory. `None` where there is none, or it is of ports.
    #[must_use]
    pub fn bar(&self, index: u8) -> Option<Bar> {
        if index >= 6 {
            return None;
        }
        let register = BARS + index * 4;
        let low = self.read32(register);
        if low & 1 != 0 {
            return None;
        }
        let wide = low >> 1 & 3 == 2 && index < 5;
        let high = if wide { self.read32(register + 4) } else { 0 };
        let address = u64::from(high) << 32 | u64::from(low & !0xf);
        // Its size is what the address has no bits for. Memory is not decoded meanwhile, so nothing sees the odd address.
        let command = self.read16(COMMAND);
        self.write16(COMMAND, command & !COMMAND_MEMORY);
        self.write32(register, u32::MAX);
        let mut mask = u64::from(self.read32(register) & !0xf) | u64::from(u32::MAX) << 32;
        self.write32(register, low);
        if wide {
            self.write32(register + 4, u32::MAX);
            mask = mask & u64::from(u32::MAX) | u64::from(self.read32(register + 4)) << 32;
            self.write32(register + 4, high);
        }
        self.write16(COMMAND, command);
        let len = (!mask).wrapping_add(1);
        (address != 0 && mask != 0 && mask & u64::from(u32::MAX) != 0).then_some(Bar { address, len })
    }

    /// Maps `len` bytes of a region from `offset` on.
    ///
    /// # Errors
    /// `EINVAL` where there are no such bytes, else what the hypervisor says.
    pub fn map(&self, bar: u8, offset: u64, len: usize) -> Result<Registers, Errno> {
        let region = self.bar(bar).ok_or(Errno::EINVAL)?;
        let end = offset.checked_add(len as u64).ok_or(Errno::EINVAL)?;
        if end > region.len {
            return Err(Errno::EINVAL);
        }
        Registers::map(region.address + offset, len)
    }

    /// Lets the device decode its memory and access ours; its pin stays silent, interrupts are messages.
    pub fn enable(&self) {
        let command = self.read16(COMMAND);
        self.write16(COMMAND, command | COMMAND_MEMORY | COMMAND_MASTER | COMMAND_NO_INTX);
    }

    /// The device does not access our memory any more.
    pub fn disable(&self) {
        let command = self.read16(COMMAND);
        self.write16(COMMAND, command & !COMMAND_MASTER);
    }

    /// Whether it still answers: one that was pulled reads as all ones.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.read16(0) == self.vendor
    }
}

/// Finds all functions of segment 0 and tells the hypervisor of them.
#[must_use]
pub fn enumerate() -> Vec<Device> {
    let mut found = Vec::new();
    let mut buses: Vec<u8> = Vec::from([0]);
    let mut next = 0;
    while let Some(&bus) = buses.get(next) {
        next += 1;
        let window = mmconfig::bus(bus);
        for slot in 0..32u8 {
            let first = Address { bus, devfn: slot << 3 };
            let Some(one) = Device::at(first, window.as_ref()) else {
                continue;
            };
            // Bit 7 of the header's type: there are more functions.
            let functions = if (one.read32(HEADER) >> 16) & 0x80 != 0 { 8 } else { 1 };
            for function in 0..functions {
                let Some(device) = Device::at(Address { bus, devfn: slot << 3 | function }, window.as_ref()) else {
                    continue;
                };
                let _ = physdev::add_device(bus, device.address.devfn);
                if (device.read32(HEADER) >> 16) & 0x7f == 1 {
                    let behind = device.read8(SECONDARY_BUS);
                    // The firmware has numbered the buses; each is looked at once.
                    if behind > bus && !buses.contains(&behind) {
                        buses.push(behind);
                    }
                }
                found.push(device);
            }
        }
    }
    found
}

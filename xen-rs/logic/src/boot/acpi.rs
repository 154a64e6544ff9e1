//! What the firmware's ACPI tables (ACPI specification 6.5) say about the machine: processors, interrupt controllers, clocks,
//! how to switch it off.
//!
//! The firmware is trusted with the machine, but not to make no mistakes: a table whose length or checksum is wrong is left
//! alone with a word about it, an entry that does not fit its table as well, and reading comes to an end whatever is there.

mod fadt;
mod madt;
mod root;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;
use core::fmt;
use core::ops::RangeInclusive;

pub use super::area::Physical;
use root::{HEADER, Table};

/// More entries of one kind are not looked at: processors, and everything else.
const MAX_PROCESSORS: usize = 4096;
const MAX_ENTRIES: usize = 256;
/// Where a processor has its local APIC unless it is said to be elsewhere.
const LOCAL_APIC: u64 = 0xfee0_0000;

/// An I/O APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoApic {
    /// Physical address of its registers.
    pub phys: u64,
    /// Global system interrupt of its first pin.
    pub first_gsi: u32,
}

/// An ISA interrupt that does not have the line and the signal one would expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Override {
    /// ISA interrupt number.
    pub isa: u8,
    /// Its global system interrupt.
    pub gsi: u32,
    /// Level triggered.
    pub level: bool,
    /// Active low.
    pub low: bool,
}

/// Memory that leads to the configuration space of PCI buses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigRegion {
    /// Physical address of bus 0, were it among them.
    pub phys: u64,
    /// PCI segment.
    pub segment: u16,
    /// Its buses.
    pub buses: RangeInclusive<u8>,
}

/// How to switch the machine off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PowerOff {
    /// I/O port of the PM1a control register.
    pub pm1a: u16,
    /// I/O port of PM1b, if there is one.
    pub pm1b: Option<u16>,
    /// Sleep types of S5 for both.
    pub types: [u8; 2],
}

/// The machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// APIC ids of the usable processors in the tables' order.
    pub apic_ids: Vec<u32>,
    /// Their numbers in the tables, in the same order.
    pub processor_ids: Vec<u32>,
    /// Physical address of the local APICs.
    pub local_apic: u64,
    /// I/O APICs.
    pub io_apics: Vec<IoApic>,
    /// ISA interrupts out of the ordinary.
    pub overrides: Vec<Override>,
    /// Memory that leads to PCI configuration space.
    pub config_regions: Vec<ConfigRegion>,
    /// I/O port of the ACPI PM timer and whether it has 32 bits (else 24).
    pub pm_timer: Option<(u16, bool)>,
    /// Physical address of the HPET.
    pub hpet: Option<u64>,
    /// How to switch off.
    pub power_off: Option<PowerOff>,
    /// Port and value that reset the machine.
    pub reset: Option<(u16, u8)>,
}

impl Default for Platform {
    /// A machine without tables.
    fn default() -> Self {
        Platform {
            apic_ids: Vec::new(),
            processor_ids: Vec::new(),
            local_apic: LOCAL_APIC,
            io_apics: Vec::new(),
            overrides: Vec::new(),
            config_regions: Vec::new(),
            pm_timer: None,
            hpet: None,
            power_off: None,
            reset: None,
        }
    }
}

/// The name of a table.
pub type Signature = [u8; 4];

/// What is wrong with the tables: which table, and its address (or what is wrong in it).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Complaint {
    /// There is no root pointer.
    NoRoot,
    /// The table at an address has a length that cannot be.
    Length(Signature, u64),
    /// The bytes of a table do not add up to zero.
    Checksum(Signature, u64),
    /// An entry of a table that does not fit the rest of it; what follows is not read.
    Entry(Signature, u64),
    /// An address that nothing can have.
    Address(Signature, u64),
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Complaint::NoRoot => write!(f, "no root pointer"),
            Complaint::Length(signature, at) => write!(f, "{} at {at:#x}: wrong length", signature.escape_ascii()),
            Complaint::Checksum(signature, at) => {
                write!(f, "{} at {at:#x}: wrong checksum", signature.escape_ascii())
            }
            Complaint::Entry(signature, offset) => {
                write!(f, "{}: no entry ends where the one at offset {offset:#x} does", signature.escape_ascii())
            }
            Complaint::Address(signature, address) => {
                write!(f, "{}: nothing can be at {address:#x}", signature.escape_ascii())
            }
        }
    }
}

/// Reads the tables, from the root pointer on, which is looked for where a BIOS puts it when the loader does not know it or
/// is wrong.
pub fn read<P: Physical>(root: Option<u64>, memory: P, mut complain: impl FnMut(Complaint)) -> Platform {
    let mut platform = Platform::default();
    let Some(tables) = root::find(root, memory, &mut complain) else {
        complain(Complaint::NoRoot);
        return platform;
    };
    if let Some(table) = tables.get(*b"APIC", &mut complain) {
        madt::read(&mut platform, table, &mut complain);
    }
    if let Some(table) = tables.get(*b"FACP", &mut complain) {
        fadt::read(&mut platform, table, &mut complain);
    }
    if let Some(table) = tables.get(*b"MCFG", &mut complain) {
        platform.config_regions = config_regions(table, &mut complain);
    }
    platform.hpet = tables.get(*b"HPET", &mut complain).and_then(hpet);
    platform
}

/// PCI firmware specification 3.3, 4.1.2: 8 reserved bytes, then entries of 16 bytes.
fn config_regions<P: Physical>(table: Table<P>, complain: &mut impl FnMut(Complaint)) -> Vec<ConfigRegion> {
    let mut regions = Vec::new();
    for offset in (HEADER + 8..).step_by(16).take(MAX_ENTRIES) {
        let Some(entry) = table.entry(offset, 16) else { break };
        let (phys, first, last) = (entry.u64(0), entry.byte(10), entry.byte(11));
        if phys == 0 || first > last {
            complain(Complaint::Address(table.signature, phys));
            continue;
        }
        regions.push(ConfigRegion { phys, segment: entry.u16(8), buses: first..=last });
    }
    regions
}

/// IA-PC HPET specification 1.0a, 3.2.4: an address in memory after 4 bytes of capabilities.
fn hpet<P: Physical>(table: Table<P>) -> Option<u64> {
    const MEMORY: u8 = 0;
    let address = table.entry(HEADER + 4, 12)?;
    (address.byte(0) == MEMORY).then(|| address.u64(4)).filter(|phys| *phys != 0)
}

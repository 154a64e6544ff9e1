//! Messages that interrupt: MSI and MSI-X (PCI Local Bus Specification 3.0, 6.8).
//!
//! Only messages for a device's vector to a CPU that runs can be programmed: that is what makes this module safe to call.
//! There is no interrupt remapping, so nothing but the trust in the control domain keeps a device from sending others.
//!
//! Unsafe: configuration registers of devices are written.

use core::ops::Range;
use core::sync::atomic::Ordering;

use super::pci::{CAPABILITY_MSI, CAPABILITY_MSIX, Function};
use super::{lapic, percpu};
use crate::mem::window::DevicePage;

/// Address of a message to a local APIC, physical destination (SDM vol. 3A, 11.11.1).
const MESSAGE_ADDRESS: u32 = 0xfee0_0000;

const MSI_ENABLE: u32 = 1 << 16;
const MSI_WIDE: u32 = 1 << (16 + 7);
const MSI_MASKS: u32 = 1 << (16 + 8);
/// More than one message.
const MSI_MULTIPLE: u32 = 7 << (16 + 4);
const MSIX_ENTRY_MASK: u32 = 1;
const MSIX_ENTRY_BYTES: u64 = 16;

/// Where a message is programmed.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// In configuration space.
    Capability {
        at: u8,
        wide: bool,
        /// The register with a mask bit, where there is one.
        mask: Option<u8>,
    },
    /// In a table in the device's memory.
    Table { page: DevicePage, offset: u64 },
}

/// A device's message.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    function: Function,
    place: Place,
}

/// Why a device has no such message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoMessage {
    /// It has no such capability.
    Capability,
    /// Its table has no such entry.
    Entry,
    /// The table does not lie in memory that is a device's.
    Table,
    /// No window is free for it.
    Window,
}

impl Message {
    /// The message of a function's MSI capability.
    pub fn msi(function: Function) -> Result<Self, NoMessage> {
        let at = function.capability(CAPABILITY_MSI).ok_or(NoMessage::Capability)?;
        let control = function.read(at);
        let wide = control & MSI_WIDE != 0;
        let mask = (control & MSI_MASKS != 0).then_some(at + if wide { 0x10 } else { 0x0c });
        Ok(Self { function, place: Place::Capability { at, wide, mask } })
    }

    /// An entry of a function's MSI-X table.
    pub fn msix(function: Function, entry: u16) -> Result<Self, NoMessage> {
        let at = function.capability(CAPABILITY_MSIX).ok_or(NoMessage::Capability)?;
        if u32::from(entry) > function.read(at) >> 16 & 0x7ff {
            return Err(NoMessage::Entry);
        }
        let table = function.read(at + 4);
        let [bar, ..] = (table & 7).to_le_bytes();
        let base = function.memory_bar(bar).ok_or(NoMessage::Table)?;
        let phys = u64::from(table & !7)
            .checked_add(u64::from(entry) * MSIX_ENTRY_BYTES)
            .and_then(|offset| base.checked_add(offset))
            .ok_or(NoMessage::Table)?;
        let page = DevicePage::map(phys).map_err(|full| if full { NoMessage::Window } else { NoMessage::Table })?;
        Ok(Self { function, place: Place::Table { page, offset: phys & 0xff0 } })
    }

    /// Whose it is.
    #[must_use]
    pub const fn function(&self) -> Function {
        self.function
    }

    /// The frames that hold the MSI-X table of a function, and those with its pending bits, of which there are 64 in a word.
    #[must_use]
    pub fn table_frames(function: Function) -> Option<[Range<u64>; 2]> {
        let at = function.capability(CAPABILITY_MSIX)?;
        let entries = u64::from(function.read(at) >> 16 & 0x7ff) + 1;
        let frames = |place: u32, bytes: u64| {
            let [bar, ..] = (place & 7).to_le_bytes();
            let start = function.memory_bar(bar)?.checked_add(u64::from(place & !7))?;
            Some(start >> 12..start.checked_add(bytes)?.div_ceil(4096))
        };
        let table = frames(function.read(at + 4), entries * MSIX_ENTRY_BYTES)?;
        Some([table, frames(function.read(at + 8), entries.div_ceil(64) * 8)?])
    }

    /// Whether it is in an MSI-X table.
    #[must_use]
    pub const fn is_in_table(&self) -> bool {
        matches!(self.place, Place::Table { .. })
    }

    /// Has the message interrupt a CPU by a vector for devices, masked. False if there is no such vector or CPU.
    #[must_use]
    pub fn program(&self, vector: u8, cpu: u32) -> bool {
        let Some(address) = address(cpu).filter(|_| lapic::DEVICES.contains(&vector)) else { return false };
        self.mask();
        let function = self.function;
        match self.place {
            Place::Capability { at, wide, .. } => {
                let data = at + if wide { 0x0c } else { 0x08 };
                // SAFETY: the message of a device's vector, and one message only.
                unsafe {
                    function.write(at, function.read(at) & !MSI_MULTIPLE);
                    function.write(at + 4, address);
                    if wide {
                        function.write(at + 8, 0);
                    }
                    function.write(data, function.read(data) & 0xffff_0000 | u32::from(vector));
                }
            }
            Place::Table { page, offset } => {
                page.write32(offset, address);
                page.write32(offset + 4, 0);
                page.write32(offset + 8, vector.into());
            }
        }
        true
    }

    /// Sends it to another CPU from now on: one write, since the vector is the same everywhere.
    pub fn retarget(&self, cpu: u32) {
        let Some(address) = address(cpu) else { return };
        let function = self.function;
        match self.place {
            // SAFETY: the destination alone changes.
            Place::Capability { at, .. } => unsafe { function.write(at + 4, address) },
            Place::Table { page, offset } => page.write32(offset, address),
        }
    }

    /// Stops it from being sent. What cannot be masked is switched off.
    pub fn mask(&self) {
        self.set_mask(true);
    }

    /// Lets it be sent again.
    pub fn unmask(&self) {
        self.set_mask(false);
    }

    fn set_mask(&self, masked: bool) {
        let function = self.function;
        match self.place {
            Place::Capability { mask: Some(register), .. } => {
                let all = function.read(register);
                // SAFETY: a mask.
                unsafe { function.write(register, if masked { all | 1 } else { all & !1 }) };
            }
            Place::Capability { at, mask: None, .. } => {
                let control = function.read(at);
                // SAFETY: switches a message on or off that `program` made.
                unsafe { function.write(at, if masked { control & !MSI_ENABLE } else { control | MSI_ENABLE }) };
            }
            Place::Table { page, offset } => {
                let control = page.read32(offset + 12);
                let bit = if masked { MSIX_ENTRY_MASK } else { 0 };
                page.write32(offset + 12, control & !MSIX_ENTRY_MASK | bit);
                // The write has reached the device when a read of it comes back.
                let _ = page.read32(offset + 12);
            }
        }
    }
}

/// The address of a message to a CPU that runs.
fn address(cpu: u32) -> Option<u32> {
    if !crate::mailbox::online().has(cpu) {
        return None;
    }
    let id = percpu::of(cpu).apic_id.load(Ordering::Relaxed);
    // Without remapping eight bits of an APIC's id can be named.
    (id <= 0xff).then_some(MESSAGE_ADDRESS | id << 12)
}

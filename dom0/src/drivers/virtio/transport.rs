//! Finding a virtio device's registers and agreeing on features (virtio 1.2, 3.1 and 4.1).

use crate::drivers::{BRIEFLY, wait};
use alloc::format;
use alloc::string::String;
use dom0_hal::pci::{Device, VENDOR_SPECIFIC};
use dom0_hal::registers::Registers;

/// `VIRTIO_F_INDIRECT_DESC`.
pub const INDIRECT: u64 = 1 << 28;
/// `VIRTIO_F_VERSION_1`.
const VERSION_1: u64 = 1 << 32;

/// Kinds of capabilities (`VIRTIO_PCI_CAP_*`).
const COMMON: u8 = 1;
const NOTIFY: u8 = 2;
const DEVICE: u8 = 4;

/// Bits of the device's status.
const ACKNOWLEDGE: u8 = 1;
const DRIVER: u8 = 2;
const DRIVER_OK: u8 = 4;
const FEATURES_OK: u8 = 8;
const FAILED: u8 = 128;

/// Offsets in the common configuration (`struct virtio_pci_common_cfg`).
mod common {
    pub const DEVICE_FEATURE_SELECT: usize = 0;
    pub const DEVICE_FEATURE: usize = 4;
    pub const DRIVER_FEATURE_SELECT: usize = 8;
    pub const DRIVER_FEATURE: usize = 12;
    pub const CHANGE_VECTOR: usize = 16;
    pub const STATUS: usize = 20;
    pub const QUEUE_SELECT: usize = 22;
    pub const QUEUE_SIZE: usize = 24;
    pub const QUEUE_VECTOR: usize = 26;
    pub const QUEUE_ENABLE: usize = 28;
    pub const QUEUE_NOTIFY_OFF: usize = 30;
    pub const QUEUE_DESC: usize = 32;
    pub const QUEUE_DRIVER: usize = 40;
    pub const QUEUE_DEVICE: usize = 48;
}

/// The registers of a device.
#[derive(Debug)]
pub struct Transport {
    common: Registers,
    notify: Registers,
    notify_multiplier: u32,
    /// The device's own configuration.
    pub config: Registers,
}

/// Where a queue's three parts are, as machine addresses.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    pub descriptors: u64,
    pub driver: u64,
    pub device: u64,
}

impl Transport {
    /// Maps the registers.
    pub fn new(device: &Device) -> Result<Self, String> {
        let map = |kind: u8, len: usize| -> Result<(Registers, u8), String> {
            let found = device.capabilities().into_iter().find(|&(at, this)| {
                // One in an I/O region is for firmware.
                this == VENDOR_SPECIFIC && device.read8(at + 3) == kind && device.bar(device.read8(at + 4)).is_some()
            });
            let (at, _) = found.ok_or_else(|| format!("no virtio capability {kind}: a legacy device?"))?;
            let (bar, offset, have) = (device.read8(at + 4), device.read32(at + 8), device.read32(at + 12));
            let len = len.min(usize::try_from(have).unwrap_or(0));
            let registers = device.map(bar, offset.into(), len);
            registers.map(|mapped| (mapped, at)).map_err(|errno| format!("registers {kind}: {errno}"))
        };
        device.enable();
        let (common, _) = map(COMMON, 64)?;
        let (config, _) = map(DEVICE, 64)?;
        let (notify, at) = map(NOTIFY, 4096)?;
        Ok(Self { common, notify, notify_multiplier: device.read32(at + 16), config })
    }

    fn status(&self) -> u8 {
        self.common.read8(common::STATUS)
    }

    fn add_status(&self, bit: u8) {
        self.common.write8(common::STATUS, self.status() | bit);
    }

    /// Resets the device: it does not touch any memory afterwards.
    pub fn reset(&self) -> Result<(), String> {
        self.common.write8(common::STATUS, 0);
        wait("the reset", BRIEFLY, || self.status() == 0)
    }

    /// Resets the device and agrees on features: those of `wanted` that it has.
    pub fn negotiate(&self, wanted: u64) -> Result<u64, String> {
        self.reset()?;
        self.add_status(ACKNOWLEDGE);
        self.add_status(DRIVER);
        let half = |select: u32| {
            self.common.write32(common::DEVICE_FEATURE_SELECT, select);
            u64::from(self.common.read32(common::DEVICE_FEATURE))
        };
        let offered = half(0) | half(1) << 32;
        if offered & VERSION_1 == 0 {
            self.add_status(FAILED);
            return Err(String::from("a legacy device"));
        }
        let features = offered & (wanted | VERSION_1);
        for (select, bits) in [(0, features & u64::from(u32::MAX)), (1, features >> 32)] {
            self.common.write32(common::DRIVER_FEATURE_SELECT, select);
            self.common.write32(common::DRIVER_FEATURE, u32::try_from(bits).unwrap_or(0));
        }
        self.add_status(FEATURES_OK);
        if self.status() & FEATURES_OK == 0 {
            self.add_status(FAILED);
            return Err(String::from("it refuses the features"));
        }
        Ok(features)
    }

    /// How long a queue can be; 0 where there is none.
    pub fn queue_size(&self, queue: u16) -> u16 {
        self.common.write16(common::QUEUE_SELECT, queue);
        self.common.read16(common::QUEUE_SIZE)
    }

    /// Sets a queue up, with message `vector` of the device's; where to notify it.
    pub fn set_queue(&self, queue: u16, size: u16, vector: u16, places: Places) -> Result<usize, String> {
        let common = &self.common;
        common.write16(common::QUEUE_SELECT, queue);
        common.write16(common::QUEUE_SIZE, size);
        common.write16(common::QUEUE_VECTOR, vector);
        if common.read16(common::QUEUE_VECTOR) != vector {
            return Err(String::from("it refuses the interrupt"));
        }
        common.write64(common::QUEUE_DESC, places.descriptors);
        common.write64(common::QUEUE_DRIVER, places.driver);
        common.write64(common::QUEUE_DEVICE, places.device);
        common.write16(common::QUEUE_ENABLE, 1);
        let multiplier = usize::try_from(self.notify_multiplier).unwrap_or(0);
        Ok(usize::from(common.read16(common::QUEUE_NOTIFY_OFF)) * multiplier)
    }

    /// The message with which the device says that its configuration has changed; it may say none.
    pub fn set_change_vector(&self, vector: Option<u16>) {
        /// `VIRTIO_MSI_NO_VECTOR`.
        const NONE: u16 = 0xffff;
        self.common.write16(common::CHANGE_VECTOR, vector.unwrap_or(NONE));
    }

    /// The driver is ready.
    pub fn go(&self) {
        self.add_status(DRIVER_OK);
    }

    /// Tells the device to look at a queue.
    pub fn notify(&self, queue: u16, at: usize) {
        self.notify.write16(at, queue);
    }
}

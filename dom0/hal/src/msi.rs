//! A device's interrupt, as an event channel. The hypervisor owns the vectors, so it programs the messages; dom0 switches
//! MSI-X on, names the entry, and binds what it gets.

use crate::pci::{Device, MSI, MSI_X};
use guest_pv::call::physdev;
use guest_pv::events;
use xen_abi::errno::Errno;
use xen_abi::ids::Port;

/// Message control of MSI-X (PCI local bus 3.0, 6.8.2.3): it is on; all messages are masked.
const ENABLE: u16 = 1 << 15;
const MASK_ALL: u16 = 1 << 14;
/// Message control of MSI (6.8.1.3): it is on.
const MSI_ENABLE: u16 = 1 << 0;

/// An interrupt that comes as an event. It is given back when this is dropped.
#[derive(Debug)]
pub struct Interrupt {
    port: Port,
    pirq: u32,
    needs_eoi: bool,
}

impl Interrupt {
    /// Entry `entry` of a device's MSI-X table; `None` where the device has no such table.
    ///
    /// # Errors
    /// What the hypervisor says; `ENODEV` for a device without MSI-X.
    pub fn message(device: &Device, entry: u16) -> Result<Self, Errno> {
        let capability = device.capability(MSI_X).ok_or(Errno::ENODEV)?;
        let place = device.read32(capability + 4);
        let table = device.bar((place & 7) as u8).ok_or(Errno::ENODEV)?.address + u64::from(place & !7);
        let control = device.read16(capability + 2);
        device.write16(capability + 2, control | ENABLE | MASK_ALL);
        let address = device.address();
        let pirq = physdev::map_message(address.bus, address.devfn, entry, table)?;
        let port = events::bind_pirq(pirq).inspect_err(|_| {
            let _ = physdev::unmap(pirq);
        })?;
        let this = Self { port, pirq, needs_eoi: physdev::needs_end(pirq).unwrap_or(false) };
        device.write16(capability + 2, (device.read16(capability + 2) | ENABLE) & !MASK_ALL);
        Ok(this)
    }

    /// A device's only interrupt: by MSI-X where it has that, else by MSI.
    ///
    /// # Errors
    /// What the hypervisor says; `ENODEV` for a device that has neither.
    pub fn of(device: &Device) -> Result<Self, Errno> {
        if device.capability(MSI_X).is_some() {
            return Self::message(device, 0);
        }
        let capability = device.capability(MSI).ok_or(Errno::ENODEV)?;
        let address = device.address();
        let pirq = physdev::map_message(address.bus, address.devfn, 0, 0)?;
        let port = events::bind_pirq(pirq).inspect_err(|_| {
            let _ = physdev::unmap(pirq);
        })?;
        device.write16(capability + 2, device.read16(capability + 2) | MSI_ENABLE);
        Ok(Self { port, pirq, needs_eoi: physdev::needs_end(pirq).unwrap_or(false) })
    }

    /// Its event channel.
    #[must_use]
    pub fn port(&self) -> Port {
        self.port
    }

    /// The same, of a device that has no other.
    #[must_use]
    pub fn ports(&self) -> &[Port] {
        core::slice::from_ref(&self.port)
    }

    /// The device was looked after.
    pub fn done(&self) {
        if self.needs_eoi {
            let _ = physdev::end(self.pirq);
        }
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        let _ = events::close(self.port);
        let _ = physdev::unmap(self.pirq);
    }
}

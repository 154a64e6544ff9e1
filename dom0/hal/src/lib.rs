//! Floor 2: hardware, for the drivers above: PCI devices, their registers and interrupts, and memory they may access.
//!
//! It stands on `guest-pv`, which is on this floor too. All `unsafe` code of drivers lives here: the instructions for I/O
//! ports, and references to memory that a device writes. What a driver tells a device to do is beyond any language: there
//! is no IOMMU, so a driver that writes a wrong address into a register can overwrite anything. Addresses for devices
//! therefore come from [`dma`] alone, from memory that is held for as long as the device may use it.
#![cfg_attr(target_os = "none", no_std)]
#![allow(unsafe_code)] // See the text above.
#![allow(clippy::cast_possible_truncation)] // x86-64 only: usize is 64 bits wide.

extern crate alloc;

pub mod dma;
mod mmconfig;
pub mod msi;
pub mod pci;
mod port;
pub mod registers;

/// Gets the right to use I/O ports.
///
/// # Errors
/// What the hypervisor says.
pub fn init() -> Result<(), xen_abi::errno::Errno> {
    guest_pv::call::physdev::allow_ports()
}

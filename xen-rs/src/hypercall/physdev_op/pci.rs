//! PCI devices that the control domain has found.

use machine::arch::x86_64::{acpi, pci::Function};
use xen_abi::{errno::Errno, physdev as abi};

use crate::{
    cpu::Context,
    irq::{self, Device},
};

const fn device(segment: u16, bus: u8, devfn: u8) -> Device {
    Device { segment, function: Function { bus, devfn } }
}

fn of_old(op: &abi::ManagePci) -> Device {
    device(0, op.bus, op.devfn)
}

/// `PHYSDEVOP_manage_pci_add`.
pub(super) fn add_old(cx: &mut Context<'_>, op: &abi::ManagePci) -> Result<(), Errno> {
    irq::add_device(of_old(op), &mut cx.held)
}

/// `PHYSDEVOP_pci_device_add`.
pub(super) fn add(cx: &mut Context<'_>, op: &abi::PciDeviceAdd) -> Result<(), Errno> {
    irq::add_device(device(op.seg, op.bus, op.devfn), &mut cx.held)
}

/// `PHYSDEVOP_manage_pci_remove`.
pub(super) fn remove_old(cx: &mut Context<'_>, op: &abi::ManagePci) -> Result<(), Errno> {
    irq::forget_device(of_old(op), &mut cx.held)
}

/// `PHYSDEVOP_pci_device_remove`.
pub(super) fn remove(cx: &mut Context<'_>, op: &abi::PciDevice) -> Result<(), Errno> {
    irq::forget_device(Device::of(op), &mut cx.held)
}

/// `PHYSDEVOP_restore_msi`.
pub(super) fn restore_old(cx: &mut Context<'_>, op: &abi::ManagePci) -> Result<(), Errno> {
    irq::restore_messages(of_old(op), &mut cx.held)
}

/// `PHYSDEVOP_restore_msi_ext`.
pub(super) fn restore(cx: &mut Context<'_>, op: &abi::PciDevice) -> Result<(), Errno> {
    irq::restore_messages(Device::of(op), &mut cx.held)
}

/// `PHYSDEVOP_prepare_msix`.
pub(super) fn prepare_table(cx: &mut Context<'_>, op: &abi::PciDevice) -> Result<(), Errno> {
    irq::prepare(Device::of(op), &mut cx.held)
}

/// `PHYSDEVOP_release_msix`.
pub(super) fn release_table(cx: &mut Context<'_>, op: &abi::PciDevice) -> Result<(), Errno> {
    irq::release(Device::of(op), &mut cx.held)
}

const RESETS: [u32; 2] = [abi::PHYSDEVOP_DBGP_RESET_PREPARE, abi::PHYSDEVOP_DBGP_RESET_DONE];

/// `PHYSDEVOP_manage_pci_add_ext`.
pub(super) fn add_extended(cx: &mut Context<'_>, op: &abi::ManagePciExt) -> Result<(), Errno> {
    if op.is_extfn > 1 || op.is_virtfn > 1 {
        return Err(Errno::EINVAL);
    }
    irq::add_device(device(0, op.bus, op.devfn), &mut cx.held)
}

/// The firmware has (or has not) set the memory aside that leads to configuration space. The hypervisor does not use it;
/// `ENODEV` for memory that its tables do not name.
pub(super) fn mmcfg_reserved(op: &abi::PciMmcfgReserved) -> Result<(), Errno> {
    let is_meant = |region: &&acpi::ConfigRegion| {
        region.phys == op.address
            && region.segment == op.segment
            && region.buses.start() <= &op.start_bus
            && &op.end_bus <= region.buses.end()
    };
    acpi::platform().config_regions.iter().find(is_meant).map(drop).ok_or(Errno::ENODEV)
}

/// The controller behind a debug port is reset. No console of the hypervisor's is behind one, so nothing is to be done.
pub(super) fn debug_port(op: &abi::DbgpOp) -> Result<(), Errno> {
    match op.op {
        operation if RESETS.contains(&u32::from(operation)) => Ok(()),
        _ => Err(Errno::EINVAL),
    }
}

//! `physdev_op` (public `physdev.h`): a control domain's interrupts, PCI devices and I/O privilege.
//!
//! Unsafe: a hypercall is told the address of a structure.

use super::command;
use crate::{Mode, mode};
use xen_abi::errno::Errno;
use xen_abi::hypercall::HYPERVISOR_PHYSDEV_OP;
use xen_abi::ids::DomId;
use xen_abi::physdev::{
    Eoi, IrqStatusQuery, MAP_PIRQ_TYPE_GSI, MAP_PIRQ_TYPE_MSI_SEG, MapPirq, PHYSDEVOP_EOI, PHYSDEVOP_IRQ_STATUS_QUERY,
    PHYSDEVOP_MAP_PIRQ, PHYSDEVOP_PCI_DEVICE_ADD, PHYSDEVOP_SET_IOPL, PHYSDEVOP_UNMAP_PIRQ, PciDeviceAdd, SetIopl,
    UnmapPirq, XENIRQSTAT_NEEDS_EOI,
};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

fn op<T: FromBytes + IntoBytes>(cmd: u32, argument: &mut T) -> Result<(), Errno> {
    // SAFETY: the operations below touch no memory but their argument.
    unsafe { command(HYPERVISOR_PHYSDEV_OP, cmd, argument) }.map(drop)
}

/// Lets this vCPU's kernel use the I/O ports that the domain has.
///
/// # Errors
/// Those of the hypercall.
pub fn allow_ports() -> Result<(), Errno> {
    // A kernel in ring 0 has that right.
    if mode() == Mode::Pvh {
        return Ok(());
    }
    // A kernel in ring 3 counts as privilege level 1.
    op(PHYSDEVOP_SET_IOPL, &mut SetIopl { iopl: 1 })
}

/// Maps an interrupt line to the pirq of the same number. Lines below 16 are edges, as on the ISA bus.
///
/// # Errors
/// Those of the hypercall.
pub fn map_line(line: u32) -> Result<u32, Errno> {
    let number = i32::try_from(line).map_err(|_| Errno::EINVAL)?;
    let type_ = MAP_PIRQ_TYPE_GSI.cast_signed();
    let mut map = MapPirq { domid: DomId::SELF, type_, index: number, pirq: number, ..MapPirq::new_zeroed() };
    op(PHYSDEVOP_MAP_PIRQ, &mut map)?;
    u32::try_from(map.pirq).map_err(|_| Errno::EINVAL)
}

/// Whether each interrupt has to be [ended](end).
///
/// # Errors
/// Those of the hypercall.
pub fn needs_end(pirq: u32) -> Result<bool, Errno> {
    let mut query = IrqStatusQuery { irq: pirq, flags: 0 };
    op(PHYSDEVOP_IRQ_STATUS_QUERY, &mut query)?;
    Ok(query.flags & XENIRQSTAT_NEEDS_EOI != 0)
}

/// Ends an interrupt: the next one may come.
///
/// # Errors
/// Those of the hypercall.
pub fn end(pirq: u32) -> Result<(), Errno> {
    op(PHYSDEVOP_EOI, &mut Eoi { irq: pirq })
}

/// Tells the hypervisor of a PCI function of segment 0.
///
/// # Errors
/// Those of the hypercall.
pub fn add_device(bus: u8, devfn: u8) -> Result<(), Errno> {
    op(PHYSDEVOP_PCI_DEVICE_ADD, &mut PciDeviceAdd { bus, devfn, ..PciDeviceAdd::new_zeroed() })
}

/// A message-signalled interrupt: the hypervisor programs the device's message, and gives the number to bind. With the
/// machine address of an MSI-X table it is that table's entry; with 0 it is MSI.
///
/// # Errors
/// Those of the hypercall.
pub fn map_message(bus: u8, devfn: u8, entry: u16, table: u64) -> Result<u32, Errno> {
    let mut map = MapPirq {
        domid: DomId::SELF,
        type_: MAP_PIRQ_TYPE_MSI_SEG.cast_signed(),
        index: -1,
        pirq: -1,
        bus: bus.into(),
        devfn: devfn.into(),
        entry_nr: entry.into(),
        table_base: table,
        ..MapPirq::new_zeroed()
    };
    op(PHYSDEVOP_MAP_PIRQ, &mut map)?;
    u32::try_from(map.pirq).map_err(|_| Errno::EINVAL)
}

/// Gives an interrupt's number back.
///
/// # Errors
/// Those of the hypercall.
pub fn unmap(pirq: u32) -> Result<(), Errno> {
    let pirq = i32::try_from(pirq).map_err(|_| Errno::EINVAL)?;
    op(PHYSDEVOP_UNMAP_PIRQ, &mut UnmapPirq { domid: DomId::SELF, _pad: 0, pirq })
}

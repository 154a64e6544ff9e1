//! `physdev_op` (public `physdev.h`): a control domain's interrupt lines and I/O privilege.
//!
//! Unsafe: a hypercall is told the address of a structure.

use super::command;
use xen_abi::errno::Errno;
use xen_abi::hypercall::HYPERVISOR_PHYSDEV_OP;
use xen_abi::ids::DomId;
use xen_abi::physdev::{
    Eoi, IrqStatusQuery, MAP_PIRQ_TYPE_GSI, MapPirq, PHYSDEVOP_EOI, PHYSDEVOP_IRQ_STATUS_QUERY, PHYSDEVOP_MAP_PIRQ,
    PHYSDEVOP_SET_IOPL, SetIopl, XENIRQSTAT_NEEDS_EOI,
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

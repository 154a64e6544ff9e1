//! Devices of another domain: ports, frames and interrupts, of which the caller gives on what it has itself.

use alloc::sync::Arc;

use logic::irq::Pirq;
use xen_abi::{domctl as abi, errno::Errno};

use super::Reply;
use crate::{cpu::Context, domain::Domain, irq, topology};

/// Ports there are.
const PORTS: u32 = 0x1_0000;

/// `XEN_DOMCTL_ioport_permission`. `EINVAL`: no such ports; `EPERM`: not the caller's.
pub(super) fn ports(cx: &Context<'_>, target: &Arc<Domain>, arg: &abi::IoportPermission) -> Result<Reply, Errno> {
    let end = arg.first_port.checked_add(arg.nr_ports).filter(|end| *end > arg.first_port && *end <= PORTS);
    let ports = arg.first_port..end.ok_or(Errno::EINVAL)?;
    if !cx.domain.devices.has_ports(ports.clone()) {
        return Err(Errno::EPERM);
    }
    target.devices.change_ports(ports, arg.allow_access != 0)?;
    Ok(Reply::Nothing)
}

/// `XEN_DOMCTL_iomem_permission`. `EINVAL`: no such frames; `EPERM`: not the caller's.
pub(super) fn memory(cx: &Context<'_>, target: &Arc<Domain>, arg: &abi::IomemPermission) -> Result<Reply, Errno> {
    let limit = 1 << (topology::physical_address_bits() - 12);
    let end = arg.first_mfn.checked_add(arg.nr_mfns).filter(|end| *end > arg.first_mfn && *end <= limit);
    let frames = arg.first_mfn..end.ok_or(Errno::EINVAL)?;
    if !cx.domain.memory.has_io_range(&frames) {
        return Err(Errno::EPERM);
    }
    target.memory.change_io(&frames, arg.allow_access != 0)?;
    Ok(Reply::Nothing)
}

/// `XEN_DOMCTL_irq_permission`, of an interrupt by the caller's number for it. `EINVAL`: no such number; `EPERM`: it stands
/// for no interrupt of the caller's.
pub(super) fn interrupt(cx: &mut Context<'_>, target: &Arc<Domain>, arg: &abi::IrqPermission) -> Result<Reply, Errno> {
    let irq = irq::check(cx.domain, Pirq(arg.pirq), &mut cx.held)?;
    target.devices.change_irqs(irq.0..irq.0 + 1, arg.allow_access != 0)?;
    Ok(Reply::Nothing)
}

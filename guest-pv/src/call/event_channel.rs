//! `event_channel_op` (public `event_channel.h`).
//!
//! Unsafe: a hypercall is told the address of a structure.

use super::command;
use xen_abi::errno::Errno;
use xen_abi::event_channel::{
    EVTCHNOP_ALLOC_UNBOUND, EVTCHNOP_BIND_INTERDOMAIN, EVTCHNOP_BIND_IPI, EVTCHNOP_BIND_PIRQ, EVTCHNOP_BIND_VCPU,
    EVTCHNOP_BIND_VIRQ, EVTCHNOP_CLOSE, EVTCHNOP_EXPAND_ARRAY, EVTCHNOP_INIT_CONTROL, EVTCHNOP_RESET, EVTCHNOP_SEND,
    EVTCHNOP_SET_PRIORITY, EVTCHNOP_STATUS, EVTCHNOP_UNMASK, EvtchnAllocUnbound, EvtchnBindInterdomain, EvtchnBindIpi,
    EvtchnBindPirq, EvtchnBindVcpu, EvtchnBindVirq, EvtchnClose, EvtchnExpandArray, EvtchnInitControl, EvtchnReset,
    EvtchnSend, EvtchnSetPriority, EvtchnStatus, EvtchnUnmask,
};
use xen_abi::hypercall::HYPERVISOR_EVENT_CHANNEL_OP;
use xen_abi::ids::{DomId, Mfn, Port, VcpuId};
use zerocopy::{FromBytes, IntoBytes};

fn op<T: FromBytes + IntoBytes>(cmd: u32, argument: &mut T) -> Result<(), Errno> {
    // SAFETY: event channel operations touch no memory but their argument and the pending and mask bits.
    unsafe { command(HYPERVISOR_EVENT_CHANNEL_OP, cmd, argument) }.map(drop)
}

/// Allocates a port of `dom` to which `remote` may bind.
///
/// # Errors
/// Those of the hypercall.
pub fn alloc_unbound(dom: DomId, remote: DomId) -> Result<Port, Errno> {
    let mut arg = EvtchnAllocUnbound { dom, remote_dom: remote, port: Port(0) };
    op(EVTCHNOP_ALLOC_UNBOUND, &mut arg)?;
    Ok(arg.port)
}

/// Binds to a port that `remote_dom` has left open for us.
///
/// # Errors
/// Those of the hypercall.
pub fn bind_interdomain(remote_dom: DomId, remote_port: Port) -> Result<Port, Errno> {
    let mut arg = EvtchnBindInterdomain { remote_dom, remote_port, ..Default::default() };
    op(EVTCHNOP_BIND_INTERDOMAIN, &mut arg)?;
    Ok(arg.local_port)
}

/// Binds a virtual interrupt (`VIRQ_*`).
///
/// # Errors
/// Those of the hypercall.
pub fn bind_virq(virq: u32, vcpu: VcpuId) -> Result<Port, Errno> {
    let mut arg = EvtchnBindVirq { virq, vcpu, port: Port(0) };
    op(EVTCHNOP_BIND_VIRQ, &mut arg)?;
    Ok(arg.port)
}

/// Binds a physical interrupt.
///
/// # Errors
/// Those of the hypercall.
pub fn bind_pirq(pirq: u32) -> Result<Port, Errno> {
    let mut arg = EvtchnBindPirq { pirq, ..Default::default() };
    op(EVTCHNOP_BIND_PIRQ, &mut arg)?;
    Ok(arg.port)
}

/// Makes a port by which this domain notifies one of its own vCPUs.
///
/// # Errors
/// Those of the hypercall.
pub fn bind_ipi(vcpu: VcpuId) -> Result<Port, Errno> {
    let mut arg = EvtchnBindIpi { vcpu, port: Port(0) };
    op(EVTCHNOP_BIND_IPI, &mut arg)?;
    Ok(arg.port)
}

/// Chooses the vCPU to be notified.
///
/// # Errors
/// Those of the hypercall.
pub fn bind_vcpu(port: Port, vcpu: VcpuId) -> Result<(), Errno> {
    op(EVTCHNOP_BIND_VCPU, &mut EvtchnBindVcpu { port, vcpu })
}

/// Closes a port.
///
/// # Errors
/// Those of the hypercall.
pub fn close(port: Port) -> Result<(), Errno> {
    op(EVTCHNOP_CLOSE, &mut EvtchnClose { port })
}

/// Notifies the other end.
///
/// # Errors
/// Those of the hypercall.
pub fn send(port: Port) -> Result<(), Errno> {
    op(EVTCHNOP_SEND, &mut EvtchnSend { port })
}

/// Clears the mask bit and raises the upcall when the port is pending.
///
/// # Errors
/// Those of the hypercall.
pub fn unmask(port: Port) -> Result<(), Errno> {
    op(EVTCHNOP_UNMASK, &mut EvtchnUnmask { port })
}

/// What a port is.
///
/// # Errors
/// Those of the hypercall.
pub fn status(dom: DomId, port: Port) -> Result<EvtchnStatus, Errno> {
    let mut arg = EvtchnStatus { dom, port, ..Default::default() };
    op(EVTCHNOP_STATUS, &mut arg)?;
    Ok(arg)
}

/// Closes all ports of a domain.
///
/// # Errors
/// Those of the hypercall.
pub fn reset(dom: DomId) -> Result<(), Errno> {
    op(EVTCHNOP_RESET, &mut EvtchnReset { dom })
}

/// Registers the control block of a vCPU at an offset of a page, which turns the domain to the FIFO layout; how many bits
/// a link has.
///
/// # Errors
/// Those of the hypercall.
pub fn init_control(page: Mfn, offset: u32, vcpu: VcpuId) -> Result<u8, Errno> {
    let mut arg = EvtchnInitControl { control_gfn: page.0, offset, vcpu, ..Default::default() };
    op(EVTCHNOP_INIT_CONTROL, &mut arg)?;
    Ok(arg.link_bits)
}

/// Adds a page to the array of FIFO event words.
///
/// # Errors
/// Those of the hypercall.
pub fn expand_array(page: Mfn) -> Result<(), Errno> {
    op(EVTCHNOP_EXPAND_ARRAY, &mut EvtchnExpandArray { array_gfn: page.0 })
}

/// Says which queue a port joins in the FIFO layout, 0 the most urgent.
///
/// # Errors
/// Those of the hypercall.
pub fn set_priority(port: Port, priority: u32) -> Result<(), Errno> {
    op(EVTCHNOP_SET_PRIORITY, &mut EvtchnSetPriority { port, priority })
}

//! Sending: who is told about an event, without a lock.

use xen_abi::errno::Errno;
use xen_abi::ids::{DomId, Port, VcpuId};

use super::channel::Binding;
use super::{EventDomain, Layout, Notify, PortBits, announce, bits_with, fifo, polled, virq_is_global};
use crate::width::Width;

/// What sending on a port comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It stayed in the domain.
    Here(Notify),
    /// It goes to this port of this domain: call [`deliver_remote`] there.
    There(DomId, Port),
}

/// `EVTCHNOP_send`. EINVAL unless the port is interdomain, an IPI or unbound (then nobody hears it).
#[inline(always)]
pub fn send<D: EventDomain>(domain: &D, port: Port) -> Result<Sent, Errno> {
    let channel = domain.channels().get(port).ok_or(Errno::EINVAL)?;
    match channel.binding {
        Binding::Interdomain { remote, port } => Ok(Sent::There(remote, port)),
        Binding::Ipi => Ok(Sent::Here(raise(domain, channel.vcpu, port))),
        Binding::Unbound { .. } => Ok(Sent::Here(Notify::NOBODY)),
        _ => Err(Errno::EINVAL),
    }
}

/// [`send`], where that needs neither a lock nor another domain: to a vCPU of the sender's own, in the 2-level layout of
/// 64-bit kernels. None where it may need one.
#[inline(always)]
pub fn send_at_once<D: EventDomain>(domain: &D, port: Port) -> Option<Notify> {
    let Layout::Bits(Width::Long64) = domain.layout() else { return None };
    let channel = domain.channels().near(port)?;
    // Not by `==`, which the compiler may make a call of: then this way would save registers.
    matches!(channel.binding, Binding::Ipi).then(|| raise_bits(domain, Width::Long64, channel.vcpu, port))
}

/// Brings an event that `from` sent to `port` of `domain`, if that port is still the other end of one of `from`'s.
#[inline(always)]
pub fn deliver_remote<D: EventDomain>(domain: &D, port: Port, from: DomId) -> Notify {
    match domain.channels().get(port) {
        Some(channel) if matches!(channel.binding, Binding::Interdomain { remote, .. } if remote == from) => {
            raise(domain, channel.vcpu, port)
        }
        _ => Notify::NOBODY,
    }
}

/// Makes a port pending and says who has to know.
#[inline(always)]
pub fn raise<D: EventDomain>(domain: &D, vcpu: VcpuId, port: Port) -> Notify {
    match domain.layout() {
        Layout::Bits(Width::Long64) => raise_bits(domain, Width::Long64, vcpu, port),
        Layout::Fifo(fifo) => fifo::raise(domain, fifo, vcpu, port),
        Layout::Bits(Width::Long32) => raise_narrow(domain, vcpu, port),
    }
}

/// For kernels that are 32-bit throughout: out of the way of all others.
#[cold]
#[inline(never)]
fn raise_narrow<D: EventDomain>(domain: &D, vcpu: VcpuId, port: Port) -> Notify {
    raise_bits(domain, Width::Long32, vcpu, port)
}

#[inline(always)]
fn raise_bits<D: EventDomain>(domain: &D, width: Width, vcpu: VcpuId, port: Port) -> Notify {
    let Some(bits) = bits_with(domain, width, port) else { return Notify::NOBODY };
    if bits.test_and_set_pending(port) {
        return Notify::NOBODY;
    }
    let wakes = !bits.is_masked(port) && announce(domain, width, vcpu, port);
    Notify::of(wakes.then_some(vcpu), polled(domain, port))
}

/// Raises a VIRQ: on `vcpu` for the per-vCPU ones, wherever the guest moved it for the global ones. Nothing when it is
/// not bound.
#[inline]
pub fn send_virq<D: EventDomain>(domain: &D, vcpu: VcpuId, virq: u32) -> Notify {
    let global = virq_is_global(virq);
    let home = if global { VcpuId(0) } else { vcpu };
    let Some(port) = domain.vcpu(home).and_then(|events| events.virq_port(virq)) else {
        return Notify::NOBODY;
    };
    let told = match domain.channels().get(port) {
        Some(channel) if global => channel.vcpu,
        _ => home,
    };
    raise(domain, told, port)
}

/// `EVTCHNOP_unmask`: EINVAL for a port that does not exist; one that is not bound stays as it is.
pub fn unmask<D: EventDomain>(domain: &D, port: Port) -> Result<Notify, Errno> {
    let channel = domain.channels().get(port).ok_or(Errno::EINVAL)?;
    if !channel.is_bound() {
        return Ok(Notify::NOBODY);
    }
    let width = match domain.layout() {
        Layout::Bits(width) => width,
        Layout::Fifo(fifo) => return Ok(fifo::unmask(domain, fifo, channel.vcpu, port)),
    };
    let Some(bits) = bits_with(domain, width, port) else { return Ok(Notify::NOBODY) };
    let wakes = bits.test_and_clear_mask(port) && bits.is_pending(port) && announce(domain, width, channel.vcpu, port);
    Ok(Notify::of(wakes.then_some(channel.vcpu), None))
}

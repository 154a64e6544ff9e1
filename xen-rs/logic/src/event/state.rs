//! The state of a port in shared memory, in whichever layout the domain uses.

use xen_abi::ids::Port;

use super::channel::{Binding, Channel, PORTS_2L};
use super::fifo::{self, FifoMemory, Priority};
use super::{EventDomain, Layout, Notify, PortBits, bits_with};

impl Channel {
    /// Whether the port is bound, so that its state means anything.
    #[must_use]
    pub const fn is_bound(self) -> bool {
        !matches!(self.binding, Binding::Free | Binding::Reserved)
    }
}

/// Whether a port is pending; none if there is no such port.
#[must_use]
pub fn is_pending<D: EventDomain>(domain: &D, port: Port) -> Option<bool> {
    let channel = domain.channels().get(port)?;
    Some(channel.is_bound() && pending(domain, port))
}

fn pending<D: EventDomain>(domain: &D, port: Port) -> bool {
    match domain.layout() {
        Layout::Fifo(fifo) => fifo::is_pending(fifo, port),
        Layout::Bits(width) => bits_with(domain, width, port).is_some_and(|bits| bits.is_pending(port)),
    }
}

/// A port that is closed is not pending, nor will be what came for it too early.
pub(super) fn clear_pending<D: EventDomain>(domain: &D, port: Port) {
    match domain.layout() {
        Layout::Fifo(fifo) => fifo::clear_pending(domain, fifo, port),
        Layout::Bits(width) => {
            if let Some(bits) = bits_with(domain, width, port) {
                bits.clear_pending(port);
            }
        }
    }
}

/// Whether a free port cannot be used yet: its old owner is still on a queue.
pub(super) fn is_busy<D: EventDomain>(domain: &D, port: Port) -> bool {
    domain.fifo().is_some_and(|fifo| fifo::is_linked(fifo, port))
}

/// Ports that are looked at in one go, when a layout begins or the guest adds a page of words.
pub const PORTS_PER_ROUND: u32 = 256;

/// Carries the pending bits of the 2-level layout over to the FIFO one, which the domain uses from now on, for
/// [`PORTS_PER_ROUND`] ports from `first` on: they are raised when the guest provides the words ([`collect_saved`]), or now
/// if it has. Where to go on, if that is not all. Under the lock of the domain's table, when no CPU is in the middle of
/// setting such a bit.
pub(super) fn carry_over<D: EventDomain>(domain: &D, first: u32, tell: impl FnMut(Notify)) -> Option<u32> {
    let valid = domain.channels().valid().min(PORTS_2L);
    let end = first.saturating_add(PORTS_PER_ROUND);
    for port in (first.max(1)..valid.min(end)).map(Port) {
        let Some(queueing) = domain.channels().queueing(port) else { break };
        queueing.set_priority(Priority::DEFAULT);
        if bits_with(domain, domain.width(), port).is_some_and(|bits| bits.is_pending(port)) {
            queueing.save();
        }
    }
    collect_saved(domain, first, tell);
    (end < valid).then_some(end)
}

/// Raises what came for [`PORTS_PER_ROUND`] ports from `first` on, all of one page, before that page was there, if it is
/// there now. Under the lock of the domain's table.
pub fn collect_saved<D: EventDomain>(domain: &D, first: u32, mut tell: impl FnMut(Notify)) {
    let Some(fifo) = domain.fifo() else { return };
    if fifo.word(Port(first)).is_none() {
        return;
    }
    for port in (first..first.saturating_add(PORTS_PER_ROUND)).map(Port) {
        let (Some(queueing), Some(channel)) = (domain.channels().queueing(port), domain.channels().get(port)) else {
            break;
        };
        if queueing.take_saved() && channel.is_bound() {
            tell(fifo::raise(domain, fifo, channel.vcpu, port));
        }
    }
}

//! The state of a port in shared memory, in whichever layout the domain uses.

use xen_abi::ids::Port;

use super::channel::{Binding, Channel, PORTS_2L};
use super::fifo::{self, Priority, WORDS_PER_PAGE};
use super::{EventDomain, Notify, PortBits};

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
    match domain.fifo() {
        Some(fifo) => fifo::is_pending(fifo, port),
        None => domain.bits().is_some_and(|bits| bits.is_pending(port)),
    }
}

/// A port that is closed is not pending, nor will be what came for it too early.
pub(super) fn clear_pending<D: EventDomain>(domain: &D, port: Port) {
    match domain.fifo() {
        Some(fifo) => fifo::clear_pending(domain, fifo, port),
        None => {
            if let Some(bits) = domain.bits() {
                bits.clear_pending(port);
            }
        }
    }
}

/// Whether a free port cannot be used yet: its old owner is still on a queue.
pub(super) fn is_busy<D: EventDomain>(domain: &D, port: Port) -> bool {
    domain.fifo().is_some_and(|fifo| fifo::is_linked(fifo, port))
}

/// Carries the pending bits of the 2-level layout over to the FIFO one, which the domain uses from now on: they are raised
/// when the guest provides the words ([`collect_saved`]). Under the lock of the domain's table, when no CPU is in the
/// middle of setting such a bit.
pub(super) fn carry_over<D: EventDomain>(domain: &D) {
    for port in (1..domain.channels().valid().min(PORTS_2L)).map(Port) {
        let Some(queueing) = domain.channels().queueing(port) else { break };
        queueing.set_priority(Priority::DEFAULT);
        if domain.bits().is_some_and(|bits| bits.is_pending(port)) {
            queueing.save();
        }
    }
}

/// Raises what came for the ports of page `page` before it was there, under the lock of the domain's table.
pub fn collect_saved<D: EventDomain>(domain: &D, page: u32, mut tell: impl FnMut(Notify)) {
    let Some(fifo) = domain.fifo() else { return };
    let first = page.saturating_mul(WORDS_PER_PAGE);
    for port in (first..first.saturating_add(WORDS_PER_PAGE)).map(Port) {
        let (Some(queueing), Some(channel)) = (domain.channels().queueing(port), domain.channels().get(port)) else {
            break;
        };
        if queueing.take_saved() && channel.is_bound() {
            tell(fifo::raise(domain, fifo, channel.vcpu, port));
        }
    }
}

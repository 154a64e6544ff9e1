//! `SCHEDOP_poll`: a vCPU that sleeps until one of a few ports is pending, even if it is masked.

use crate::atomic::Ordering;

use xen_abi::ids::{Port, VcpuId};

use super::{EventDomain, VcpuEvents};

/// What a vCPU polls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Poll {
    /// One port.
    One(Port),
    /// Several, or only a timeout: any event of the domain wakes it and it looks again.
    Any,
}

const NOT: u32 = 0;
const ANY: u32 = u32::MAX;

/// Says that a vCPU polls. Afterwards (not before) the caller looks at the pending bits, and calls [`end_poll`] when
/// one is set already.
pub fn start_poll<D: EventDomain>(domain: &D, events: &VcpuEvents, poll: Poll) {
    let mark = match poll {
        Poll::One(Port(port)) if port != NOT && port != ANY => port,
        _ => ANY,
    };
    if events.poll.swap(mark, Ordering::SeqCst) == NOT {
        domain.channels().pollers.fetch_add(1, Ordering::SeqCst);
    }
}

/// Ends a poll; true if it had not been ended by a waker.
pub fn end_poll<D: EventDomain>(domain: &D, events: &VcpuEvents) -> bool {
    let ended = events.poll.swap(NOT, Ordering::SeqCst) != NOT;
    if ended {
        domain.channels().pollers.fetch_sub(1, Ordering::SeqCst);
    }
    ended
}

/// Whether a vCPU polls.
#[must_use]
pub fn is_polled(events: &VcpuEvents) -> bool {
    events.poll.load(Ordering::SeqCst) != NOT
}

/// Ends the polls that `port` may satisfy and hands each vCPU to `unblock`.
pub fn wake_pollers<D: EventDomain>(domain: &D, port: Port, mut unblock: impl FnMut(VcpuId)) {
    for vcpu in (0..domain.max_vcpus()).map(VcpuId) {
        let Some(events) = domain.vcpu(vcpu) else { continue };
        let mark = events.poll.load(Ordering::SeqCst);
        if mark != NOT
            && (mark == ANY || mark == port.0)
            && events.poll.compare_exchange(mark, NOT, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        {
            domain.channels().pollers.fetch_sub(1, Ordering::SeqCst);
            unblock(vcpu);
        }
    }
}

//! Event channels: one bit of news from a domain, a timer or an interrupt to a domain.
//!
//! What a port is bound to stands in one atomic word per port ([`Channels`]). Binding and closing happen under the
//! lock around the domain's [`Table`]; sending takes no lock: it reads the words and sets bits in the receiver's
//! shared page through [`EventDomain`]. A send that races with a close may set a bit on a port that was free for a
//! moment; guests live with spurious events, since binding an interdomain port raises one by itself.
//!
//! There are two layouts of `event_channel.h`. A domain begins with the 2-level one: a pending bit per port, a selector
//! bit per word of them and one byte per vCPU. It may ask for the other one ([`fifo`]): queues of ports by priority.
//! What the sender has to do next (kick a vCPU, wake pollers) comes back as [`Notify`].

mod bind;
mod channel;
pub mod fifo;
#[cfg(all(test, loom))]
mod loom;
#[cfg(all(test, loom))]
mod loom_fifo;
#[cfg(any(test, feature = "models"))]
pub mod never;
mod poll;
mod send;
mod state;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_fifo;

pub use bind::{Closed, Table};
pub use channel::{Binding, Channel, Channels, PORTS_2L, PORTS_FIFO};
pub use poll::{Poll, end_poll, is_polled, start_poll, wake_pollers};
pub use send::{Sent, deliver_remote, raise, send, send_at_once, send_virq, unmask};
pub use state::{PORTS_PER_ROUND, collect_saved, is_pending};

use crate::atomic::{AtomicU32, Ordering};

use crate::num::Bounded;
use crate::width::Width;
use xen_abi::ids::{DomId, Port, VcpuId};

/// `NR_VIRQS` of `xen.h`.
pub const VIRQS: usize = 24;

/// Whether a VIRQ belongs to the domain as a whole (bound on vCPU 0 and movable) or to each vCPU.
///
/// `xen.h`: those marked "V." are per-vCPU: TIMER (0), DEBUG (1), XENOPROF (7), XENPMU (13).
#[must_use]
pub const fn virq_is_global(virq: u32) -> bool {
    !matches!(virq, 0 | 1 | 7 | 13)
}

/// The part of a vCPU that event channels need.
#[derive(Debug, Default)]
pub struct VcpuEvents {
    /// The port each VIRQ is bound to, 0 for none.
    virq_ports: [AtomicU32; VIRQS],
    /// What the vCPU polls for, if it does.
    poll: AtomicU32,
}

impl VcpuEvents {
    /// A vCPU with nothing bound.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The port that a VIRQ is bound to.
    #[must_use]
    pub fn virq_port(&self, virq: u32) -> Option<Port> {
        let port = Bounded::new(virq.into())?.of(&self.virq_ports).load(Ordering::Acquire);
        (port != 0).then_some(Port(port))
    }
}

/// What the event code sees of a domain: its ports, its vCPUs and what it shares with the hypervisor.
///
/// What it shares lies in memory that the guest writes at any moment, so each access is one atomic operation and its answer
/// is believed for no longer than it takes to act on it.
pub trait EventDomain {
    /// The pending and mask bits of the 2-level layout.
    type Bits<'a>: PortBits
    where
        Self: 'a;
    /// What a vCPU looks at first.
    type Info<'a>: VcpuBits
    where
        Self: 'a;
    /// What the FIFO layout needs.
    type Fifo: fifo::FifoMemory;

    /// The domain's number.
    fn id(&self) -> DomId;
    /// Its ports.
    fn channels(&self) -> &Channels;
    /// One of its vCPUs.
    fn vcpu(&self, vcpu: VcpuId) -> Option<&VcpuEvents>;
    /// How many vCPUs there can be: all are below this.
    fn max_vcpus(&self) -> u32;
    /// The bits of its ports; none when all is over.
    fn bits(&self, width: Width) -> Option<Self::Bits<'_>>;
    /// `vcpu_info` of a vCPU, if it has one.
    fn info(&self, vcpu: VcpuId) -> Option<Self::Info<'_>>;
    /// The FIFO layout, if the domain uses it.
    fn fifo(&self) -> Option<&Self::Fifo>;
    /// How wide the words are that its kernel shares with the hypervisor.
    fn width(&self) -> Width {
        Width::Long64
    }
    /// The layout that it uses: all of the above at one look.
    #[inline(always)]
    fn layout(&self) -> Layout<'_, Self::Fifo> {
        self.fifo().map_or_else(|| Layout::Bits(self.width()), Layout::Fifo)
    }
}

/// Where a domain finds its events.
#[derive(Clone, Copy, Debug)]
pub enum Layout<'a, F> {
    /// The 2-level layout, with words of this width.
    Bits(Width),
    /// The FIFO layout, which is the same for all.
    Fifo(&'a F),
}

/// The bits of ports in the 2-level layout: ports that are handed in are below [`PORTS_2L`].
pub trait PortBits: Copy {
    /// Sets `shared_info.evtchn_pending`; true if it was set before. A full barrier, as all changes here are.
    fn test_and_set_pending(self, port: Port) -> bool;
    /// Clears `shared_info.evtchn_pending`.
    fn clear_pending(self, port: Port);
    /// Reads `shared_info.evtchn_pending`.
    fn is_pending(self, port: Port) -> bool;
    /// Reads `shared_info.evtchn_mask`.
    fn is_masked(self, port: Port) -> bool;
    /// Clears `shared_info.evtchn_mask`; true if it was set before.
    fn test_and_clear_mask(self, port: Port) -> bool;
}

/// The bits of a vCPU.
pub trait VcpuBits: Copy {
    /// Sets a bit of `vcpu_info.evtchn_pending_sel`; true if it was set before.
    fn test_and_set_selector(self, width: Width, word: u32) -> bool;
    /// Sets `vcpu_info.evtchn_upcall_pending`; true if it was set before.
    fn test_and_set_upcall(self) -> bool;
}

/// Who has to be told that an event came in: one word, since it is on the way of every event.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
#[must_use]
pub struct Notify(
    /// The port that pollers may wait for in the low half, one more than the vCPU in the high half.
    u64,
);

impl Notify {
    /// Nobody.
    pub const NOBODY: Notify = Notify(0);

    /// These.
    #[inline(always)]
    pub fn of(vcpu: Option<VcpuId>, poll: Option<Port>) -> Self {
        let vcpu = vcpu.map_or(0, |vcpu| (u64::from(vcpu.0) + 1) << 32);
        Notify(vcpu | poll.map_or(0, |port| u64::from(port.0)))
    }

    /// A vCPU whose upcall just became pending: unblock it, and kick it if it runs on another CPU.
    #[inline(always)]
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "it was put there as 32 bits")]
    pub const fn vcpu(self) -> Option<VcpuId> {
        match (self.0 >> 32) as u32 {
            0 => None,
            vcpu => Some(VcpuId(vcpu - 1)),
        }
    }

    /// The port became pending while some vCPU of the domain polls: call [`wake_pollers`].
    #[inline(always)]
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "takes the low half")]
    pub const fn poll(self) -> Option<Port> {
        match self.0 as u32 {
            0 => None,
            port => Some(Port(port)),
        }
    }
}

impl core::fmt::Debug for Notify {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Notify").field("vcpu", &self.vcpu()).field("poll", &self.poll()).finish()
    }
}

/// The port again if some vCPU of the domain polls.
///
/// A poller first says that it polls and then looks at the bits; the caller has set the bit and now looks for pollers. All
/// four are sequentially consistent, so one of the two sees the other.
#[inline(always)]
fn polled<D: EventDomain>(domain: &D, port: Port) -> Option<Port> {
    let pollers = &domain.channels().pollers;
    // The model knows no total order of plain accesses, which the language and the CPU have.
    let pollers = if cfg!(loom) { pollers.fetch_or(0, Ordering::SeqCst) } else { pollers.load(Ordering::SeqCst) };
    (pollers != 0).then_some(port)
}

/// Whether a vCPU has to be woken, now that its upcall is pending.
#[inline(always)]
fn raise_upcall<D: EventDomain>(domain: &D, vcpu: VcpuId) -> bool {
    domain.info(vcpu).is_some_and(|info| !info.test_and_set_upcall())
}

/// The same for a port of the 2-level layout, whose word the vCPU has to be pointed to.
#[inline(always)]
fn announce<D: EventDomain>(domain: &D, width: Width, vcpu: VcpuId, port: Port) -> bool {
    let is_news =
        |info: D::Info<'_>| !info.test_and_set_selector(width, width.word(port)) && !info.test_and_set_upcall();
    domain.info(vcpu).is_some_and(is_news)
}

/// The bits of a domain's ports, if there is one for this port: its kernel may have said too late that its words are
/// narrow.
#[inline(always)]
fn bits_with<D: EventDomain>(domain: &D, width: Width, port: Port) -> Option<D::Bits<'_>> {
    if width.has(port) { domain.bits(width) } else { None }
}

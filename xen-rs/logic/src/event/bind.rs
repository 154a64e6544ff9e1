//! Binding and closing ports, under the lock around the domain's table.
//!
//! Errors and their order are those of the operations in `event_channel.h` as Xen 4.17 answers them.

use crate::atomic::Ordering;
use alloc::vec::Vec;

use xen_abi::errno::Errno;
use xen_abi::ids::{DomId, Port, VcpuId};

use super::channel::{Binding, CHUNK, Channel, PORTS_FIFO};
use super::fifo::Priority;
use super::{EventDomain, Layout, Notify, VIRQS, raise, state, virq_is_global};

/// What a domain's ports allow: the right to change its [`super::Channels`].
#[derive(Debug)]
pub struct Table {
    /// The highest port the domain may use.
    max_port: u32,
    /// A bit for each port of a chunk that is not free.
    used: Vec<u64>,
    /// Ports in use, port 0 aside.
    active: u32,
    dying: bool,
    /// The port of each bound physical interrupt.
    pirqs: Vec<(u32, Port)>,
}

/// Free ports that are passed over because their old owners are still on a queue, in one search. A guest that leaves more
/// of them there is told that it has no port left.
const BUSY_PORTS: u32 = 1024;

/// What was behind a port that is now free; the caller undoes its share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// Nothing more to do.
    Plain,
    /// The physical interrupt is no longer delivered to this domain.
    Pirq(u32),
}

impl Table {
    /// The table of a new domain whose ports end at `max_port` (`max_evtchn_port` of `XEN_DOMCTL_createdomain`).
    #[must_use]
    pub fn new(max_port: u32) -> Self {
        Table { max_port, used: Vec::new(), active: 0, dying: false, pirqs: Vec::new() }
    }

    /// `XEN_DOMCTL_set_max_evtchn`. Ports above that are bound already stay.
    pub fn set_max_port(&mut self, max_port: u32) {
        self.max_port = max_port;
    }

    /// How many ports are in use.
    #[must_use]
    pub fn active(&self) -> u32 {
        self.active
    }

    /// From now on nothing can be bound.
    pub fn set_dying(&mut self) {
        self.dying = true;
    }

    /// A free port: EINVAL for a dying domain, ENOSPC at the limit, ENOMEM.
    fn find_free<D: EventDomain>(&mut self, domain: &D) -> Result<Port, Errno> {
        if self.dying {
            return Err(Errno::EINVAL);
        }
        let channels = domain.channels();
        let ports = match domain.layout() {
            Layout::Fifo(_) => PORTS_FIFO,
            Layout::Bits(width) => width.ports(),
        };
        let end = ports.min(self.max_port.saturating_add(1));
        let mut busy = 0;
        let mut first = 0;
        loop {
            if first >= end {
                return Err(Errno::ENOSPC);
            }
            if first >= channels.valid() {
                channels.grow()?;
            }
            let index = (first / CHUNK) as usize;
            if self.used.len() <= index {
                self.used.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
                // Port 0 is nobody's.
                self.used.push(u64::from(index == 0));
            }
            let mut free = !self.used.get(index).copied().unwrap_or(u64::MAX);
            while free != 0 {
                let port = Port(first + free.trailing_zeros());
                if port.0 >= end {
                    return Err(Errno::ENOSPC);
                }
                if !state::is_busy(domain, port) {
                    return Ok(port);
                }
                busy += 1;
                if busy == BUSY_PORTS {
                    return Err(Errno::ENOSPC);
                }
                free &= free - 1;
            }
            first += CHUNK;
        }
    }

    fn mark(&mut self, port: Port, used: bool) {
        if let Some(word) = self.used.get_mut((port.0 / CHUNK) as usize) {
            let bit = 1 << (port.0 % CHUNK);
            if used {
                *word |= bit;
            } else {
                *word &= !bit;
            }
        }
    }

    /// The first port from `from` on that is bound.
    #[must_use]
    pub fn next_bound(&self, from: Port) -> Option<Port> {
        let first = (from.0 / CHUNK) as usize;
        self.used.iter().enumerate().skip(first).find_map(|(index, word)| {
            let word = match index {
                0 => word & !1,
                _ => *word,
            };
            let word = if index == first { word & u64::MAX << (from.0 % CHUNK) } else { word };
            let base = u32::try_from(index).ok()? * CHUNK;
            (word != 0).then(|| Port(base + word.trailing_zeros()))
        })
    }

    fn occupy<D: EventDomain>(&mut self, domain: &D, port: Port, binding: Binding, vcpu: VcpuId) {
        if let Some(queueing) = domain.channels().queueing(port) {
            queueing.set_priority(Priority::DEFAULT);
        }
        domain.channels().set(port, Channel { binding, vcpu });
        self.mark(port, true);
        self.active += 1;
    }

    /// `EVTCHNOP_set_priority`: EINVAL for a port or a priority that does not exist, ENOSYS without the FIFO layout, EACCES
    /// for a port that is not bound.
    pub fn set_priority<D: EventDomain>(&mut self, domain: &D, port: Port, priority: u32) -> Result<(), Errno> {
        let channel = domain.channels().get(port).ok_or(Errno::EINVAL)?;
        domain.fifo().ok_or(Errno::ENOSYS)?;
        if !channel.is_bound() {
            return Err(Errno::EACCES);
        }
        let priority = Priority::new(priority).ok_or(Errno::EINVAL)?;
        domain.channels().queueing(port).ok_or(Errno::EINVAL)?.set_priority(priority);
        Ok(())
    }

    /// The domain uses the FIFO layout from now on, and no CPU is in the middle of setting a bit of the other one: takes
    /// over some ports from `first` on. Where to go on, if that is not all; events keep coming meanwhile.
    pub fn begin_fifo<D: EventDomain>(&mut self, domain: &D, first: u32, tell: impl FnMut(Notify)) -> Option<u32> {
        state::carry_over(domain, first, tell)
    }

    /// `EVTCHNOP_alloc_unbound`: a port that `remote` may bind to.
    pub fn alloc_unbound<D: EventDomain>(&mut self, domain: &D, remote: DomId) -> Result<Port, Errno> {
        let port = self.find_free(domain)?;
        self.occupy(domain, port, Binding::Unbound { remote }, VcpuId(0));
        Ok(port)
    }

    /// `EVTCHNOP_bind_interdomain`: connects a new port to `remote_port`, with the tables of both domains locked (`self`
    /// is the local one). Events sent to the other end before may have been lost, so the new port starts pending.
    pub fn bind_interdomain<D: EventDomain, R: EventDomain>(
        &mut self,
        local: &D,
        remote: &R,
        remote_port: Port,
    ) -> Result<(Port, Notify), Errno> {
        let port = self.find_free(local)?;
        let other = remote.channels().get(remote_port).ok_or(Errno::EINVAL)?;
        if other.binding != (Binding::Unbound { remote: local.id() }) {
            return Err(Errno::EINVAL);
        }
        self.occupy(local, port, Binding::Interdomain { remote: remote.id(), port: remote_port }, VcpuId(0));
        let binding = Binding::Interdomain { remote: local.id(), port };
        remote.channels().set(remote_port, Channel { binding, vcpu: other.vcpu });
        Ok((port, raise(local, VcpuId(0), port)))
    }

    /// `EVTCHNOP_bind_virq`: EINVAL for a VIRQ that does not exist or is not per-vCPU, ENOENT for a vCPU that does not,
    /// EEXIST when it is bound.
    pub fn bind_virq<D: EventDomain>(&mut self, domain: &D, virq: u32, vcpu: VcpuId) -> Result<Port, Errno> {
        let index = usize::try_from(virq).ok().filter(|index| *index < VIRQS).ok_or(Errno::EINVAL)?;
        if virq_is_global(virq) && vcpu != VcpuId(0) {
            return Err(Errno::EINVAL);
        }
        let events = domain.vcpu(vcpu).ok_or(Errno::ENOENT)?;
        if events.virq_port(virq).is_some() {
            return Err(Errno::EEXIST);
        }
        let port = self.find_free(domain)?;
        self.occupy(domain, port, Binding::Virq(virq), vcpu);
        if let Some(slot) = events.virq_ports.get(index) {
            slot.store(port.0, Ordering::Release);
        }
        Ok(port)
    }

    /// `EVTCHNOP_bind_ipi`: ENOENT for a vCPU that does not exist.
    pub fn bind_ipi<D: EventDomain>(&mut self, domain: &D, vcpu: VcpuId) -> Result<Port, Errno> {
        domain.vcpu(vcpu).ok_or(Errno::ENOENT)?;
        let port = self.find_free(domain)?;
        self.occupy(domain, port, Binding::Ipi, vcpu);
        Ok(port)
    }

    /// `EVTCHNOP_bind_pirq`, once the caller knows that the domain may have the interrupt: EEXIST when it is bound.
    /// The interrupt itself is routed afterwards; if that fails the caller closes the port again.
    pub fn bind_pirq<D: EventDomain>(&mut self, domain: &D, pirq: u32) -> Result<Port, Errno> {
        if self.pirq_port(pirq).is_some() {
            return Err(Errno::EEXIST);
        }
        let port = self.find_free(domain)?;
        self.pirqs.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        self.pirqs.push((pirq, port));
        self.occupy(domain, port, Binding::Pirq(pirq), VcpuId(0));
        Ok(port)
    }

    /// The port of a physical interrupt.
    #[must_use]
    pub fn pirq_port(&self, pirq: u32) -> Option<Port> {
        self.pirqs.iter().find(|(bound, _)| *bound == pirq).map(|(_, port)| *port)
    }

    /// `EVTCHNOP_bind_vcpu`: ENOENT for a vCPU that does not exist, EINVAL for a port that does not or whose vCPU is
    /// fixed (IPIs, per-vCPU VIRQs).
    pub fn bind_vcpu<D: EventDomain>(&mut self, domain: &D, port: Port, vcpu: VcpuId) -> Result<(), Errno> {
        domain.vcpu(vcpu).ok_or(Errno::ENOENT)?;
        let channel = domain.channels().get(port).ok_or(Errno::EINVAL)?;
        match channel.binding {
            Binding::Virq(virq) if virq_is_global(virq) => {}
            Binding::Unbound { .. } | Binding::Interdomain { .. } | Binding::Pirq(_) => {}
            _ => return Err(Errno::EINVAL),
        }
        domain.channels().set(port, Channel { binding: channel.binding, vcpu });
        Ok(())
    }

    /// Whose table has to be locked together with this domain's to close `port`.
    pub fn peer<D: EventDomain>(domain: &D, port: Port) -> Option<DomId> {
        match domain.channels().get(port)?.binding {
            Binding::Interdomain { remote, .. } => Some(remote),
            _ => None,
        }
    }

    /// `EVTCHNOP_close`. `peer` is the domain that [`Table::peer`] named, its table locked as well (the domain itself
    /// for a loop). EINVAL for a port that is not bound, also when the port was closed and bound to someone else
    /// between the look and the lock.
    pub fn close<D: EventDomain>(&mut self, domain: &D, port: Port, peer: Option<&D>) -> Result<Closed, Errno> {
        let channels = domain.channels();
        let channel = channels.get(port).ok_or(Errno::EINVAL)?;
        let mut closed = Closed::Plain;
        match channel.binding {
            Binding::Free | Binding::Reserved => return Err(Errno::EINVAL),
            Binding::Unbound { .. } | Binding::Ipi => {}
            Binding::Interdomain { remote, port: other } => {
                let peer = peer.filter(|peer| peer.id() == remote).ok_or(Errno::EINVAL)?;
                // The other end of this one, and nothing else.
                let own = Binding::Interdomain { remote: domain.id(), port };
                if let Some(end) = peer.channels().get(other).filter(|end| end.binding == own) {
                    let binding = Binding::Unbound { remote: domain.id() };
                    peer.channels().set(other, Channel { binding, vcpu: end.vcpu });
                }
            }
            Binding::Pirq(pirq) => {
                self.pirqs.retain(|(bound, _)| *bound != pirq);
                closed = Closed::Pirq(pirq);
            }
            Binding::Virq(virq) => {
                let home = if virq_is_global(virq) { VcpuId(0) } else { channel.vcpu };
                if let (Some(events), Ok(index)) = (domain.vcpu(home), usize::try_from(virq))
                    && let Some(slot) = events.virq_ports.get(index)
                {
                    slot.store(0, Ordering::Release);
                }
            }
        }
        // The next owner of the port must not find an old event.
        state::clear_pending(domain, port);
        channels.set(port, Channel::FREE);
        self.active = self.active.saturating_sub(1);
        self.mark(port, false);
        Ok(closed)
    }
}

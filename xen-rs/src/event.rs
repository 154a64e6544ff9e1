//! Event channels of domains, joined to their shared pages and to the scheduler.

pub mod fifo;

use alloc::sync::Arc;

use logic::{
    event::{self, Binding, Channels, EventDomain, Layout, Notify, PortBits, Table, VcpuBits, VcpuEvents},
    irq::Pirq,
    lock::{Held, rank},
    width::Width,
};
use machine::mem::shared::{Quiesced, Shared, SharedPage, SharedSlot, SharedView};
use xen_abi::{
    arch_x86::shared_info,
    errno::Errno,
    event_channel::EVTCHN_2L_NR_CHANNELS,
    hypercall,
    ids::{DomId, Mfn, Port, VcpuId},
};

use crate::{cpu_loop, domain, domain::Domain, irq, memory, sync::Lock, vcpu::Vcpu, vcpu_info::VcpuInfo};

/// What a domain has for its events.
pub struct DomainEvents {
    /// What its ports are bound to.
    pub channels: Channels,
    /// The right to bind and close.
    pub table: Lock<Table, { rank::EVENT }>,
    shared: SharedSlot<Arc<SharedPage>>,
    layout: fifo::Layout,
}

impl DomainEvents {
    /// A new domain's: no port bound, a shared page in which every vCPU masks its upcalls. `ENOMEM`.
    pub fn new(owner: DomId, max_port: u32, held: &mut Held<'_, 0>) -> Result<Self, Errno> {
        let page = Arc::new(memory::shared_page(owner, held)?);
        for vcpu in 0..xen_abi::arch_x86::XEN_LEGACY_MAX_VCPUS {
            VcpuInfo::at(page.view(), vcpu * shared_info::VCPU_INFO_STRIDE).set_upcall_mask(true);
        }
        let events = Self {
            channels: Channels::new()?,
            table: Lock::new(Table::new(max_port)),
            shared: SharedSlot::new(),
            layout: fifo::Layout::new(),
        };
        // A new slot is empty.
        let _ = events.shared.fill(page);
        Ok(events)
    }

    /// The shared page; none when all is over.
    #[inline(always)]
    #[must_use]
    pub fn shared_info(&self) -> Option<SharedView<'_>> {
        self.shared.view()
    }

    /// Its slot.
    #[must_use]
    pub const fn shared_slot(&self) -> &SharedSlot<Arc<SharedPage>> {
        &self.shared
    }
}

/// The bits of all ports in one array of the shared page.
type BitArray<'a> = Shared<'a, { EVTCHN_2L_NR_CHANNELS as usize / 8 }>;

/// The pending and mask bits of a domain's ports.
#[derive(Clone, Copy)]
pub struct Bits<'a> {
    pending: BitArray<'a>,
    mask: BitArray<'a>,
}

/// Where a port's bit is: the word's offset, and the bit in it.
#[inline(always)]
const fn place(port: Port) -> (usize, u32) {
    ((port.0 / 64) as usize * 8, port.0 % 64)
}

impl PortBits for Bits<'_> {
    #[inline(always)]
    fn test_and_set_pending(self, port: Port) -> bool {
        let (at, bit) = place(port);
        self.pending.test_and_set(at, bit)
    }

    fn clear_pending(self, port: Port) {
        let (at, bit) = place(port);
        self.pending.and64(at, !(1 << bit));
    }

    #[inline(always)]
    fn is_pending(self, port: Port) -> bool {
        let (at, bit) = place(port);
        self.pending.load64(at) >> bit & 1 != 0
    }

    #[inline(always)]
    fn is_masked(self, port: Port) -> bool {
        let (at, bit) = place(port);
        self.mask.load64(at) >> bit & 1 != 0
    }

    #[inline(always)]
    fn test_and_clear_mask(self, port: Port) -> bool {
        let (at, bit) = place(port);
        self.mask.and64(at, !(1 << bit)) >> bit & 1 != 0
    }
}

impl VcpuBits for VcpuInfo<'_> {
    #[inline(always)]
    fn test_and_set_selector(self, width: Width, word: u32) -> bool {
        self.set_selector(width, word)
    }

    #[inline(always)]
    fn test_and_set_upcall(self) -> bool {
        self.set_upcall_pending()
    }
}

impl EventDomain for Domain {
    type Bits<'a> = Bits<'a>;
    type Info<'a> = VcpuInfo<'a>;
    type Fifo = fifo::Memory;

    #[inline(always)]
    fn fifo(&self) -> Option<&fifo::Memory> {
        self.events.layout.fifo()
    }

    #[inline(always)]
    fn layout(&self) -> Layout<'_, fifo::Memory> {
        self.events.layout.now()
    }

    fn width(&self) -> Width {
        self.events.layout.width()
    }

    #[inline(always)]
    fn id(&self) -> DomId {
        self.id
    }

    #[inline(always)]
    fn channels(&self) -> &Channels {
        &self.events.channels
    }

    #[inline(always)]
    fn vcpu(&self, vcpu: VcpuId) -> Option<&VcpuEvents> {
        Domain::vcpu(self, vcpu).map(|vcpu| &vcpu.events)
    }

    fn max_vcpus(&self) -> u32 {
        Domain::max_vcpus(self)
    }

    #[inline(always)]
    fn bits(&self, width: Width) -> Option<Bits<'_>> {
        let page = self.events.shared_info()?;
        Some(Bits { pending: page.part(shared_info::EVTCHN_PENDING), mask: page.part(width.mask()) })
    }

    #[inline(always)]
    fn info(&self, vcpu: VcpuId) -> Option<VcpuInfo<'_>> {
        Domain::vcpu(self, vcpu).map(|vcpu| vcpu.info.get())
    }
}

/// The domain's kernel has words of this width from now on, and looks for its events there. Nothing is carried over: that
/// is said before anything is bound.
pub fn set_width(domain: &Domain, width: Width, held: &mut Held<'_, 0>) {
    let (_table, _held) = domain.events.table.lock(held);
    domain.events.layout.set_width(width);
}

/// Wakes and kicks whom an event concerns.
#[inline(always)]
pub fn tell<const H: u8>(domain: &Domain, notify: Notify, held: &mut Held<'_, H>) {
    if let Some(vcpu) = notify.vcpu().and_then(|id| domain.vcpu(id)) {
        cpu_loop::event(vcpu, held);
    }
    if let Some(port) = notify.poll() {
        tell_pollers(domain, port, held);
    }
}

#[cold]
fn tell_pollers<const H: u8>(domain: &Domain, port: Port, held: &mut Held<'_, H>) {
    event::wake_pollers(domain, port, |id| {
        if let Some(vcpu) = domain.vcpu(id) {
            cpu_loop::unblock(vcpu, held);
        }
    });
}

/// Raises a VIRQ of a vCPU, or a global one of its domain.
pub fn raise_virq<const H: u8>(domain: &Domain, vcpu: VcpuId, virq: u32, held: &mut Held<'_, H>) {
    tell(domain, event::send_virq(domain, vcpu, virq), held);
}

/// Raises the event of an interrupt, if the port is bound to it; the vCPU that is told.
pub fn raise_pirq<'a, const H: u8>(
    domain: &'a Domain,
    port: Port,
    pirq: Pirq,
    held: &mut Held<'_, H>,
) -> Option<&'a Arc<Vcpu>> {
    let channel = domain.events.channels.get(port).filter(|channel| channel.binding == Binding::Pirq(pirq.0))?;
    tell(domain, event::raise(domain, channel.vcpu, port), held);
    domain.vcpu(channel.vcpu)
}

/// Raises a global VIRQ of the control domain.
pub fn raise_control_virq(virq: u32, held: &mut Held<'_, 0>) {
    if let Some(control) = domain::hardware(held) {
        raise_virq(&control, VcpuId(0), virq, held);
    }
}

/// `VIRQ_DOM_EXC` to the control domain: some domain shut down or is gone.
pub fn raise_dom_exc(held: &mut Held<'_, 0>) {
    raise_control_virq(hypercall::VIRQ_DOM_EXC, held);
}

/// Closes up to `most` ports of a domain that dies or resets; true when none is left. Between two ports no lock is held.
pub fn close_some(domain: &Arc<Domain>, most: u32, held: &mut Held<'_, 0>) -> bool {
    let mut from = Port(0);
    for _ in 0..most {
        let Some(port) = domain.events.table.lock(held).0.next_bound(from) else { return true };
        // One that somebody else closes at the same time refuses, which is as good.
        let _ = close(domain, port, held);
        from = Port(port.0.saturating_add(1));
    }
    domain.events.table.lock(held).0.next_bound(Port(0)).is_none()
}

/// Closes a port: `EINVAL` when it is not bound.
pub fn close(domain: &Arc<Domain>, port: Port, held: &mut Held<'_, 0>) -> Result<event::Closed, Errno> {
    // The peer may have closed its end, and be gone, by the time it is looked up: then the port is unbound now.
    for _ in 0..2 {
        let Some(peer_id) = Table::peer(&**domain, port) else {
            let closed = domain.events.table.lock(held).0.close(&**domain, port, None)?;
            if let event::Closed::Pirq(pirq) = closed {
                irq::unbind(domain.id, Pirq(pirq), port, held);
            }
            return Ok(closed);
        };
        if let Some(peer) = domain::find(peer_id, held) {
            let (mut tables, _held) =
                logic::lock::lock_pair(held, (domain.id, &domain.events.table), (peer.id, &peer.events.table));
            return tables.first().close(&**domain, port, Some(&*peer));
        }
    }
    Err(Errno::EINVAL)
}

/// The frames of the domain's pages that the hypervisor holds as shared ones, each as often as it does; its own pages may be
/// among them.
pub fn shared_frames(domain: &Domain, mut each: impl FnMut(Mfn)) {
    domain.eoi_map.slot().mfn().into_iter().for_each(&mut each);
    domain.vcpus().iter().for_each(|vcpu| vcpu.info.frames(&mut each));
    fifo::frames(&domain.events.layout, each);
}

/// Takes the shared pages of a domain away from senders, when all its ports are closed and no vCPU of it runs. The pages
/// are the caller's to end.
pub fn retire(domain: &Domain, mut end: impl FnMut(SharedPage)) {
    let (slot, vcpus) = (domain.events.shared_slot(), domain.vcpus());
    let eois = domain.eoi_map.slot();
    slot.close();
    eois.close();
    vcpus.iter().for_each(|vcpu| vcpu.info.close());
    let quiesced = Quiesced::wait();
    let theirs = vcpus.iter().flat_map(|vcpu| core::iter::from_fn(|| vcpu.info.take(&quiesced)));
    // A page goes with the last who holds it.
    slot.take(&quiesced).into_iter().chain(theirs).filter_map(Arc::into_inner).for_each(&mut end);
    eois.take(&quiesced).into_iter().for_each(&mut end);
    fifo::retire(&domain.events.layout, end);
}

//! Interrupts as events: binding a number to an event channel, and the end of an interrupt.

use core::sync::atomic::{AtomicBool, Ordering};

use logic::{
    irq::{Irq, Mode, Pirq, Unbound},
    lock::{Held, rank},
};
use machine::mem::shared::{SharedPage, SharedSlot};
use xen_abi::{
    errno::Errno,
    ids::{DomId, Port},
};

use super::{STATE, State, silence};
use crate::{domain::Domain, sync::Lock};

/// The page in which a guest sees which of its interrupts have to be ended by a hypercall
/// (`PHYSDEVOP_pirq_eoi_gmfn_v1` and `_v2`): one bit for each number.
pub struct EoiMap {
    slot: SharedSlot,
    unmasks: AtomicBool,
    registering: Lock<(), { rank::LEAF }>,
}

impl EoiMap {
    /// None registered.
    #[must_use]
    pub const fn new() -> Self {
        Self { slot: SharedSlot::new(), unmasks: AtomicBool::new(false), registering: Lock::new(()) }
    }

    /// Uses a page from now on; it comes back if there is one already. With `unmasks` the end of an interrupt unmasks its
    /// event channel too.
    pub fn register(&self, page: SharedPage, unmasks: bool) -> Result<(), SharedPage> {
        self.registering.lock_leaf(|()| {
            self.slot.fill(page)?;
            self.unmasks.store(unmasks, Ordering::Relaxed);
            Ok(())
        })
    }

    /// Whether the end of an interrupt unmasks its event channel.
    #[must_use]
    pub fn unmasks(&self) -> bool {
        self.unmasks.load(Ordering::Relaxed)
    }

    /// The page's place, for its end.
    #[must_use]
    pub const fn slot(&self) -> &SharedSlot {
        &self.slot
    }

    fn show(&self, pirq: Pirq, needed: bool) {
        let (offset, bit) = ((pirq.0 / 64) as usize * 8, 1 << (pirq.0 % 64));
        let Some(page) = self.slot.view().filter(|_| offset < 4096) else { return };
        if needed {
            page.or64(offset, bit);
        } else {
            page.and64(offset, !bit);
        }
    }
}

/// Whether a domain may bind a number: `EINVAL` beyond its numbers, `EPERM` for one that stands for no interrupt that it
/// was given. The interrupt.
pub fn check(domain: &Domain, pirq: Pirq, held: &mut Held<'_, 0>) -> Result<Irq, Errno> {
    let limit = super::count_of(domain.is_control(), held);
    let irq = STATE.lock(held).0.pirqs(domain.id).and_then(|pirqs| pirqs.irq(pirq));
    match irq {
        _ if pirq.0 >= limit => Err(Errno::EINVAL),
        Some(irq) if domain.devices.has_irq(irq.0) => Ok(irq),
        _ => Err(Errno::EPERM),
    }
}

/// Tells a domain of an interrupt by a port that it has just been given; the interrupt goes to `cpu`.
///
/// `EINVAL`: the number stands for nothing; `EBUSY`: somebody else has it; `ENOSPC`: no vector is free.
pub fn bind<const H: u8>(
    domain: &Domain,
    pirq: Pirq,
    port: Port,
    share: bool,
    cpu: u32,
    held: &mut Held<'_, H>,
) -> Result<(), Errno> {
    const { assert!(H < rank::IRQ, "under the lock of the ports") };
    let (mut guard, _held) = STATE.lock(held);
    let state = &mut *guard;
    let irq = state.pirqs(domain.id).and_then(|pirqs| pirqs.irq(pirq)).ok_or(Errno::EINVAL)?;
    let source = state.source(irq).ok_or(Errno::EINVAL)?;
    let vector = state.irqs.vector(irq)?;
    let desc = state.irqs.get_mut(irq).ok_or(Errno::EINVAL)?;
    let first = desc.bind(domain.id, pirq, port, share)?;
    domain.eoi_map.show(pirq, desc.mode == Mode::Level);
    if first {
        desc.cpu = cpu;
        source.route(vector, cpu)?;
        source.unmask();
    }
    Ok(())
}

/// The port of an interrupt was closed.
pub fn unbind(domain: DomId, pirq: Pirq, port: Port, held: &mut Held<'_, 0>) {
    let (mut guard, _held) = STATE.lock(held);
    let state = &mut *guard;
    if let Some(irq) = state.pirqs(domain).and_then(|pirqs| pirqs.irq(pirq)) {
        release(state, irq, domain, pirq, Some(port));
    }
}

pub(super) fn release(state: &mut State, irq: Irq, domain: DomId, pirq: Pirq, port: Option<Port>) {
    let left = state.irqs.get_mut(irq).and_then(|desc| desc.unbind(domain, pirq, port));
    match left {
        Some(Unbound::Last) => silence(state, irq),
        Some(Unbound::Unmask) => {
            if let Some(source) = state.source(irq) {
                source.unmask();
            }
        }
        Some(Unbound::Others) | None => {}
    }
}

/// `PHYSDEVOP_eoi`: a domain has served an interrupt. `EINVAL` for a number that stands for nothing.
pub fn end(domain: &Domain, pirq: Pirq, held: &mut Held<'_, 0>) -> Result<Option<Port>, Errno> {
    let (mut guard, _held) = STATE.lock(held);
    let state = &mut *guard;
    let irq = state.pirqs(domain.id).and_then(|pirqs| pirqs.irq(pirq)).ok_or(Errno::EINVAL)?;
    let source = state.source(irq);
    let Some(desc) = state.irqs.get_mut(irq) else { return Ok(None) };
    let port = desc.guests().iter().find(|guest| guest.domain == domain.id).map(|guest| guest.port);
    if desc.end(domain.id, pirq)
        && let Some(source) = source
    {
        source.unmask();
    }
    Ok(port)
}

/// Whether several domains are told of an interrupt.
#[must_use]
pub fn is_shared(domain: &Domain, pirq: Pirq, held: &mut Held<'_, 0>) -> bool {
    let (mut state, _held) = STATE.lock(held);
    let Some(irq) = state.pirqs(domain.id).and_then(|pirqs| pirqs.irq(pirq)) else { return false };
    state.irqs.get(irq).is_some_and(|desc| desc.guests().len() > 1)
}

/// The event channel of an interrupt tells another vCPU from now on: the interrupt goes to its CPU.
pub fn move_to(domain: DomId, pirq: Pirq, cpu: u32, held: &mut Held<'_, 0>) {
    let (mut state, _held) = STATE.lock(held);
    if let Some(irq) = state.pirqs(domain).and_then(|pirqs| pirqs.irq(pirq)) {
        state.retarget(irq, cpu);
    }
}

/// Takes all numbers of a domain that is gone, whose ports are closed.
pub fn unmap_all(domain: &Domain, held: &mut Held<'_, 0>) {
    loop {
        let next = {
            let (mut state, _held) = STATE.lock(held);
            let next = state.pirqs(domain.id).and_then(|pirqs| pirqs.mapped().next());
            if next.is_none() {
                state.pirqs.retain(|(id, _)| *id != domain.id);
            }
            next
        };
        let Some((pirq, _)) = next else { return };
        // It was mapped a moment ago, and a domain that is gone has nobody who unmaps it.
        let _ = super::unmap(domain, pirq, held);
    }
}

//! Interrupts by a domain's own numbers: mapping them, how a line signals, the end of one.

use logic::{
    access::{Allowed, PhysdevOp},
    guest::InOut,
    irq::{Kind, Pirq},
};
use machine::{
    arch::x86_64::{ioapic::Signal, pci::Function},
    mem::shared::SharedPage,
};
use xen_abi::{errno::Errno, ids::Mfn, physdev as abi};

use crate::{
    cpu::Context,
    event,
    guest::Handle,
    irq::{self, Device, Wanted},
    memory,
};

/// Most messages of one device (`PCI Local Bus Specification 3.0`, 6.8.1.3).
const MOST_MESSAGES: i32 = 32;

fn number(pirq: i32) -> Result<Pirq, Errno> {
    u32::try_from(pirq).map(Pirq).map_err(|_| Errno::EINVAL)
}

/// `PHYSDEVOP_eoi`.
pub(super) fn end(cx: &mut Context<'_>, wanted: &abi::Eoi) -> Result<(), Errno> {
    let port = irq::end(cx.domain, Pirq(wanted.irq), &mut cx.held)?;
    if let Some(port) = port.filter(|_| cx.domain.eoi_map.unmasks()) {
        let notify = logic::event::unmask(&**cx.domain, port)?;
        event::tell(cx.domain, notify, &mut cx.held);
    }
    Ok(())
}

/// `PHYSDEVOP_irq_status_query`. A guest that does not look at the bits of `pirq_eoi_gmfn` has to end every interrupt.
pub(super) fn status(cx: &mut Context<'_>, op: &mut abi::IrqStatusQuery) -> Result<(), Errno> {
    if op.irq >= irq::count_of(cx.domain.is_control(), &mut cx.held) {
        return Err(Errno::EINVAL);
    }
    op.flags = abi::XENIRQSTAT_NEEDS_EOI;
    if irq::is_shared(cx.domain, Pirq(op.irq), &mut cx.held) {
        op.flags |= abi::XENIRQSTAT_SHARED;
    }
    Ok(())
}

/// `PHYSDEVOP_pirq_eoi_gmfn_v1`, whose ends of interrupts unmask the event channels too, and `_v2`. `EINVAL`: not a page
/// of the caller's that it may write; `EBUSY`: there is one already.
pub(super) fn register_map(cx: &mut Context<'_>, wanted: &abi::PirqEoiGmfn, unmasks: bool) -> Result<(), Errno> {
    let mut mm = memory::mmu(cx.held.again(), cx.domain, &mut cx.state.paging.deferred);
    let page = SharedPage::new(mm.hold_writable(Mfn(wanted.gmfn), cx.domain.id).ok_or(Errno::EINVAL)?);
    cx.domain.eoi_map.register(page, unmasks).map_err(|page| {
        mm.end_shared(page.into_frame());
        Errno::EBUSY
    })
}

/// `PHYSDEVOP_map_pirq`.
pub(super) fn map(
    cx: &mut Context<'_>,
    allowed: &Allowed<PhysdevOp>,
    op: Handle<abi::MapPirq, InOut>,
) -> Result<(), Errno> {
    let (mut op, answer) = op.read()?;
    let domain = cx.target(allowed, op.domid)?;
    let mapped = wanted(&op).and_then(|wanted| {
        let pirq = u32::try_from(op.pirq).ok().map(Pirq);
        let caller = cx.domain.clone();
        let may = |irq| caller.devices.has_irq(irq);
        irq::map(&domain, wanted, pirq, may, &mut cx.held)
    });
    if let Ok(pirq) = mapped {
        op.pirq = i32::try_from(pirq.0).map_err(|_| Errno::EINVAL)?;
    }
    // The structure goes back whatever came of it.
    answer.write(&op)?;
    mapped.map(drop)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "parts of one word")]
fn wanted(op: &abi::MapPirq) -> Result<Wanted, Errno> {
    let device = |segment: u16| Device { segment, function: Function { bus: op.bus as u8, devfn: op.devfn as u8 } };
    let entry = |nr: i32| {
        if op.table_base == 0 { Ok(None) } else { u16::try_from(nr).map(Some).map_err(|_| Errno::EINVAL) }
    };
    match u32::try_from(op.type_).map_err(|_| Errno::EINVAL)? {
        abi::MAP_PIRQ_TYPE_GSI => u32::try_from(op.index).map(Wanted::Line).map_err(|_| Errno::EINVAL),
        abi::MAP_PIRQ_TYPE_MSI => Ok(Wanted::Message { device: device(0), entry: entry(op.entry_nr)? }),
        abi::MAP_PIRQ_TYPE_MSI_SEG => {
            Ok(Wanted::Message { device: device((op.bus >> 16) as u16), entry: entry(op.entry_nr)? })
        }
        // Several messages of one device have vectors in a row, which takes interrupt remapping to move them.
        abi::MAP_PIRQ_TYPE_MULTI_MSI if !(1..=MOST_MESSAGES).contains(&op.entry_nr) => Err(Errno::EDOM),
        abi::MAP_PIRQ_TYPE_MULTI_MSI if op.entry_nr != 1 => Err(Errno::EOPNOTSUPP),
        abi::MAP_PIRQ_TYPE_MULTI_MSI => Ok(Wanted::Message { device: device((op.bus >> 16) as u16), entry: None }),
        _ => Err(Errno::EINVAL),
    }
}

/// `PHYSDEVOP_unmap_pirq`.
pub(super) fn unmap(cx: &mut Context<'_>, allowed: &Allowed<PhysdevOp>, wanted: &abi::UnmapPirq) -> Result<(), Errno> {
    let domain = cx.target(allowed, wanted.domid)?;
    irq::unmap(&domain, number(wanted.pirq)?, &mut cx.held)
}

/// `PHYSDEVOP_get_free_pirq`.
pub(super) fn find_free(cx: &mut Context<'_>, op: &mut abi::GetFreePirq) -> Result<(), Errno> {
    let kind = if u32::try_from(op.type_) == Ok(abi::MAP_PIRQ_TYPE_GSI) { Kind::Line } else { Kind::Message };
    op.pirq = irq::find_free(cx.domain, kind, &mut cx.held)?.0;
    Ok(())
}

/// `PHYSDEVOP_setup_gsi`.
pub(super) fn set_up(cx: &mut Context<'_>, wanted: &abi::SetupGsi) -> Result<(), Errno> {
    let line = u32::try_from(wanted.gsi).map_err(|_| Errno::EINVAL)?;
    irq::set_signal(line, Signal { level: wanted.triggering != 0, low: wanted.polarity != 0 }, &mut cx.held)
}

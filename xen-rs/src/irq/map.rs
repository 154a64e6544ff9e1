//! A domain's numbers for interrupts, and the PCI devices whose messages they can stand for.

use logic::{
    irq::{Irq, Kind, Pirq, Pirqs},
    lock::Held,
};
use machine::arch::x86_64::{
    ioapic::{Gsi, Signal},
    msi::{Message, NoMessage},
    pci::Function,
};
use xen_abi::{errno::Errno, physdev::PciDevice};

use super::{GUEST_EXTRA, STATE, Source, State, bind, mode, silence, tables};
use crate::domain::{Domain, Life};

/// Most devices that are remembered: what a machine with full buses has, more or less.
const MOST_DEVICES: usize = 4096;

/// A PCI function that the control domain has told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Segment.
    pub segment: u16,
    /// Function in it.
    pub function: Function,
}

impl Device {
    /// As a guest names it.
    #[must_use]
    pub const fn of(device: &PciDevice) -> Self {
        Self { segment: device.seg, function: Function { bus: device.bus, devfn: device.devfn } }
    }
}

/// What a number is to stand for.
#[derive(Clone, Copy, Debug)]
pub enum Wanted {
    /// A line of an I/O APIC.
    Line(u32),
    /// A device's message.
    Message {
        /// The device.
        device: Device,
        /// The entry of its MSI-X table; none: the message of its MSI capability.
        entry: Option<u16>,
    },
}

/// `PHYSDEVOP_pci_device_add` and its older forms. `ENOMEM`.
pub fn add_device(device: Device, held: &mut Held<'_, 0>) -> Result<(), Errno> {
    let (mut state, _held) = STATE.lock(held);
    if !state.devices.contains(&device) {
        if state.devices.len() >= MOST_DEVICES {
            return Err(Errno::ENOMEM);
        }
        state.devices.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        state.devices.push(device);
    }
    Ok(())
}

/// Whether a device was added.
pub fn knows_device(device: Device, held: &mut Held<'_, 0>) -> bool {
    STATE.lock(held).0.devices.contains(&device)
}

/// `PHYSDEVOP_pci_device_remove`: `ENODEV` for one that was not added.
pub fn forget_device(device: Device, held: &mut Held<'_, 0>) -> Result<(), Errno> {
    let (mut state, _held) = STATE.lock(held);
    let at = state.devices.iter().position(|known| *known == device).ok_or(Errno::ENODEV)?;
    state.devices.swap_remove(at);
    Ok(())
}

/// The numbers of a domain, made on first use. `ESRCH` for a domain that is dying: nobody would take them away.
fn pirqs_of<'a>(state: &'a mut State, domain: &Domain) -> Result<&'a mut Pirqs, Errno> {
    if domain.life.get() != Life::Alive {
        return Err(Errno::ESRCH);
    }
    if state.pirqs(domain.id).is_none() {
        let lines = state.irqs.lines();
        let more = if domain.is_control() { state.irqs.count().saturating_sub(lines) } else { GUEST_EXTRA };
        let pirqs = Pirqs::new(lines, more)?;
        state.pirqs.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        state.pirqs.push((domain.id, pirqs));
    }
    state.pirqs(domain.id).ok_or(Errno::ENOMEM)
}

/// `PHYSDEVOP_get_free_pirq`: `ENOSPC`, `ENOMEM`.
pub fn find_free(domain: &Domain, kind: Kind, held: &mut Held<'_, 0>) -> Result<Pirq, Errno> {
    pirqs_of(&mut STATE.lock(held).0, domain)?.take(kind)
}

/// `PHYSDEVOP_map_pirq` for `domain`; without `pirq` any number will do. `caller_may` says which irqs the caller has.
///
/// `EINVAL`: no such line or number; `EEXIST`: the line has another number; `EPERM`: not the caller's; `ENODEV`: no such
/// device or no such message of it; `ENOSPC`, `ENOMEM`.
pub fn map(
    domain: &Domain,
    wanted: Wanted,
    pirq: Option<Pirq>,
    caller_may: impl Fn(u32) -> bool,
    held: &mut Held<'_, 0>,
) -> Result<Pirq, Errno> {
    let (mut guard, _held) = STATE.lock(held);
    let state = &mut *guard;
    match wanted {
        Wanted::Line(line) => {
            if line >= state.irqs.lines() {
                return Err(Errno::EINVAL);
            }
            let irq = Irq(line);
            let pirqs = pirqs_of(state, domain)?;
            let chosen = match (pirqs.pirq(irq), pirq) {
                (Some(old), Some(new)) if old != new => return Err(Errno::EEXIST),
                (Some(old), _) => return Ok(old),
                (None, Some(new)) => new,
                (None, None) => pirqs.find_free(Kind::Line)?,
            };
            if !pirqs.has(chosen) {
                return Err(Errno::EINVAL);
            }
            if !caller_may(line) {
                return Err(Errno::EPERM);
            }
            pirqs.map(chosen, irq)?;
            domain.devices.change_irqs(line..line + 1, true)?;
            Ok(chosen)
        }
        Wanted::Message { device, entry } => {
            let pirqs = pirqs_of(state, domain)?;
            let chosen = pirq.map_or_else(|| pirqs.find_free(Kind::Message), Ok)?;
            if !pirqs.has(chosen) || pirqs.irq(chosen).is_some() {
                return Err(Errno::EINVAL);
            }
            if !state.devices.contains(&device) || device.segment != 0 {
                return Err(Errno::ENODEV);
            }
            let message = match entry {
                Some(entry) => Message::msix(device.function, entry),
                None => Message::msi(device.function),
            };
            let message = message.map_err(|reason| match reason {
                NoMessage::Capability | NoMessage::Table => Errno::ENODEV,
                NoMessage::Entry => Errno::EINVAL,
                NoMessage::Window => Errno::ENOMEM,
            })?;
            tables::begin(&message)?;
            let (irq, vector) = state.irqs.new_message().inspect_err(|_| tables::end(&message))?;
            let source = Source::Message(message);
            state.set_source(irq, Some(source));
            let cpu = machine::mailbox::online().iter().next().unwrap_or(0);
            let mapped = source
                .route(vector, cpu)
                .and_then(|()| domain.devices.change_irqs(irq.0..irq.0 + 1, true))
                .and_then(|()| pirqs_of(state, domain)?.map(chosen, irq));
            match mapped {
                Ok(_) => Ok(chosen),
                Err(errno) => {
                    end_message(state, irq);
                    Err(errno)
                }
            }
        }
    }
}

fn end_message(state: &mut State, irq: Irq) {
    silence(state, irq);
    if let Some(Source::Message(message)) = state.source(irq) {
        tables::end(&message);
    }
    state.set_source(irq, None);
    state.irqs.end_message(irq);
}

/// `PHYSDEVOP_unmap_pirq`: `EINVAL` for a number that stands for nothing. If it is bound still, its events end here.
pub fn unmap(domain: &Domain, pirq: Pirq, held: &mut Held<'_, 0>) -> Result<(), Errno> {
    let (mut guard, _held) = STATE.lock(held);
    let state = &mut *guard;
    let irq = state.pirqs(domain.id).and_then(|pirqs| pirqs.unmap(pirq)).ok_or(Errno::EINVAL)?;
    bind::release(state, irq, domain.id, pirq, None);
    if irq.0 >= state.irqs.lines() {
        end_message(state, irq);
    }
    // As in Xen the right to it goes along: whoever gives interrupts to domains decides anew.
    domain.devices.change_irqs(irq.0..irq.0 + 1, false)
}

/// `PHYSDEVOP_setup_gsi`: how a line signals. A line in use keeps what it has: `EEXIST`. `EINVAL`: no such line.
pub fn set_signal(line: u32, signal: Signal, held: &mut Held<'_, 0>) -> Result<(), Errno> {
    let (mut state, _held) = STATE.lock(held);
    if line >= state.irqs.lines() {
        return Err(Errno::EINVAL);
    }
    let irq = Irq(line);
    if state.irqs.get_mut(irq).ok_or(Errno::EINVAL)?.set_up()? {
        state.set_source(irq, Some(Source::Line(Gsi(line), signal)));
        if let Some(desc) = state.irqs.get_mut(irq) {
            desc.mode = mode(signal);
        }
    }
    Ok(())
}

/// `PHYSDEVOP_restore_msi`: programs a device's messages anew, after it lost them. `ENODEV` for one that was not added.
pub fn restore_messages(device: Device, held: &mut Held<'_, 0>) -> Result<(), Errno> {
    let (mut guard, _held) = STATE.lock(held);
    let state = &mut *guard;
    if !state.devices.contains(&device) {
        return Err(Errno::ENODEV);
    }
    for at in state.irqs.lines()..state.irqs.count() {
        let irq = Irq(at);
        let Some(Source::Message(message)) = state.source(irq) else { continue };
        let Some(desc) = state.irqs.get(irq).filter(|_| message.function() == device.function) else { continue };
        let (vector, cpu, used) = (desc.vector, desc.cpu, !desc.is_unused());
        if let Some(vector) = vector {
            Source::Message(message).route(vector, cpu)?;
        }
        if used {
            message.unmask();
        }
    }
    Ok(())
}

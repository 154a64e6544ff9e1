//! Interrupts of devices: the console's own, and those that domains are told of.
//!
//! The rules are `logic::irq`'s; here they meet the I/O APICs and the messages of devices. All of it is behind one lock,
//! of rank `IRQ`, which is never held while a domain is looked up: what an interrupt means for domains is copied out.

mod access;
mod bind;
mod map;
mod tables;

use alloc::vec::Vec;

use logic::{
    irq::{Arrival, Irq, Irqs, Mode, PATIENCE, Pirqs, Vectors},
    lock::{Held, rank},
    time::Nanos,
};
use machine::arch::x86_64::{
    ioapic::{self, Gsi, Signal},
    lapic,
    msi::Message,
};
use xen_abi::{errno::Errno, ids::DomId};

pub use self::{
    access::DeviceAccess,
    bind::{EoiMap, bind, check, end, is_shared, move_to, unbind, unmap_all},
    map::{
        Device, Wanted, add_device, find_free, forget_device, knows_device, map, restore_messages, set_signal, unmap,
    },
    tables::{has_message_table, prepare, release},
};
use crate::{
    cpu::CpuLocal,
    cpu_loop::{self, Key},
    domain, event,
    sync::Lock,
    time,
};

/// Vector of the console's UART.
pub const UART: u8 = 0x30;
/// How many messages there can be. There are fewer vectors than that, and lines have theirs first.
const MESSAGES: u32 = 184;
/// Numbers that a domain other than the control domain has beyond the lines (Xen's `extra_guest_irqs`).
const GUEST_EXTRA: u32 = 32;

/// Where an interrupt comes from.
#[derive(Clone, Copy, Debug)]
enum Source {
    Line(Gsi, Signal),
    Message(Message),
}

/// The machine's interrupts.
struct State {
    irqs: Irqs,
    /// In the order of the irqs.
    sources: Vec<Option<Source>>,
    /// The numbers of the domains that have any.
    pirqs: Vec<(DomId, Pirqs)>,
    devices: Vec<map::Device>,
}

static STATE: Lock<State, { rank::IRQ }> = Lock::new(State {
    irqs: Irqs::new(Vectors::new(lapic::DEVICES)),
    sources: Vec::new(),
    pirqs: Vec::new(),
    devices: Vec::new(),
});

impl Source {
    fn mask(self) {
        match self {
            Self::Line(gsi, _) => ioapic::mask(gsi),
            Self::Message(message) => message.mask(),
        }
    }

    fn unmask(self) {
        match self {
            Self::Line(gsi, _) => ioapic::unmask(gsi),
            Self::Message(message) => message.unmask(),
        }
    }

    /// Leads it to a vector of a CPU, masked.
    fn route(self, vector: u8, cpu: u32) -> Result<(), Errno> {
        let done = match self {
            Self::Line(gsi, signal) => ioapic::route(gsi, vector, signal, cpu),
            Self::Message(message) => message.program(vector, cpu),
        };
        if done { Ok(()) } else { Err(Errno::EINVAL) }
    }

    fn retarget(self, cpu: u32) {
        match self {
            Self::Line(gsi, _) => ioapic::retarget(gsi, cpu),
            Self::Message(message) => message.retarget(cpu),
        }
    }
}

const fn mode(signal: Signal) -> Mode {
    if signal.level { Mode::Level } else { Mode::Edge }
}

impl State {
    fn source(&self, irq: Irq) -> Option<Source> {
        self.sources.get(irq.0 as usize).copied().flatten()
    }

    fn set_source(&mut self, irq: Irq, source: Option<Source>) {
        if let Some(slot) = self.sources.get_mut(irq.0 as usize) {
            *slot = source;
        }
    }

    fn pirqs(&mut self, domain: DomId) -> Option<&mut Pirqs> {
        self.pirqs.iter_mut().find(|(id, _)| *id == domain).map(|(_, pirqs)| pirqs)
    }

    /// Sends an interrupt to another CPU.
    fn retarget(&mut self, irq: Irq, cpu: u32) {
        let source = self.source(irq);
        if let (Some(desc), Some(source)) = (self.irqs.get_mut(irq), source)
            && desc.cpu != cpu
        {
            desc.cpu = cpu;
            source.retarget(cpu);
        }
    }
}

/// Learns the machine's lines: ISA interrupts signal as the firmware says, others as PCI's do.
pub fn start(held: &mut Held<'_, 0>) {
    let lines = ioapic::lines();
    let (mut state, _held) = STATE.lock(held);
    state.irqs.grow(lines, MESSAGES);
    state.irqs.reserve_vector(UART);
    let count = state.irqs.count();
    state.sources.resize(count as usize, None);
    for gsi in 0..lines {
        state.set_source(Irq(gsi), Some(Source::Line(Gsi(gsi), Signal::PCI)));
    }
    for isa in 0..16 {
        let (gsi, signal) = ioapic::isa_line(isa);
        state.set_source(Irq(gsi.0), Some(Source::Line(gsi, signal)));
        if let Some(desc) = state.irqs.get_mut(Irq(gsi.0)) {
            desc.mode = mode(signal);
        }
    }
    log::info!("IRQ limits: {lines} GSI, {MESSAGES} MSI/MSI-X");
}

/// The hypervisor uses an interrupt for itself.
pub fn keep(gsi: Gsi, held: &mut Held<'_, 0>) {
    if let Some(desc) = STATE.lock(held).0.irqs.get_mut(Irq(gsi.0)) {
        desc.own = true;
    }
}

/// How many numbers for interrupts a domain has.
#[must_use]
pub fn count_of(is_control: bool, held: &mut Held<'_, 0>) -> u32 {
    let (state, _held) = STATE.lock(held);
    if is_control { state.irqs.count() } else { state.irqs.lines() + GUEST_EXTRA }
}

/// A device interrupt was taken by this CPU.
pub fn interrupt(cpu: &mut CpuLocal, vector: u8, held: &mut Held<'_, 0>) {
    if vector == UART {
        return crate::console::receive(held);
    }
    let now = time::now();
    let Some(arrival) = arrived(vector, now, held) else { return };
    let mut home = None;
    for guest in &arrival.guests {
        if let Some(domain) = domain::find(guest.domain, held)
            && let Some(vcpu) = event::raise_pirq(&domain, guest.port, guest.pirq, held)
        {
            home.get_or_insert(vcpu.seat.processor());
        }
    }
    if arrival.waits || arrival.flood {
        let key = Key::Interrupt(arrival.irq.0);
        let _ = cpu_loop::set_timer(cpu.id, &mut cpu.sched.timer, key, now.after(PATIENCE), held);
    }
    // The interrupt follows the vCPU that is told of it.
    if let Some(home) = home.filter(|home| *home != cpu.id) {
        STATE.lock(held).0.retarget(arrival.irq, home);
    }
}

fn arrived(vector: u8, now: Nanos, held: &mut Held<'_, 0>) -> Option<Arrival> {
    let (mut state, _held) = STATE.lock(held);
    let arrival = state.irqs.arrived(vector, now)?;
    if arrival.flood
        && let Some(source) = state.source(arrival.irq)
    {
        source.mask();
    }
    Some(arrival)
}

/// The time for an interrupt's guests to say that they are done is over, or that for which a flood was held back.
pub fn expire(irq: u32, now: Nanos, held: &mut Held<'_, 0>) {
    let irq = Irq(irq);
    let guests = {
        let (mut state, _held) = STATE.lock(held);
        let source = state.source(irq);
        let Some(desc) = state.irqs.get_mut(irq) else { return };
        if !desc.time_is_up(now) {
            return;
        }
        let lost = if desc.mode == Mode::Edge { desc.guests().to_vec() } else { Vec::new() };
        if let Some(source) = source.filter(|_| !desc.guests().is_empty()) {
            source.unmask();
        }
        lost
    };
    // What came while it was masked may be lost; an event too many does no harm.
    for guest in guests {
        if let Some(domain) = domain::find(guest.domain, held) {
            event::raise_pirq(&domain, guest.port, guest.pirq, held);
        }
    }
}

/// An interrupt that nobody is told of any more.
fn silence(state: &mut State, irq: Irq) {
    if let Some(source) = state.source(irq) {
        source.mask();
    }
}

//! Who serves interrupts: this APIC, or the hardware's virtual one (SDM vol. 3C, chapter 30), to which it has handed over the
//! task priority and what is requested and in service. There is one owner at a time and nothing to keep in step: while
//! the hardware serves, an [`Apic`] has none of that state, and what comes is only on its way through it.

use super::registers::{Lvt, offset};
use super::{Apic, Clock, FIRST_VECTOR, Vectors};
use crate::time::Nanos;

/// What goes from the one who has served to the one who serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use]
pub struct Interrupts {
    /// The task priority.
    pub task_priority: u8,
    /// IRR.
    pub requested: Vectors,
    /// ISR.
    pub in_service: Vectors,
}

/// Who serves. The task priority, which is looked at before each entry, lies beside this and is 0 while the hardware serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    /// This APIC.
    Here { in_service: Vectors },
    /// The hardware.
    ByHardware,
}

impl Default for Service {
    fn default() -> Self {
        Self::Here { in_service: Vectors::default() }
    }
}

/// How many registers a guest reads from the hardware's page that only this APIC writes.
pub const MIRRORED: usize = 15;

const MIRROR: [u32; MIRRORED - 1] = [
    offset::ID,
    offset::VERSION,
    offset::LOGICAL,
    offset::SPURIOUS,
    offset::ERRORS,
    offset::COMMAND_LOW,
    offset::TABLE_TIMER,
    offset::TABLE_TIMER + 0x10,
    offset::TABLE_TIMER + 0x20,
    offset::TABLE_TIMER + 0x30,
    offset::TABLE_TIMER + 0x40,
    offset::TABLE_ERROR,
    offset::INITIAL_COUNT,
    offset::DIVIDE,
];

/// No register that is mirrored depends on the time.
struct NoClock;

impl Clock for NoClock {
    fn now(&self) -> Nanos {
        Nanos(0)
    }
    fn when_tsc_is(&self, _ticks: u64) -> Nanos {
        Nanos(0)
    }
}

impl Apic {
    /// Whether hardware that can serve an x2APIC may: one that is off takes nothing, which hardware does not know of.
    #[must_use]
    pub const fn may_be_served_by_hardware(&self) -> bool {
        self.is_x2apic() && self.is_enabled()
    }

    /// Whether the hardware serves.
    #[must_use]
    pub const fn is_served_by_hardware(&self) -> bool {
        matches!(self.service, Service::ByHardware)
    }

    /// The hardware serves from now on. `None`: it does already, or may not.
    pub fn hand_over(&mut self) -> Option<Interrupts> {
        if !self.may_be_served_by_hardware() {
            return None;
        }
        let Service::Here { in_service } = self.service else { return None };
        self.service = Service::ByHardware;
        let task_priority = core::mem::take(&mut self.task_priority);
        Some(Interrupts { task_priority, requested: core::mem::take(&mut self.requested), in_service })
    }

    /// The hardware serves no longer, and this is what it had. An APIC that was reset meanwhile wants none of it.
    pub fn take_back(&mut self, from: Interrupts) {
        if self.is_served_by_hardware() {
            self.requested = self.requested.with(from.requested);
            self.service = Service::Here { in_service: from.in_service };
            self.task_priority = from.task_priority;
        }
    }

    /// What has come since it was last asked, for the hardware that serves.
    #[inline]
    pub fn pass_on(&mut self) -> Option<Vectors> {
        (self.is_served_by_hardware() && !self.requested.is_empty()).then(|| core::mem::take(&mut self.requested))
    }

    /// The highest that is on its way to the hardware.
    #[must_use]
    pub fn on_its_way(&self) -> Option<u8> {
        if self.is_served_by_hardware() { self.requested.highest() } else { None }
    }

    /// Words by their offset in the page from which the hardware answers reads of an x2APIC, of registers that it does not
    /// keep itself. What it writes only changes by a write that comes here.
    #[must_use]
    pub fn mirror(&self) -> [(u32, u32); MIRRORED] {
        let high = (self.command >> 32) as u32;
        let mut words = [(offset::COMMAND_LOW + 4, high); MIRRORED];
        for (word, at) in words.iter_mut().zip(MIRROR) {
            *word = (at, self.register(at, &NoClock).unwrap_or(0));
        }
        words
    }

    /// The task priority, which is also CR8; 0 while only the hardware knows it.
    #[inline]
    #[must_use]
    pub const fn task_priority(&self) -> u8 {
        self.task_priority
    }

    /// Sets it.
    pub fn set_task_priority(&mut self, priority: u8) {
        if !self.is_served_by_hardware() {
            self.task_priority = priority;
        }
    }

    pub(super) const fn in_service(&self) -> Vectors {
        match self.service {
            Service::Here { in_service } => in_service,
            Service::ByHardware => Vectors::NONE,
        }
    }

    /// The processor priority (SDM vol. 3A, 11.8.3.1).
    #[must_use]
    pub fn processor_priority(&self) -> u8 {
        processor_priority(self.task_priority(), self.in_service().highest())
    }

    /// Whether anything waits, to be served or to be passed on.
    #[inline]
    #[must_use]
    pub const fn has_requests(&self) -> bool {
        !self.requested.is_empty()
    }

    /// The interrupt to be delivered next, if one may be, and not by the hardware.
    #[inline]
    #[must_use]
    pub fn pending(&self) -> Option<u8> {
        let vector = self.requested.highest()?;
        (self.is_enabled() && !self.is_served_by_hardware() && vector >> 4 > self.processor_priority() >> 4)
            .then_some(vector)
    }

    /// The priority class of an interrupt that waits for nothing but a lower task priority.
    #[must_use]
    pub fn held_off(&self) -> Option<u8> {
        let Service::Here { in_service } = &self.service else { return None };
        let class = self.requested.highest()? >> 4;
        let served = in_service.highest().unwrap_or(0) >> 4;
        (self.is_enabled() && class > served && class <= self.task_priority >> 4).then_some(class)
    }

    /// The guest begins to serve it.
    pub fn begin(&mut self, vector: u8) {
        if let Service::Here { in_service, .. } = &mut self.service {
            self.requested.clear(vector);
            in_service.set(vector);
        }
    }

    /// It has not begun after all: the way there was cut short, and something else comes first (SDM vol. 3C, 27.2.4). Where the
    /// hardware serves it is for that to put it back.
    pub fn put_back(&mut self, vector: u8) {
        if let Service::Here { in_service, .. } = &mut self.service
            && in_service.has(vector)
        {
            in_service.clear(vector);
            self.requested.set(vector);
        }
    }

    /// The guest is done with what it serves. No interrupt here has a level, so nobody else needs to know.
    pub(super) fn end(&mut self) {
        if let Service::Here { in_service, .. } = &mut self.service
            && let Some(vector) = in_service.highest()
        {
            in_service.clear(vector);
        }
    }
}

/// Of a task priority and the highest vector in service.
fn processor_priority(task: u8, served: Option<u8>) -> u8 {
    let service = served.unwrap_or(0);
    if task >> 4 >= service >> 4 { task } else { service & 0xf0 }
}

/// Whether hardware with this task priority and this [status](Interrupts::status) would deliver something to one who takes
/// interrupts, if `another` came as well.
#[must_use]
pub fn would_deliver(task_priority: u8, status: u16, another: Option<u8>) -> bool {
    let [requested, served] = status.to_le_bytes();
    let highest = requested.max(another.unwrap_or(0));
    highest >> 4 > processor_priority(task_priority, Some(served)) >> 4
}

/// The hardware's own arithmetic, for what is done to its state from outside.
impl Interrupts {
    /// Puts a vector that is being served back to those that wait; nothing happens to one that is not.
    pub fn put_back(&mut self, vector: u8) {
        if self.in_service.has(vector) {
            self.in_service.clear(vector);
            self.requested.set(vector);
        }
    }

    /// The word that says the highest of both (SDM vol. 3C, 25.4.2): RVI, and SVI above it.
    #[must_use]
    pub fn status(&self) -> u16 {
        u16::from_le_bytes([self.requested.highest().unwrap_or(0), self.in_service.highest().unwrap_or(0)])
    }

    /// Without vectors that are exceptions, of which no APIC has any.
    pub fn legal(mut self) -> Self {
        for vector in 0..FIRST_VECTOR {
            self.requested.clear(vector);
            self.in_service.clear(vector);
        }
        self
    }
}

const _: () = assert!(Lvt::COUNT == 6, "the mirror has all of the table");

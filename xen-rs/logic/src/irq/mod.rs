//! Interrupts of devices: which vector each has, which domains are told of it, and when a line may interrupt again.
//!
//! The hypervisor numbers interrupts as Xen does: an [`Irq`] below the number of I/O APIC lines is that line, those above
//! are given out to messages (MSI, MSI-X). A domain knows an interrupt by a number of its own, a [`Pirq`], which a mapping
//! leads to an irq; when it binds that to an event channel it becomes one of the interrupt's guests.
//!
//! Nothing here touches a register: [`Irqs`] says what has to be done (mask a line, unmask it), the floor above does it.

mod desc;
mod irqs;
mod pirq;
mod rangeset;
mod tables;
#[cfg(test)]
mod tests;
mod vectors;

pub use desc::{Desc, Guest, MAX_GUESTS, Mode, PATIENCE, Unbound};
pub use irqs::{Arrival, Irqs};
pub use pirq::{Kind, Pirqs};
pub use rangeset::RangeSet;
pub use tables::{Frames, Tables};
pub use vectors::Vectors;

/// An interrupt, by the hypervisor's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Irq(pub u32);

/// An interrupt, by a domain's number for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pirq(pub u32);

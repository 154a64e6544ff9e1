//! A domain's numbers for interrupts.

use alloc::vec::Vec;

use xen_abi::errno::Errno;

use super::{Irq, Pirq};

/// What a number stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Slot {
    #[default]
    Free,
    /// Given out by `PHYSDEVOP_get_free_pirq`, to be mapped.
    Taken,
    Mapped(Irq),
}

/// Where a free number is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Among the lines, above the ISA interrupts.
    Line,
    /// Above the lines, from the top.
    Message,
}

/// First line that is not an ISA interrupt's.
const FIRST_FREE_LINE: usize = 16;

/// The numbers of one domain.
#[derive(Debug)]
pub struct Pirqs {
    slots: Vec<Slot>,
    lines: usize,
}

impl Pirqs {
    /// As many numbers as there are `lines`, and `more`. `ENOMEM`.
    pub fn new(lines: u32, more: u32) -> Result<Self, Errno> {
        let count = usize::try_from(lines.saturating_add(more)).map_err(|_| Errno::ENOMEM)?;
        let mut slots = Vec::new();
        slots.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
        slots.resize(count, Slot::Free);
        Ok(Self { slots, lines: usize::try_from(lines).unwrap_or(0).min(count) })
    }

    /// How many numbers there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        crate::num::count(self.slots.len())
    }

    fn slot(&self, pirq: Pirq) -> Option<Slot> {
        self.slots.get(usize::try_from(pirq.0).ok()?).copied()
    }

    /// Whether there is such a number at all.
    #[must_use]
    pub fn has(&self, pirq: Pirq) -> bool {
        self.slot(pirq).is_some()
    }

    /// The interrupt behind a number.
    #[must_use]
    pub fn irq(&self, pirq: Pirq) -> Option<Irq> {
        match self.slot(pirq) {
            Some(Slot::Mapped(irq)) => Some(irq),
            _ => None,
        }
    }

    /// The number of an interrupt.
    #[must_use]
    pub fn pirq(&self, irq: Irq) -> Option<Pirq> {
        let at = self.slots.iter().position(|slot| *slot == Slot::Mapped(irq))?;
        Some(Pirq(crate::num::count(at)))
    }

    /// A free number; `ENOSPC` when there is none.
    pub fn find_free(&self, kind: Kind) -> Result<Pirq, Errno> {
        let is_free = |at: &usize| self.slots.get(*at) == Some(&Slot::Free);
        let found = match kind {
            Kind::Line => (FIRST_FREE_LINE..self.lines).find(is_free),
            Kind::Message => (self.lines..self.slots.len()).rev().find(is_free),
        };
        found.map(|at| Pirq(crate::num::count(at))).ok_or(Errno::ENOSPC)
    }

    fn set(&mut self, pirq: Pirq, slot: Slot) {
        if let Some(at) = usize::try_from(pirq.0).ok().and_then(|at| self.slots.get_mut(at)) {
            *at = slot;
        }
    }

    /// Gives a number out that will be mapped later.
    pub fn take(&mut self, kind: Kind) -> Result<Pirq, Errno> {
        let pirq = self.find_free(kind)?;
        self.set(pirq, Slot::Taken);
        Ok(pirq)
    }

    /// Leads a number to an interrupt. `EINVAL` for a number that does not exist. Whether it changed anything: a number
    /// that stands for another interrupt keeps it.
    pub fn map(&mut self, pirq: Pirq, irq: Irq) -> Result<bool, Errno> {
        match self.slot(pirq).ok_or(Errno::EINVAL)? {
            Slot::Mapped(_) => Ok(false),
            Slot::Free | Slot::Taken => {
                self.set(pirq, Slot::Mapped(irq));
                Ok(true)
            }
        }
    }

    /// Frees a number; the interrupt that was behind it.
    pub fn unmap(&mut self, pirq: Pirq) -> Option<Irq> {
        let irq = self.irq(pirq)?;
        self.set(pirq, Slot::Free);
        Some(irq)
    }

    /// All that is mapped.
    pub fn mapped(&self) -> impl Iterator<Item = (Pirq, Irq)> {
        self.slots.iter().zip(0..).filter_map(|(slot, at)| match slot {
            Slot::Mapped(irq) => Some((Pirq(at), *irq)),
            _ => None,
        })
    }
}

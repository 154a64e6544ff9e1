//! All interrupts of the machine.

use alloc::vec::Vec;

use arrayvec::ArrayVec;
use xen_abi::errno::Errno;

use super::{
    Irq,
    desc::{Desc, Guest, MAX_GUESTS, Mode},
    vectors::Vectors,
};
use crate::time::Nanos;

/// What is to be done about an interrupt that was taken.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Which one.
    pub irq: Irq,
    /// Who is told.
    pub guests: ArrayVec<Guest, MAX_GUESTS>,
    /// Somebody has to say that it is done before it may come again.
    pub waits: bool,
    /// It comes too often: mask it for a while.
    pub flood: bool,
}

/// The table of all interrupts.
#[derive(Debug)]
pub struct Irqs {
    descs: Vec<Option<Desc>>,
    lines: u32,
    vectors: Vectors,
    by_vector: [Option<Irq>; 256],
}

impl Irqs {
    /// None yet.
    #[must_use]
    pub const fn new(vectors: Vectors) -> Self {
        Self { descs: Vec::new(), lines: 0, vectors, by_vector: [None; 256] }
    }

    /// Makes room for `lines` lines and `messages` messages, once.
    pub fn grow(&mut self, lines: u32, messages: u32) {
        self.descs.resize_with(lines.saturating_add(messages) as usize, || None);
        for desc in self.descs.iter_mut().take(lines as usize) {
            *desc = Some(Desc::new(Mode::Level));
        }
        self.lines = lines;
    }

    /// How many lines there are.
    #[must_use]
    pub const fn lines(&self) -> u32 {
        self.lines
    }

    /// How many interrupts there can be.
    #[must_use]
    pub fn count(&self) -> u32 {
        crate::num::count(self.descs.len())
    }

    /// An interrupt.
    #[must_use]
    pub fn get(&self, irq: Irq) -> Option<&Desc> {
        self.descs.get(irq.0 as usize)?.as_ref()
    }

    /// An interrupt.
    #[must_use]
    pub fn get_mut(&mut self, irq: Irq) -> Option<&mut Desc> {
        self.descs.get_mut(irq.0 as usize)?.as_mut()
    }

    /// A vector that is not given out.
    pub fn reserve_vector(&mut self, vector: u8) {
        self.vectors.reserve(vector);
    }

    /// The vector of an interrupt, given to it now if it has none. `ENOSPC` when all are in use.
    pub fn vector(&mut self, irq: Irq) -> Result<u8, Errno> {
        let desc = self.descs.get_mut(irq.0 as usize).and_then(Option::as_mut).ok_or(Errno::EINVAL)?;
        if let Some(vector) = desc.vector {
            return Ok(vector);
        }
        let vector = self.vectors.take().ok_or(Errno::ENOSPC)?;
        desc.vector = Some(vector);
        if let Some(slot) = self.by_vector.get_mut(usize::from(vector)) {
            *slot = Some(irq);
        }
        Ok(vector)
    }

    /// A new interrupt for a message, with its vector. `ENOSPC`.
    pub fn new_message(&mut self) -> Result<(Irq, u8), Errno> {
        let free = self.descs.iter().position(Option::is_none).ok_or(Errno::ENOSPC)?;
        let irq = Irq(crate::num::count(free));
        if let Some(slot) = self.descs.get_mut(free) {
            *slot = Some(Desc::new(Mode::Edge));
        }
        match self.vector(irq) {
            Ok(vector) => Ok((irq, vector)),
            Err(errno) => {
                self.end_message(irq);
                Err(errno)
            }
        }
    }

    /// The message is no longer sent: its number and its vector are free.
    pub fn end_message(&mut self, irq: Irq) {
        if irq.0 < self.lines {
            return;
        }
        let Some(desc) = self.descs.get_mut(irq.0 as usize).and_then(Option::take) else { return };
        if let Some(vector) = desc.vector {
            self.vectors.give_back(vector);
            if let Some(slot) = self.by_vector.get_mut(usize::from(vector)) {
                *slot = None;
            }
        }
    }

    /// The interrupt of a vector was taken; nothing when no interrupt has it.
    pub fn arrived(&mut self, vector: u8, now: Nanos) -> Option<Arrival> {
        let irq = self.by_vector.get(usize::from(vector)).copied().flatten()?;
        let desc = self.get_mut(irq)?;
        let flood = desc.arrived(now);
        let guests = desc.guests().iter().copied().collect();
        Some(Arrival { irq, guests, waits: desc.mode == Mode::Level, flood })
    }
}

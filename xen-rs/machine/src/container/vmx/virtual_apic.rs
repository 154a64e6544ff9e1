//! The virtual APIC: the CPU serves a guest's interrupts out of a page of the vCPU's own and a word of the VMCS, answers the
//! registers of its x2APIC from that page, and carries out its EOI, task priority and interrupts to itself, all without an exit
//! (SDM vol. 3C, chapter 30).
//!
//! All of it is used together, and only while the hardware serves (`logic::hvm::apic::Interrupts` has been handed over).
//!
//! Unsafe: none here.

use logic::hvm::apic::{Interrupts, MIRRORED, Vectors, would_deliver};

use super::fields::{Field, secondary};
use super::msr_bitmap;
use super::vcpu::VmxVcpu;
use super::vmcs::{Page, read, write};
use crate::container::exit::Exit;

/// What it takes, beside the shadow of the task priority. With the map of MSRs that belongs to them and without one of these a
/// guest would reach the CPU's own APIC.
pub(super) const CONTROLS: u32 = secondary::X2APIC | secondary::APIC_REGISTERS | secondary::VIRTUAL_INTERRUPTS;

/// Offsets in the page.
const TASK_PRIORITY: usize = 0x80;
const IN_SERVICE: usize = 0x100;
const REQUESTED: usize = 0x200;

fn vectors(page: &Page, first: usize) -> Vectors {
    Vectors::from(core::array::from_fn(|i| page.read(first + 16 * i)))
}

fn set_vectors(page: &mut Page, first: usize, vectors: &Vectors) {
    for (i, word) in vectors.words().into_iter().enumerate() {
        page.write(first + 16 * i, word);
    }
}

impl VmxVcpu {
    /// Whether the CPU can serve interrupts of an x2APIC.
    pub(crate) const fn can_serve(&self) -> bool {
        self.found.virtual_apic
    }

    /// Whether it does.
    pub(crate) const fn serves(&self) -> bool {
        self.serves
    }

    /// It does from now on, beginning with these.
    #[cold]
    pub(crate) fn serve(&mut self, interrupts: Interrupts) {
        // No class is watched: nothing waits for the hypervisor.
        self.watch_priority(0);
        self.store(&interrupts.legal());
        self.change_controls(true);
        self.serves = true;
    }

    /// It does no longer, and this is left. `None`: it did not.
    #[cold]
    pub(crate) fn end_service(&mut self) -> Option<Interrupts> {
        if !core::mem::take(&mut self.serves) {
            return None;
        }
        self.change_controls(false);
        Some(self.interrupts())
    }

    /// The controls and the map of MSRs, which belong together.
    fn change_controls(&self, on: bool) {
        let others = self.found.secondary & !CONTROLS;
        let (controls, map) = match on {
            true => (others | CONTROLS, msr_bitmap::address_with_apic()),
            false => (others, msr_bitmap::address()),
        };
        self.with(|| {
            write(Field::SECONDARY_CONTROLS, controls.into());
            write(Field::MSR_BITMAP, map);
            // No interrupt has a level, so nobody else needs to know of an EOI.
            for field in [Field::EOI_EXITS0, Field::EOI_EXITS1, Field::EOI_EXITS2, Field::EOI_EXITS3] {
                if on {
                    write(field, 0);
                }
            }
        });
    }

    /// What it has, while the guest is outside.
    fn interrupts(&self) -> Interrupts {
        Interrupts {
            task_priority: (self.apic.read(TASK_PRIORITY) & 0xff) as u8,
            requested: vectors(&self.apic, REQUESTED),
            in_service: vectors(&self.apic, IN_SERVICE),
        }
        .legal()
    }

    /// The next entry finds the processor priority by itself (SDM vol. 3C, 27.3.2.5).
    fn store(&mut self, interrupts: &Interrupts) {
        self.apic.write(TASK_PRIORITY, interrupts.task_priority.into());
        set_vectors(&mut self.apic, REQUESTED, &interrupts.requested);
        set_vectors(&mut self.apic, IN_SERVICE, &interrupts.in_service);
        self.with(|| write(Field::INTERRUPT_STATUS, interrupts.status().into()));
    }

    /// Vectors that have come.
    pub(crate) fn request(&mut self, new: &Vectors) {
        for (i, word) in new.words().into_iter().enumerate() {
            if word != 0 {
                let at = REQUESTED + 16 * i;
                self.apic.write(at, self.apic.read(at) | word);
            }
        }
        let Some(highest) = new.highest() else { return };
        self.with(|| {
            let status = read(Field::INTERRUPT_STATUS);
            if u64::from(highest) > status & 0xff {
                write(Field::INTERRUPT_STATUS, status & !0xff | u64::from(highest));
            }
        });
    }

    /// A vector whose delivery was cut short waits again.
    #[cold]
    pub(crate) fn put_back(&mut self, vector: u8) {
        let mut interrupts = self.interrupts();
        interrupts.put_back(vector);
        self.store(&interrupts);
    }

    /// Whether it would deliver one to a guest that takes interrupts, if `another` came as well.
    #[allow(clippy::cast_possible_truncation, reason = "the field has this width")]
    pub(crate) fn is_due(&self, another: Option<u8>) -> bool {
        let status = self.with(|| read(Field::INTERRUPT_STATUS)) as u16;
        would_deliver((self.apic.read(TASK_PRIORITY) & 0xff) as u8, status, another)
    }

    /// What the guest reads from now on of registers that only the hypervisor changes.
    #[cold]
    pub(crate) fn show_registers(&mut self, words: &[(u32, u32); MIRRORED]) {
        for (at, word) in words {
            if let Ok(at) = usize::try_from(*at) {
                self.apic.write(at, *word);
            }
        }
    }
}

/// A write that the CPU has put into the page and that it cannot carry out: a vector below 16 for oneself (SDM vol. 3C, 30.5).
#[allow(clippy::cast_possible_truncation, reason = "an offset in a page")]
pub(super) fn written(vcpu: &VmxVcpu) -> Exit {
    let at = read(Field::QUALIFICATION) as u32 & 0xff0;
    let value = vcpu.apic.read(at as usize);
    Exit::ApicWritten { number: 0x800 + (at >> 4), value }
}

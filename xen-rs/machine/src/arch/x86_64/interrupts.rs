//! Interrupts of a CPU: what machine does with each as it arrives, and when the hypervisor above hears of it.
//!
//! In ring 0 interrupts are off, but for [`wait`] and [`window`]. Whatever arrives, in a guest or there, is acknowledged
//! and noted at once, and handed upwards at a moment when the CPU's data is free: by [`take`].
//!
//! Unsafe: instructions that open and close interrupts.

use super::percpu;
use super::{ioapic, lapic, pic};
use crate::mailbox;
use core::arch::asm;
use core::sync::atomic::Ordering;

/// An interrupt of a vector has been taken by this CPU.
pub(super) fn arrived(vector: u8) {
    match vector {
        lapic::SPURIOUS => return,
        lapic::KICK => {
            lapic::end_of_interrupt();
            mailbox::poll();
            return;
        }
        // Spurious ones of the 8259, which are not the APIC's.
        pic::BASE..=0x2f => return,
        _ => {}
    }
    ioapic::taken(vector);
    lapic::end_of_interrupt();
    let word = usize::from(vector / 64);
    if let Some(word) = percpu::this().arrived.get(word) {
        word.fetch_or(1 << (vector % 64), Ordering::Relaxed);
        percpu::this().arrived_any.store(true, Ordering::Relaxed);
    }
}

/// The next interrupt that has arrived and was not handed out yet, highest vector first.
#[inline]
#[must_use]
pub fn take() -> Option<u8> {
    if any() { take_one() } else { None }
}

#[cold]
fn take_one() -> Option<u8> {
    let this = percpu::this();
    for (word, base) in this.arrived.iter().zip([0u8, 64, 128, 192]).rev() {
        let bits = word.load(Ordering::Relaxed);
        if bits != 0 {
            let bit = 63 - bits.leading_zeros();
            word.fetch_and(!(1 << bit), Ordering::Relaxed);
            return Some(base + bit as u8);
        }
    }
    // Interrupts are off, so nothing can have arrived since the words were read.
    this.arrived_any.store(false, Ordering::Relaxed);
    None
}

/// Whether [`take`] may have something.
#[inline(always)]
#[must_use]
pub fn any() -> bool {
    percpu::this().arrived_any.load(Ordering::Relaxed)
}

/// Halts this CPU until something arrives; returns at once when something has. A kick ends it as well.
pub fn wait() {
    if any() {
        return;
    }
    // SAFETY: between `sti` and `hlt` nothing is taken, so no wake-up is lost; what arrives is only noted.
    unsafe { asm!("sti", "hlt", "cli", options(nostack)) };
}

/// Takes what is waiting to interrupt. The only other place where interrupts open in ring 0; called with no lock held.
pub fn window() {
    // SAFETY: as in `wait`: handlers only note what arrives.
    unsafe { asm!("sti", "nop", "cli", options(nostack)) };
}

//! Traps on stacks of their own (interrupt stack tables, SDM vol. 3A, 6.14.5), for a guest that may lose its own: each
//! processor has a task state segment, and a GDT that names it. All have it from their first instructions on, whether
//! traps use it or not: the gates are one table for all of them, and a gate that names a stack where there is no task
//! state segment is a triple fault.
//!
//! Unsafe: tables that the processor reads, and the instructions that load them.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::smp;

/// Words of a 64-bit task state segment, 32 bits each.
const TSS_WORDS: usize = 26;
/// Where its first stack of the table is, and in which step.
const FIRST_STACK: usize = 9;
/// The selector of the task state segment.
const SELECTOR: u16 = 0x18;
/// Stacks of a processor: for traps, for NMIs, for double faults.
const STACKS: u64 = 3;
/// Bytes of each; a processor's own stack is eight times as long or longer.
const SIZE: u64 = 0x2000;
/// A trap that comes as an interrupt lacks the error code that its stub looks for: what it takes for its frame ends above.
const SLACK: u64 = 64;

#[repr(C, align(64))]
struct Tables {
    gdt: [u64; 5],
    tss: [u32; TSS_WORDS],
}

struct All(UnsafeCell<[Tables; smp::MAX]>);

// SAFETY: each processor writes its own, and before it loads them.
unsafe impl Sync for All {}

static ALL: All = All(UnsafeCell::new(
    [const { Tables { gdt: [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0, 0], tss: [0; TSS_WORDS] } }; smp::MAX],
));
static IN_USE: AtomicBool = AtomicBool::new(false);

#[repr(C, align(4096))]
struct First(UnsafeCell<[u8; (STACKS * SIZE) as usize]>);

// SAFETY: stacks of the first processor, which nobody else touches.
unsafe impl Sync for First {}

/// The first processor's; the others' lie at the far ends of their own stacks.
static FIRST: First = First(UnsafeCell::new([0; (STACKS * SIZE) as usize]));

/// Whether traps have stacks of their own.
pub fn in_use() -> bool {
    IN_USE.load(Ordering::Relaxed)
}

/// From now on the gates that are filled name them, or do not.
pub fn set_in_use(wanted: bool) {
    IN_USE.store(wanted, Ordering::Relaxed);
}

/// Which of the stacks a vector's gate names.
pub const fn of_vector(vector: u64) -> u64 {
    match vector {
        2 => 2,
        8 => 3,
        _ => 1,
    }
}

/// Loads the GDT and the task register of the processor that runs this. Its segments are still to be loaded.
pub fn load() {
    let me = smp::index();
    // SAFETY: in bounds; only this processor uses this element.
    let tables = unsafe { &mut *ALL.0.get().cast::<Tables>().add(me) };
    let low = if me == 0 { FIRST.0.get() as u64 } else { smp::stack_top(me) - smp::STACK_SIZE };
    for stack in 0..STACKS {
        let top = low + (stack + 1) * SIZE - SLACK;
        let at = FIRST_STACK + 2 * stack as usize;
        (tables.tss[at], tables.tss[at + 1]) = (top as u32, (top >> 32) as u32);
    }
    // No map of ports.
    tables.tss[TSS_WORDS - 1] = (TSS_WORDS as u32 * 4) << 16;
    let base = (&raw const tables.tss) as u64;
    // Available: loading it makes it busy.
    tables.gdt[3] = (TSS_WORDS as u64 * 4 - 1) | (base & 0xff_ffff) << 16 | 0x89 << 40 | (base >> 24 & 0xff) << 56;
    tables.gdt[4] = base >> 32;
    let mut register = [0u8; 10];
    register[..2].copy_from_slice(&39u16.to_le_bytes());
    register[2..].copy_from_slice(&((&raw const tables.gdt) as u64).to_le_bytes());
    // SAFETY: the tables are static and whole.
    unsafe { asm!("lgdt [{}]", "ltr {:x}", in(reg) &raw const register, in(reg) SELECTOR, options(nostack)) };
}

//! The interrupt descriptor table: one for all CPUs, all gates lead to the stubs in [`super::entry`].
//!
//! Unsafe: the table of gates is loaded.

use super::entry::entry_stubs;
use core::arch::asm;
use core::cell::UnsafeCell;
use logic::regs::selector::HYPERVISOR_CS;

/// IST numbers of the vectors with stacks of their own, in the order of the stacks in the per-CPU region.
pub const IST_VECTORS: [(u8, u8); 4] = [(8, 1), (2, 2), (18, 3), (1, 4)];
/// Vectors that a guest may raise by an instruction: breakpoint and overflow.
const GUEST_VECTORS: [u8; 2] = [3, 4];

/// An interrupt gate (SDM vol. 3A, figure 6-8).
#[derive(Clone, Copy)]
#[repr(C)]
struct Gate {
    low: u64,
    high: u64,
}

impl Gate {
    const EMPTY: Self = Self { low: 0, high: 0 };

    fn new(handler: u64, ist: u8, ring: u64) -> Self {
        let present_interrupt_gate = 0x8e00 | (ring << 13);
        Self {
            low: (handler & 0xffff)
                | (u64::from(HYPERVISOR_CS) << 16)
                | (u64::from(ist) << 32)
                | (present_interrupt_gate << 32)
                | ((handler >> 16 & 0xffff) << 48),
            high: handler >> 32,
        }
    }
}

#[repr(align(4096))]
struct Table(UnsafeCell<[Gate; 256]>);

// SAFETY: written once by the boot processor before any other CPU runs, then only read, by the CPUs.
unsafe impl Sync for Table {}

static TABLE: Table = Table(UnsafeCell::new([Gate::EMPTY; 256]));
/// The same without stacks of their own, which the CPU finds by its task register: see [`load_without_stacks`].
static PLAIN: Table = Table(UnsafeCell::new([Gate::EMPTY; 256]));

/// Operand of LIDT and LGDT.
#[repr(C, packed)]
pub(super) struct Descriptor {
    pub limit: u16,
    pub base: u64,
}

/// Fills the table. `with_stacks`: whether the IST stacks exist yet.
///
/// # Safety
/// Only the boot processor may run, and when `with_stacks` is given every CPU that loads the table must have a TSS.
pub unsafe fn fill(with_stacks: bool) {
    let stubs = (&raw const entry_stubs) as u64;
    // SAFETY: nobody else writes, and the CPU reads a gate only on an exception, which the caller's single CPU does not
    // raise meanwhile.
    let (table, plain) = unsafe { (&mut *TABLE.0.get(), &mut *PLAIN.0.get()) };
    for ((vector, gate), plain) in (0u8..=255).zip(table.iter_mut()).zip(plain.iter_mut()) {
        let ist = IST_VECTORS.iter().find(|(v, _)| with_stacks && *v == vector).map_or(0, |(_, ist)| *ist);
        let ring = if GUEST_VECTORS.contains(&vector) { 3 } else { 0 };
        let handler = stubs + u64::from(vector) * 16;
        *gate = Gate::new(handler, ist, ring);
        *plain = Gate::new(handler, 0, 0);
    }
}

/// Where the table is.
pub(super) fn address() -> u64 {
    TABLE.0.get() as u64
}

/// Loads the table into this CPU.
pub fn load() {
    load_table(&TABLE);
}

/// Loads the table for as long as the task register is that of a guest in a container. Nothing that comes then finds the CPU
/// in another ring or on the entry code, which is what stacks of their own are for.
pub(crate) fn load_without_stacks() {
    load_table(&PLAIN);
}

fn load_table(table: &Table) {
    let descriptor = Descriptor { limit: 4095, base: table.0.get() as u64 };
    // SAFETY: the table is static and filled before any CPU calls this.
    unsafe { asm!("lidt [{}]", in(reg) &raw const descriptor, options(readonly, nostack, preserves_flags)) };
}

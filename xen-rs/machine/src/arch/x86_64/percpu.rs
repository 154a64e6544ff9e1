//! The memory of one CPU: stub page, stacks, and its block of data at the end, found from the stack pointer alone.
//!
//! ```text
//! + 0x00000   entry stubs of this CPU (SYSCALL and SYSENTER point here), executable
//! + 0x01000   stacks for #DF, NMI, #MC, #DB (two pages each)
//! + 0x09000   not mapped: overflow of the main stack faults
//! + 0x0a000   main stack, growing down from ...
//! + 0x20000   ... the block `PerCpu`, which ends here
//! ```
//!
//! No GS base is used: guests own both.

use super::gdt::Tss;
use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};

/// Bytes of one region, and its alignment.
pub const REGION: u64 = 0x2_0000;
/// Offset of the first IST stack.
pub const IST_STACKS: u64 = 0x1000;
/// Bytes of one IST stack.
pub const IST_STACK: u64 = 0x2000;
/// Offset of the page that is never mapped.
pub const GUARD: u64 = 0x9000;
/// Offset of [`PerCpu`], and of the first byte behind the guest's register frame.
pub const TOP: u64 = REGION - size_of::<PerCpu>() as u64;

/// The data of one CPU that machine itself needs.
#[repr(C, align(16))]
pub struct PerCpu {
    /// Where the SYSCALL stub puts the guest's stack pointer for a moment.
    pub(super) scratch_rsp: AtomicU64,
    /// This CPU's number, 0 is the boot processor.
    pub(super) number: AtomicU32,
    /// Vector of the last exception in the hypervisor that the exception table caught.
    pub(super) fault_vector: AtomicU32,
    /// Its error code.
    pub(super) fault_error: AtomicU32,
    /// Set by the first fatal error on this CPU: a second one only stops.
    pub(super) panicking: AtomicBool,
    /// The hypervisor's `Cpu`, as a pointer to it, 0 before there is one.
    pub(super) hypervisor_cpu: AtomicU64,
    /// Interrupts that arrived while this CPU was not in a guest: one bit for each vector.
    pub(super) arrived: [AtomicU64; 4],
    /// The task state segment.
    pub(super) tss: Tss,
}

const _: () = assert!(size_of::<PerCpu>() % 16 == 0 && size_of::<PerCpu>() < 0x1000);

/// First address of the region that the running CPU's stack lies in.
#[inline(always)]
#[must_use]
pub fn region() -> u64 {
    let rsp: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rsp", out(reg) rsp, options(nomem, nostack, preserves_flags)) };
    rsp & !(REGION - 1)
}

/// This CPU's data. The reference must not be handed to another CPU's work: it is `!Send` by its use of one stack.
#[inline(always)]
#[must_use]
pub fn this() -> &'static PerCpu {
    // SAFETY: every stack the hypervisor runs on lies in a region whose end is an initialised `PerCpu` (zeroes are one),
    // and regions are never freed. All fields that change are atomics.
    unsafe { &*((region() + TOP) as *const PerCpu) }
}

/// Number of the running CPU.
#[inline]
#[must_use]
pub fn number() -> u32 {
    this().number.load(core::sync::atomic::Ordering::Relaxed)
}

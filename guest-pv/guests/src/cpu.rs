//! What the CPU says of itself to a PV guest: CPUID in both views, model-specific registers, CR4 and XCR0.
//!
//! Unsafe: each is an instruction, emulated by the hypervisor or a fault that is caught.
#![allow(clippy::cast_possible_truncation)] // Halves are cut out of words on purpose.

use crate::trap_of;
use core::arch::asm;
use core::arch::x86_64::CpuidResult;
use guest_pv::{Mode, mode};

/// CPUID by Xen's prefix for its own view. In a hardware container it is what the instruction says by itself.
pub fn xen_cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
    if mode() == Mode::Pvh {
        return core::arch::x86_64::__cpuid_count(leaf, subleaf);
    }
    let (eax, ebx, ecx, edx);
    // SAFETY: five bytes that the hypervisor takes for a prefix; rbx is the compiler's.
    unsafe {
        asm!("mov {save}, rbx", ".byte 0x0f, 0x0b, 0x78, 0x65, 0x6e", "cpuid", "xchg {save}, rbx",
            save = out(reg) ebx, inout("eax") leaf => eax, inout("ecx") subleaf => ecx, out("edx") edx);
    }
    let ebx: u64 = ebx;
    CpuidResult { eax, ebx: ebx as u32, ecx, edx }
}

/// Whether the CPU is Intel's: then the instruction of hypercalls is `vmcall`, else `vmmcall`.
pub fn is_intel() -> bool {
    xen_cpuid(0, 0).ebx == u32::from_le_bytes(*b"Genu")
}

/// The value of a register; none when reading it faults.
pub fn rdmsr(number: u32) -> Option<u64> {
    let (mut low, mut high) = (0u32, 0u32);
    // SAFETY: emulated, or a fault that ends the body.
    let trap = trap_of(|| unsafe { asm!("rdmsr", in("ecx") number, out("eax") low, out("edx") high) });
    trap.is_none().then_some(u64::from(high) << 32 | u64::from(low))
}

/// Writes a register. Vector and error code of the fault, if there is one.
pub fn wrmsr(number: u32, value: u64) -> Option<(u64, u64)> {
    // SAFETY: emulated, or a fault that ends the body.
    trap_of(|| unsafe { asm!("wrmsr", in("ecx") number, in("eax") value as u32, in("edx") (value >> 32) as u32) })
}

/// CR4 as the guest has it.
pub fn cr4() -> u64 {
    let cr4;
    // SAFETY: a read that is emulated.
    unsafe { asm!("mov {}, cr4", out(reg) cr4) };
    cr4
}

/// Writes CR4. What is not the guest's is dropped.
pub fn set_cr4(value: u64) {
    // SAFETY: emulated, or a fault that ends the body.
    trap_of(|| unsafe { asm!("mov cr4, {}", in(reg) value) });
}

/// Writes an extended control register. Vector and error code of the fault, if there is one.
pub fn xsetbv(index: u32, value: u64) -> Option<(u64, u64)> {
    // SAFETY: emulated, or a fault that ends the body.
    trap_of(|| unsafe { asm!("xsetbv", in("ecx") index, in("eax") value as u32, in("edx") (value >> 32) as u32) })
}

/// XCR0; none when reading it faults.
pub fn xcr0() -> Option<u64> {
    let (mut low, mut high) = (0u32, 0u32);
    // SAFETY: reads a register, or a fault that ends the body.
    let trap = trap_of(|| unsafe { asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high) });
    trap.is_none().then_some(u64::from(high) << 32 | u64::from(low))
}

//! Registers of this CPU that hold a guest's choice while it runs: debug registers, XCR0, TSC_AUX, its bits of CR4.
//!
//! Each function takes only values that cannot hurt the hypervisor, and checks them itself.
//!
//! Unsafe: instructions on registers that a guest has chosen the content of.

use super::cpu::{self, Features, cpuid, cr4};
use crate::mem::layout::is_guest_address;
use core::arch::asm;
use core::sync::atomic::{AtomicU8, Ordering};
use logic::cpuid::xstate::xcr0;

const MSR_TSC_AUX: u32 = 0xc000_0103;
const MSR_PRED_CMD: u32 = 0x49;

/// Loads a breakpoint address (0 to 3). Addresses of the hypervisor are not taken: the register is cleared instead.
pub fn set_breakpoint(index: u8, address: u64) {
    let address = if is_guest_address(address) { address } else { 0 };
    // SAFETY: a breakpoint at a guest's address never fires in the hypervisor's code; on guest memory that the
    // hypervisor copies it raises #DB on a stack of its own, which is ignored there.
    unsafe {
        match index {
            0 => asm!("mov dr0, {}", in(reg) address, options(nomem, nostack, preserves_flags)),
            1 => asm!("mov dr1, {}", in(reg) address, options(nomem, nostack, preserves_flags)),
            2 => asm!("mov dr2, {}", in(reg) address, options(nomem, nostack, preserves_flags)),
            _ => asm!("mov dr3, {}", in(reg) address, options(nomem, nostack, preserves_flags)),
        }
    }
}

/// DR0 to DR3.
pub(crate) fn breakpoints() -> [u64; 4] {
    let (a, b, c, d);
    // SAFETY: reads registers.
    unsafe {
        asm!("mov {}, dr0", "mov {}, dr1", "mov {}, dr2", "mov {}, dr3", out(reg) a, out(reg) b, out(reg) c, out(reg) d,
            options(nomem, nostack, preserves_flags));
    }
    [a, b, c, d]
}

/// Loads DR0 to DR3 with whatever a guest in a container has chosen: DR7, which makes them count, is another one while the
/// hypervisor runs.
pub(crate) fn set_breakpoints([a, b, c, d]: [u64; 4]) {
    // SAFETY: as said above, none of them is in use in ring 0.
    unsafe {
        asm!("mov dr0, {}", "mov dr1, {}", "mov dr2, {}", "mov dr3, {}", in(reg) a, in(reg) b, in(reg) c, in(reg) d,
            options(nomem, nostack, preserves_flags));
    }
}

/// Loads DR7: general detection and reserved bits are never set.
pub fn set_debug_control(value: u64) {
    let value = (value & 0xffff_03ff) | 0x400;
    // SAFETY: no reserved bit, no GD; see `set_breakpoint` for what can fire.
    unsafe { asm!("mov dr7, {}", in(reg) value, options(nomem, nostack, preserves_flags)) };
}

/// Loads DR6.
pub fn set_debug_status(value: u64) {
    let value = (value & 0xe00f) | 0xffff_0ff0;
    // SAFETY: status bits only.
    unsafe { asm!("mov dr6, {}", in(reg) value, options(nomem, nostack, preserves_flags)) };
}

/// Loads XCR0. False: the CPU does not take the value (or has no XSAVE).
#[must_use]
pub fn set_xcr0(value: u64) -> bool {
    if !cpu::has(Features::XSAVE) {
        return false;
    }
    let fault: u32;
    // SAFETY: CR4.OSXSAVE is set wherever there is XSAVE; the hypervisor uses no extended state; a fault is caught.
    unsafe {
        asm!(
            "xor {fault:e}, {fault:e}",
            "2: xsetbv",
            "3:",
            ".pushsection .text.fixup, \"ax\"",
            "4: mov {fault:e}, 1",
            "jmp 3b",
            ".popsection",
            ".pushsection .ex_table, \"a\"",
            ".long 2b - ., 4b - .",
            ".popsection",
            fault = out(reg) fault,
            in("ecx") 0, in("eax") value as u32, in("edx") (value >> 32) as u32,
            options(nomem, nostack)
        );
    }
    fault == 0
}

/// Reads XCR0; 3 (x87 and SSE) on a CPU without XSAVE.
#[must_use]
pub fn xcr0() -> u64 {
    if !cpu::has(Features::XSAVE) {
        return 3;
    }
    let (low, high): (u32, u32);
    // SAFETY: CR4.OSXSAVE is set wherever there is XSAVE.
    unsafe { asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags)) };
    u64::from(low) | u64::from(high) << 32
}

/// Clears PKRU, where the CPU has it. Changes XCR0.
pub fn clear_protection_keys() {
    #[repr(align(64))]
    struct Initial([u8; 576]);
    static INITIAL: Initial = Initial([0; 576]);
    if cpu::has(Features::PROTECTION_KEYS) {
        // SAFETY: the components exist, x87 among them; one that is in its initial state is not read from the area.
        unsafe {
            cpu::xsetbv(xcr0::X87 | xcr0::PKRU);
            asm!("xrstor64 [{}]", in(reg) INITIAL.0.as_ptr(), in("eax") xcr0::PKRU as u32, in("edx") 0, options(nostack));
        }
    }
}

/// Sets what RDTSCP and RDPID tell, where the CPU has it.
pub fn set_tsc_aux(value: u32) {
    if cpu::has(Features::RDTSCP) {
        // SAFETY: the register exists; the hypervisor does not use it.
        unsafe { cpu::wrmsr(MSR_TSC_AUX, u64::from(value)) };
    }
}

/// Sets the bits of CR4 that are a guest's choice (TSD and FSGSBASE), the latter only where the CPU has it.
pub fn set_guest_cr4(guest: u64) {
    let mut chosen = cr4::TSD;
    if cpu::has(Features::FSGSBASE) {
        chosen |= cr4::FSGSBASE;
    }
    let old = cpu::read_cr4();
    let new = (old & !chosen) | (guest & chosen);
    if new != old {
        // SAFETY: only the two bits change, on which no code of the hypervisor relies.
        unsafe { cpu::write_cr4(new) };
    }
}

/// CR0 of this CPU.
#[must_use]
pub fn read_cr0() -> u64 {
    let value;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr0", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Sets or clears CR0.TS: while it is set, a guest's use of the FPU raises #NM.
pub fn set_task_switched(set: bool) {
    const TS: u64 = 1 << 3;
    if set {
        let value = read_cr0() | TS;
        // SAFETY: only TS changes, and the hypervisor uses no FPU.
        unsafe { asm!("mov cr0, {}", in(reg) value, options(nomem, nostack, preserves_flags)) };
    } else {
        // SAFETY: clears TS.
        unsafe { asm!("clts", options(nomem, nostack, preserves_flags)) };
    }
}

/// Whether CR0.TS is set.
#[must_use]
pub fn task_switched() -> bool {
    read_cr0() & 1 << 3 != 0
}

/// Whether the CPU can be told to forget what its branch predictors learned: 0 if nobody has looked yet.
static BARRIER: AtomicU8 = AtomicU8::new(0);
const HAS_BARRIER: u8 = 1;
const NO_BARRIER: u8 = 2;

#[cold]
fn look_for_barrier() -> u8 {
    let intel = cpuid(0, 0).eax >= 7 && cpuid(7, 0).edx & 1 << 26 != 0;
    let amd = cpuid(0x8000_0000, 0).eax >= 0x8000_0008 && cpuid(0x8000_0008, 0).ebx & 1 << 12 != 0;
    let found = if intel || amd { HAS_BARRIER } else { NO_BARRIER };
    BARRIER.store(found, Ordering::Relaxed);
    found
}

/// Forgets what the branch predictors learned, where the CPU can be told to.
#[inline]
pub fn prediction_barrier() {
    let known = BARRIER.load(Ordering::Relaxed);
    if known == HAS_BARRIER || (known == 0 && look_for_barrier() == HAS_BARRIER) {
        // SAFETY: the command register exists; bit 0 is the barrier.
        unsafe { cpu::wrmsr(MSR_PRED_CMD, 1) };
    }
}

/// Writes all caches back (`wbinvd`).
pub fn write_back_caches() {
    // SAFETY: caches hold nothing that memory may not have.
    unsafe { asm!("wbinvd", options(nostack, preserves_flags)) };
}

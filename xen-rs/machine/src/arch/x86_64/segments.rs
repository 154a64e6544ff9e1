//! The segment state of a guest that entries do not save: data selectors, and the bases of FS and GS.
//!
//! The hypervisor uses none of them, so any value is harmless here; all that has to be caught is the fault of loading a
//! selector that the guest's tables do not hold, or a base that is not canonical.
//!
//! Unsafe: segment registers and their bases are read and loaded.

use super::cpu::read_cr4;
use crate::mem::layout::is_canonical;
use core::arch::asm;

const MSR_FS_BASE: u32 = 0xc000_0100;
const MSR_GS_BASE: u32 = 0xc000_0101;
const MSR_KERNEL_GS_BASE: u32 = 0xc000_0102;
const CR4_FSGSBASE: u64 = 1 << 16;

/// The four data selectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Selectors {
    pub ds: u16,
    pub es: u16,
    pub fs: u16,
    pub gs: u16,
}

impl Selectors {
    /// Whether all are null, which needs no loading on top of null selectors.
    #[must_use]
    pub const fn all_null(&self) -> bool {
        (self.ds | self.es | self.fs | self.gs) & !3 == 0
    }
}

#[inline]
fn read_msr(number: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: called for the three base registers only, which every 64-bit CPU has; reading has no effect.
    unsafe {
        asm!("rdmsr", in("ecx") number, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags))
    };
    u64::from(low) | u64::from(high) << 32
}

#[inline]
fn write_msr(number: u32, value: u64) {
    // SAFETY: called for the three base registers only, with canonical values; the hypervisor addresses nothing by them.
    unsafe {
        asm!("wrmsr", in("ecx") number, in("eax") value as u32, in("edx") (value >> 32) as u32,
             options(nomem, nostack, preserves_flags));
    }
}

#[inline]
fn has_instructions() -> bool {
    read_cr4() & CR4_FSGSBASE != 0
}

/// The base of FS.
#[inline]
#[must_use]
pub fn fs_base() -> u64 {
    if has_instructions() {
        let base;
        // SAFETY: CR4.FSGSBASE is set; reads a register.
        unsafe { asm!("rdfsbase {}", out(reg) base, options(nomem, nostack, preserves_flags)) };
        base
    } else {
        read_msr(MSR_FS_BASE)
    }
}

/// Sets the base of FS; nothing happens if it is not canonical.
#[inline]
pub fn set_fs_base(base: u64) {
    if !is_canonical(base) {
        return;
    }
    if has_instructions() {
        // SAFETY: CR4.FSGSBASE is set, the base is canonical, the hypervisor does not use FS.
        unsafe { asm!("wrfsbase {}", in(reg) base, options(nomem, nostack, preserves_flags)) };
    } else {
        write_msr(MSR_FS_BASE, base);
    }
}

/// The base of GS that is in use.
#[inline]
#[must_use]
pub fn gs_base() -> u64 {
    if has_instructions() {
        let base;
        // SAFETY: CR4.FSGSBASE is set; reads a register.
        unsafe { asm!("rdgsbase {}", out(reg) base, options(nomem, nostack, preserves_flags)) };
        base
    } else {
        read_msr(MSR_GS_BASE)
    }
}

/// Sets the base of GS that is in use; nothing happens if it is not canonical.
#[inline]
pub fn set_gs_base(base: u64) {
    if !is_canonical(base) {
        return;
    }
    if has_instructions() {
        // SAFETY: CR4.FSGSBASE is set, the base is canonical, the hypervisor does not use GS.
        unsafe { asm!("wrgsbase {}", in(reg) base, options(nomem, nostack, preserves_flags)) };
    } else {
        write_msr(MSR_GS_BASE, base);
    }
}

/// The base that `swapgs` would bring.
#[inline]
#[must_use]
pub fn other_gs_base() -> u64 {
    read_msr(MSR_KERNEL_GS_BASE)
}

/// Sets the base that `swapgs` would bring; nothing happens if it is not canonical.
#[inline]
pub fn set_other_gs_base(base: u64) {
    if is_canonical(base) {
        write_msr(MSR_KERNEL_GS_BASE, base);
    }
}

/// Exchanges the two bases of GS.
#[inline]
pub fn swap_gs() {
    // SAFETY: the hypervisor does not use GS.
    unsafe { asm!("swapgs", options(nomem, nostack, preserves_flags)) };
}

macro_rules! load_selector {
    ($register:literal, $selector:expr) => {{
        let fault: u32;
        // SAFETY: the hypervisor runs in 64-bit mode, where DS, ES, FS and GS play no part in what it does. A fault is
        // caught: a null selector is loaded in its place, which never faults.
        unsafe {
            asm!(
                "xor {fault:e}, {fault:e}",
                concat!("2: mov ", $register, ", {selector:x}"),
                ".pushsection .text.fixup, \"ax\"",
                "4: mov {fault:e}, 1",
                "xor {selector:e}, {selector:e}",
                "jmp 2b",
                ".popsection",
                ".pushsection .ex_table, \"a\"",
                ".long 2b - ., 4b - .",
                ".popsection",
                fault = out(reg) fault,
                selector = inout(reg) $selector => _,
                options(nostack)
            );
        }
        fault == 0
    }};
}

/// Loads all four selectors from the tables in use. False: at least one could not be loaded and is null now.
///
/// Bases of FS and GS are those of the descriptors afterwards (or not changed, or zero: CPUs differ for null
/// selectors), so set the bases last.
#[must_use]
pub fn load(selectors: Selectors) -> bool {
    let ds = load_selector!("ds", selectors.ds);
    let es = load_selector!("es", selectors.es);
    let fs = load_selector!("fs", selectors.fs);
    let gs = load_selector!("gs", selectors.gs);
    ds && es && fs && gs
}

/// Loads GS for the other mode: `swapgs` brings the base of its descriptor. False: it could not be loaded.
#[must_use]
pub fn load_other_gs(selector: u16) -> bool {
    swap_gs();
    let loaded = load_selector!("gs", selector);
    swap_gs();
    loaded
}

/// Reads all four selectors.
#[must_use]
pub fn read() -> Selectors {
    let (ds, es, fs, gs): (u16, u16, u16, u16);
    // SAFETY: reads registers.
    unsafe {
        asm!(
            "mov {:x}, ds", "mov {:x}, es", "mov {:x}, fs", "mov {:x}, gs",
            out(reg) ds, out(reg) es, out(reg) fs, out(reg) gs,
            options(nomem, nostack, preserves_flags)
        );
    }
    Selectors { ds, es, fs, gs }
}

/// What the descriptor of a selector says (the upper half, as `lar` gives it); `None` if ring 3 cannot use it.
#[must_use]
pub fn attributes(selector: u16) -> Option<u32> {
    let found: u32;
    let valid: u8;
    // SAFETY: `lar` reads a descriptor and does not fault for a selector that is no good; a page of the LDT that is not
    // shown yet is caught. With RPL 3 it sees what ring 3 sees.
    unsafe {
        asm!(
            "2: lar {found:e}, {selector:e}",
            "setz {valid}",
            "3:",
            ".pushsection .text.fixup, \"ax\"",
            "4: xor {valid}, {valid}",
            "jmp 3b",
            ".popsection",
            ".pushsection .ex_table, \"a\"",
            ".long 2b - ., 4b - .",
            ".popsection",
            found = inout(reg) 0u32 => found,
            selector = in(reg) u32::from(selector | 3), valid = out(reg_byte) valid, options(nostack)
        );
    }
    (valid != 0).then_some(found)
}

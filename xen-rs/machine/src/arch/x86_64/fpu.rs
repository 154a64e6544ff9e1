//! The extended state of a guest (x87, SSE, AVX..): saved and restored at every switch, since the hypervisor uses none of
//! it and lazy switching leaks between guests on some CPUs.
//!
//! Always all components that any guest may have, whatever the guest's XCR0 is at the moment: it may have switched one
//! off and will find it as it was, and it never finds another guest's.
//!
//! Unsafe: instructions that save and restore extended state to memory.

use super::cpu::{Features, cpuid, has, xsetbv};
use alloc::boxed::Box;
use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use logic::cpuid::xstate::{self, xcr0};

/// Bytes of the legacy region: what FXSAVE writes.
pub const LEGACY: usize = 512;
/// Offset of XSTATE_BV in an XSAVE area (SDM vol. 1, 13.4.2).
const XSTATE_BV: usize = 512;
/// Offset of MXCSR in the legacy region.
const MXCSR: usize = 24;

/// Components of all guests: bits of XCR0.
static COMPONENTS: AtomicU64 = AtomicU64::new(3);
/// Bytes of an area for them.
static SIZE: AtomicU32 = AtomicU32::new(LEGACY as u32);
/// Bits of MXCSR that may be set.
static MXCSR_MASK: AtomicU32 = AtomicU32::new(0xffbf);

/// The CPU does not restore the x87's pointers where no exception waits (APM vol. 2, 11.4.4.2): those of the last vCPU
/// would show through.
static KEEPS_POINTERS: AtomicBool = AtomicBool::new(false);

/// The components that guests may switch on.
#[must_use]
pub fn components() -> u64 {
    COMPONENTS.load(Ordering::Relaxed)
}

/// Finds out what there is. On the boot processor, once it is set up.
pub(crate) fn detect() {
    if has(Features::XSAVE) {
        let leaf = cpuid(0xd, 0);
        let there = u64::from(leaf.eax) | u64::from(leaf.edx) << 32;
        let known = xcr0::X87 | xcr0::SSE | xcr0::YMM | xcr0::MPX | xcr0::AVX512;
        // AVX-512 is whole or not at all.
        let mut chosen = there & known;
        if chosen & xcr0::AVX512 != xcr0::AVX512 {
            chosen &= !xcr0::AVX512;
        }
        COMPONENTS.store(chosen, Ordering::Relaxed);
        // SAFETY: components that the CPU has, x87 among them, in a combination that it takes.
        unsafe { xsetbv(chosen) };
        // EBX is the size for what XCR0 holds now.
        SIZE.store(cpuid(0xd, 0).ebx.max(LEGACY as u32 + 64), Ordering::Relaxed);
    }
    // RstrFpErrPtrs: such CPUs restore them always.
    let restores = cpuid(0x8000_0000, 0).eax >= 0x8000_0008 && cpuid(0x8000_0008, 0).ebx & 1 << 2 != 0;
    KEEPS_POINTERS.store(has(Features::AMD_CALLS) && !restores, Ordering::Relaxed);
    let mut area = FpuArea::new();
    area.save();
    // Zero means the default mask (SDM vol. 1, 11.6.6).
    let mask = area.word(MXCSR + 4);
    if mask != 0 {
        MXCSR_MASK.store(mask, Ordering::Relaxed);
    }
}

/// One cache line: XSAVE areas are aligned to 64 bytes.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// The saved state of one vCPU.
#[derive(Clone, Debug)]
pub struct FpuArea(Box<[Line]>);

impl Default for FpuArea {
    fn default() -> Self {
        Self::new()
    }
}

impl FpuArea {
    /// The state after INIT.
    #[must_use]
    pub fn new() -> Self {
        let lines = (SIZE.load(Ordering::Relaxed) as usize).div_ceil(64);
        let mut area = Self(alloc::vec![Line([0; 64]); lines].into_boxed_slice());
        area.reset();
        area
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        let length = self.0.len() * 64;
        // SAFETY: lines are arrays of bytes without padding.
        unsafe { core::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), length) }
    }

    /// The whole area as the CPU writes it (standard format).
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: lines are arrays of bytes without padding.
        unsafe { core::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() * 64) }
    }

    fn word(&self, offset: usize) -> u32 {
        self.bytes().get(offset..offset + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
    }

    fn put(&mut self, offset: usize, value: &[u8]) {
        if let Some(place) = self.bytes_mut().get_mut(offset..offset + value.len()) {
            place.copy_from_slice(value);
        }
    }

    /// Back to the state after INIT.
    pub fn reset(&mut self) {
        self.bytes_mut().fill(0);
        self.put(0, &0x037fu16.to_le_bytes());
        self.put(MXCSR, &0x1f80u32.to_le_bytes());
    }

    /// The legacy region: the layout of FXSAVE, which `vcpu_guest_context.fpu_ctxt` has.
    #[must_use]
    pub fn legacy(&self) -> [u8; LEGACY] {
        let mut legacy = self.bytes().first_chunk().copied().unwrap_or([0; LEGACY]);
        if has(Features::XSAVE) {
            xstate::clear_unsaved(&mut legacy, self.word(XSTATE_BV));
        }
        legacy
    }

    /// Takes x87 and SSE state from a legacy region; everything else is as after INIT. Bits of MXCSR that the CPU does
    /// not have are dropped.
    pub fn set_legacy(&mut self, legacy: &[u8; LEGACY]) {
        self.reset();
        self.put(0, legacy);
        let mxcsr = self.word(MXCSR) & MXCSR_MASK.load(Ordering::Relaxed);
        self.put(MXCSR, &mxcsr.to_le_bytes());
        self.put(XSTATE_BV, &3u64.to_le_bytes());
    }

    /// Saves this CPU's state. Leaves CR0.TS clear and XCR0 with all components.
    pub fn save(&mut self) {
        let area = self.0.as_mut_ptr();
        if has(Features::XSAVE) {
            let (low, high) = (components() as u32, (components() >> 32) as u32);
            // SAFETY: the area has the size for these components and the alignment; TS is clear.
            unsafe {
                xsetbv(components());
                asm!("clts", options(nomem, nostack, preserves_flags));
                if has(Features::XSAVEOPT) {
                    asm!("xsaveopt64 [{}]", in(reg) area, in("eax") low, in("edx") high, options(nostack, preserves_flags));
                } else {
                    asm!("xsave64 [{}]", in(reg) area, in("eax") low, in("edx") high, options(nostack, preserves_flags));
                }
            }
        } else {
            // SAFETY: 512 bytes, aligned; TS is clear.
            unsafe { asm!("clts", "fxsave64 [{}]", in(reg) area, options(nostack, preserves_flags)) };
        }
    }

    /// Loads the state into this CPU. Leaves CR0.TS clear and XCR0 with all components: the guest's own values come
    /// after it.
    pub fn restore(&mut self) {
        if !self.try_restore() {
            // Not a state that the CPU takes; only a reset one can be in its place.
            self.reset();
            let _ = self.try_restore();
        }
    }

    fn try_restore(&mut self) -> bool {
        let area = self.0.as_ptr();
        let fault: u32;
        let zero = 0u64;
        if has(Features::XSAVE) {
            // SAFETY: as in `save`; a fault is caught. The load before it makes the pointers ours.
            unsafe {
                xsetbv(components());
                if KEEPS_POINTERS.load(Ordering::Relaxed) {
                    asm!("clts", "fnclex", "emms", "fild qword ptr [{}]", in(reg) &raw const zero, options(nostack));
                }
                asm!(
                    "clts",
                    "xor {fault:e}, {fault:e}",
                    "2: xrstor64 [{area}]",
                    "3:",
                    ".pushsection .text.fixup, \"ax\"",
                    "4: mov {fault:e}, 1",
                    "jmp 3b",
                    ".popsection",
                    ".pushsection .ex_table, \"a\"",
                    ".long 2b - ., 4b - .",
                    ".popsection",
                    area = in(reg) area, fault = out(reg) fault,
                    in("eax") components() as u32, in("edx") (components() >> 32) as u32,
                    options(nostack)
                );
            }
        } else {
            // SAFETY: as above. The load before it clears the x87's pointers, which some CPUs do not restore.
            unsafe {
                asm!(
                    "clts",
                    "xor {fault:e}, {fault:e}",
                    "fnclex",
                    "emms",
                    "fild qword ptr [{zero}]",
                    "2: fxrstor64 [{area}]",
                    "3:",
                    ".pushsection .text.fixup, \"ax\"",
                    "4: mov {fault:e}, 1",
                    "jmp 3b",
                    ".popsection",
                    ".pushsection .ex_table, \"a\"",
                    ".long 2b - ., 4b - .",
                    ".popsection",
                    area = in(reg) area, zero = in(reg) &raw const zero, fault = out(reg) fault,
                    options(nostack)
                );
            }
        }
        fault == 0
    }
}

/// This CPU's part of it: CR4 is set, and XCR0 has all components.
pub(crate) fn init_this() {
    if has(Features::XSAVE) {
        // SAFETY: as on the boot processor.
        unsafe { xsetbv(components()) };
    }
}

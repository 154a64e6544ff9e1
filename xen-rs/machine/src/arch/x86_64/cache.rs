//! Caches: written back and dropped, for guests that drive devices.
//!
//! Unsafe: the instructions that write caches back.

use super::cpu::cpuid;
use crate::mailbox;
use crate::mem::direct_map::va_of;
use core::arch::asm;
use logic::page::Frame;

/// Writes back and drops the caches of all CPUs.
pub fn flush_everywhere() {
    mailbox::call(mailbox::online(), |_| flush_here(), 0);
}

fn flush_here() {
    // SAFETY: writes back what is cached, so no memory changes.
    unsafe { asm!("wbinvd", options(nostack, preserves_flags)) };
}

/// Bytes of a line that `clflush` writes back (SDM vol. 2A, CPUID leaf 1: EBX bits 15:8, in units of 8).
fn line() -> u64 {
    u64::from(cpuid(1, 0).ebx >> 8 & 0xff) * 8
}

/// Writes back and drops what any CPU has cached of a part of a page, as far as the page reaches.
pub fn flush(f: Frame<'_>, offset: u16, length: u16) {
    let start = u64::from(offset).min(4096);
    let end = (start + u64::from(length)).min(4096);
    // A size of 0: there is no such instruction.
    let line = line();
    if line == 0 {
        return flush_everywhere();
    }
    let mut at = start - start % line;
    while at < end {
        // SAFETY: an address in the page of a frame that is memory, which is in the direct map for good; no content changes.
        unsafe { asm!("clflush [{}]", in(reg) va_of(f.mfn()) + at, options(nostack, preserves_flags)) };
        at += line;
    }
}

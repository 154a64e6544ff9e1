//! Caches: written back and dropped everywhere, for guests that drive devices.
//!
//! Unsafe: the instruction that writes caches back.

use crate::mailbox;
use core::arch::asm;

/// Writes back and drops the caches of all CPUs.
pub fn flush_everywhere() {
    mailbox::call(mailbox::online(), |_| flush_here(), 0);
}

fn flush_here() {
    // SAFETY: writes back what is cached, so no memory changes.
    unsafe { asm!("wbinvd", options(nostack, preserves_flags)) };
}

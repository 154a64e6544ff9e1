//! Marks in the stream of executed instructions, for tools outside of the guest that count them
//! (`xtask/plugin/dear.c`; Bochs's debugger stops at `xchg bx, bx`). A mark is a no-op: no machine and no hypervisor notices.
//!
//! Unsafe: an instruction without effect.

macro_rules! mark {
    ($number:literal) => {{
        // SAFETY: an instruction that does nothing; its operand is not accessed.
        #[cfg(target_os = "none")]
        unsafe {
            core::arch::asm!(
                concat!("nop dword ptr [rax + ", $number, "]"),
                "xchg bx, bx",
                options(nostack, preserves_flags)
            );
        }
    }};
}

/// What is to be counted begins.
#[inline(always)]
pub fn begin() {
    mark!("0x78656e01");
}

/// What is to be counted ends.
#[inline(always)]
pub fn end() {
    mark!("0x78656e02");
}

/// The guest has started and waits for work.
#[inline(always)]
pub fn ready() {
    mark!("0x78656e03");
}

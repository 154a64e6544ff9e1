//! Hypercalls. One module per call with typed wrappers; below them the bare instruction.
//!
//! Calling convention (public `arch-x86/xen-x86_64.h`): number in rax, arguments in rdi, rsi, rdx, r10, r8; result in
//! rax; `syscall` itself destroys rcx and r11.

use core::arch::asm;
use xen_abi::errno::Errno;

pub mod console_io;
pub mod sched;

/// Makes one hypercall with up to five arguments (missing ones are zero) and returns rax.
///
/// # Safety
/// The hypervisor does what it is told: it writes through pointers and changes page tables. The caller answers for
/// what the call does to this domain's memory.
#[inline(always)]
pub unsafe fn raw<const N: usize>(number: u64, args: [u64; N]) -> u64 {
    const { assert!(N <= 5) };
    let arg = |i: usize| if i < N { args[i] } else { 0 };
    let result;
    // SAFETY: by the contract of this function. The argument registers are listed as lost: the ABI allows that.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            inlateout("rdi") arg(0) => _,
            inlateout("rsi") arg(1) => _,
            inlateout("rdx") arg(2) => _,
            inlateout("r10") arg(3) => _,
            inlateout("r8") arg(4) => _,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

/// Splits a result into value and error.
///
/// # Errors
/// The errno that the hypervisor returned.
pub fn check(result: u64) -> Result<u64, Errno> {
    match Errno::from_ret(result) {
        Some(errno) => Err(errno),
        None => Ok(result),
    }
}

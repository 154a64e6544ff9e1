//! Hypercalls. One module per call with typed wrappers; below them the bare instruction.
//!
//! Calling convention (public `arch-x86/xen-x86_64.h`): number in rax, arguments in rdi, rsi, rdx, r10, r8; result in
//! rax; `syscall` itself destroys rcx and r11.
//!
//! Unsafe: the instruction that makes a hypercall.

use core::arch::asm;
use xen_abi::errno::Errno;
use zerocopy::{FromBytes, IntoBytes};

pub mod callback;
pub mod console_io;
pub mod domctl;
pub mod event_channel;
pub mod grant_table;
pub mod hvm;
pub mod memory;
pub mod mmu;
pub mod multicall;
pub mod physdev;
pub mod sched;
pub mod sysctl;
pub mod traps;
pub mod vcpu;
pub mod version;

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

/// The common shape `call(command, &argument)` with an argument that the hypervisor may also write to.
///
/// # Safety
/// As for [`raw`]: the caller answers for what the operation does.
///
/// # Errors
/// Those of the hypercall.
#[inline]
pub unsafe fn command<T: FromBytes + IntoBytes>(number: u32, command: u32, argument: &mut T) -> Result<u64, Errno> {
    // SAFETY: passed on to the caller; the argument itself outlives the call and is ours alone.
    check(unsafe { raw(number.into(), [command.into(), (&raw mut *argument) as u64]) })
}

/// The shape `call(command, array, count)`.
///
/// # Safety
/// As for [`raw`].
///
/// # Errors
/// Those of the hypercall.
#[inline]
pub unsafe fn commands<T: FromBytes + IntoBytes>(number: u32, command: u32, array: &mut [T]) -> Result<u64, Errno> {
    let args = [command.into(), array.as_mut_ptr() as u64, array.len() as u64];
    // SAFETY: passed on to the caller; the array outlives the call and is ours alone.
    check(unsafe { raw(number.into(), args) })
}

//! `callback_op`: where the hypervisor enters the guest (public `callback.h`).
//!
//! Unsafe: a hypercall is told addresses of code.

use super::command;
use xen_abi::callback::{CALLBACKOP_REGISTER, CallbackRegister};
use xen_abi::errno::Errno;
use xen_abi::hypercall::HYPERVISOR_CALLBACK_OP;

/// Registers an entry point of type `CALLBACKTYPE_*` with `CALLBACKF_*` flags.
///
/// # Safety
/// `address` is code that understands the frame which the hypervisor pushes for this type.
///
/// # Errors
/// Those of the hypercall.
pub unsafe fn register(type_: u16, flags: u16, address: u64) -> Result<(), Errno> {
    let mut op = CallbackRegister { type_, flags, _pad: 0, address };
    // SAFETY: the hypervisor only reads the struct; the address is the caller's responsibility.
    unsafe { command(HYPERVISOR_CALLBACK_OP, CALLBACKOP_REGISTER, &mut op) }.map(drop)
}

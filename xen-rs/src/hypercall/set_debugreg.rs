//! `HYPERVISOR_set_debugreg`: loads a debug register.

use logic::{hypercall::Outcome, trap::debug::Refused};
use xen_abi::errno::Errno;

use crate::{cpu::Context, trap};

/// The hypercall: rdi is the register's number, rsi the value.
pub fn set_debugreg(cx: &mut Context<'_>) -> Outcome {
    let [number, value, ..] = cx.args();
    match trap::write_debug_register(cx, number & 0xffff_ffff, value) {
        Ok(()) => Outcome::OK,
        Err(refused) => Outcome::Fail(errno(refused)),
    }
}

const fn errno(refused: Refused) -> Errno {
    match refused {
        Refused::NoRegister => Errno::ENODEV,
        Refused::Reserved => Errno::EINVAL,
        Refused::NotAllowed => Errno::EPERM,
    }
}

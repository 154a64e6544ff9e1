//! `HYPERVISOR_get_debugreg`: reads a debug register.

use logic::hypercall::Outcome;
use xen_abi::errno::Errno;

use crate::cpu::Context;

/// The hypercall: rdi is the register's number; the result is its value, whatever that looks like.
pub fn get_debugreg(cx: &mut Context<'_>) -> Outcome {
    let pv = &cx.state.pv;
    pv.debug.read(cx.args()[0] & 0xffff_ffff, pv.cr4).map_or(Outcome::Fail(Errno::ENODEV), Outcome::Done)
}

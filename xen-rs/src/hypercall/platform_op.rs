//! `HYPERVISOR_platform_op`: the machine as the control domain manages it (public header `platform.h`).

use logic::hypercall::Outcome;
use xen_abi::errno::Errno;

use crate::cpu::Context;

/// The hypercall.
pub fn platform_op(cx: &mut Context<'_>) -> Outcome {
    if !cx.domain.is_control() {
        return Outcome::Fail(Errno::EPERM);
    }
    Outcome::Fail(Errno::ENOSYS)
}

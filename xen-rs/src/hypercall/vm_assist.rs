//! `HYPERVISOR_vm_assist`: switches that a PV domain may set (public header `xen.h`).

use core::sync::atomic::Ordering;

use logic::{access::VmAssistCommand, hypercall::Outcome, num};
use xen_abi::{
    errno::Errno,
    vm_assist::{
        VMASST_TYPE_4GB_SEGMENTS, VMASST_TYPE_4GB_SEGMENTS_NOTIFY, VMASST_TYPE_ARCHITECTURAL_IOPL,
        VMASST_TYPE_M2P_STRICT, VMASST_TYPE_PAE_EXTENDED_CR3, VMASST_TYPE_RUNSTATE_UPDATE_FLAG,
        VMASST_TYPE_WRITABLE_PAGETABLES,
    },
};

use crate::cpu::Context;

/// The switches that 64-bit PV domains have.
pub const VALID: u64 = 1 << VMASST_TYPE_4GB_SEGMENTS
    | 1 << VMASST_TYPE_4GB_SEGMENTS_NOTIFY
    | 1 << VMASST_TYPE_WRITABLE_PAGETABLES
    | 1 << VMASST_TYPE_PAE_EXTENDED_CR3
    | 1 << VMASST_TYPE_ARCHITECTURAL_IOPL
    | 1 << VMASST_TYPE_RUNSTATE_UPDATE_FLAG
    | 1 << VMASST_TYPE_M2P_STRICT;

/// The one that there is in a container.
const VALID_IN_CONTAINER: u64 = 1 << VMASST_TYPE_RUNSTATE_UPDATE_FLAG;

/// The hypercall: rdi is the command, rsi the switch.
pub fn vm_assist(cx: &mut Context<'_>) -> Outcome {
    let [command, switch, ..] = cx.args();
    let switch = switch & 0xffff_ffff;
    let valid = if cx.domain.pvh().is_some() { VALID_IN_CONTAINER } else { VALID };
    let Some(bit) = u32::try_from(switch).ok().and_then(|n| 1_u64.checked_shl(n)).filter(|bit| valid & bit != 0) else {
        return Outcome::Fail(Errno::EINVAL);
    };
    match cx.permit(num::uint(command)).map(|op| op.op()) {
        Ok(VmAssistCommand::Enable) => cx.domain.vm_assist.fetch_or(bit, Ordering::Relaxed),
        Ok(VmAssistCommand::Disable) => cx.domain.vm_assist.fetch_and(!bit, Ordering::Relaxed),
        Err(errno) => return Outcome::Fail(errno),
    };
    Outcome::OK
}

//! `HYPERVISOR_iret`: returns from an exception or event.

use core::sync::atomic::Ordering;

use logic::{hypercall::Outcome, trap::iret};
use xen_abi::{arch_x86::IretContext, vm_assist::VMASST_TYPE_ARCHITECTURAL_IOPL};

use crate::{
    cpu::Context,
    guest,
    trap::{crash, mode},
};

/// The hypercall: the frame is on the caller's stack. There is no result: rax comes from the frame.
pub fn iret(cx: &mut Context<'_>) -> Outcome {
    let rax = cx.regs.rax;
    let Ok(frame) = guest::read::<IretContext>(cx.regs.rsp) else {
        crash::crash(cx, &"Fault while reading IRET context from guest stack");
        return Outcome::Done(rax);
    };
    let back = iret::decode(&frame);
    if back.to_user {
        if cx.state.paging.user.is_none() {
            crash::crash(cx, &"Guest switching to user mode with no user page tables");
            return Outcome::Done(rax);
        }
        mode::toggle(cx);
    }
    if cx.domain.vm_assist.load(Ordering::Relaxed) & 1 << VMASST_TYPE_ARCHITECTURAL_IOPL != 0 {
        cx.state.pv.iopl = back.iopl;
    }
    iret::load(cx.regs, &frame);
    cx.vcpu.info.get().set_upcall_mask(back.upcall_mask);
    cx.state.pv.nmi_masked = false;
    Outcome::Done(frame.rax)
}

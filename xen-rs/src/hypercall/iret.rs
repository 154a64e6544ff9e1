//! `HYPERVISOR_iret`: returns from an exception or event.

use logic::{hypercall::Outcome, trap::iret};
use xen_abi::{arch_x86::IretContext, vm_assist::VMASST_TYPE_ARCHITECTURAL_IOPL};

use crate::{
    cpu::{Context, Running},
    domain::Domain,
    guest,
    trap::{PvState, crash, mode},
    vcpu::Vcpu,
};

/// The frame of a return to the guest's kernel, from a stack that can be read, after all but the registers has been put
/// as it says. None: it is not like that, and nothing has been done.
#[inline(always)]
pub fn at_once(running: &mut Running, rsp: u64) -> Option<IretContext> {
    let frame: IretContext = zerocopy::transmute!(guest::read_9_at_once(rsp)?);
    let back = iret::decode(&frame);
    if back.to_user {
        return None;
    }
    resume(&running.domain, &running.vcpu, &mut running.state.pv, back);
    Some(frame)
}

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
    resume(cx.domain, cx.vcpu, &mut cx.state.pv, back);
    iret::load(cx.regs, &frame);
    Outcome::Done(frame.rax)
}

/// What a return changes beside the registers.
#[inline(always)]
fn resume(domain: &Domain, vcpu: &Vcpu, pv: &mut PvState, back: iret::Return) {
    if domain.assists(VMASST_TYPE_ARCHITECTURAL_IOPL) {
        pv.iopl = back.iopl;
    }
    vcpu.info.get().set_upcall_mask(back.upcall_mask);
    pv.nmi_masked = false;
}

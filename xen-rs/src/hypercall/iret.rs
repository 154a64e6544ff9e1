//! `HYPERVISOR_iret`: returns from an exception or event.

use logic::{hypercall::Outcome, regs::GuestRegs, trap::iret};
use xen_abi::{arch_x86::IretContext, vm_assist::VMASST_TYPE_ARCHITECTURAL_IOPL};

use crate::{
    cpu::{Context, Running},
    domain::Domain,
    guest,
    trap::{PvState, crash, mode},
    vcpu::Vcpu,
};

/// A return to the guest's kernel, from a stack that can be read. False: it is not like that, and nothing has been done.
#[inline(always)]
pub fn at_once(running: &mut Running, regs: &mut GuestRegs) -> bool {
    let Some(words) = guest::read_9_at_once(regs.rsp) else { return false };
    let frame: IretContext = zerocopy::transmute!(words);
    let back = iret::decode(&frame);
    if !back.to_user {
        load(&running.domain, &running.vcpu, &mut running.state.pv, regs, &frame);
    }
    !back.to_user
}

/// The hypercall: the frame is on the caller's stack. There is no result: rax comes from the frame.
pub fn iret(cx: &mut Context<'_>) -> Outcome {
    let rax = cx.regs.rax;
    let Ok(frame) = guest::read::<IretContext>(cx.regs.rsp) else {
        crash::crash(cx, &"Fault while reading IRET context from guest stack");
        return Outcome::Done(rax);
    };
    if iret::decode(&frame).to_user {
        if cx.state.paging.user.is_none() {
            crash::crash(cx, &"Guest switching to user mode with no user page tables");
            return Outcome::Done(rax);
        }
        mode::toggle(cx);
    }
    load(cx.domain, cx.vcpu, &mut cx.state.pv, cx.regs, &frame);
    Outcome::Done(frame.rax)
}

/// Goes on as the frame says.
#[inline(always)]
fn load(domain: &Domain, vcpu: &Vcpu, pv: &mut PvState, regs: &mut GuestRegs, frame: &IretContext) {
    let back = iret::decode(frame);
    if domain.assists(VMASST_TYPE_ARCHITECTURAL_IOPL) {
        pv.iopl = back.iopl;
    }
    iret::load(regs, frame);
    vcpu.info.get().set_upcall_mask(back.upcall_mask);
    pv.nmi_masked = false;
}

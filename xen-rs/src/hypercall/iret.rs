//! `HYPERVISOR_iret`: returns from an exception or event.

use core::mem::offset_of;

use logic::{guest::In, hypercall::Outcome, trap::iret};
use machine::{
    mem::guest_words::Piece,
    upcall::{Loaded, ShortFrame},
};
use xen_abi::{
    arch_x86::{IretContext, VGCF_IN_SYSCALL},
    vm_assist::VMASST_TYPE_ARCHITECTURAL_IOPL,
};

use crate::{
    cpu::{Context, Cpu, Running},
    cpu_loop,
    domain::Domain,
    guest::Handle,
    trap::{PvState, crash, mode},
    vcpu_info::VcpuInfo,
};

/// Bytes of a frame, and where its words are.
const SIZE: u64 = size_of::<IretContext>() as u64;
const RAX: u64 = offset_of!(IretContext, rax) as u64;
const R11: u64 = offset_of!(IretContext, r11) as u64;
const RCX: u64 = offset_of!(IretContext, rcx) as u64;
const FLAGS: u64 = offset_of!(IretContext, flags) as u64;
const RIP: u64 = offset_of!(IretContext, rip) as u64;
const CS: u64 = offset_of!(IretContext, cs) as u64;
const RFLAGS: u64 = offset_of!(IretContext, rflags) as u64;
const RSP: u64 = offset_of!(IretContext, rsp) as u64;
const SS: u64 = offset_of!(IretContext, ss) as u64;

/// The hypercall of a vCPU that nothing waits for, from a stack that can be read. None: it is not like that. What has been
/// done by then is done again by [`iret`], with the same frame.
///
/// No [`Handle`]: each word of the frame is read once, but straight into the register that it is for.
#[inline(always)]
pub fn at_once(cpu: &mut Cpu, frame: &mut ShortFrame) -> Option<Loaded> {
    let running = cpu.running.as_mut()?;
    if !running.state.pv.in_kernel {
        return None;
    }
    let piece = Piece::<SIZE>::new(frame.rsp())?;
    let (cs, rflags, flags) = piece.three_at_once::<CS, RFLAGS, FLAGS>()?;
    if flags & VGCF_IN_SYSCALL != 0 || !cpu_loop::is_undisturbed(&cpu.local, running) {
        return None;
    }
    let back = iret::decode(cs, rflags);
    let info = running.vcpu.info.get();
    if info.is_missing() || !back.upcall_mask && info.upcall_pending() {
        return None;
    }
    if back.to_user {
        return to_user(running, frame, piece, cs, rflags);
    }
    frame.set_code_and_flags(cs, rflags);
    resume(&running.domain, info, &mut running.state.pv, back);
    Some(frame.complete(piece.six_at_once::<RAX, R11, RCX, RIP, RSP, SS>()?))
}

/// [`at_once`] to user mode, of what is looked at already.
#[inline(never)]
fn to_user(running: &mut Running, frame: &mut ShortFrame, piece: Piece<SIZE>, cs: u64, rflags: u64) -> Option<Loaded> {
    let words = piece.six_at_once::<RAX, R11, RCX, RIP, RSP, SS>()?;
    let state = &mut *running.state;
    if !mode::to_user(&mut state.pv, &state.paging) {
        return None;
    }
    resume(&running.domain, running.vcpu.info.get(), &mut state.pv, iret::decode(cs, rflags));
    frame.set_code_and_flags(cs, rflags);
    Some(frame.complete(words))
}

/// The hypercall: the frame is on the caller's stack. There is no result: rax comes from the frame.
pub fn iret(cx: &mut Context<'_>) -> Outcome {
    let rax = cx.regs.rax;
    let Ok(frame) = Handle::<IretContext, In>::new(cx.regs.rsp).read() else {
        crash::crash(cx, &"Fault while reading IRET context from guest stack");
        return Outcome::Done(rax);
    };
    let back = iret::decode(frame.cs, frame.rflags);
    if back.to_user && !mode::to_user(&mut cx.state.pv, &cx.state.paging) {
        crash::crash(cx, &"Guest switching to user mode with no user page tables");
        return Outcome::Done(rax);
    }
    resume(cx.domain, cx.vcpu.info.get(), &mut cx.state.pv, back);
    iret::load(cx.regs, &frame);
    Outcome::Done(frame.rax)
}

/// What a return changes beside the registers.
#[inline(always)]
fn resume(domain: &Domain, info: VcpuInfo<'_>, pv: &mut PvState, back: iret::Return) {
    if domain.assists(VMASST_TYPE_ARCHITECTURAL_IOPL) {
        pv.iopl = back.iopl;
    }
    info.set_upcall_mask(back.upcall_mask);
    pv.nmi_masked = false;
}

//! Hypercalls from containers: the handlers are those of PV guests, for the calls that there are for both.

use logic::{hvm::length::Instruction, hypercall::Outcome, lock::Held, regs::GuestRegs};
use machine::container::attributes;
use xen_abi::{errno::Errno, hypercall};

use super::exit;
use crate::{
    cpu::{Context, Cpu},
    hypercall as calls,
};

/// A hypercall: number in rax, result in rax.
#[inline(always)]
pub fn enter(cpu: &mut Cpu, regs: &mut GuestRegs, held: &mut Held<'_, 0>) {
    if let Some(mut cx) = cpu.context(regs, held.again()) {
        call(&mut cx);
    }
}

fn call(cx: &mut Context<'_>) {
    let Some(pvh) = cx.state.pvh.as_deref() else { return };
    if pvh.container.cpl() != 0 {
        if exit::skip(cx, Instruction::Hypercall) {
            cx.regs.rax = Errno::EPERM.as_ret();
        }
        return;
    }
    let rip = cx.regs.rip;
    if !exit::skip(cx, Instruction::Hypercall) {
        return;
    }
    let long_mode = cx.state.pvh.as_deref().is_some_and(|pvh| pvh.container.code().attributes & attributes::LONG != 0);
    match if long_mode { route(cx) } else { route_32(cx) } {
        Outcome::Done(value) => cx.regs.rax = value,
        Outcome::Fail(errno) => cx.regs.rax = errno.as_ret(),
        Outcome::Again => cx.regs.rip = rip,
    }
    if !long_mode {
        cx.regs.rax &= 0xffff_ffff;
    }
}

#[inline(always)]
fn route(cx: &mut Context<'_>) -> Outcome {
    let Ok(number) = u32::try_from(cx.regs.rax) else { return Outcome::Fail(Errno::ENOSYS) };
    match number {
        hypercall::HYPERVISOR_XEN_VERSION => calls::xen_version::xen_version(cx),
        hypercall::HYPERVISOR_SET_TIMER_OP => calls::set_timer_op::set_timer_op(cx),
        hypercall::HYPERVISOR_SCHED_OP => calls::sched_op::sched_op(cx),
        hypercall::HYPERVISOR_EVENT_CHANNEL_OP => calls::event_channel_op::event_channel_op(cx),
        hypercall::HYPERVISOR_MEMORY_OP => calls::memory_op::memory_op(cx),
        hypercall::HYPERVISOR_GRANT_TABLE_OP => calls::grant_table_op::grant_table_op(cx),
        hypercall::HYPERVISOR_VCPU_OP => calls::vcpu_op::vcpu_op(cx),
        hypercall::HYPERVISOR_VM_ASSIST => calls::vm_assist::vm_assist(cx),
        hypercall::HYPERVISOR_CONSOLE_IO => calls::console_io::console_io(cx),
        hypercall::HYPERVISOR_HVM_OP => calls::hvm_op::hvm_op(cx),
        hypercall::HYPERVISOR_PLATFORM_OP => calls::platform_op::platform_op(cx),
        hypercall::HYPERVISOR_SYSCTL => calls::sysctl::sysctl(cx),
        hypercall::HYPERVISOR_DOMCTL => calls::domctl::domctl(cx),
        _ => Outcome::Fail(Errno::ENOSYS),
    }
}

/// From 32-bit code: what has no structure, whose layout would be another one.
#[cold]
fn route_32(cx: &mut Context<'_>) -> Outcome {
    let low = |value: u64| value & 0xffff_ffff;
    let regs = &*cx.regs;
    let args = [regs.rbx, regs.rcx, regs.rdx, regs.rsi, regs.rdi, regs.rbp].map(low);
    match u32::try_from(low(regs.rax)) {
        Ok(hypercall::HYPERVISOR_XEN_VERSION) => {
            calls::xen_version::at_once(args[0]).map_or(Outcome::Fail(Errno::ENOSYS), Outcome::Done)
        }
        _ => Outcome::Fail(Errno::ENOSYS),
    }
}

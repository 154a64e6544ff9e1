//! Hypercalls from containers: the handlers are those of PV guests, for the calls that there are for both.

use alloc::sync::Arc;

use logic::{event::Notify, hvm::length::Instruction, hypercall::Outcome, lock::Held, regs::GuestRegs};
use machine::container::attributes;
use xen_abi::{errno::Errno, grant_table, hypercall, ids::Port};

use super::{compat, exit};
use crate::{
    cpu::{Context, Cpu, CpuLocal, Running},
    domain::Domain,
    event,
    guest::is_guest_range,
    hypercall as calls,
    vcpu::VcpuState,
};

/// The calls that come to a few instructions, from the guest's kernel in 64-bit mode, without a context; `next`: where it
/// goes on. False: nothing is done.
#[inline(always)]
pub fn at_once(
    cpu: &mut CpuLocal,
    running: &mut Running,
    regs: &mut GuestRegs,
    next: u64,
    held: &mut Held<'_, 0>,
) -> bool {
    const XEN_VERSION: u64 = hypercall::HYPERVISOR_XEN_VERSION as u64;
    const SET_TIMER_OP: u64 = hypercall::HYPERVISOR_SET_TIMER_OP as u64;
    const EVENT_CHANNEL_OP: u64 = hypercall::HYPERVISOR_EVENT_CHANNEL_OP as u64;
    let domain = &running.domain;
    let VcpuState { pvh: Some(pvh), timers, .. } = &mut *running.state else { return false };
    if pvh.container.cpl() != 0 {
        return false;
    }
    let result = match regs.rax {
        XEN_VERSION => calls::xen_version::at_once(regs.rdi),
        EVENT_CHANNEL_OP => {
            let port = || pvh.container.read_at_once(regs.rsi).filter(|_| is_guest_range(regs.rsi, 4)).map(Port);
            calls::event_channel_op::at_once_with(domain, regs.rdi, port).map(|notify| told(domain, notify, held))
        }
        SET_TIMER_OP => calls::set_timer_op::at_once(timers, &mut cpu.sched.timer, regs.rdi).then_some(0),
        _ => None,
    };
    let Some(result) = result else { return false };
    regs.rax = result;
    exit::go_on(pvh, regs, next);
    true
}

#[inline(always)]
fn told(domain: &Arc<Domain>, notify: Notify, held: &mut Held<'_, 0>) -> u64 {
    if !matches!(notify, Notify::NOBODY) {
        event::tell(domain, notify, held);
    }
    0
}

/// A hypercall: number in rax, result in rax. `next`: as for [`at_once`].
#[inline(always)]
pub fn enter(cpu: &mut Cpu, regs: &mut GuestRegs, next: Option<u64>, held: &mut Held<'_, 0>) {
    if let Some(mut cx) = cpu.context(regs, held.again()) {
        call(&mut cx, next);
    }
}

fn call(cx: &mut Context<'_>, next: Option<u64>) {
    let Some(pvh) = cx.state.pvh.as_deref() else { return };
    if pvh.container.cpl() != 0 {
        if exit::skip_to(cx, Instruction::Hypercall, next) {
            cx.regs.rax = Errno::EPERM.as_ret();
        }
        return;
    }
    let rip = cx.regs.rip;
    if !exit::pass(cx, Instruction::Hypercall, next) {
        return;
    }
    let long_mode = cx.state.pvh.as_deref().is_some_and(|pvh| pvh.container.code_attributes() & attributes::LONG != 0);
    match if long_mode { route(cx, cx.regs.rax) } else { compat::call(cx) } {
        Outcome::Done(value) => cx.regs.rax = value,
        Outcome::Fail(errno) => cx.regs.rax = errno.as_ret(),
        Outcome::Again => return exit::go_back(cx, rip),
    }
    exit::end(cx);
    if !long_mode {
        cx.regs.rax &= 0xffff_ffff;
    }
}

/// Calls the handler of `number`.
#[inline(always)]
fn route(cx: &mut Context<'_>, number: u64) -> Outcome {
    let Ok(number) = u32::try_from(number) else { return Outcome::Fail(Errno::ENOSYS) };
    match number {
        hypercall::HYPERVISOR_MULTICALL => calls::multicall(cx),
        hypercall::HYPERVISOR_XEN_VERSION => calls::xen_version::xen_version(cx),
        hypercall::HYPERVISOR_SET_TIMER_OP => calls::set_timer_op::set_timer_op(cx),
        hypercall::HYPERVISOR_SCHED_OP => calls::sched_op::sched_op(cx),
        hypercall::HYPERVISOR_EVENT_CHANNEL_OP => calls::event_channel_op::event_channel_op(cx),
        hypercall::HYPERVISOR_MEMORY_OP => calls::memory_op::memory_op(cx),
        hypercall::HYPERVISOR_GRANT_TABLE_OP => grant_table_op(cx),
        hypercall::HYPERVISOR_VCPU_OP => calls::vcpu_op::vcpu_op(cx),
        hypercall::HYPERVISOR_VM_ASSIST => calls::vm_assist::vm_assist(cx),
        hypercall::HYPERVISOR_CONSOLE_IO => calls::console_io::console_io(cx),
        hypercall::HYPERVISOR_HVM_OP => calls::hvm_op::hvm_op(cx),
        hypercall::HYPERVISOR_PLATFORM_OP => calls::platform_op::platform_op(cx),
        hypercall::HYPERVISOR_SYSCTL => calls::sysctl::sysctl(cx),
        hypercall::HYPERVISOR_DOMCTL => calls::domctl::domctl(cx),
        hypercall::HYPERVISOR_PHYSDEV_OP => calls::physdev_op::from_container(cx),
        hypercall::HYPERVISOR_MMUEXT_OP => calls::mmuext_op::of_others(cx),
        _ => Outcome::Fail(Errno::ENOSYS),
    }
}

/// Of the operations on grants, those that there are for guests with frame numbers of their own, as in Xen.
pub(super) fn grant_table_op(cx: &mut Context<'_>) -> Outcome {
    let [command, ..] = cx.args();
    #[allow(clippy::cast_possible_truncation, reason = "an unsigned int in the ABI")]
    match command as u32 {
        grant_table::GNTTABOP_MAP_GRANT_REF
        | grant_table::GNTTABOP_UNMAP_GRANT_REF
        | grant_table::GNTTABOP_SETUP_TABLE
        | grant_table::GNTTABOP_COPY
        | grant_table::GNTTABOP_QUERY_SIZE
        | grant_table::GNTTABOP_SET_VERSION
        | grant_table::GNTTABOP_GET_VERSION
        | grant_table::GNTTABOP_SWAP_GRANT_REF => calls::grant_table_op::grant_table_op(cx),
        _ => Outcome::Fail(Errno::ENOSYS),
    }
}

/// Calls the handler of `number` for `multicall`.
#[cold]
#[inline(never)]
pub fn dispatch(cx: &mut Context<'_>, number: u64) -> Outcome {
    route(cx, number)
}

//! The hypercall table: one file per call, and the way in and out.

use logic::{hypercall::Outcome, lock::Held, num, regs::GuestRegs};
use xen_abi::{errno::Errno, hypercall, trace::TRC_PV_HYPERCALL_V2};

use crate::{
    cpu::{Context, Cpu},
    trace,
};

mod batch;
mod bitmap;
mod callback_op;
mod console_io;
mod domctl;
mod event_channel_op;
mod fpu_taskswitch;
mod get_debugreg;
mod grant_table_op;
mod iret;
mod legacy;
mod mca;
mod memory_op;
mod mmu_update;
mod mmuext_op;
mod multicall;
mod physdev_op;
mod platform_op;
mod sched_op;
mod set_debugreg;
mod set_gdt;
mod set_segment_base;
mod set_timer_op;
mod set_trap_table;
mod stack_switch;
mod sysctl;
mod update_descriptor;
mod update_va_mapping;
mod vcpu_mask;
mod vcpu_op;
pub mod vm_assist;
pub mod xen_version;

/// Length of the `syscall` instruction that a continuation goes back over.
const SYSCALL_LENGTH: u64 = 2;

/// A `syscall` from a guest's kernel: number in rax, result in rax.
///
/// The calls that come to a few instructions are made here, so that the compiler leaves out what of a context they do not
/// use; all others in [`general`].
#[inline(always)]
pub fn enter(cpu: &mut Cpu, regs: &mut GuestRegs, mut held: Held<'_, 0>) {
    const XEN_VERSION: u64 = hypercall::HYPERVISOR_XEN_VERSION as u64;
    const STACK_SWITCH: u64 = hypercall::HYPERVISOR_STACK_SWITCH as u64;
    const FPU_TASKSWITCH: u64 = hypercall::HYPERVISOR_FPU_TASKSWITCH as u64;
    let Some(mut cx) = cpu.context(regs, held.again()) else { return };
    let outcome = match cx.regs.rax {
        XEN_VERSION if let Some(version) = xen_version::at_once(cx.regs.rdi) => Outcome::Done(version),
        STACK_SWITCH => stack_switch::stack_switch(&mut cx),
        FPU_TASKSWITCH => fpu_taskswitch::fpu_taskswitch(&mut cx),
        _ => return general(cpu, regs, held),
    };
    finish(regs, outcome);
}

/// The result of a call goes to the guest, or the guest goes back to make it again.
#[inline(always)]
fn finish(regs: &mut GuestRegs, outcome: Outcome) {
    match outcome {
        Outcome::Done(value) => regs.rax = value,
        Outcome::Fail(errno) => regs.rax = errno.as_ret(),
        Outcome::Again => regs.rip = regs.rip.wrapping_sub(SYSCALL_LENGTH),
    }
}

/// [`enter`] with a context.
#[inline(never)]
fn general(cpu: &mut Cpu, regs: &mut GuestRegs, held: Held<'_, 0>) {
    let Some(mut cx) = cpu.context(regs, held) else {
        return;
    };
    let number = cx.regs.rax;
    trace::event(TRC_PV_HYPERCALL_V2, || [num::uint(number)]);
    let outcome = route(&mut cx, number);
    finish(cx.regs, outcome);
}

/// Calls the handler of `number` for `multicall`.
#[inline(never)]
pub fn dispatch(cx: &mut Context<'_>, number: u64) -> Outcome {
    route(cx, number)
}

/// Calls the handler of `number`.
///
/// A `match`, not a table of functions: an indirect branch costs more and can be mistrained.
#[inline(always)]
fn route(cx: &mut Context<'_>, number: u64) -> Outcome {
    let Ok(number) = u32::try_from(number) else {
        return Outcome::Fail(Errno::ENOSYS);
    };
    match number {
        hypercall::HYPERVISOR_SET_TRAP_TABLE => set_trap_table::set_trap_table(cx),
        hypercall::HYPERVISOR_MMU_UPDATE => mmu_update::mmu_update(cx),
        hypercall::HYPERVISOR_SET_GDT => set_gdt::set_gdt(cx),
        hypercall::HYPERVISOR_STACK_SWITCH => stack_switch::stack_switch(cx),
        hypercall::HYPERVISOR_FPU_TASKSWITCH => fpu_taskswitch::fpu_taskswitch(cx),
        hypercall::HYPERVISOR_PLATFORM_OP => platform_op::platform_op(cx),
        hypercall::HYPERVISOR_SET_DEBUGREG => set_debugreg::set_debugreg(cx),
        hypercall::HYPERVISOR_GET_DEBUGREG => get_debugreg::get_debugreg(cx),
        hypercall::HYPERVISOR_UPDATE_DESCRIPTOR => update_descriptor::update_descriptor(cx),
        hypercall::HYPERVISOR_MEMORY_OP => memory_op::memory_op(cx),
        hypercall::HYPERVISOR_MULTICALL => multicall::multicall(cx),
        hypercall::HYPERVISOR_UPDATE_VA_MAPPING => update_va_mapping::update_va_mapping(cx),
        hypercall::HYPERVISOR_SET_TIMER_OP => set_timer_op::set_timer_op(cx),
        hypercall::HYPERVISOR_XEN_VERSION => xen_version::xen_version(cx),
        hypercall::HYPERVISOR_CONSOLE_IO => console_io::console_io(cx),
        hypercall::HYPERVISOR_GRANT_TABLE_OP => grant_table_op::grant_table_op(cx),
        hypercall::HYPERVISOR_VM_ASSIST => vm_assist::vm_assist(cx),
        hypercall::HYPERVISOR_UPDATE_VA_MAPPING_OTHERDOMAIN => update_va_mapping::other_domain(cx),
        hypercall::HYPERVISOR_IRET => iret::iret(cx),
        hypercall::HYPERVISOR_VCPU_OP => vcpu_op::vcpu_op(cx),
        hypercall::HYPERVISOR_SET_SEGMENT_BASE => set_segment_base::set_segment_base(cx),
        hypercall::HYPERVISOR_MMUEXT_OP => mmuext_op::mmuext_op(cx),
        hypercall::HYPERVISOR_SCHED_OP => sched_op::sched_op(cx),
        hypercall::HYPERVISOR_CALLBACK_OP => callback_op::callback_op(cx),
        hypercall::HYPERVISOR_EVENT_CHANNEL_OP => event_channel_op::event_channel_op(cx),
        hypercall::HYPERVISOR_PHYSDEV_OP => physdev_op::physdev_op(cx),
        hypercall::HYPERVISOR_SYSCTL => sysctl::sysctl(cx),
        hypercall::HYPERVISOR_DOMCTL => domctl::domctl(cx),
        hypercall::HYPERVISOR_MCA => mca::mca(cx),
        hypercall::HYPERVISOR_SET_CALLBACKS => legacy::set_callbacks(cx),
        hypercall::HYPERVISOR_NMI_OP => legacy::nmi_op(cx),
        hypercall::HYPERVISOR_SCHED_OP_COMPAT => legacy::sched(cx),
        hypercall::HYPERVISOR_EVENT_CHANNEL_OP_COMPAT => legacy::event_channel(cx),
        hypercall::HYPERVISOR_PHYSDEV_OP_COMPAT => legacy::physdev(cx),
        _ => Outcome::Fail(Errno::ENOSYS),
    }
}

//! The hypercall table: one file per call, and the way in and out.

use logic::{event::Notify, hypercall::Outcome, lock::Held, num, regs::GuestRegs};
use machine::upcall::Return;
use xen_abi::{errno::Errno, hypercall, trace::TRC_PV_HYPERCALL_V2};

use crate::{
    cpu::{Context, Cpu, Running},
    cpu_loop, event, trace,
};

pub mod batch;
mod bitmap;
mod callback_op;
pub mod console_io;
pub mod domctl;
pub mod event_channel_op;
mod fpu_taskswitch;
mod get_debugreg;
pub mod grant_table_op;
pub mod hvm_op;
pub mod iret;
mod legacy;
mod mca;
pub mod memory_op;
mod mmu_update;
pub mod mmuext_op;
pub mod multicall;
pub mod physdev_op;
pub mod platform_op;
mod policy_arrays;
pub mod sched_op;
mod set_debugreg;
mod set_gdt;
mod set_segment_base;
pub mod set_timer_op;
mod set_trap_table;
mod stack_switch;
pub mod sysctl;
mod update_descriptor;
mod update_va_mapping;
mod vcpu_mask;
pub mod vcpu_op;
pub mod vm_assist;
pub mod xen_version;

pub use multicall::multicall;

/// No hypercall has this number or a higher one.
const END: u64 = hypercall::HYPERVISOR_ARCH_7 as u64 + 1;

/// Length of the `syscall` instruction that a continuation goes back over.
const SYSCALL_LENGTH: u64 = 2;

/// What [`at_once`] made of a call.
pub enum AtOnce {
    /// It is made.
    Done(u64),
    /// It is made, and was an event that somebody may have to hear of: [`tell`].
    Tell(Notify),
    /// It takes more: [`enter`].
    No,
    /// It is `iret`, which has no result: [`iret`].
    Iret,
}

/// A `syscall` from a guest's kernel: number in rax, result in rax. The calls that come to a few instructions are made here,
/// without a context.
#[inline(always)]
pub fn at_once(running: &mut Running, regs: &GuestRegs) -> AtOnce {
    const XEN_VERSION: u64 = hypercall::HYPERVISOR_XEN_VERSION as u64;
    const STACK_SWITCH: u64 = hypercall::HYPERVISOR_STACK_SWITCH as u64;
    const FPU_TASKSWITCH: u64 = hypercall::HYPERVISOR_FPU_TASKSWITCH as u64;
    const EVENT_CHANNEL_OP: u64 = hypercall::HYPERVISOR_EVENT_CHANNEL_OP as u64;
    const MEMORY_OP: u64 = hypercall::HYPERVISOR_MEMORY_OP as u64;
    const IRET: u64 = hypercall::HYPERVISOR_IRET as u64;
    if regs.rax > EVENT_CHANNEL_OP {
        return if regs.rax >= END { AtOnce::Done(Errno::ENOSYS.as_ret()) } else { AtOnce::No };
    }
    match regs.rax {
        XEN_VERSION => xen_version::at_once(regs.rdi).map_or(AtOnce::No, AtOnce::Done),
        STACK_SWITCH => {
            stack_switch::stack_switch(&mut running.state.pv, regs.rdi, regs.rsi);
            AtOnce::Done(0)
        }
        FPU_TASKSWITCH => {
            fpu_taskswitch::fpu_taskswitch(&mut running.state.pv, regs.rdi);
            AtOnce::Done(0)
        }
        EVENT_CHANNEL_OP => match event_channel_op::at_once(&running.domain, regs.rdi, regs.rsi) {
            Some(Notify::NOBODY) => AtOnce::Done(0),
            Some(notify) => AtOnce::Tell(notify),
            None => AtOnce::No,
        },
        MEMORY_OP => memory_op::at_once(&running.domain, regs.rdi, regs.rsi).map_or(AtOnce::No, AtOnce::Done),
        IRET => AtOnce::Iret,
        _ => AtOnce::No,
    }
}

/// The way out after a call.
#[inline(always)]
fn leave(cpu: &mut Cpu, regs: &mut GuestRegs, held: Held<'_, 0>) -> Return {
    cpu_loop::before_guest(cpu, regs, held);
    Return::to(regs)
}

/// The end of a call that sent an event to someone else.
#[inline(never)]
pub fn tell(cpu: &mut Cpu, regs: &mut GuestRegs, notify: Notify, mut held: Held<'_, 0>) -> Return {
    regs.rax = 0;
    if let Some(running) = &cpu.running {
        event::tell(&running.domain, notify, &mut held);
    }
    leave(cpu, regs, held)
}

/// The hypercall `iret`, which is not as simple as that.
#[inline(never)]
pub fn iret(cpu: &mut Cpu, regs: &mut GuestRegs, mut held: Held<'_, 0>) -> Return {
    if let Some(mut cx) = cpu.context(regs, held.again()) {
        let outcome = iret::iret(&mut cx);
        finish(cx.regs, outcome);
    }
    leave(cpu, regs, held)
}

/// A hypercall, of those that have a way of their own here.
#[inline(always)]
pub fn enter(cpu: &mut Cpu, regs: &mut GuestRegs, held: Held<'_, 0>) -> Return {
    const MMU_UPDATE: u64 = hypercall::HYPERVISOR_MMU_UPDATE as u64;
    const MEMORY_OP: u64 = hypercall::HYPERVISOR_MEMORY_OP as u64;
    const UPDATE_VA_MAPPING: u64 = hypercall::HYPERVISOR_UPDATE_VA_MAPPING as u64;
    const SET_TIMER_OP: u64 = hypercall::HYPERVISOR_SET_TIMER_OP as u64;
    const GRANT_TABLE_OP: u64 = hypercall::HYPERVISOR_GRANT_TABLE_OP as u64;
    const MMUEXT_OP: u64 = hypercall::HYPERVISOR_MMUEXT_OP as u64;
    const EVENT_CHANNEL_OP: u64 = hypercall::HYPERVISOR_EVENT_CHANNEL_OP as u64;
    match regs.rax {
        MMU_UPDATE => enter_as::<MMU_UPDATE>(cpu, regs, held),
        MEMORY_OP => enter_as::<MEMORY_OP>(cpu, regs, held),
        UPDATE_VA_MAPPING => enter_as::<UPDATE_VA_MAPPING>(cpu, regs, held),
        SET_TIMER_OP => enter_as::<SET_TIMER_OP>(cpu, regs, held),
        GRANT_TABLE_OP => enter_as::<GRANT_TABLE_OP>(cpu, regs, held),
        MMUEXT_OP => enter_as::<MMUEXT_OP>(cpu, regs, held),
        EVENT_CHANNEL_OP => enter_as::<EVENT_CHANNEL_OP>(cpu, regs, held),
        _ => enter_as::<ANY>(cpu, regs, held),
    }
}

/// [`enter_as`] for the calls that are looked up.
const ANY: u64 = u64::MAX;

/// A hypercall that the compiler knows, or [`ANY`].
#[inline(never)]
fn enter_as<const NUMBER: u64>(cpu: &mut Cpu, regs: &mut GuestRegs, mut held: Held<'_, 0>) -> Return {
    let Some(running) = &mut cpu.running else { return leave(cpu, regs, held) };
    let number = if NUMBER == ANY { regs.rax } else { NUMBER };
    trace::event(TRC_PV_HYPERCALL_V2, || [num::uint(number)]);
    let outcome = match at_its_place::<NUMBER>(running, regs, held.again()) {
        Some(value) => Outcome::Done(value),
        None => route(&mut running.context(&mut cpu.local, regs, held.again()), number),
    };
    if finish(regs, outcome)
        // Among its calls may have been an `iret`.
        && number != u64::from(hypercall::HYPERVISOR_MULTICALL)
        && cpu_loop::is_quiet(&cpu.local, running)
        && let Some(way) = Return::in_place(regs)
    {
        return way;
    }
    leave(cpu, regs, held)
}

/// A call that is made without a context where it has a way of its own: its result.
#[inline(always)]
fn at_its_place<const NUMBER: u64>(running: &mut Running, regs: &GuestRegs, held: Held<'_, 0>) -> Option<u64> {
    const GRANT_TABLE_OP: u64 = hypercall::HYPERVISOR_GRANT_TABLE_OP as u64;
    if NUMBER == GRANT_TABLE_OP { grant_table_op::at_once(running, regs, held) } else { None }
}

/// The result of a call goes to the guest, or the guest goes back to make it again. Whether it goes on behind the call.
#[inline(always)]
fn finish(regs: &mut GuestRegs, outcome: Outcome) -> bool {
    match outcome {
        Outcome::Done(value) => regs.rax = value,
        Outcome::Fail(errno) => regs.rax = errno.as_ret(),
        Outcome::Again => regs.rip = regs.rip.wrapping_sub(SYSCALL_LENGTH),
    }
    outcome != Outcome::Again
}

/// Calls the handler of `number` for `multicall`.
#[inline(never)]
pub fn dispatch(cx: &mut Context<'_>, number: u64) -> Outcome {
    if cx.state.pvh.is_some() { crate::hvm::dispatch(cx, number) } else { route(cx, number) }
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
        hypercall::HYPERVISOR_STACK_SWITCH => {
            let [selector, pointer, ..] = cx.args();
            stack_switch::stack_switch(&mut cx.state.pv, selector, pointer);
            Outcome::OK
        }
        hypercall::HYPERVISOR_FPU_TASKSWITCH => {
            let [set, ..] = cx.args();
            fpu_taskswitch::fpu_taskswitch(&mut cx.state.pv, set);
            Outcome::OK
        }
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
        hypercall::HYPERVISOR_HVM_OP => hvm_op::hvm_op(cx),
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

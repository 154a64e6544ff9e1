//! Traps of PV guests: what comes in from the entry code, and how the guest's own handlers are entered.

pub mod crash;
pub mod deliver;
pub mod ldt;
pub mod mode;
pub mod segments;
pub mod state;

mod cpuid;
mod debug;
mod general_protection;
mod invalid_opcode;
mod io;
mod msr;
mod page_fault;
mod privileged;

use logic::lock::Held;
use logic::regs::{GuestRegs, TRAP_SYSCALL};
use logic::trap::vector;
use machine::upcall::{Call, Exception};

use crate::cpu::{Context, Cpu};
use crate::hypercall;

pub use cpuid::report_safety;
pub use privileged::{guest_cr4, set_task_switched, write_debug_register};
pub use state::PvState;

/// `syscall` or `sysenter`: a hypercall from a guest's kernel, the guest's own system call from its user mode.
#[inline(always)]
pub fn call(cpu: &mut Cpu, regs: &mut GuestRegs, call: Call, held: Held<'_, 0>) {
    let from_kernel = cpu.running.as_ref().is_some_and(|running| running.state.pv.in_kernel);
    if from_kernel && call == Call::Syscall64 {
        hypercall::enter(cpu, regs, held);
    } else {
        user_call(cpu, regs, call, held);
    }
}

#[inline(never)]
fn user_call(cpu: &mut Cpu, regs: &mut GuestRegs, call: Call, held: Held<'_, 0>) {
    if let Some(mut cx) = cpu.context(regs, held) {
        deliver::user_call(&mut cx, call);
    }
}

/// An exception in a guest. Page faults are by far the most frequent ones.
#[inline(always)]
pub fn exception(cpu: &mut Cpu, regs: &mut GuestRegs, exception: Exception, held: Held<'_, 0>) {
    if exception.vector == vector::PAGE_FAULT {
        page_fault(cpu, regs, exception.detail, exception.error_code, held);
    } else {
        rare_exception(cpu, regs, exception, held);
    }
}

#[inline(never)]
fn page_fault(cpu: &mut Cpu, regs: &mut GuestRegs, address: u64, error_code: u32, held: Held<'_, 0>) {
    if let Some(mut cx) = cpu.context(regs, held) {
        page_fault::page_fault(&mut cx, address, error_code);
    }
}

#[inline(never)]
fn rare_exception(cpu: &mut Cpu, regs: &mut GuestRegs, exception: Exception, held: Held<'_, 0>) {
    let Some(mut cx) = cpu.context(regs, held) else {
        return;
    };
    let Exception { vector, error_code, detail } = exception;
    match vector {
        vector::DEBUG => debug::debug(&mut cx, detail),
        vector::INVALID_OPCODE => invalid_opcode::invalid_opcode(&mut cx),
        vector::DEVICE_NOT_AVAILABLE => device_not_available(&mut cx),
        vector::GENERAL_PROTECTION => general_protection::general_protection(&mut cx, error_code),
        _ => {
            let code = vector::has_error_code(vector).then_some(error_code);
            deliver::exception(&mut cx, vector, code);
        }
    }
}

/// The return to a guest faulted: a selector or an address is not what its tables hold. As in Xen this counts as a fault
/// of the guest in the state that was tried; the failsafe callback is for data selectors ([`deliver::bad_selectors`]).
pub fn bad_return(cpu: &mut Cpu, regs: &mut GuestRegs, fault: Exception, held: Held<'_, 0>) {
    regs.entry_vector &= !TRAP_SYSCALL;
    exception(cpu, regs, fault, held);
}

/// Last before the return to a guest: a waiting NMI, then a waiting event.
#[inline]
pub fn before_guest(cx: &mut Context<'_>) {
    deliver::nmi_if_pending(cx);
    deliver::event_if_pending(cx);
}

/// The guest used the FPU while its own CR0.TS is set.
fn device_not_available(cx: &mut Context<'_>) {
    if cx.state.pv.task_switched {
        machine::arch::x86_64::guest_registers::set_task_switched(false);
        cx.state.pv.task_switched = false;
        deliver::exception(cx, vector::DEVICE_NOT_AVAILABLE, None);
    }
}

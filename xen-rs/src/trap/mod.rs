//! Traps of PV guests: what comes in from the entry code, and how the guest's own handlers are entered.

pub mod crash;
pub mod deliver;
pub mod ldt;
pub mod mode;
pub mod segments;
pub mod state;

pub mod cpuid;
mod debug;
mod general_protection;
mod invalid_opcode;
pub mod io;
pub mod msr;
mod page_fault;
mod privileged;

use logic::event::Notify;
use logic::lock::Held;
use logic::regs::{GuestRegs, TRAP_SYSCALL};
use logic::trap::vector;
use machine::upcall::{Call, Exception, Return};

use crate::cpu::{Context, Cpu};
use crate::cpu_loop;
use crate::hypercall::{self, AtOnce};

pub use cpuid::report_safety;
pub use deliver::event_at_once;
pub use privileged::{guest_cr4, set_task_switched, write_debug_register};
pub use state::PvState;

/// `syscall` or `sysenter`: a hypercall from a guest's kernel, the guest's own system call from its user mode.
///
/// A hypercall that can be made at once, of a vCPU that nothing waits for, ends here; everything else goes to a function of
/// its own that does not come back, so that the way through here saves no registers.
#[inline(always)]
pub fn call(cpu: &mut Cpu, regs: &mut GuestRegs, call: Call, held: Held<'_, 0>) -> Return {
    let Some(running) = cpu.running.as_mut().filter(|running| running.state.pv.in_kernel && call == Call::Syscall64)
    else {
        return user_call(cpu, regs, call, held);
    };
    match hypercall::at_once(running, regs) {
        AtOnce::Done(result) => regs.rax = result,
        // One's own events are seen on the way out.
        AtOnce::Tell(notify) if notify == Notify::of(Some(running.vcpu.id), None) => {
            regs.rax = 0;
            return cpu_loop::leave(cpu, regs, held);
        }
        AtOnce::Tell(notify) => return hypercall::tell(cpu, regs, notify, held),
        AtOnce::Iret => return hypercall::iret(cpu, regs, held),
        AtOnce::No => return hypercall::enter(cpu, regs, held),
    }
    if cpu_loop::is_quiet(&cpu.local, running)
        && let Some(way) = Return::in_place(regs)
    {
        return way;
    }
    cpu_loop::leave(cpu, regs, held)
}

#[inline(never)]
fn user_call(cpu: &mut Cpu, regs: &mut GuestRegs, call: Call, mut held: Held<'_, 0>) -> Return {
    if let Some(mut cx) = cpu.context(regs, held.again()) {
        deliver::user_call(&mut cx, call);
    }
    cpu_loop::before_guest(cpu, regs, held);
    Return::to(regs)
}

/// An exception in a guest. Page faults are by far the most frequent ones.
#[inline(always)]
pub fn exception(cpu: &mut Cpu, regs: &mut GuestRegs, exception: Exception, held: Held<'_, 0>) -> Return {
    match exception.vector {
        vector::PAGE_FAULT => page_fault(cpu, regs, exception.detail, exception.error_code, held),
        vector::INVALID_OPCODE => invalid_opcode(cpu, regs, held),
        vector::GENERAL_PROTECTION => general_protection(cpu, regs, exception.error_code, held),
        _ => rare_exception(cpu, regs, exception.vector, exception.error_code, exception.detail, held),
    }
}

/// An invalid opcode, which most often asks for CPUID.
#[inline(never)]
fn invalid_opcode(cpu: &mut Cpu, regs: &mut GuestRegs, held: Held<'_, 0>) -> Return {
    let Some(running) = cpu.running.as_ref().filter(|running| invalid_opcode::at_once(running, regs)) else {
        return rare_exception(cpu, regs, vector::INVALID_OPCODE, 0, 0, held);
    };
    if cpu_loop::is_quiet(&cpu.local, running) {
        return Return::to(regs);
    }
    cpu_loop::settle(cpu, regs, held)
}

/// A general protection fault, which is most often a privileged instruction.
#[inline(never)]
fn general_protection(cpu: &mut Cpu, regs: &mut GuestRegs, error_code: u32, held: Held<'_, 0>) -> Return {
    if let Some(running) = &cpu.running
        && general_protection::at_once(running, regs, error_code)
    {
        if cpu_loop::is_quiet(&cpu.local, running) {
            return Return::to(regs).keeping();
        }
        return cpu_loop::settle(cpu, regs, held);
    }
    rare_exception(cpu, regs, vector::GENERAL_PROTECTION, error_code, 0, held)
}

/// A page fault, which a guest's kernel most often takes as its own. Its handler masks events: nothing is to be delivered then.
#[inline(never)]
fn page_fault(cpu: &mut Cpu, regs: &mut GuestRegs, address: u64, error_code: u32, held: Held<'_, 0>) -> Return {
    let Some(running) = &mut cpu.running else { return any_page_fault(cpu, regs, address, error_code, held) };
    if page_fault::is_surely_the_guests(error_code)
        && cpu_loop::is_undisturbed(&cpu.local, running)
        && deliver::page_fault_at_once(running, regs, address, error_code)
    {
        return Return::to(regs).keeping();
    }
    any_page_fault(cpu, regs, address, error_code, held)
}

#[inline(never)]
fn any_page_fault(cpu: &mut Cpu, regs: &mut GuestRegs, address: u64, error_code: u32, mut held: Held<'_, 0>) -> Return {
    if let Some(mut cx) = cpu.context(regs, held.again()) {
        page_fault::page_fault(&mut cx, address, error_code);
    }
    cpu_loop::before_guest(cpu, regs, held);
    Return::to(regs)
}

#[inline(never)]
fn rare_exception(
    cpu: &mut Cpu,
    regs: &mut GuestRegs,
    vector: u8,
    error_code: u32,
    detail: u64,
    mut held: Held<'_, 0>,
) -> Return {
    if let Some(mut cx) = cpu.context(regs, held.again()) {
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
    cpu_loop::before_guest(cpu, regs, held);
    Return::to(regs)
}

/// The return to a guest faulted: a selector or an address is not what its tables hold. As in Xen this counts as a fault
/// of the guest in the state that was tried; the failsafe callback is for data selectors ([`deliver::bad_selectors`]).
pub fn bad_return(cpu: &mut Cpu, regs: &mut GuestRegs, fault: Exception, held: Held<'_, 0>) -> Return {
    regs.entry_vector &= !TRAP_SYSCALL;
    exception(cpu, regs, fault, held)
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

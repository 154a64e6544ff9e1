//! What guests raise: exceptions, system calls, failed returns; and what is delivered to them.

use logic::{lock::Held, regs::GuestRegs};
use machine::upcall::{Call, Exception};

use crate::{cpu::Cpu, hypercall};

/// `syscall` or `sysenter`: a hypercall from a guest's kernel, the guest's own system call from its user mode.
pub fn call(cpu: &mut Cpu, regs: &mut GuestRegs, call: Call, held: Held<'_, 0>) {
    match call {
        Call::Syscall64 => hypercall::enter(cpu, regs, held),
        Call::Syscall32 | Call::Sysenter => {}
    }
}

/// An exception in a guest.
pub fn exception(_cpu: &mut Cpu, _regs: &mut GuestRegs, _exception: Exception, _held: Held<'_, 0>) {}

/// The return to a guest faulted: a selector is not what its tables hold.
pub fn bad_return(_cpu: &mut Cpu, _regs: &mut GuestRegs, _exception: Exception, _held: Held<'_, 0>) {}

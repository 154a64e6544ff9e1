//! Running PVH vCPUs: what is delivered before each entry, and who answers each exit.
//!
//! A CPU is in this loop as long as the scheduler gives it PVH vCPUs. It lies behind the scheduler's choice, so the ways of
//! PV guests in and out do not know of it.

use logic::{hvm::length::Instruction, lock::Held, regs::GuestRegs, time::Nanos};
use machine::{
    arch::x86_64::interrupts,
    container::{Event, EventKind, Exit},
};

use super::{apic, cpuid, exit, hypercall, upcall, vcpu::Nmis};
use crate::{
    cpu::{Cpu, CpuLocal, Running},
    cpu_loop, time,
};

const NMI_VECTOR: u8 = 2;

/// Runs PVH vCPUs until a PV vCPU is on this CPU. `choose` looks for another vCPU.
pub fn run(
    cpu: &mut Cpu,
    regs: &mut GuestRegs,
    held: &mut Held<'_, 0>,
    choose: fn(&mut Cpu, &mut GuestRegs, &mut Held<'_, 0>),
) {
    // SPIN: each round is one exit of a guest or one choice of the scheduler.
    while let Some(running) = &mut cpu.running
        && running.state.pvh.is_some()
    {
        if !cpu_loop::is_undisturbed(&cpu.local, running) {
            if !cpu_loop::may_run_on(cpu) {
                choose(cpu, regs, held);
                continue;
            }
            if let Some(running) = &mut cpu.running {
                deliver_nmi(&mut cpu.local, running, regs);
            }
        }
        match stay(cpu, regs, held) {
            Left::Quietly => {}
            Left::Calling(next) => hypercall::enter(cpu, regs, next, held),
            Left::By(exit @ (Exit::Interrupt | Exit::Exception { .. })) => {
                // An exception whose delivery raises itself comes out before any interrupt would call the guest out (XSA-156).
                let_interrupts_in(cpu, held);
                if let Some(mut cx) = cpu.context(regs, held.again()) {
                    exit::handle(&mut cx, exit);
                }
            }
            Left::By(exit) => {
                if let Some(mut cx) = cpu.context(regs, held.again()) {
                    exit::handle(&mut cx, exit);
                }
            }
        }
    }
}

#[inline(never)]
fn let_interrupts_in(cpu: &mut Cpu, held: &mut Held<'_, 0>) {
    interrupts::window();
    while let Some(vector) = interrupts::take() {
        cpu_loop::interrupt(cpu, vector, held.again());
    }
}

/// What there is to be done for a guest that came back.
enum Left {
    /// Nothing.
    Quietly,
    /// A hypercall, behind which the guest goes on there, if that is known.
    Calling(Option<u64>),
    /// Whatever it is.
    By(Exit),
}

/// Delivers what waits and runs the guest, as often as it comes back for something that is answered at once.
#[inline(always)]
fn stay(cpu: &mut Cpu, regs: &mut GuestRegs, held: &mut Held<'_, 0>) -> Left {
    let Cpu { local, running } = cpu;
    let Some(running) = running.as_mut() else { return Left::Quietly };
    // SPIN: each round is an exit of the guest's.
    loop {
        if !running.vcpu.inbox.is_empty() {
            apic::receive(running);
            // An NMI is to be delivered first, and a vCPU that was sent INIT runs no further.
            if !cpu_loop::is_undisturbed(local, running) {
                return Left::Quietly;
            }
        }
        let Some(pvh) = running.state.pvh.as_deref_mut() else { return Left::Quietly };
        upcall::offer(pvh, &running.vcpu, &running.domain, regs);
        pvh.container.enter(regs);
        if pvh.container.is_hypercall() {
            let Some(next) = exit::next_at_once(pvh, regs, Instruction::Hypercall) else { return Left::Calling(None) };
            if !hypercall::at_once(local, running, regs, next, held) {
                return Left::Calling(Some(next));
            }
        } else if !(pvh.container.is_cpuid() && cpuid::at_once(pvh, &running.domain, &running.vcpu, regs)) {
            return Left::By(pvh.container.exit(regs));
        }
        if !cpu_loop::is_undisturbed(local, running) {
            return Left::Quietly;
        }
    }
}

/// An NMI is delivered unless the handler of another one runs.
#[cold]
fn deliver_nmi(local: &mut CpuLocal, running: &mut Running, regs: &GuestRegs) {
    /// Time for some instructions.
    const SOON: Nanos = Nanos(100_000);
    let Some(pvh) = running.state.pvh.as_deref_mut() else { return };
    if pvh.container.is_in_shadow() {
        // Behind `mov ss` it would be written to where the stack pointer still points (SDM vol. 3A, 6.8.3).
        return cpu_loop::arm(&mut local.sched.timer, time::now().after(SOON));
    }
    if running.vcpu.seat.ready.nmi_pending() && pvh.nmis.are_taken(regs.rip) && !pvh.container.has_pending() {
        running.vcpu.seat.ready.clear_nmi();
        pvh.nmis = Nmis::HeldOff;
        pvh.container.inject(Event { kind: EventKind::Nmi, vector: NMI_VECTOR, error: None });
        pvh.container.want_nmi_window();
    }
}

//! Which vCPU runs next on this CPU: waking, kicking, switching, idling.
//!
//! A CPU comes here last before every return to a guest ([`before_guest`]). As long as nothing wants its attention that
//! costs two reads; else it settles accounts, puts its vCPU back, takes the next one, or waits for an interrupt.

mod cap;
mod idle;
mod limit;
pub mod pools;
mod queues;
mod seat;
mod switch;
mod timer;

pub use cap::set_cap;
pub use idle::idle_time;
pub use queues::{Room, event, kick, nudge, pause, release, resettle, unblock, unpause, waiting, wake};
pub use seat::Seat;
pub use timer::{CpuTimer, Key, arm, forget, set_timer};

use core::sync::atomic::{AtomicBool, Ordering};

use logic::{lock::Held, regs::GuestRegs, time::Nanos};
use machine::{
    arch::x86_64::{interrupts, lapic, percpu},
    upcall::Return,
};

use xen_abi::ids::{DomId, VcpuId};

use crate::{
    cpu::{Cpu, CpuLocal, Running},
    hvm, trap,
    vcpu::Vcpu,
};

/// Takes the interrupts that wait, and goes on: in the middle of work that cannot be left half done and is longer than an
/// interrupt should wait. Nobody holds a lock, as `held` proves.
pub fn breathe(_held: &mut Held<'_, 0>) {
    interrupts::window();
    if interrupts::any() {
        // What has arrived is handed out before this CPU goes back to its guest.
        queues::look(percpu::number()).store(true, Ordering::Relaxed);
    }
}

/// What one CPU knows about its own time.
#[derive(Debug)]
pub struct CpuSched {
    /// The timer of the CPU.
    pub timer: CpuTimer,
    /// When the running vCPU came here.
    pub started: Nanos,
    /// When the running vCPU's account was settled last.
    pub since: Nanos,
    /// When others should get a chance.
    pub slice_end: Option<Nanos>,
    /// The running vCPU gives way although it need not.
    pub yields: bool,
    /// The vCPU that ran here last, as domain and number.
    pub last: (DomId, VcpuId),
    /// Look for another vCPU before the next return to a guest: said by this CPU or, with a kick, by another one.
    look: &'static AtomicBool,
}

impl CpuSched {
    /// Of a CPU that has not run anything.
    #[must_use]
    pub fn new(cpu: u32) -> Self {
        let look = queues::look(cpu);
        Self {
            timer: CpuTimer::new(),
            started: Nanos::ZERO,
            since: Nanos::ZERO,
            slice_end: None,
            yields: false,
            last: (DomId::IDLE, VcpuId(0)),
            look,
        }
    }

    /// Another vCPU may be due before the next return to a guest.
    pub fn reschedule(&self) {
        self.look.store(true, Ordering::Relaxed);
    }
}

/// Whether no CPU owns its private state.
#[must_use]
pub fn is_parked(vcpu: &Vcpu, held: &mut Held<'_, 0>) -> bool {
    vcpu.parked.lock(held).0.is_some()
}

/// Makes a CPU look around before its next return to a guest; one that is in a guest has to be kicked, too.
pub fn look_again(cpu: u32) {
    queues::look(cpu).store(true, Ordering::Relaxed);
}

/// An interrupt arrived for the hypervisor: a timer or a device.
pub fn interrupt(cpu: &mut Cpu, vector: u8, mut held: Held<'_, 0>) {
    match vector {
        lapic::TIMER => timer::expire(cpu, &mut held),
        _ => crate::irq::interrupt(&mut cpu.local, vector, &mut held),
    }
}

/// The last thing before every return to a guest: whatever is pending for this CPU, the choice of the vCPU, its events.
#[inline(always)]
pub fn before_guest(cpu: &mut Cpu, regs: &mut GuestRegs, held: Held<'_, 0>) {
    if !cpu.running.as_ref().is_some_and(|running| is_quiet(&cpu.local, running)) {
        look_around(cpu, regs, held);
    }
}

/// [`before_guest`] where something waits, and the return itself, after a [`Call::Syscall64`](machine::upcall::Call) or
/// exception that has left the registers alone that a called function preserves.
#[inline(never)]
pub fn leave(cpu: &mut Cpu, regs: &mut GuestRegs, held: Held<'_, 0>) -> Return {
    if let Some(running) = &cpu.running
        && is_undisturbed(&cpu.local, running)
        && trap::event_at_once(running, regs)
    {
        return Return::to(regs).keeping();
    }
    settle(cpu, regs, held)
}

/// [`before_guest`] where something waits, and the return itself.
#[cold]
#[inline(never)]
pub fn settle(cpu: &mut Cpu, regs: &mut GuestRegs, held: Held<'_, 0>) -> Return {
    look_around(cpu, regs, held);
    Return::to(regs)
}

/// Whether nothing but events stands between the running vCPU and its guest.
#[inline(always)]
pub fn is_undisturbed(cpu: &CpuLocal, running: &Running) -> bool {
    !cpu.sched.look.load(Ordering::Acquire) && running.vcpu.seat.ready.is_undisturbed()
}

/// Whether the running vCPU may go on and nothing is to be delivered to it.
#[inline(always)]
pub fn is_quiet(cpu: &CpuLocal, running: &Running) -> bool {
    is_undisturbed(cpu, running) && !running.vcpu.info.get().needs_delivery()
}

/// Whether there is no reason to look for another vCPU.
#[inline(always)]
pub fn may_run_on(cpu: &Cpu) -> bool {
    let Some(running) = &cpu.running else { return false };
    !cpu.local.sched.look.load(Ordering::Acquire) && running.vcpu.seat.ready.is_runnable()
}

#[cold]
#[inline(never)]
fn look_around(cpu: &mut Cpu, regs: &mut GuestRegs, mut held: Held<'_, 0>) {
    loop {
        if may_run_on(cpu) {
            if let Some(mut cx) = cpu.context(regs, held.again()) {
                trap::before_guest(&mut cx);
            }
            // What was delivered may have been the end of it.
            if may_run_on(cpu) {
                return;
            }
        }
        switch::choose(cpu, regs, &mut held);
        if cpu.running.as_ref().is_some_and(|running| running.state.pvh.is_some()) {
            hvm::run(cpu, regs, &mut held, switch::choose);
        }
        if let Some(running) = &cpu.running
            && is_quiet(&cpu.local, running)
        {
            return;
        }
    }
}

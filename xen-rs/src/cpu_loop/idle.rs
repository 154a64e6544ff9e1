//! A CPU without a vCPU waits for an interrupt.

use logic::{
    lock::Held,
    sched::{RunClock, Runstate},
    time::Nanos,
};
use machine::arch::x86_64::interrupts;

use super::{
    queues::{self, MAX_CPUS},
    timer,
};
use crate::{cpu::Cpu, debug_keys, time};

/// The CPUs' clocks, as if each idle CPU ran a vCPU of its own.
static CLOCKS: [RunClock; MAX_CPUS] = [const { RunClock::new(Nanos(0)) }; MAX_CPUS];

fn clock(cpu: u32) -> &'static RunClock {
    &CLOCKS[cpu as usize % MAX_CPUS]
}

/// For how long a CPU has had nothing to run, nanoseconds.
#[must_use]
pub fn idle_time(cpu: u32) -> u64 {
    clock(cpu).at(time::now()).time[Runstate::Running as usize]
}

/// Waits until something may have come for this CPU to run.
pub(super) fn wait(cpu: &mut Cpu, held: &mut Held<'_, 0>) {
    let id = cpu.local.id;
    queues::of(id).lock(held).0.idle(queues::slot(id));
    queues::set_idle(id, true);
    clock(id).change(Runstate::Running, time::now());
    timer::rearm(cpu, held);
    // The domain that ran last may be on its way out.
    machine::mem::tlb::load_idle_root();
    loop {
        while let Some(vector) = interrupts::take() {
            super::interrupt(cpu, vector, held.again());
        }
        machine::mailbox::poll();
        if queues::wants_look(id) || queues::of(id).lock(held).0.has(queues::slot(id), queues::fits(id)) {
            break;
        }
        // Nothing better to do: clean memory, in small pieces.
        if crate::memory::scrub_some(held) {
            interrupts::window();
            continue;
        }
        interrupts::wait();
    }
    clock(id).change(Runstate::Runnable, time::now());
    queues::looks(id);
    debug_keys::answer_idle(id);
    queues::set_idle(id, false);
}

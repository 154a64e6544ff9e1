//! A CPU without a vCPU waits for an interrupt.

use logic::lock::Held;
use machine::arch::x86_64::interrupts;

use super::{queues, timer};
use crate::cpu::Cpu;

/// Waits until something may have come for this CPU to run.
pub(super) fn wait(cpu: &mut Cpu, held: &mut Held<'_, 0>) {
    let id = cpu.local.id;
    queues::of(id).lock(held).0.idle(queues::slot(id));
    queues::set_idle(id, true);
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
    queues::looks(id);
    queues::set_idle(id, false);
}

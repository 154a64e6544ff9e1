//! `HYPERVISOR_set_timer_op`: the calling vCPU's one-shot timer.

use logic::{hypercall::Outcome, time::Nanos};

use crate::{cpu::Context, time};

/// A time this far away was computed from a wrapped number: 2^50 ns are 13 days.
const TOO_FAR: Nanos = Nanos(1 << 50);
/// What such a time becomes, as Xen does: soon, but not so soon that a guest that means "never" burns the CPU.
const INSTEAD: Nanos = Nanos::from_millis(100);

/// The hypercall: rdi is the system time, 0 for none.
pub fn set_timer_op(cx: &mut Context<'_>) -> Outcome {
    let [timeout, ..] = cx.args();
    if timeout == 0 {
        cx.state.timers.singleshot = None;
        return Outcome::OK;
    }
    let now = time::now();
    let deadline = Nanos(timeout);
    let deadline = if deadline.since(now) >= TOO_FAR { now.after(INSTEAD) } else { deadline };
    set_singleshot(cx, deadline, now);
    Outcome::OK
}

/// Sets the one-shot timer; one whose time has come fires now.
pub(super) fn set_singleshot(cx: &mut Context<'_>, deadline: Nanos, now: Nanos) {
    if deadline <= now {
        cx.state.timers.singleshot = None;
        crate::event::raise_virq(cx.domain, cx.vcpu.id, xen_abi::hypercall::VIRQ_TIMER, &mut cx.held);
    } else {
        cx.state.timers.singleshot = Some(deadline);
        crate::cpu_loop::arm(&mut cx.cpu.sched.timer, deadline);
    }
}

//! `HYPERVISOR_set_timer_op`: the calling vCPU's one-shot timer.

use logic::{
    hypercall::Outcome,
    time::{Nanos, VcpuTimers},
};

use crate::{
    cpu::Context,
    cpu_loop::{self, CpuTimer},
    time,
};

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
    set_singleshot(cx, meant(timeout, now), now);
    Outcome::OK
}

/// The same without a context, for a time that has not come. False: nothing is done.
#[inline(always)]
pub fn at_once(timers: &mut VcpuTimers, timer: &mut CpuTimer, timeout: u64) -> bool {
    if timeout == 0 {
        timers.singleshot = None;
        return true;
    }
    let now = time::now();
    let deadline = meant(timeout, now);
    if deadline <= now {
        return false;
    }
    timers.singleshot = Some(deadline);
    cpu_loop::arm(timer, deadline);
    true
}

/// The time that a guest's number means.
#[inline(always)]
fn meant(timeout: u64, now: Nanos) -> Nanos {
    let deadline = Nanos(timeout);
    if deadline.since(now) >= TOO_FAR { now.after(INSTEAD) } else { deadline }
}

/// Sets the one-shot timer; one whose time has come fires now.
pub(super) fn set_singleshot(cx: &mut Context<'_>, deadline: Nanos, now: Nanos) {
    if deadline <= now {
        cx.state.timers.singleshot = None;
        crate::event::raise_virq(cx.domain, cx.vcpu.id, xen_abi::hypercall::VIRQ_TIMER, &mut cx.held);
    } else {
        cx.state.timers.singleshot = Some(deadline);
        cpu_loop::arm(&mut cx.cpu.sched.timer, deadline);
    }
}

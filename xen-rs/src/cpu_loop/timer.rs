//! The one timer of each CPU serves the end of a slice, the running vCPU's timers, and those of vCPUs parked here.
//!
//! While a vCPU runs its timers are in its state alone, so setting one costs at most one write to the APIC; only when it
//! is put aside does the earliest go on a queue. It is left there when the vCPU runs again, and does no harm on whichever
//! CPU's queue: whoever finds it looks at the vCPU's own timers. With its domain it goes ([`forget`]).

use logic::{
    lock::{Held, rank},
    time::{Nanos, TimerQueue, VcpuTimers},
};
use machine::arch::x86_64::lapic;
use xen_abi::{
    hypercall::VIRQ_TIMER,
    ids::{DomId, VcpuId},
};

use super::{cap, queues::MAX_CPUS};
use crate::{
    cpu::Cpu,
    domain::{self, Domain},
    event,
    sync::Lock,
    time,
    vcpu::Vcpu,
    watchdog::Watchdogs,
};

/// Whose deadline is on a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// A vCPU's that does not run.
    Parked(DomId, VcpuId),
    /// One of a domain's watchdogs.
    Watchdog(DomId, u32),
    /// The end of a capped domain's period.
    Budget(DomId),
    /// An interrupt's that is masked until it was served, by the hypervisor's number.
    Interrupt(u32),
}

static QUEUES: [Lock<TimerQueue<Key>, { rank::TIMER }>; MAX_CPUS] = [const { Lock::new(TimerQueue::new()) }; MAX_CPUS];

/// What this CPU's timer was set to.
#[derive(Debug)]
pub struct CpuTimer {
    /// It fires then, or earlier; [`Nanos::NEVER`]: it is off.
    programmed: Nanos,
}

impl CpuTimer {
    /// Off.
    #[must_use]
    pub const fn new() -> Self {
        Self { programmed: Nanos::NEVER }
    }
}

fn queue(cpu: u32) -> &'static Lock<TimerQueue<Key>, { rank::TIMER }> {
    &QUEUES[cpu as usize % MAX_CPUS]
}

/// Has this CPU's timer fire by `deadline`.
#[inline]
pub fn arm(timer: &mut CpuTimer, deadline: Nanos) {
    // A timer that fires too early is set anew then: cheaper than to move it back each time.
    if deadline < timer.programmed {
        timer.programmed = deadline;
        lapic::set_timer(Some(time::ticks_at(deadline)));
    }
}

/// Sets the timer to the earliest of all that matters to this CPU.
pub(super) fn rearm(cpu: &mut Cpu, held: &mut Held<'_, 0>) {
    let parked = queue(cpu.local.id).lock(held).0.next();
    let running = cpu.running.as_ref().and_then(|running| running.state.timers.next());
    let sched = &mut cpu.local.sched;
    if let Some(deadline) = Nanos::earliest([parked, running, sched.slice_end, time::next_look()]) {
        arm(&mut sched.timer, deadline);
    }
}

/// Sets a deadline on this CPU's queue. False: there is no memory for it.
pub fn set_timer(cpu: u32, timer: &mut CpuTimer, key: Key, deadline: Nanos, held: &mut Held<'_, 0>) -> bool {
    let is_set = requeue(cpu, key, deadline, held);
    if is_set {
        arm(timer, deadline);
    }
    is_set
}

/// [`set_timer`] where the timer is set afterwards anyway.
pub(super) fn requeue(cpu: u32, key: Key, deadline: Nanos, held: &mut Held<'_, 0>) -> bool {
    queue(cpu).lock(held).0.set(key, deadline)
}

/// A vCPU is put aside.
pub(super) fn park(cpu: u32, vcpu: &Vcpu, timers: &mut VcpuTimers, now: Nanos, held: &mut Held<'_, 0>) {
    if let Some(deadline) = timers.to_queue(cpu, now) {
        // Without memory the timer is late: until the vCPU runs again.
        let is_set = queue(cpu).lock(held).0.set(Key::Parked(vcpu.domain_id, vcpu.id), deadline);
        timers.queued = is_set.then_some((cpu, deadline));
    }
}

/// A domain is gone.
pub fn forget(domain: &Domain, held: &mut Held<'_, 0>) {
    for cpu in machine::mailbox::online().iter() {
        let mut queue = queue(cpu).lock(held).0;
        if queue.is_empty() {
            continue;
        }
        queue.cancel(Key::Budget(domain.id));
        for slot in 0..Watchdogs::COUNT {
            queue.cancel(Key::Watchdog(domain.id, slot));
        }
        for vcpu in 0..domain.max_vcpus() {
            queue.cancel(Key::Parked(domain.id, VcpuId(vcpu)));
        }
    }
}

/// The timer interrupt: everything that is due.
pub(super) fn expire(cpu: &mut Cpu, held: &mut Held<'_, 0>) {
    let now = time::now();
    lapic::timer_has_come();
    cpu.local.sched.timer.programmed = Nanos::NEVER;
    time::look(
        now,
        cpu.running.as_mut().map(|running| (&*running.vcpu, &running.domain.tsc, &mut running.state.areas)),
    );
    if let Some(running) = &mut cpu.running {
        let fired = running.state.timers.expire(now);
        if fired.apic {
            running.state.expire_apic(now);
        }
        if fired.virq {
            event::raise_virq(&running.domain, running.vcpu.id, VIRQ_TIMER, held);
        }
        if cpu.local.sched.slice_end.is_some_and(|end| end <= now) {
            cpu.local.sched.reschedule();
        }
    }
    loop {
        let due = queue(cpu.local.id).lock(held).0.pop_due(now);
        match due {
            Some(Key::Parked(domain, vcpu)) => expire_parked(cpu.local.id, domain, vcpu, now, held),
            Some(Key::Budget(domain)) => {
                if let Some(domain) = domain::find(domain, held) {
                    cap::renew(&domain, now, cpu.local.id, held);
                }
            }
            Some(Key::Watchdog(domain, id)) => crate::watchdog::expire(domain, id, now, held),
            Some(Key::Interrupt(irq)) => crate::irq::expire(irq, now, held),
            None => break,
        }
    }
    rearm(cpu, held);
}

/// A deadline of a vCPU that was put aside on this CPU has come.
fn expire_parked(cpu: u32, domain: DomId, vcpu: VcpuId, now: Nanos, held: &mut Held<'_, 0>) {
    let Some(domain) = domain::find(domain, held) else { return };
    let Some(vcpu) = domain.vcpu(vcpu) else { return };
    let (fired, next) = {
        let (mut parked, _held) = vcpu.parked.lock(held);
        // None: it runs, and the CPU where it does looks after its timers.
        let Some(state) = parked.as_mut() else { return };
        let fired = state.timers.expire(now);
        if fired.apic {
            state.expire_apic(now);
        }
        state.timers.queued = None;
        (fired, state.timers.next_parked())
    };
    if let Some(next) = next {
        let _ = queue(cpu).lock(held).0.set(Key::Parked(domain.id, vcpu.id), next);
    }
    if fired.virq {
        event::raise_virq(&domain, vcpu.id, VIRQ_TIMER, held);
    }
    if fired.apic {
        super::nudge(vcpu, held);
    }
    if fired.poll && logic::event::end_poll(&*domain, &vcpu.events) {
        super::unblock(vcpu, held);
    }
}

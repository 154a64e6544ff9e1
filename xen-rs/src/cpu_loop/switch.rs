//! From one vCPU to the next.

use alloc::sync::Arc;

use logic::{
    lock::Held,
    regs::GuestRegs,
    sched::{Account, Runstate},
    time::Nanos,
};

use machine::arch::x86_64::{interrupts, speculation};
use xen_abi::{ids::DomId, trace::TRC_SCHED_SWITCH};

use super::{cap, idle, limit, pools, queues, timer};
use crate::{
    cpu::{Cpu, Running},
    debug_keys,
    domain::Life,
    hvm, time, trace, trap,
    vcpu::Vcpu,
};

/// Settles what was run, and leaves this CPU with a vCPU that may run: the same or another one.
#[cold]
pub(super) fn choose(cpu: &mut Cpu, regs: &mut GuestRegs, held: &mut Held<'_, 0>) {
    queues::looks(cpu.local.id);
    while let Some(vector) = interrupts::take() {
        super::interrupt(cpu, vector, held.again());
    }
    debug_keys::answer(cpu, regs, held);
    // Whoever has come most often waits for the rate limit, and that is all there is to say then.
    if cpu.local.sched.yields || !keeps(cpu) {
        settle(cpu, regs, held);
    }
}

/// Settles what was run, and takes the next one, if there is a better one.
#[inline(never)]
fn settle(cpu: &mut Cpu, regs: &mut GuestRegs, held: &mut Held<'_, 0>) {
    crate::memory::feed_heap(held);
    trace::tell_monitor(held);
    crate::console::tell_reader(held);
    let before = cpu.running.as_ref().map(|running| trace::ids(&running.vcpu));
    let yields = core::mem::take(&mut cpu.local.sched.yields);
    if let Some(running) = &mut cpu.running {
        running.state.take_over(&running.vcpu);
        let now = time::now();
        let id = cpu.local.id;
        let sched = &mut cpu.local.sched;
        let seat = &running.vcpu.seat;
        let mut account = seat.account();
        let ran = now.since(sched.since);
        account.burn(ran);
        sched.since = now;
        let left = cap::settle(&running.domain, &running.vcpu, ran, now, (id, &mut sched.timer), held);
        if seat.ready.is_runnable() && queues::fits(id)(&running.vcpu) {
            let (mut queue, queue_held) = queues::of(id).lock(held);
            let fits = queues::fits(id);
            let keeps = limit::keeps_until(id, sched.started);
            let slice = if yields && queue.give_way(&mut account, fits) {
                None
            } else if !queue.should_switch(&account, fits) {
                Some(queue.begin(queues::slot(id), &mut account, now, fits).map(|slice| now.after(slice)))
            } else if !yields && now < keeps {
                Some(Some(keeps))
            } else {
                None
            };
            if let Some(end) = slice {
                sched.slice_end = Nanos::earliest([end, left.map(|left| now.after(left))]);
                seat.set_account(account);
                drop((queue, queue_held));
                timer::rearm(cpu, held);
                return;
            }
        }
        seat.set_account(account);
        put_back(cpu, regs, now, held);
    }
    while !take_next(cpu, regs, held) {
        if !steal(cpu, held) {
            idle::wait(cpu, held);
        }
    }
    timer::rearm(cpu, held);
    let [domain, vcpu] = before.unwrap_or([DomId::IDLE.0.into(), cpu.local.id]);
    if let Some(running) = &cpu.running {
        let [next_domain, next] = trace::ids(&running.vcpu);
        trace::event(TRC_SCHED_SWITCH, || [domain, vcpu, next_domain, next]);
    }
}

/// Whether the running vCPU keeps this CPU whoever has come meanwhile, for the rate limit: then the next look is at its end.
/// Accounts are settled then, too.
fn keeps(cpu: &mut Cpu) -> bool {
    let Some(Running { vcpu, .. }) = &cpu.running else { return false };
    if !vcpu.seat.ready.is_runnable() {
        return false;
    }
    let id = cpu.local.id;
    let sched = &mut cpu.local.sched;
    let keeps = limit::keeps_until(id, sched.started);
    if keeps == sched.started || !queues::fits(id)(vcpu) || time::now() >= keeps {
        return false;
    }
    let end = sched.slice_end.map_or(keeps, |end| end.min(keeps));
    sched.slice_end = Some(end);
    timer::arm(&mut sched.timer, end);
    true
}

/// Parks the running vCPU: from then on any CPU may take it.
fn put_back(cpu: &mut Cpu, regs: &GuestRegs, now: Nanos, held: &mut Held<'_, 0>) {
    let Some(Running { vcpu, domain, mut state }) = cpu.running.take() else { return };
    let seat = &vcpu.seat;
    let resting = if seat.ready.is_runnable() || seat.ready.is_held_by_cap() {
        Runstate::Runnable
    } else if seat.ready.is_blocked() {
        Runstate::Blocked
    } else {
        Runstate::Offline
    };
    seat.clock.change(resting, now);
    trace::runstate(&vcpu, Runstate::Running, resting);
    state.areas.show_runstate(&vcpu, &domain);
    state.regs = *regs;
    state.save();
    cpu.local.sched.slice_end = None;
    timer::park(cpu.local.id, &vcpu, &mut state.timers, now, held);
    *vcpu.parked.lock(held).0 = Some(state);
    // Here ends this CPU's hold on it, unless it is to be queued again.
    if seat.ready.switch_out() {
        if resting != Runstate::Runnable {
            seat.clock.change(Runstate::Runnable, now);
        }
        let fits = queues::fits(cpu.local.id)(&vcpu);
        if !fits {
            queues::release(&vcpu, held);
        }
        let to = if fits { cpu.local.id } else { queues::place(&vcpu) };
        queues::enqueue(&vcpu, to, now, held);
        queues::looks(cpu.local.id);
    } else if !seat.ready.is_up() {
        queues::release(&vcpu, held);
        if domain.pvh().is_some() {
            hvm::start_if_asked(&domain, &vcpu, held);
        }
    }
}

/// Takes the first of the queue that may run; false when there is none.
fn take_next(cpu: &mut Cpu, regs: &mut GuestRegs, held: &mut Held<'_, 0>) -> bool {
    loop {
        let next = {
            let (mut queue, _held) = queues::of(cpu.local.id).lock(held);
            let next = queue.pop(queues::slot(cpu.local.id), queues::fits(cpu.local.id));
            queues::set_waiting(cpu.local.id, queue.len());
            next
        };
        let Some((account, vcpu)) = next else { return false };
        if take_on(cpu, regs, account, vcpu, held) {
            return true;
        }
    }
}

/// Runs a vCPU that came from a queue, if it may run.
fn take_on(cpu: &mut Cpu, regs: &mut GuestRegs, mut account: Account, vcpu: Arc<Vcpu>, held: &mut Held<'_, 0>) -> bool {
    let seat = &vcpu.seat;
    let id = cpu.local.id;
    seat.set_processor(id);
    // When its domain is gone, so is everyone who could miss it.
    let Some(domain) = vcpu.domain() else {
        queues::release(&vcpu, held);
        return false;
    };
    let now = time::now();
    let left = cap::settle(&domain, &vcpu, Nanos::ZERO, now, (id, &mut cpu.local.sched.timer), held);
    if !seat.ready.switch_in() {
        seat.set_account(account);
        if domain.life.get() != Life::Alive || !seat.ready.is_up() {
            queues::release(&vcpu, held);
        }
        return false;
    }
    let Some(mut state) = vcpu.parked.lock(held).0.take() else { return false };
    let slice = {
        let (mut queue, _held) = queues::of(id).lock(held);
        queue.begin(queues::slot(id), &mut account, now, queues::fits(id))
    };
    cpu.local.sched.slice_end = Nanos::earliest([slice, left]).map(|slice| now.after(slice));
    cpu.local.sched.started = now;
    seat.set_account(account);
    seat.clock.change(Runstate::Running, now);
    trace::runstate(&vcpu, Runstate::Runnable, Runstate::Running);
    cpu.local.sched.since = now;
    state.timers.poll = None;
    state.take_over(&vcpu);
    let who = (domain.id, vcpu.id);
    if core::mem::replace(&mut cpu.local.sched.last, who) != who {
        speculation::switch_barrier();
    }
    *regs = state.regs;
    let loaded = state.load(&domain);
    time::renew_time(&vcpu, &domain.tsc);
    state.areas.show_time(&domain.tsc);
    state.areas.show_runstate(&vcpu, &domain);
    let fired = state.timers.expire(now);
    if fired.apic {
        state.expire_apic(now);
    }
    if fired.virq {
        crate::event::raise_virq(&domain, vcpu.id, xen_abi::hypercall::VIRQ_TIMER, held);
    }
    cpu.running = Some(Running { vcpu, domain, state });
    if !loaded && let Some(mut cx) = cpu.context(regs, held.again()) {
        trap::deliver::bad_selectors(&mut cx);
    }
    true
}

/// Moves a vCPU that waits for another CPU to this one, which has nothing to do.
fn steal(cpu: &Cpu, held: &mut Held<'_, 0>) -> bool {
    let own = cpu.local.id;
    let Some(pool) = pools::of_cpu(own) else { return false };
    let others = pools::cpus(pool).iter().filter(|other| !queues::is_shared(*other, own));
    let Some(busiest) = others.max_by_key(|other| queues::waiting(*other)) else { return false };
    if queues::waiting(busiest) == 0 {
        return false;
    }
    let stolen = {
        let (mut queue, _held) = queues::of(busiest).lock(held);
        let stolen = queue.steal(queues::fits(own));
        queues::set_waiting(busiest, queue.len());
        stolen
    };
    let Some((account, vcpu)) = stolen else { return false };
    vcpu.seat.set_account(account);
    queues::enqueue(&vcpu, own, time::now(), held);
    true
}

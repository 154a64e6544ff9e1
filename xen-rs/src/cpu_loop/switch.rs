//! From one vCPU to the next.

use alloc::sync::Arc;

use logic::{
    lock::Held,
    regs::GuestRegs,
    sched::{Account, Runstate},
    time::{Nanos, VcpuTimers},
};

use xen_abi::{ids::DomId, trace::TRC_SCHED_SWITCH};

use super::{idle, queues, timer};
use crate::{
    cpu::{Cpu, Running},
    time, trace, trap,
    vcpu::Vcpu,
};

/// Settles what was run, and leaves this CPU with a vCPU that may run: the same or another one.
#[cold]
pub(super) fn choose(cpu: &mut Cpu, regs: &mut GuestRegs, held: &mut Held<'_, 0>) {
    crate::memory::feed_heap(held);
    trace::tell_monitor(held);
    let before = cpu.running.as_ref().map(|running| trace::ids(&running.vcpu));
    queues::looks(cpu.local.id);
    let yields = core::mem::take(&mut cpu.local.sched.yields);
    if let Some(running) = &mut cpu.running {
        take_over(&running.vcpu, &mut running.state.timers);
        let now = time::now();
        let seat = &running.vcpu.seat;
        let mut account = seat.account();
        account.burn(now.since(cpu.local.sched.since));
        cpu.local.sched.since = now;
        if seat.ready.is_runnable() && seat.hard_affinity().has(cpu.local.id) {
            let (mut queue, queue_held) = queues::of(cpu.local.id).queue.lock(held);
            let stays = if yields { !queue.give_way(&mut account) } else { !queue.should_switch(&account) };
            if stays {
                cpu.local.sched.slice_end = queue.begin(&mut account).map(|slice| now.after(slice));
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

/// Takes over what another vCPU wants of the periodic timer.
fn take_over(vcpu: &Vcpu, timers: &mut VcpuTimers) {
    if let Some(periodic) = vcpu.new_periodic.lock_leaf(Option::take) {
        timers.periodic = periodic;
    }
}

/// Parks the running vCPU: from then on any CPU may take it.
fn put_back(cpu: &mut Cpu, regs: &GuestRegs, now: Nanos, held: &mut Held<'_, 0>) {
    let Some(Running { vcpu, domain, mut state }) = cpu.running.take() else { return };
    let seat = &vcpu.seat;
    let resting = if seat.ready.is_runnable() {
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
    timer::park(cpu.local.id, &vcpu, &state.timers, held);
    *vcpu.parked.lock(held).0 = Some(state);
    // Here ends this CPU's hold on it, unless it is to be queued again.
    if seat.ready.switch_out() {
        if resting != Runstate::Runnable {
            seat.clock.change(Runstate::Runnable, now);
        }
        let stays = seat.hard_affinity().has(cpu.local.id);
        let to = if stays { cpu.local.id } else { queues::place(&vcpu) };
        queues::enqueue(&vcpu, to, held);
        queues::looks(cpu.local.id);
    }
}

/// Takes the first of the queue that may run; false when there is none.
fn take_next(cpu: &mut Cpu, regs: &mut GuestRegs, held: &mut Held<'_, 0>) -> bool {
    loop {
        let next = {
            let (mut queue, _held) = queues::of(cpu.local.id).queue.lock(held);
            let next = queue.pop();
            queues::set_waiting(cpu.local.id, queue.len());
            next
        };
        let Some((account, vcpu)) = next else { return false };
        if !vcpu.seat.hard_affinity().has(cpu.local.id) {
            let elsewhere = queues::place(&vcpu);
            if elsewhere != cpu.local.id {
                queues::enqueue(&vcpu, elsewhere, held);
                continue;
            }
        }
        if take_on(cpu, regs, account, vcpu, held) {
            return true;
        }
    }
}

/// Runs a vCPU that came from a queue, if it may run.
fn take_on(cpu: &mut Cpu, regs: &mut GuestRegs, mut account: Account, vcpu: Arc<Vcpu>, held: &mut Held<'_, 0>) -> bool {
    let seat = &vcpu.seat;
    seat.set_processor(cpu.local.id);
    if !seat.ready.switch_in() {
        seat.set_account(account);
        return false;
    }
    let (Some(domain), Some(mut state)) = (vcpu.domain(), vcpu.parked.lock(held).0.take()) else {
        // Its domain is gone, and with it everyone who could miss it.
        return false;
    };
    let now = time::now();
    {
        let (mut queue, _held) = queues::of(cpu.local.id).queue.lock(held);
        cpu.local.sched.slice_end = queue.begin(&mut account).map(|slice| now.after(slice));
    }
    seat.set_account(account);
    seat.clock.change(Runstate::Running, now);
    trace::runstate(&vcpu, Runstate::Runnable, Runstate::Running);
    cpu.local.sched.since = now;
    timer::unpark(cpu.local.id, &vcpu, &mut state.timers, held);
    take_over(&vcpu, &mut state.timers);
    *regs = state.regs;
    let loaded = state.load(&domain);
    time::renew_time(&vcpu);
    state.areas.show_time();
    state.areas.show_runstate(&vcpu, &domain);
    if state.timers.expire(now).virq {
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
    let others = machine::mailbox::online().iter().filter(|other| *other != own);
    let Some(busiest) = others.max_by_key(|other| queues::waiting(*other)) else { return false };
    if queues::waiting(busiest) == 0 {
        return false;
    }
    let stolen = {
        let (mut queue, _held) = queues::of(busiest).queue.lock(held);
        let stolen = queue.steal(|vcpu| vcpu.seat.hard_affinity().has(own));
        queues::set_waiting(busiest, queue.len());
        stolen
    };
    let Some((account, vcpu)) = stolen else { return false };
    vcpu.seat.set_account(account);
    queues::enqueue(&vcpu, own, held);
    true
}

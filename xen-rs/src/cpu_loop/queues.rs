//! The run queues of all CPUs, and what puts vCPUs on them.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use logic::{
    lock::{Held, rank},
    sched::{self, CpuMask, PauseState, RunQueue, Runstate, Tickle, Wake},
};
use machine::{arch::x86_64::percpu, mailbox};

use xen_abi::trace::TRC_SCHED_WAKE;

use crate::{sync::Lock, time, trace, vcpu::Vcpu};

/// The most CPUs there can be: a bit each in one word.
pub(super) const MAX_CPUS: usize = 64;

/// What other CPUs may touch of a CPU's scheduling. A cache line or more each.
#[repr(align(128))]
pub(super) struct Shared {
    pub(super) queue: Lock<RunQueue<Arc<Vcpu>>, { rank::RUN_QUEUE }>,
    /// Something was put on the queue that should not wait.
    pub(super) look: AtomicBool,
    /// How many wait, as of the last change.
    waiting: AtomicUsize,
}

static CPUS: [Shared; MAX_CPUS] = [const {
    Shared { queue: Lock::new(RunQueue::new()), look: AtomicBool::new(false), waiting: AtomicUsize::new(0) }
}; MAX_CPUS];
/// CPUs that have nothing to run.
static IDLE: AtomicU64 = AtomicU64::new(0);

/// The shared part of a CPU's scheduling.
#[inline(always)]
pub(super) fn of(cpu: u32) -> &'static Shared {
    &CPUS[cpu as usize % MAX_CPUS]
}

/// Whether the CPU has been told to look at its queue.
#[inline(always)]
pub(super) fn wants_look(cpu: u32) -> bool {
    of(cpu).look.load(Ordering::Acquire)
}

/// The CPU is about to look.
pub(super) fn looks(cpu: u32) {
    of(cpu).look.store(false, Ordering::Release);
}

pub(super) fn set_waiting(cpu: u32, count: usize) {
    of(cpu).waiting.store(count, Ordering::Relaxed);
}

/// How many wait for a CPU.
#[must_use]
pub fn waiting(cpu: u32) -> usize {
    of(cpu).waiting.load(Ordering::Relaxed)
}

/// CPUs that have nothing to run.
#[must_use]
pub fn idle_cpus() -> CpuMask {
    CpuMask(IDLE.load(Ordering::Relaxed))
}

pub(super) fn set_idle(cpu: u32, idle: bool) {
    let bit = CpuMask::one(cpu).0;
    if idle {
        IDLE.fetch_or(bit, Ordering::SeqCst);
    } else {
        IDLE.fetch_and(!bit, Ordering::SeqCst);
    }
}

/// The CPU for a vCPU that wants to run.
#[must_use]
pub fn place(vcpu: &Vcpu) -> u32 {
    let seat = &vcpu.seat;
    let online = mailbox::online();
    let hard = seat.hard_affinity();
    let affinity = match hard.and(seat.soft_affinity()).and(online) {
        CpuMask(0) => hard,
        both => both,
    };
    sched::place(seat.processor(), affinity, online, idle_cpus(), waiting)
}

/// Puts a vCPU on the queue of a CPU. The caller has got [`Wake::Enqueue`] for it, or the like.
pub(super) fn enqueue<const H: u8>(vcpu: &Arc<Vcpu>, cpu: u32, held: &mut Held<'_, H>) {
    vcpu.seat.set_processor(cpu);
    let shared = of(cpu);
    let tickle = {
        let (mut queue, _held) = shared.queue.lock(held);
        let tickle = queue.insert(vcpu.seat.account(), vcpu.clone());
        set_waiting(cpu, queue.len());
        tickle
    };
    if tickle == Tickle::Yes {
        shared.look.store(true, Ordering::Release);
        mailbox::kick(cpu);
    }
}

/// The vCPU may run and nobody has it: finds a CPU for it.
fn start<const H: u8>(vcpu: &Arc<Vcpu>, held: &mut Held<'_, H>) {
    vcpu.seat.clock.change(Runstate::Runnable, time::now());
    trace::of_vcpu(TRC_SCHED_WAKE, vcpu);
    enqueue(vcpu, place(vcpu), held);
}

/// Carries out what a change of readiness asks for.
#[inline]
pub fn wake<const H: u8>(vcpu: &Arc<Vcpu>, wake: Wake, held: &mut Held<'_, H>) {
    if wake == Wake::Enqueue {
        start(vcpu, held);
    }
}

/// Makes the CPU that runs it, if another one does, look at it again soon (for events, or because it may no longer run).
#[inline]
pub fn kick(vcpu: &Vcpu) {
    let cpu = vcpu.seat.processor();
    if vcpu.seat.ready.is_running() && cpu != percpu::number() {
        mailbox::kick(cpu);
    }
}

/// An upcall is wanted: the vCPU wakes up, or its CPU delivers it.
#[inline]
pub fn event<const H: u8>(vcpu: &Arc<Vcpu>, held: &mut Held<'_, H>) {
    match vcpu.seat.ready.unblock() {
        Wake::Enqueue => start(vcpu, held),
        Wake::Nothing => kick(vcpu),
    }
}

/// What it waits for has come.
pub fn unblock<const H: u8>(vcpu: &Arc<Vcpu>, held: &mut Held<'_, H>) {
    let woken = vcpu.seat.ready.unblock();
    wake(vcpu, woken, held);
}

/// One more reason for a vCPU not to run. It leaves its CPU soon.
pub fn pause(vcpu: &Vcpu) {
    if vcpu.seat.ready.pause() == PauseState::Running {
        kick(vcpu);
    }
}

/// One reason less.
pub fn unpause<const H: u8>(vcpu: &Arc<Vcpu>, held: &mut Held<'_, H>) {
    let woken = vcpu.seat.ready.unpause();
    wake(vcpu, woken, held);
}

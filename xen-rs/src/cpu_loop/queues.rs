//! The run queues, and what puts vCPUs on them.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use logic::{
    lock::{Held, rank},
    sched::{self, CpuMask, PauseState, QUEUE_CPUS, RunQueue, Runstate, Wake, Wish},
    time::Nanos,
};
use machine::{arch::x86_64::percpu, mailbox};

use xen_abi::{errno::Errno, trace::TRC_SCHED_WAKE};

use crate::{sync::Lock, time, trace, vcpu::Vcpu};

/// The most CPUs there can be: a bit each in one word.
pub(super) const MAX_CPUS: usize = 64;

/// A run queue, shared by [`QUEUE_CPUS`] CPUs.
#[repr(align(128))]
struct Shared {
    queue: Lock<RunQueue<Arc<Vcpu>>, { rank::RUN_QUEUE }>,
    /// How many wait, as of the last change.
    waiting: AtomicUsize,
}

/// A CPU has been told to look at its queue. A cache line or more each.
#[repr(align(128))]
struct Look(AtomicBool);

static QUEUES: [Shared; MAX_CPUS / QUEUE_CPUS] =
    [const { Shared { queue: Lock::new(RunQueue::new()), waiting: AtomicUsize::new(0) } }; MAX_CPUS / QUEUE_CPUS];
static LOOKS: [Look; MAX_CPUS] = [const { Look(AtomicBool::new(false)) }; MAX_CPUS];
/// vCPUs that there are or are about to be.
static VCPUS: AtomicUsize = AtomicUsize::new(0);
/// CPUs that have nothing to run.
static IDLE: AtomicU64 = AtomicU64::new(0);

fn shared(cpu: u32) -> &'static Shared {
    &QUEUES[cpu as usize / QUEUE_CPUS % QUEUES.len()]
}

/// The queue of a CPU.
pub(super) fn of(cpu: u32) -> &'static Lock<RunQueue<Arc<Vcpu>>, { rank::RUN_QUEUE }> {
    &shared(cpu).queue
}

/// A CPU's place among those of its queue.
#[allow(clippy::cast_possible_truncation, reason = "it is 8")]
pub(super) const fn slot(cpu: u32) -> u32 {
    cpu % QUEUE_CPUS as u32
}

/// Who may run on a CPU.
pub(super) fn fits(cpu: u32) -> impl Fn(&Arc<Vcpu>) -> bool + Copy {
    let online = mailbox::online();
    move |vcpu| vcpu.seat.may_run_on(online).has(cpu)
}

/// Room for so many vCPUs on each queue, so that putting one there needs no memory.
#[derive(Debug)]
pub struct Room(usize);

impl Room {
    /// `ENOMEM`.
    pub fn new(vcpus: usize, held: &mut Held<'_, 0>) -> Result<Self, Errno> {
        let room = Room(vcpus);
        let all = VCPUS.fetch_add(vcpus, Ordering::SeqCst) + vcpus;
        let mut queues = mailbox::online().iter().filter(|cpu| slot(*cpu) == 0);
        if queues.all(|cpu| of(cpu).lock(held).0.reserve(all)) { Ok(room) } else { Err(Errno::ENOMEM) }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        VCPUS.fetch_sub(self.0, Ordering::SeqCst);
    }
}

/// Where a CPU is told to look at its queue.
#[inline(always)]
pub(super) fn look(cpu: u32) -> &'static AtomicBool {
    &LOOKS[cpu as usize % MAX_CPUS].0
}

/// Whether the CPU has been told to look at its queue.
#[inline(always)]
pub(super) fn wants_look(cpu: u32) -> bool {
    look(cpu).load(Ordering::Acquire)
}

/// The CPU is about to look.
pub(super) fn looks(cpu: u32) {
    look(cpu).store(false, Ordering::Release);
}

pub(super) fn set_waiting(cpu: u32, count: usize) {
    shared(cpu).waiting.store(count, Ordering::Relaxed);
}

/// How many wait for a CPU, or one of those that it shares its queue with.
#[must_use]
pub fn waiting(cpu: u32) -> usize {
    shared(cpu).waiting.load(Ordering::Relaxed)
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
    let hard = seat.may_run_on(online);
    let affinity = match hard.and(seat.soft_affinity()) {
        CpuMask(0) => hard,
        both => both,
    };
    sched::place(seat.processor(), affinity, online, idle_cpus(), waiting)
}

/// Puts a vCPU on the queue of a CPU. The caller has got [`Wake::Enqueue`] for it, or the like.
pub(super) fn enqueue<const H: u8>(vcpu: &Arc<Vcpu>, cpu: u32, now: Nanos, held: &mut Held<'_, H>) {
    let seat = &vcpu.seat;
    seat.set_processor(cpu);
    let first = cpu - slot(cpu);
    let part = |mask: CpuMask| CpuMask(mask.0 >> first & ((1 << QUEUE_CPUS) - 1));
    let allowed = part(seat.may_run_on(mailbox::online()));
    let wish = Wish { allowed, preferred: part(seat.soft_affinity()), last: slot(cpu) };
    let told = {
        let (mut queue, _held) = of(cpu).lock(held);
        let told = queue.insert(seat.account(), vcpu.clone(), now, wish);
        set_waiting(cpu, queue.len());
        told
    };
    if let Some(slot) = told {
        let cpu = first + slot;
        look(cpu).store(true, Ordering::Release);
        mailbox::kick(cpu);
    }
}

/// The vCPU may run and nobody has it: finds a CPU for it.
fn start<const H: u8>(vcpu: &Arc<Vcpu>, held: &mut Held<'_, H>) {
    let now = time::now();
    vcpu.seat.clock.change(Runstate::Runnable, now);
    trace::of_vcpu(TRC_SCHED_WAKE, vcpu);
    enqueue(vcpu, place(vcpu), now, held);
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

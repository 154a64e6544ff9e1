//! The run queues, and what puts vCPUs on them.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};

use logic::{
    lock::{Held, rank},
    sched::{self, CpuMask, PauseState, QUEUE_CPUS, Rules, RunQueue, Runstate, Wake, Wish},
    time::Nanos,
};
use machine::{arch::x86_64::percpu, mailbox};

use xen_abi::{errno::Errno, trace::TRC_SCHED_WAKE};

use super::pools;
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

static QUEUES: [Shared; MAX_CPUS] =
    [const { Shared { queue: Lock::new(RunQueue::new()), waiting: AtomicUsize::new(0) } }; MAX_CPUS];
/// The queue of each CPU among those of its neighbours: 0 for the first of them. At first all neighbours share that one;
/// those of different pools have different ones. There are as many as CPUs, so one is always left.
static PLACES: [AtomicU8; MAX_CPUS] = [const { AtomicU8::new(0) }; MAX_CPUS];
static LOOKS: [Look; MAX_CPUS] = [const { Look(AtomicBool::new(false)) }; MAX_CPUS];
/// vCPUs that there are or are about to be.
static VCPUS: AtomicUsize = AtomicUsize::new(0);
/// CPUs that have nothing to run.
static IDLE: AtomicU64 = AtomicU64::new(0);

/// The number of a CPU's queue.
#[inline]
fn index(cpu: u32) -> usize {
    let cpu = cpu as usize % MAX_CPUS;
    cpu / QUEUE_CPUS * QUEUE_CPUS + usize::from(PLACES[cpu].load(Ordering::Relaxed)) % QUEUE_CPUS
}

fn shared(cpu: u32) -> &'static Shared {
    &QUEUES[index(cpu) % MAX_CPUS]
}

/// The queue of a CPU.
pub(super) fn of(cpu: u32) -> &'static Lock<RunQueue<Arc<Vcpu>>, { rank::RUN_QUEUE }> {
    &shared(cpu).queue
}

/// Whether two CPUs share a queue.
pub(super) fn is_shared(one: u32, other: u32) -> bool {
    index(one) == index(other)
}

/// A CPU's place among those of its queue.
#[allow(clippy::cast_possible_truncation, reason = "it is 8")]
pub(super) const fn slot(cpu: u32) -> u32 {
    cpu % QUEUE_CPUS as u32
}

/// Who may run on a CPU.
pub(super) fn fits(cpu: u32) -> impl Fn(&Arc<Vcpu>) -> bool + Copy {
    move |vcpu| vcpu.seat.may_run_on().has(cpu)
}

/// Room for so many vCPUs on each queue, so that putting one there needs no memory.
#[derive(Debug)]
pub struct Room(usize);

impl Room {
    /// `ENOMEM`.
    pub fn new(vcpus: usize, held: &mut Held<'_, 0>) -> Result<Self, Errno> {
        let room = Room(vcpus);
        let all = VCPUS.fetch_add(vcpus, Ordering::SeqCst) + vcpus;
        // A CPU that is in no pool makes room when it gets into one.
        if mailbox::online().iter().all(|cpu| of(cpu).lock(held).0.reserve(all)) {
            Ok(room)
        } else {
            Err(Errno::ENOMEM)
        }
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
    // Whoever told it has changed something before, which is to be seen from here on.
    look(cpu).swap(false, Ordering::AcqRel);
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
    let hard = seat.may_run_on();
    let last = seat.processor();
    // Under null it has a CPU there, or waits there for one.
    if pools::is_null(seat.pool()) && hard.has(last) {
        return last;
    }
    let affinity = match hard.and(seat.soft_affinity()) {
        CpuMask(0) => hard,
        both => both,
    };
    sched::place(last, affinity, hard, idle_cpus(), waiting)
}

/// Its part of the CPUs of a queue.
const fn part(mask: CpuMask, first: u32) -> CpuMask {
    CpuMask(mask.0 >> first & ((1 << QUEUE_CPUS) - 1))
}

/// Puts a vCPU on the queue of a CPU, or of another one if that is not for it any more. The caller has got
/// [`Wake::Enqueue`] for it, or the like.
pub(super) fn enqueue<const H: u8>(vcpu: &Arc<Vcpu>, cpu: u32, now: Nanos, held: &mut Held<'_, H>) {
    let mut cpu = cpu;
    // What a CPU is for changes by a sysctl alone.
    while !try_enqueue(vcpu, cpu, now, held) {
        cpu = place(vcpu);
    }
}

fn try_enqueue<const H: u8>(vcpu: &Arc<Vcpu>, cpu: u32, now: Nanos, held: &mut Held<'_, H>) -> bool {
    let seat = &vcpu.seat;
    let first = cpu - slot(cpu);
    let told = {
        let queue_of = index(cpu);
        let (mut queue, _held) = QUEUES[queue_of % MAX_CPUS].queue.lock(held);
        let allowed = seat.may_run_on();
        if !allowed.has(cpu) || index(cpu) != queue_of {
            return false;
        }
        seat.set_processor(cpu);
        let wish = Wish {
            allowed: part(allowed, first),
            preferred: part(seat.soft_affinity(), first),
            last: slot(cpu),
            key: key(vcpu),
        };
        let told = queue.insert(seat.account(), vcpu.clone(), now, wish);
        set_waiting(cpu, queue.len());
        told
    };
    match told {
        Some(slot) => tell(first + slot),
        // CPUs of other queues that have nothing to do are not asked but under null, where nobody here will ever give way.
        None if pools::is_null(seat.pool()) => seat.may_run_on().and(idle_cpus()).iter().for_each(tell),
        None => {}
    }
    true
}

/// Has a CPU look at its queue.
fn tell(cpu: u32) {
    look(cpu).store(true, Ordering::Release);
    mailbox::kick(cpu);
}

/// What queues know a vCPU by.
fn key(vcpu: &Vcpu) -> u64 {
    u64::from(vcpu.domain_id.0) << 32 | u64::from(vcpu.id.0)
}

/// A vCPU needs the CPU no longer that it has for itself (null).
pub fn release<const H: u8>(vcpu: &Vcpu, held: &mut Held<'_, H>) {
    release_unless(vcpu, CpuMask(0), held);
}

/// The same, unless that CPU is one of those.
pub fn release_unless<const H: u8>(vcpu: &Vcpu, stays: CpuMask, held: &mut Held<'_, H>) {
    if !pools::is_null(vcpu.seat.pool()) {
        return;
    }
    let cpu = vcpu.seat.processor();
    let first = cpu - slot(cpu);
    let freed = of(cpu).lock(held).0.release(key(vcpu), part(stays, first));
    if let Some(slot) = freed {
        tell(first + slot);
    }
}

/// A CPU that was in no pool begins to serve the queue of another one, or its own if there is no other one. False: there is
/// no memory.
pub(super) fn join<const H: u8>(cpu: u32, peer: Option<u32>, rules: Rules, held: &mut Held<'_, H>) -> bool {
    if let Some(peer) = peer {
        let place = PLACES[peer as usize % MAX_CPUS].load(Ordering::Relaxed);
        PLACES[cpu as usize % MAX_CPUS].store(place, Ordering::SeqCst);
    }
    let (mut queue, _held) = of(cpu).lock(held);
    queue.forget_cpu(slot(cpu));
    queue.set_rules(rules);
    queue.reserve(VCPUS.load(Ordering::SeqCst))
}

/// A CPU is in no pool any more: from now on it has a queue for itself, which stays empty. Who waits where it was and cannot
/// run there any more finds another place.
pub(super) fn leave<const H: u8>(cpu: u32, held: &mut Held<'_, H>) {
    let first = cpu - slot(cpu);
    let others = |place: u8| {
        let shares = |at: &usize| {
            let other = first as usize + at;
            other != cpu as usize && PLACES[other % MAX_CPUS].load(Ordering::Relaxed) == place
        };
        (0..QUEUE_CPUS).any(|at| shares(&at))
    };
    let old = index(cpu) % MAX_CPUS;
    {
        let (mut queue, _held) = QUEUES[old].queue.lock(held);
        queue.forget_cpu(slot(cpu));
        if others(PLACES[cpu as usize % MAX_CPUS].load(Ordering::Relaxed))
            && let Some(own) = (0..QUEUE_CPUS).filter_map(|at| u8::try_from(at).ok()).find(|place| !others(*place))
        {
            PLACES[cpu as usize % MAX_CPUS].store(own, Ordering::SeqCst);
        }
    }
    of(cpu).lock(held).0.forget_cpu(slot(cpu));
    settle_lost_of(old, first, held);
}

/// It is known anew where a vCPU may run: it leaves its CPU or its queue if that is nothing for it any more, and if it
/// waits, whoever has nothing to do looks for it.
pub fn resettle<const H: u8>(vcpu: &Arc<Vcpu>, held: &mut Held<'_, H>) {
    let seat = &vcpu.seat;
    let (cpu, allowed) = (seat.processor(), seat.may_run_on());
    release_unless(vcpu, allowed, held);
    settle_lost(cpu, held);
    tell(cpu);
    if !seat.ready.is_running() && seat.ready.is_runnable() {
        allowed.and(idle_cpus()).iter().for_each(tell);
    }
}

/// Finds another place for those who wait where a CPU looks and cannot run there.
pub fn settle_lost<const H: u8>(cpu: u32, held: &mut Held<'_, H>) {
    settle_lost_of(index(cpu) % MAX_CPUS, cpu - slot(cpu), held);
}

fn settle_lost_of<const H: u8>(queue: usize, first: u32, held: &mut Held<'_, H>) {
    loop {
        let lost = {
            let (mut waiting, _held) = QUEUES[queue].queue.lock(held);
            let serving = (0..QUEUE_CPUS).filter_map(|at| u32::try_from(at).ok().map(|at| first + at));
            let serving = serving.filter(|cpu| index(*cpu) == queue).fold(0, |mask, cpu| mask | CpuMask::one(cpu).0);
            let lost = waiting.take_lost(|vcpu| vcpu.seat.may_run_on().and(CpuMask(serving)) == CpuMask(0));
            QUEUES[queue].waiting.store(waiting.len(), Ordering::Relaxed);
            lost
        };
        let Some(vcpu) = lost else { return };
        enqueue(&vcpu, place(&vcpu), time::now(), held);
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
    if vcpu.upcall_vector() != 0 {
        vcpu.inbox.post_vector(vcpu.upcall_vector());
    }
    nudge(vcpu, held);
}

/// Something came for a vCPU: it wakes up, or its CPU looks.
#[inline(always)]
pub fn nudge<const H: u8>(vcpu: &Arc<Vcpu>, held: &mut Held<'_, H>) {
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

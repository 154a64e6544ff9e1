//! Several vCPUs and events: up and down, interrupts between vCPUs, and no wake-up that is lost.
#![allow(
    clippy::cast_possible_truncation,
    reason = "what is counted in 64-bit words here are four vCPUs and their pages"
)]
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use guest_pv::call::{event_channel, sched, vcpu};
use guest_pv::mem::Frame;
use guest_pv::smp::{self, Barrier};
use guest_pv::tap::Tap;
use guest_pv::{events, time};
use guests::smp::{COUNT, Random, VCPUS, Watch, on_all};
use guests::{address_of, load, page};
use xen_abi::Errno;
use xen_abi::hypercall::HYPERVISOR_VCPU_OP;
use xen_abi::ids::{DomId, Port, VcpuId};
use xen_abi::vcpu::{
    RUNSTATE_OFFLINE, RUNSTATE_RUNNING, VCPUOP_REGISTER_RUNSTATE_MEMORY_AREA, VCPUOP_REGISTER_VCPU_TIME_MEMORY_AREA,
    VCPUOP_SET_PERIODIC_TIMER, VcpuRegisterRunstateMemoryArea, VcpuSetPeriodicTimer,
};

guest_pv::test!(run);

/// Times that each vCPU gets the token.
const LAPS: u64 = 150;
/// Questions that each vCPU asks.
const QUESTIONS: u64 = 150;
/// A wake-up that takes longer (ns) is a lost one. A machine may be so busy that one of its CPUs runs once in seconds.
const LOST: u64 = 30_000_000_000;
const V1: VcpuId = VcpuId(1);

static START: Barrier = Barrier::new(COUNT);
static WATCH: Watch = Watch::new();
/// By vCPU, the port that interrupts it.
static PORTS: [AtomicU32; VCPUS] = [const { AtomicU32::new(0) }; VCPUS];
static TOKEN: AtomicU64 = AtomicU64::new(0);
/// Questions asked and answered, by who asks and who answers.
static ASKED: [[AtomicU64; VCPUS]; VCPUS] = [const { [const { AtomicU64::new(0) }; VCPUS] }; VCPUS];
static ANSWERED: [[AtomicU64; VCPUS]; VCPUS] = [const { [const { AtomicU64::new(0) }; VCPUS] }; VCPUS];
static FINISHED: AtomicU64 = AtomicU64::new(0);
static TICKS: AtomicU64 = AtomicU64::new(0);
static PERIODIC: AtomicU64 = AtomicU64::new(0);
static STOP: AtomicU64 = AtomicU64::new(0);

fn run(tap: &mut Tap) {
    up_and_down(tap);
    on_all(bind);
    on_all(token);
    WATCH.verdict(tap, "a token goes round, by interrupts to blocked vCPUs");
    TOKEN.store(0, SeqCst);
    on_all(token_by_poll);
    WATCH.verdict(tap, "and by interrupts to polling vCPUs");
    on_all(questions);
    WATCH.verdict(tap, "questions are answered, whoever asks whom");
    on_all(timers);
    WATCH.verdict(tap, "every vCPU has its timer");
    moved(tap);
}

fn port(vcpu: usize) -> Port {
    Port(PORTS[vcpu].load(SeqCst))
}

/// Whether something comes true before a vCPU's CPU can have stood still.
fn comes(what: impl Fn() -> bool) -> bool {
    let end = time::now() + LOST;
    while !what() {
        if time::now() >= end {
            return false;
        }
        smp::relax();
    }
    true
}

/// Waits until vCPU 1 has gone round its loop: whatever was pending by now is seen.
fn round_of_ticks() -> bool {
    let from = TICKS.load(SeqCst);
    comes(|| TICKS.load(SeqCst) > from + 1)
}

/// Ticks of vCPU 1's periodic timer, which vCPU 0 sets and stops while vCPU 1 runs.
fn periodic(tap: &mut Tap) {
    let mut timer = VcpuSetPeriodicTimer { period_ns: 5_000_000 };
    let set = guests::call(HYPERVISOR_VCPU_OP, [VCPUOP_SET_PERIODIC_TIMER.into(), 1, address_of(&mut timer)]);
    tap.is(set, Ok(0), "its periodic timer is set from here");
    // On a busy machine a vCPU may sleep through many of them.
    let before = PERIODIC.load(SeqCst);
    tap.ok(comes(|| PERIODIC.load(SeqCst) > before + 10), "and ticks there");
    tap.is(vcpu::stop_periodic_timer(V1), Ok(()), "it is stopped from here");
    // What had been sent by then arrives.
    time::sleep(50_000_000);
    round_of_ticks();
    let before = PERIODIC.load(SeqCst);
    time::sleep(200_000_000);
    round_of_ticks();
    tap.is(PERIODIC.load(SeqCst), before, "and ticks no more");
}

/// Places in memory that vCPU 0 registers for vCPU 1 while that runs.
fn areas(tap: &mut Tap) {
    let (state, clock) = (page(), page());
    let register = |command: u32, area: &Frame| {
        let mut argument = VcpuRegisterRunstateMemoryArea { addr: area.address() };
        guests::call(HYPERVISOR_VCPU_OP, [command.into(), 1, address_of(&mut argument)])
    };
    tap.is(register(VCPUOP_REGISTER_RUNSTATE_MEMORY_AREA, &state), Ok(0), "a place for its run state");
    tap.is(register(VCPUOP_REGISTER_VCPU_TIME_MEMORY_AREA, &clock), Ok(0), "one for its time");
    tap.ok(load(clock.address() + 8) != 0, "which stands there at once");
    // Where it shares its CPU with us, the place shows the state in which it was left: it goes down by itself.
    let offline = || load(state.address()) as u32 == RUNSTATE_OFFLINE;
    STOP.store(1, SeqCst);
    tap.is(smp::join(V1), Ok(()), "it is told to go down");
    tap.ok(comes(offline), "and its run state says so");
    STOP.store(0, SeqCst);
    tap.is(smp::start(V1, tick), Ok(()), "it is brought up");
    tap.ok(comes(|| !offline()), "and its run state says so");
}

fn up_and_down(tap: &mut Tap) {
    tap.is(vcpu::is_up(V1), Ok(false), "vCPU 1 is not up");
    tap.is(vcpu::up(V1), Err(Errno::EINVAL), "nor can it be: it has no state");
    tap.is(smp::initialise(V1), Ok(()), "it gets a state");
    tap.is(smp::initialise(V1), Err(Errno::EEXIST), "once");
    tap.is(vcpu::is_up(V1), Ok(false), "and is not up yet");
    tap.is(smp::start(V1, tick), Ok(()), "it is brought up");
    tap.is(vcpu::is_up(V1), Ok(true), "and is up");
    tap.is(vcpu::up(V1), Ok(()), "bringing it up again is nothing");
    let ticks = |from: u64| comes(|| TICKS.load(SeqCst) != from);
    tap.ok(ticks(0), "it runs");
    tap.is(vcpu::down(V1), Ok(()), "it is taken down");
    tap.is(vcpu::is_up(V1), Ok(false), "and is down");
    // Its CPU hears of that by an interrupt, which may take a while.
    comes(|| vcpu::runstate(V1).is_ok_and(|info| info.state != RUNSTATE_RUNNING));
    let now = TICKS.load(SeqCst);
    time::sleep(20_000_000);
    tap.is(TICKS.load(SeqCst), now, "it does not run any more");
    tap.is(vcpu::up(V1), Ok(()), "it is brought up again");
    tap.ok(ticks(now), "and goes on where it was");
    periodic(tap);
    areas(tap);
    STOP.store(1, SeqCst);
    tap.is(smp::join(V1), Ok(()), "it goes down by itself");
    tap.is(smp::start(VcpuId(5), tick), Err(Errno::ENOENT), "there is no vCPU 5");
}

fn tick() {
    while STOP.load(SeqCst) == 0 {
        TICKS.fetch_add(1, SeqCst);
        PERIODIC.fetch_add(events::clear(time::timer_port()).into(), SeqCst);
        core::hint::spin_loop();
    }
}

fn bind() {
    let port = events::bind_ipi().expect("a free port");
    PORTS[smp::index()].store(port.0, SeqCst);
}

/// Sleeps until our port is pending; complains when that takes too long.
fn sleep(what: &str, count: u64) -> bool {
    let end = time::now() + LOST;
    loop {
        if events::poll() == Some(port(smp::index())) {
            return true;
        }
        if time::now() >= end {
            WATCH.check(false, format_args!("no wake-up: {what} {count}"));
            return false;
        }
        events::wait(Some(end));
    }
}

fn token() {
    let me = smp::index();
    let next = port((me + 1) % VCPUS);
    START.wait();
    if me == 0 {
        events::notify(port(0)).expect("bound");
    }
    for lap in 0..LAPS {
        if !sleep("lap", lap) {
            return;
        }
        let turn = TOKEN.fetch_add(1, SeqCst);
        WATCH.check(turn == lap * VCPUS as u64 + me as u64, format_args!("lap {lap}: turn {turn}"));
        if lap + 1 < LAPS || me + 1 < VCPUS {
            events::notify(next).expect("bound");
        }
    }
}

/// The same with `SCHEDOP_poll`, whose ports are masked.
fn token_by_poll() {
    let me = smp::index();
    let (mine, next) = (port(me), port((me + 1) % VCPUS));
    events::mask(mine);
    START.wait();
    if me == 0 {
        events::notify(mine).expect("bound");
    }
    for lap in 0..LAPS {
        let end = time::now() + LOST;
        while !events::clear(mine) {
            if time::now() >= end {
                return WATCH.check(false, format_args!("no wake-up: lap {lap}"));
            }
            sched::poll(&[mine], end).expect("a vCPU can poll");
        }
        let turn = TOKEN.fetch_add(1, SeqCst);
        WATCH.check(turn == lap * VCPUS as u64 + me as u64, format_args!("lap {lap}: turn {turn}"));
        if lap + 1 < LAPS || me + 1 < VCPUS {
            events::notify(next).expect("bound");
        }
    }
}

/// Answers what has been asked.
fn answer(me: usize) {
    for other in (0..VCPUS).filter(|&other| other != me) {
        let asked = ASKED[other][me].load(SeqCst);
        if ANSWERED[other][me].swap(asked, SeqCst) != asked {
            events::notify(port(other)).expect("bound");
        }
    }
}

fn questions() {
    let me = smp::index();
    events::unmask(port(me));
    let mut random = Random::new(me as u64 + 7);
    START.wait();
    for question in 0..QUESTIONS {
        let whom = (me + 1 + random.below(VCPUS - 1)) % VCPUS;
        let asked = ASKED[me][whom].fetch_add(1, SeqCst) + 1;
        events::notify(port(whom)).expect("bound");
        loop {
            answer(me);
            if ANSWERED[me][whom].load(SeqCst) == asked {
                break;
            }
            if !sleep("question", question) {
                return;
            }
        }
    }
    // The last one to finish wakes the others.
    if FINISHED.fetch_add(1, SeqCst) + 1 == VCPUS as u64 {
        (0..VCPUS).for_each(|vcpu| events::notify(port(vcpu)).expect("bound"));
    }
    while FINISHED.load(SeqCst) < VCPUS as u64 {
        if !sleep("end", 0) {
            return;
        }
        answer(me);
    }
    while events::poll().is_some() {}
}

fn timers() {
    let me = smp::index() as u64;
    START.wait();
    // An answer that was seen before its interrupt has left that behind.
    while events::poll().is_some() {}
    for round in 0..20 {
        let deadline = time::now() + 1_000_000 + me * 300_000;
        events::wait(Some(deadline));
        let late = time::now().wrapping_sub(deadline);
        WATCH.check(late < LOST, format_args!("round {round}: {} ns", late.cast_signed()));
    }
}

static MOVING: AtomicU32 = AtomicU32::new(0);

/// An event channel that is sent to one vCPU after the other.
fn moved(tap: &mut Tap) {
    let far = event_channel::alloc_unbound(DomId::SELF, DomId::SELF).expect("a free port");
    let near = event_channel::bind_interdomain(DomId::SELF, far).expect("it is for us");
    event_channel::unmask(far).expect("ours");
    events::clear(far);
    MOVING.store(far.0, SeqCst);
    for vcpu in [V1, VcpuId(2), VcpuId(3), V1] {
        smp::start(vcpu, awaited).expect("it is down");
        // It sleeps by now, or will find the event when it goes to sleep.
        events::bind_vcpu(far, vcpu).expect("ports between domains can be moved");
        events::notify(near).expect("bound");
        smp::join(vcpu).expect("it was started");
    }
    WATCH.verdict(tap, "a port can be moved from vCPU to vCPU");
    tap.is(events::bind_vcpu(port(1), VcpuId(2)), Err(Errno::EINVAL), "a port for interrupts cannot");
    tap.is(events::bind_vcpu(far, VcpuId(COUNT)), Err(Errno::ENOENT), "nor to a vCPU that is not there");
}

fn awaited() {
    let end = time::now() + LOST;
    while events::poll() != Some(Port(MOVING.load(SeqCst))) {
        if time::now() >= end {
            return WATCH.check(false, format_args!("no wake-up by the moved port"));
        }
        events::wait(Some(end));
    }
}

//! Time: the pvclock, both one-shot timers, the periodic timer, and sleeping until a deadline.
#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_pv::call::vcpu::{set_singleshot_timer, set_timer, stop_periodic_timer, stop_singleshot_timer};
use guest_pv::call::{sched, vcpu};
use guest_pv::tap::Tap;
use guest_pv::{Mode, events, mode, time};
use guests::domain::{CODE, End, Tiny};
use guests::{address_of, code};
use xen_abi::Errno;
use xen_abi::arch_x86::vcpu_info;
use xen_abi::ids::VcpuId;
use xen_abi::vcpu::{
    VCPU_SSHOTTMR_FUTURE, VCPUOP_SET_PERIODIC_TIMER, VCPUOP_SET_SINGLESHOT_TIMER, VcpuSetPeriodicTimer,
};

guest_pv::test!(run);

const V0: VcpuId = VcpuId(0);
const MS: u64 = 1_000_000;

fn run(tap: &mut Tap) {
    clock(tap);
    single_shot(tap);
    timer_op(tap);
    periodic(tap);
    if mode() == Mode::Pv {
        ticker(tap);
    }
    poll(tap);
}

fn clock(tap: &mut Tap) {
    let mut last = time::now();
    let monotonic = (0..100_000).all(|_| {
        let now = time::now();
        let good = now >= last;
        last = now;
        good
    });
    tap.ok(monotonic, "100,000 readings never go back");
    let version = events::shared().load_u32(vcpu_info::TIME_VERSION);
    tap.ok(version & 1 == 0 && version > 0, "the version is even and not zero");
    tap.ok(events::shared().load_u32(vcpu_info::TIME_TSC_TO_SYSTEM_MUL) != 0, "there is a factor");
    let (start, ticks) = (time::now(), time::tsc());
    while time::now() < start + 20 * MS {}
    let (ns, ticks) = (time::now() - start, time::tsc() - ticks);
    tap.ok(ns >= 20 * MS && ticks > 0, "clock and counter advance");
    let wall = time::wall_clock();
    time::sleep(5 * MS);
    let later = time::wall_clock();
    tap.ok(later >= wall + 5 * MS && later < wall + 5_000 * MS, "the wall clock advances at the same pace");
}

/// Waits up to 2 s for the timer's port to be pending, and clears it.
fn fired() -> bool {
    let start = time::now();
    while time::now() < start + 2_000 * MS {
        if events::is_pending(time::timer_port()) {
            events::clear(time::timer_port());
            return true;
        }
        sched::yield_cpu().expect("always");
    }
    false
}

fn quiet(for_ns: u64) -> bool {
    let start = time::now();
    while time::now() < start + for_ns {
        if events::is_pending(time::timer_port()) {
            return false;
        }
    }
    true
}

/// Whether a timer that is stopped in time does not fire. On a busy machine the first tries may be too late.
fn stopped(set: impl Fn(u64) -> Result<(), Errno>, stop: impl Fn() -> Result<(), Errno>) -> bool {
    for _ in 0..100 {
        let deadline = time::now() + 5 * MS;
        let done = set(deadline).is_ok() && stop().is_ok();
        if !done || time::now() < deadline {
            return done && quiet(20 * MS);
        }
        events::clear(time::timer_port());
    }
    false
}

fn single_shot(tap: &mut Tap) {
    events::clear(time::timer_port());
    let deadline = time::now() + 10 * MS;
    tap.is(set_singleshot_timer(V0, deadline, 0), Ok(()), "a timer in 10 ms");
    tap.ok(fired(), "fires");
    let came = time::has_come(deadline);
    let now = time::now();
    if !tap.ok(came, "not before") {
        tap.note(format_args!("{} ns early", deadline.saturating_sub(now)));
    }
    tap.ok(quiet(20 * MS), "once");
    tap.is(set_singleshot_timer(V0, 1, 0), Ok(()), "a time gone by");
    tap.ok(fired(), "fires at once");
    let future = set_singleshot_timer(V0, 1, VCPU_SSHOTTMR_FUTURE);
    tap.is(future, Ok(()), "even with the flag that it must lie ahead");
    tap.ok(fired(), "which Xen 4.17 does not heed");
    let future = set_singleshot_timer(V0, time::now() + 10 * MS, VCPU_SSHOTTMR_FUTURE);
    tap.is(future, Ok(()), "one that lies ahead");
    tap.ok(fired(), "fires");
    tap.ok(
        stopped(|deadline| set_singleshot_timer(V0, deadline, 0), || stop_singleshot_timer(V0)),
        "a stopped timer does not",
    );
    tap.is(stop_singleshot_timer(V0), Ok(()), "stopping twice is fine");
    set_singleshot_timer(V0, time::now() + 3_600_000 * MS, 0).expect("always");
    set_singleshot_timer(V0, time::now() + 5 * MS, 0).expect("always");
    tap.ok(fired(), "a second timer replaces the first");
    tap.is(set_singleshot_timer(VcpuId(1000), 1, 0), Err(Errno::ENOENT), "a vCPU that does not exist");
    let missing = guests::call(24, [VCPUOP_SET_SINGLESHOT_TIMER.into(), 0, 0x1000]).map(drop);
    tap.is(missing, Err(Errno::EFAULT), "an argument that is not mapped");
}

fn timer_op(tap: &mut Tap) {
    tap.is(set_timer(time::now() + 5 * MS), Ok(()), "set_timer_op in 5 ms");
    tap.ok(fired(), "fires");
    tap.is(set_timer(1), Ok(()), "set_timer_op for a time gone by");
    tap.ok(fired(), "fires");
    tap.ok(stopped(set_timer, || set_timer(0)), "0 stops it, and it does not fire");
    tap.ok(stopped(|deadline| set_singleshot_timer(V0, deadline, 0), || set_timer(0)), "both are the same timer");
}

fn periodic(tap: &mut Tap) {
    let set = |period_ns: u64| {
        let mut argument = VcpuSetPeriodicTimer { period_ns };
        guests::call(24, [VCPUOP_SET_PERIODIC_TIMER.into(), 0, address_of(&mut argument)])
    };
    tap.is(set(5 * MS), Ok(0), "a periodic timer of 5 ms");
    tap.ok((0..3).all(|_| fired()), "fires again and again");
    tap.is(stop_periodic_timer(V0), Ok(()), "it is stopped");
    events::clear(time::timer_port());
    tap.ok(quiet(20 * MS), "and fires no more");
    tap.is(set(1000), Err(Errno::EINVAL), "a microsecond is too short");
}

/// A second domain that has set no timer gets `VIRQ_TIMER` a hundred times a second while it runs, as every PV vCPU does from
/// its start: it waits for one in a loop.
fn ticker(tap: &mut Tap) {
    let mut program = [0x90u8; 256];
    let start = code!(
        // bind_virq: VIRQ_TIMER, vCPU 0
        "push 0",
        "push 0",
        "mov edi, 1",
        "mov rsi, rsp",
        "mov eax, 32",
        "syscall",
        // An iret within the kernel opens events.
        "push 0xe02b",
        "push 0x402000",
        "push 0x202",
        "push 0xe030",
        "push 0x400040",
        "push 0",
        "push 0",
        "push 0",
        "push 0",
        "mov eax, 23",
        "syscall"
    );
    program[..start.len()].copy_from_slice(start);
    program[64..66].copy_from_slice(&[0xeb, 0xfe]);
    let end = code!("push 1", "mov edi, 2", "mov rsi, rsp", "mov eax, 29", "syscall");
    program[80..80 + end.len()].copy_from_slice(end);
    let tiny = Tiny::new(&program);
    let mut context = tiny.context();
    context.event_callback_eip = CODE + 80;
    tap.is(tiny.run(&context), End::Shutdown(1), "a vCPU has a timer of 100 Hz from its start");
}

fn poll(tap: &mut Tap) {
    let start = time::now();
    tap.is(sched::poll(&[], start + 5 * MS), Ok(()), "polling no port until a deadline");
    tap.ok(time::has_come(start + 5 * MS), "sleeps until then");
    tap.is(sched::poll(&[], 1), Ok(()), "a deadline gone by");
    tap.ok(time::now() < start + 2_000 * MS, "does not sleep");
    let port = events::bind_ipi().expect("a free port");
    events::mask(port);
    events::notify(port).expect("bound");
    tap.is(sched::poll(&[port], 0), Ok(()), "polling a pending port returns, masked as it is");
    events::clear(port);
    let start = time::now();
    tap.is(sched::poll(&[port], start + 5 * MS), Ok(()), "a port that is not pending");
    tap.ok(time::has_come(start + 5 * MS), "is waited for");
    let _ = vcpu::is_up(V0);
    events::close(port).expect("a port of ours");
}

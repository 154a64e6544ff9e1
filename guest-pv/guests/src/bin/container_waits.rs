//! What ends a wait of a vCPU in a hardware container: an interrupt that it lets in, by whatever way that comes, and nothing else. The
//! mask of events means nothing there. In a PV domain there is nothing to see of it.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(unsafe_code)] // A hypercall in the shadow of `sti`, and an APIC's registers in memory.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use guest_pv::tap::Tap;
use guest_pv::{Mode, call, events, mem, mode, smp, time, traps};
use guests::cpu::is_intel;
use xen_abi::hypercall::HYPERVISOR_SCHED_OP;
use xen_abi::ids::Port;
use xen_abi::sched::{SCHEDOP_BLOCK, SCHEDOP_POLL, SchedPoll};

guest_pv::test!(run);

const APIC: u64 = mem::DIRECT_MAP + 0xfee0_0000;
const VECTOR: u64 = 0x41;
/// A wait that nothing ends takes so many nanoseconds; one that ends at once, less than half of them.
const LONG: u64 = 600_000_000;
const SHORT: u64 = 30_000_000;

static TAKEN: AtomicU64 = AtomicU64::new(0);

fn run(tap: &mut Tap) {
    if mode() == Mode::Pv {
        return tap.skip("waits in a container", "a PV domain");
    }
    traps::set_handler(traps::EVENT, Some(upcall));
    traps::set_handler(VECTOR, Some(interrupt));
    apic_write(0xf0, 0x1ff);
    let own = events::bind_ipi().expect("a free port");
    let other = events::bind_ipi().expect("a free port");
    events::unmask(own);
    for masked in [true, false] {
        poll(tap, own, other, masked);
    }
    block(tap, own);
    halt(tap);
    events::close(own).expect("a port of ours");
    events::close(other).expect("a port of ours");
}

fn upcall(_: &mut traps::Frame) {
    TAKEN.fetch_add(1, Ordering::SeqCst);
    while events::poll().is_some() {}
}

fn interrupt(_: &mut traps::Frame) {
    TAKEN.fetch_add(1, Ordering::SeqCst);
    apic_write(0xb0, 0);
}

fn apic_write(offset: u64, value: u32) {
    // SAFETY: the local APIC's registers, in the direct map.
    unsafe { asm!("mov [{}], {:e}", in(reg) APIC + offset, in(reg) value) };
}

/// Makes the call right behind `sti`: what waits already is not taken before it. Returns how long it took until the interrupt
/// behind it was taken, too.
fn call_letting_in(operation: u32, argument: u64) -> u64 {
    let begin = time::now();
    let (number, operation) = (u64::from(HYPERVISOR_SCHED_OP), u64::from(operation));
    // SAFETY: what may come has a handler; the call touches no memory but its argument, which it reads.
    unsafe {
        if is_intel() {
            asm!("sti", "vmcall", "nop", "cli", inlateout("rax") number => _,
                inlateout("rdi") operation => _, inlateout("rsi") argument => _);
        } else {
            asm!("sti", "vmmcall", "nop", "cli", inlateout("rax") number => _,
                inlateout("rdi") operation => _, inlateout("rsi") argument => _);
        }
    }
    time::now() - begin
}

/// `SCHEDOP_poll` for a port where nothing comes, with an event of another one.
fn poll(tap: &mut Tap, own: Port, other: Port, masked: bool) {
    let [kept, ended] = match masked {
        true => [
            "an event that is not let in ends no poll (events masked)",
            "one that is let in ends it at once (events masked)",
        ],
        false => ["an event that is not let in ends no poll", "one that is let in ends it at once"],
    };
    events::set_upcall_mask(masked);
    TAKEN.store(0, Ordering::SeqCst);
    let _ = events::notify(own);
    let ports = [other];
    let poll = |until| SchedPoll { ports: ports.as_ptr() as u64, nr_ports: 1, _pad: 0, timeout: until };

    let begin = time::now();
    let argument = poll(begin + SHORT);
    let _ = call::sched::poll(&ports, argument.timeout);
    let passed = time::now() - begin;
    tap.ok(passed >= SHORT, kept);
    tap.is(TAKEN.load(Ordering::SeqCst), 0, "and is not taken");

    let argument = poll(time::now() + LONG);
    let passed = call_letting_in(SCHEDOP_POLL, &raw const argument as u64);
    tap.ok(passed < LONG / 2, ended);
    tap.is(TAKEN.load(Ordering::SeqCst), 1, "and is taken");
    events::set_upcall_mask(true);
}

/// `SCHEDOP_block` with an interrupt of the APIC's that waits.
fn block(tap: &mut Tap, own: Port) {
    TAKEN.store(0, Ordering::SeqCst);
    call::vcpu::set_singleshot_timer(smp::this(), time::now() + LONG, 0).expect("the timer can be set");
    apic_write(0x300, 0x4_0000 | 0x41);
    let passed = call_letting_in(SCHEDOP_BLOCK, 0);
    tap.ok(passed < LONG / 2, "an interrupt of the APIC's that is let in ends a block at once");
    tap.is(TAKEN.load(Ordering::SeqCst), 1, "and is taken");
    let _ = events::notify(own);
    let passed = call_letting_in(SCHEDOP_BLOCK, 0);
    tap.ok(passed < LONG / 2, "so does an event");
    tap.is(TAKEN.load(Ordering::SeqCst), 2, "that is taken, too");
    events::set_upcall_mask(true);
}

/// HLT with an interrupt of the APIC's that waits, and has waited for the task priority until just now.
fn halt(tap: &mut Tap) {
    TAKEN.store(0, Ordering::SeqCst);
    // SAFETY: a task priority, before anything waits.
    unsafe { asm!("mov cr8, {}", in(reg) 15u64) };
    apic_write(0x300, 0x4_0000 | 0x41);
    // SAFETY: nothing is to come of it yet.
    unsafe { asm!("sti", "nop", "nop", "cli") };
    tap.is(TAKEN.load(Ordering::SeqCst), 0, "what is below the task priority is not taken");
    let begin = time::now();
    call::vcpu::set_singleshot_timer(smp::this(), begin + LONG, 0).expect("the timer can be set");
    // SAFETY: what comes has a handler.
    unsafe { asm!("mov cr8, {}", "sti", "hlt", "cli", in(reg) 0u64) };
    tap.ok(time::now() - begin < LONG / 2, "what a lower task priority lets in ends a HLT at once");
    tap.ok(TAKEN.load(Ordering::SeqCst) > 0, "and is taken");
    call::vcpu::stop_singleshot_timer(smp::this()).expect("it can be stopped");
}

//! What debugging a kernel in a hardware container rests on: `int1`, single steps where the next instruction is shadowed or a long
//! hypercall, and breakpoints that stay while other domains run. In a PV domain it is `debug_registers` that shows the like.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(unsafe_code)] // A processor's debug registers, and instructions that trap.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use guest_pv::alloc::vec;
use guest_pv::tap::Tap;
use guest_pv::{Mode, mode, time};
use guests::cpu::is_intel;
use guests::{frame_of, trap_of};
use xen_abi::hypercall::{HYPERVISOR_MULTICALL, HYPERVISOR_XEN_VERSION};
use xen_abi::multicall::MulticallEntry;

guest_pv::test!(run);

const IDLE: u64 = 0xffff_0ff0;
const DEBUG: Option<(u64, u64)> = Some((1, 0));

fn run(tap: &mut Tap) {
    if mode() == Mode::Pv {
        return tap.skip("debugging in a hardware container", "a PV domain");
    }
    int1(tap);
    shadows(tap);
    long_call(tap);
    breakpoints(tap);
}

/// DR6 as it was, which is idle afterwards.
fn take_dr6() -> u64 {
    let value;
    // SAFETY: reads, and clears for the next.
    unsafe { asm!("mov {0}, dr6", "mov dr6, {1}", out(reg) value, in(reg) IDLE) };
    value
}

fn int1(tap: &mut Tap) {
    take_dr6();
    let mut behind = 0u64;
    // SAFETY: the trap ends the body.
    let frame = frame_of(|| unsafe {
        asm!("lea {0}, [rip + 2f]", "mov [{1}], {0}", ".byte 0xf1", "2: nop", out(reg) _, in(reg) &raw mut behind);
    });
    let found = frame.map(|frame| (frame.vector, frame.rip));
    if found == Some((6, behind.wrapping_sub(1))) {
        return tap.skip("INT1", "a processor of QEMU's emulation, which lacks it");
    }
    tap.is(found, Some((1, behind)), "INT1 is #DB behind it");
    tap.is(take_dr6(), IDLE, "of which DR6 says nothing");
    // SAFETY: traps; SS gets what it has.
    let in_shadow = trap_of(|| unsafe {
        asm!("mov eax, ss", "pushfq", "or qword ptr [rsp], 0x100", "popfq", "mov ss, eax", ".byte 0xf1", "nop", out("eax") _);
    });
    tap.is(in_shadow, DEBUG, "also behind a load of SS, in single steps");
}

/// A processor that is entered in such a shadow wants to hear of the step (XSA-308).
fn shadows(tap: &mut Tap) {
    take_dr6();
    // SAFETY: traps; SS gets what it has.
    let load = trap_of(|| unsafe {
        asm!("mov eax, ss", "pushfq", "or qword ptr [rsp], 0x100", "popfq", "mov ss, eax", "nop", "nop", out("eax") _);
    });
    tap.is(load, DEBUG, "a load of SS");
    tap.is(take_dr6() & 0x4000, 0x4000, "is followed by a step");
    // SAFETY: traps.
    let sti = trap_of(|| unsafe { asm!("cli", "pushfq", "or qword ptr [rsp], 0x100", "popfq", "sti", "nop", "nop") });
    tap.is(sti, DEBUG, "STI");
    tap.is(take_dr6() & 0x4000, 0x4000, "is a step");
    // SAFETY: traps.
    let hlt = trap_of(|| unsafe { asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq", "hlt", "nop") });
    tap.is(hlt, DEBUG, "HLT does not sleep on one");
    tap.is(take_dr6() & 0x4000, 0x4000, "it is a step, too");
}

/// A single step over the calls in a list, by the opcode's last byte: what trapped, and where the step was to end.
macro_rules! step_over {
    ($opcode:literal, $calls:expr) => {{
        let (mut behind, calls) = (0u64, $calls);
        // SAFETY: the trap ends the body; the calls write nothing but their results.
        let frame = frame_of(|| unsafe {
            asm!(
                "lea {0}, [rip + 2f]", "mov [{1}], {0}", "pushfq", "or qword ptr [rsp], 0x100", "popfq",
                concat!(".byte 0x0f, 0x01, ", $opcode), "2: nop", out(reg) _, in(reg) &raw mut behind,
                in("rax") u64::from(HYPERVISOR_MULTICALL), in("rdi") calls.as_mut_ptr(), in("rsi") calls.len(),
            );
        });
        (frame, behind)
    }};
}

/// A hypercall that is done in several rounds is one step.
fn long_call(tap: &mut Tap) {
    take_dr6();
    let mut calls = vec![MulticallEntry { op: HYPERVISOR_XEN_VERSION.into(), ..Default::default() }; 4000];
    let (frame, behind) = if is_intel() { step_over!("0xc1", &mut calls) } else { step_over!("0xd9", &mut calls) };
    tap.is(
        frame.map(|frame| (frame.vector, frame.rip)),
        Some((1, behind)),
        "a step over a long hypercall ends behind it",
    );
    let done = calls.iter().filter(|call| call.result == 4 << 16 | 17).count();
    tap.is(done, calls.len(), "when all of it is done");
    tap.is(take_dr6() & 0x4000, 0x4000, "it is a step");
}

fn breakpoints(tap: &mut Tap) {
    static WATCHED: AtomicU64 = AtomicU64::new(0);
    // A write of eight bytes.
    const ON: u64 = 1 | 0b1001 << 16 | 1 << 10;
    // SAFETY: a breakpoint whose trap is caught.
    unsafe { asm!("mov dr0, {}", "mov dr7, {}", in(reg) WATCHED.as_ptr().addr(), in(reg) ON) };
    for _ in 0..3 {
        // Its line is printed by others.
        tap.note(format_args!("it sleeps"));
        time::sleep(20_000_000);
        tap.is(trap_of(|| WATCHED.store(1, Ordering::SeqCst)), DEBUG, "a breakpoint is there after others have run");
        tap.is(take_dr6() & 0xf, 1, "DR6 says which");
    }
    // SAFETY: none is left.
    unsafe { asm!("mov dr7, {}", in(reg) 1u64 << 10) };
    tap.is(trap_of(|| WATCHED.store(1, Ordering::SeqCst)), None, "without it nothing happens");
}

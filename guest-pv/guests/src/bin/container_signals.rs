//! What processors in a hardware container send each other beside interrupts: NMIs to one that takes no interrupts, INIT to one that
//! runs, and INIT with SIPI at once. In a PV domain there is nothing to see of it.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(unsafe_code)] // A kernel's own instructions, and a page of code for another processor.
#![allow(clippy::cast_possible_truncation)] // Addresses below 64 KiB.

use core::arch::asm;
use core::arch::x86_64::__cpuid_count;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use guest_pv::call::vcpu;
use guest_pv::tap::Tap;
use guest_pv::{Mode, mem, mode, smp, time, traps};
use guests::cpu::{is_intel, wrmsr};
use xen_abi::ids::VcpuId;

guest_pv::test!(run);

const OTHER: VcpuId = VcpuId(1);
const APIC_BASE: u32 = 0x1b;
const EOI: u32 = 0x80b;
const SPURIOUS: u32 = 0x80f;
const ICR: u32 = 0x830;
const ON: u64 = 0x1ff;
const OFF: u64 = 0xff;
/// Commands to vCPU 1, whose APIC has number 2.
const NMI: u64 = 2 << 32 | 0x4400;
const INIT: u64 = 2 << 32 | 0x4500;
const SIPI: u64 = 2 << 32 | 0x4608;
/// Lowest priority, to vCPU 0 or 1 by their logical addresses.
const EITHER: u64 = 0b101 << 32 | 0x4900 | VECTOR;
const VECTOR: u64 = 0x51;

/// By VT-x a guest is called out after so many nanoseconds, whatever it does.
const CALLED_OUT: u64 = 2_000_000;

/// What the other processor has counted, how often an NMI and an interrupt came there, and whether it is to end.
static COUNTED: AtomicU64 = AtomicU64::new(0);
static NMIS: AtomicU64 = AtomicU64::new(0);
static TAKEN: AtomicU64 = AtomicU64::new(0);
/// The address behind a `mov ss`, and how often an NMI came there.
static SHADOW: AtomicU64 = AtomicU64::new(0);
static EARLY: AtomicU64 = AtomicU64::new(0);
static BEHIND: AtomicU64 = AtomicU64::new(0);
/// When an NMI was sent, and the shortest time after which one came, in nanoseconds.
static SENT: AtomicU64 = AtomicU64::new(0);
static SHORTEST: AtomicU64 = AtomicU64::new(u64::MAX);
static STOP: AtomicBool = AtomicBool::new(false);

fn run(tap: &mut Tap) {
    if mode() == Mode::Pv {
        return tap.skip("signals between processors", "a PV domain");
    }
    if __cpuid_count(1, 0).ecx & 1 << 21 == 0 {
        return tap.skip("signals between processors", "no x2APIC");
    }
    tap.is(wrmsr(APIC_BASE, 0xfee0_0d00), None, "x2APIC");
    traps::set_handler(VECTOR, Some(interrupt));
    lowest_priority(tap);
    nmis(tap);
    start(tap);
    stop(tap);
    many_times(tap, 0, "one that runs starts anew each time, however soon INIT and two SIPIs come");
    many_times(tap, 1, "one that is about to halt for good does, too");
}

/// Waits for up to two seconds.
fn comes(what: impl Fn() -> bool) -> bool {
    let end = time::now() + 2_000_000_000;
    while !what() {
        if time::has_come(end) {
            return false;
        }
        smp::relax();
    }
    true
}

fn interrupt(_: &mut traps::Frame) {
    TAKEN.fetch_add(1, Ordering::SeqCst);
    wrmsr(EOI, 0);
}

/// Counts, with nothing that would bring it out of the container, until it is told to stop.
fn count() {
    while !STOP.load(Ordering::SeqCst) {
        COUNTED.fetch_add(1, Ordering::SeqCst);
    }
}

/// Has the other processor count, and waits until it does.
fn counts(job: fn()) -> bool {
    STOP.store(false, Ordering::SeqCst);
    let before = COUNTED.load(Ordering::SeqCst);
    smp::start(OTHER, job).expect("there is another processor");
    comes(|| COUNTED.load(Ordering::SeqCst) != before)
}

fn ends() {
    STOP.store(true, Ordering::SeqCst);
    smp::join(OTHER).expect("there is another processor");
}

fn lowest_priority(tap: &mut Tap) {
    let job = || {
        wrmsr(APIC_BASE, 0xfee0_0c00);
        wrmsr(SPURIOUS, ON);
        // SAFETY: what may come has a handler.
        unsafe { asm!("sti") };
        count();
        // SAFETY: as it was.
        unsafe { asm!("cli") };
    };
    tap.is(wrmsr(SPURIOUS, OFF), None, "the first processor's APIC is switched off");
    tap.ok(counts(job), "another processor's is on");
    tap.is(wrmsr(ICR, EITHER), None, "an interrupt for one of them");
    tap.ok(comes(|| TAKEN.load(Ordering::SeqCst) == 1), "goes to the one that is on");
    ends();
    tap.is(wrmsr(SPURIOUS, ON), None, "the first one's is on, too");
}

/// Counts, and holds interrupts off by `mov ss` for every few instructions.
fn count_in_shadows() {
    while !STOP.load(Ordering::SeqCst) {
        // SAFETY: the stack segment is the one that it is.
        unsafe {
            asm!("lea {behind}, [rip + 2f]", "mov [{shadow}], {behind}", "mov {behind:e}, ss", "mov ss, {behind:e}",
                "2:", "nop", "nop", behind = out(reg) _, shadow = in(reg) SHADOW.as_ptr())
        };
        COUNTED.fetch_add(1, Ordering::SeqCst);
    }
}

fn nmis(tap: &mut Tap) {
    traps::set_handler(
        2,
        Some(|frame| {
            let early = frame.rip == SHADOW.load(Ordering::SeqCst);
            EARLY.fetch_add(early.into(), Ordering::SeqCst);
            let passed = time::now().saturating_sub(SENT.load(Ordering::SeqCst));
            SHORTEST.fetch_min(passed, Ordering::SeqCst);
            NMIS.fetch_add(1, Ordering::SeqCst);
        }),
    );
    tap.ok(counts(count), "another processor takes no interrupts, and does not leave its container");
    for number in 1..=20 {
        SENT.store(time::now(), Ordering::SeqCst);
        wrmsr(ICR, NMI);
        if !comes(|| NMIS.load(Ordering::SeqCst) == number) {
            break;
        }
    }
    ends();
    tap.is(NMIS.load(Ordering::SeqCst), 20, "each NMI comes while it does so");
    let shortest = SHORTEST.load(Ordering::SeqCst);
    tap.note(format_args!("the soonest after {shortest} ns"));
    tap.ok(shortest < CALLED_OUT, "by itself, not with whatever calls the processor out next");
    tap.ok(counts(count_in_shadows), "it loads its stack segment, over and over");
    let there = (21..=220).all(|number| {
        wrmsr(ICR, NMI);
        comes(|| NMIS.load(Ordering::SeqCst) == number)
    });
    ends();
    tap.ok(there, "each NMI comes then, too");
    let early = EARLY.load(Ordering::SeqCst);
    // QEMU's AMD-V forgets what `mov ss` holds off when it enters the container once more before the next instruction.
    if is_intel() {
        tap.is(early, 0, "and never behind `mov ss`, where the stack pointer is another stack's");
    } else {
        tap.note(format_args!("{early} of them behind `mov ss`"));
    }
    // The second one is not there before the first one's handler returns, and this one never does.
    traps::set_handler(
        2,
        Some(|_| {
            let _ = vcpu::send_nmi(OTHER);
            // SAFETY: it stops here.
            unsafe { asm!("cli", "hlt") };
            BEHIND.store(1, Ordering::SeqCst);
        }),
    );
    tap.ok(counts(count), "it counts again");
    wrmsr(ICR, NMI);
    tap.ok(comes(is_down), "a HLT in an NMI's handler, while another NMI waits, is for good");
    tap.is(BEHIND.load(Ordering::SeqCst), 0, "and is not left");
    STOP.store(true, Ordering::SeqCst);
}

fn is_down() -> bool {
    vcpu::is_up(OTHER) == Ok(false)
}

/// Real mode: counts its starts, and then goes on counting, or halts.
mod trampoline {
    core::arch::global_asm!(
        ".pushsection .rodata, \"a\", @progbits",
        ".globl signals_trampoline",
        ".globl signals_trampoline_nmi",
        ".globl signals_trampoline_end",
        "signals_trampoline:",
        ".code16",
        "xor ax, ax",
        "mov ds, ax",
        "mov ss, ax",
        "mov sp, 0x7800",
        "lock inc dword ptr ds:[0x8f00]",
        "cmp byte ptr ds:[0x8f0c], 0",
        "jne 7f",
        "2: lock inc dword ptr ds:[0x8f04]",
        "jmp 2b",
        "7: cli",
        "hlt",
        "jmp 7b",
        "signals_trampoline_nmi:",
        "lock inc dword ptr ds:[0x8f08]",
        "iret",
        "signals_trampoline_end:",
        ".code64",
        ".popsection",
    );
    unsafe extern "C" {
        pub static signals_trampoline: u8;
        pub static signals_trampoline_nmi: u8;
        pub static signals_trampoline_end: u8;
    }
}

const PLACE: u64 = 0x8000;
const STARTS: u64 = 0x8f00;
const TURNS: u64 = 0x8f04;
const REAL_NMIS: u64 = 0x8f08;
const HALTS: u64 = 0x8f0c;

fn low(offset: u64) -> *mut u32 {
    (mem::DIRECT_MAP + offset) as *mut u32
}

fn peek(offset: u64) -> u32 {
    // SAFETY: low memory that only these tests use.
    unsafe { low(offset).read_volatile() }
}

/// The page for the other processor, and the vector of NMIs in real mode.
fn prepare() {
    // SAFETY: low memory that nobody else uses; code as it lies in the image.
    unsafe {
        let from = &raw const trampoline::signals_trampoline;
        let length = (&raw const trampoline::signals_trampoline_end).offset_from_unsigned(from);
        let handler = (&raw const trampoline::signals_trampoline_nmi).offset_from_unsigned(from);
        core::ptr::copy_nonoverlapping(from, low(PLACE).cast(), length);
        low(STARTS).cast::<[u32; 4]>().write([0; 4]);
        // A segment, and an offset in it.
        low(2 * 4).cast::<[u16; 2]>().write_volatile([handler as u16, PLACE as u16 >> 4]);
    }
}

/// It went down within an NMI's handler, while another waited: INIT ends both.
fn start(tap: &mut Tap) {
    prepare();
    wrmsr(ICR, INIT);
    wrmsr(ICR, SIPI);
    tap.ok(comes(|| peek(TURNS) > 0), "INIT and SIPI start it anew");
    tap.is(peek(REAL_NMIS), 0, "without the NMI that waited");
    wrmsr(ICR, NMI);
    tap.ok(comes(|| peek(REAL_NMIS) == 1), "it takes the next one");
}

fn stop(tap: &mut Tap) {
    wrmsr(ICR, INIT);
    tap.ok(comes(is_down), "INIT alone takes it down");
    let turns = peek(TURNS);
    time::sleep(50_000_000);
    tap.is(peek(TURNS), turns, "it counts no further");
    let starts = peek(STARTS);
    wrmsr(ICR, SIPI);
    tap.ok(comes(|| peek(STARTS) == starts + 1), "until a SIPI comes");
}

/// INIT, SIPI and SIPI without waiting for anything.
fn many_times(tap: &mut Tap, halts: u32, text: &str) {
    const ROUNDS: u32 = 50;
    // SAFETY: low memory that only these tests use.
    unsafe { low(HALTS).write_volatile(halts) };
    let before = peek(STARTS);
    let started = (1..=ROUNDS).take_while(|round| {
        wrmsr(ICR, INIT);
        wrmsr(ICR, SIPI);
        wrmsr(ICR, SIPI);
        comes(|| peek(STARTS) == before + round)
    });
    tap.is(started.count(), ROUNDS as usize, text);
}

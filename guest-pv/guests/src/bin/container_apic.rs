//! A kernel's local APIC as MSRs, switched on, as a stock kernel has it: what it reads and is refused, priorities, interrupts within
//! interrupts, one that was asked for before the APIC was switched off, and what an EOI costs. Where the processor serves such
//! an APIC by itself (APIC virtualisation), all of it is the processor's work, and an EOI is no way out of the container.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(unsafe_code)] // A kernel's own instructions.

use core::arch::asm;
use core::arch::x86_64::__cpuid_count;
use core::sync::atomic::{AtomicU64, Ordering};
use guest_pv::tap::Tap;
use guest_pv::{Mode, call, mode, smp, time, traps};
use guests::cpu::{rdmsr, wrmsr};
use xen_abi::hypercall::HYPERVISOR_HVM_OP;

guest_pv::test!(run);

const GP: Option<(u64, u64)> = Some((13, 0));
const APIC_BASE: u32 = 0x1b;
const TASK_PRIORITY: u32 = 0x808;
const PROCESSOR_PRIORITY: u32 = 0x80a;
const EOI: u32 = 0x80b;
const SPURIOUS: u32 = 0x80f;
const IN_SERVICE: u32 = 0x810;
const REQUESTED: u32 = 0x820;
const ERRORS: u32 = 0x828;
const ICR: u32 = 0x830;
const TIMER: u32 = 0x832;
const ERROR_ENTRY: u32 = 0x837;
const INITIAL: u32 = 0x838;
const CURRENT: u32 = 0x839;
const DIVIDE: u32 = 0x83e;
const SELF_IPI: u32 = 0x83f;
const ON: u64 = 0x1ff;
const OFF: u64 = 0xff;

/// The interrupts taken, the newest in the lowest byte.
static TAKEN: AtomicU64 = AtomicU64::new(0);
/// What the handler of [`OUTER`] saw.
static SEEN: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
const LOW: u64 = 0x31;
const OUTER: u64 = 0x42;
const SAME: u64 = 0x48;
const INNER: u64 = 0x55;
const BY_ERROR: u64 = 0x61;
const BY_TIMER: u64 = 0x62;
const BY_EVENT: u64 = 0x71;

fn run(tap: &mut Tap) {
    if mode() == Mode::Pv {
        return tap.skip("a local APIC as MSRs", "a PV domain");
    }
    if __cpuid_count(1, 0).ecx & 1 << 21 == 0 {
        return tap.skip("a local APIC as MSRs", "no x2APIC");
    }
    for vector in [LOW, SAME, INNER, BY_ERROR, BY_TIMER, BY_EVENT] {
        traps::set_handler(vector, Some(note));
    }
    traps::set_handler(OUTER, Some(outer));
    tap.is(wrmsr(APIC_BASE, 0xfee0_0d00), None, "x2APIC");
    tap.is(wrmsr(SPURIOUS, ON), None, "it is switched on");
    registers(tap);
    priorities(tap);
    held_off(tap);
    nested(tap);
    illegal(tap);
    switched_off(tap);
    timer(tap);
    event(tap);
    cost(tap);
    gone(tap);
}

fn take(vector: u64) {
    TAKEN.store(TAKEN.load(Ordering::SeqCst) << 8 | vector, Ordering::SeqCst);
}

fn taken() -> u64 {
    TAKEN.swap(0, Ordering::SeqCst)
}

fn note(frame: &mut traps::Frame) {
    take(frame.vector);
    wrmsr(EOI, 0);
}

/// Lets interrupts in, for a moment.
fn window() {
    // SAFETY: they have handlers, and are off again behind it.
    unsafe { asm!("sti", "nop", "nop", "nop", "cli") };
}

fn word(first: u32, vector: u64) -> bool {
    let index = u32::try_from(vector / 32).unwrap_or(0);
    rdmsr(first + index).is_some_and(|word| word >> (vector % 32) & 1 == 1)
}

fn cr8() -> u64 {
    let value;
    // SAFETY: reads.
    unsafe { asm!("mov {}, cr8", out(reg) value) };
    value
}

/// On AMD's by the MSR: QEMU's TCG trips over an assertion of its own (`tcg_handle_interrupt`) where CR8 is written while an
/// interrupt is held back.
fn set_cr8(value: u64) {
    if __cpuid_count(0, 0).ebx == u32::from_le_bytes(*b"Auth") {
        wrmsr(TASK_PRIORITY, value << 4);
        return;
    }
    // SAFETY: a task priority.
    unsafe { asm!("mov cr8, {}", in(reg) value) };
}

fn registers(tap: &mut Tap) {
    let id = u64::from(smp::this().0) * 2;
    tap.is(rdmsr(0x802), Some(id), "its number");
    tap.is(rdmsr(0x803), Some(0x5_0014), "its version");
    tap.is(rdmsr(0x80d), Some((id >> 4) << 16 | 1 << (id & 15)), "its logical address");
    tap.is(rdmsr(SPURIOUS), Some(ON), "the spurious vector");
    tap.is(wrmsr(ICR, 0xfff0 << 32 | OUTER), None, "an interrupt for nobody");
    tap.is(rdmsr(ICR), Some(0xfff0 << 32 | OUTER), "the whole command is read back");
    tap.is(wrmsr(TIMER, 1 << 16 | BY_TIMER), None, "an entry of the table");
    tap.is(rdmsr(TIMER), Some(1 << 16 | BY_TIMER), "is read back");
    tap.is(rdmsr(DIVIDE), Some(0), "so is the divider");
    for number in [0x800, 0x801, 0x804, EOI, 0x80c, 0x80e, 0x829, 0x82f, 0x831, 0x83a, SELF_IPI, 0x840, 0x8ff] {
        tap.is(rdmsr(number), None, "a register that there is not, or that is only written");
    }
    for number in [0x800, 0x802, 0x803, PROCESSOR_PRIORITY, 0x80d, IN_SERVICE, REQUESTED, 0x831, CURRENT, 0x8ff] {
        tap.is(wrmsr(number, 0), GP, "a register that is only read");
    }
    tap.is(wrmsr(EOI, 1), GP, "EOI takes 0 only");
    tap.is(wrmsr(TASK_PRIORITY, 0x100), GP, "no priority has nine bits");
    tap.is(wrmsr(SELF_IPI, 0x100), GP, "no vector has nine bits");
}

fn priorities(tap: &mut Tap) {
    tap.is(wrmsr(TASK_PRIORITY, 0x57), None, "the task priority");
    tap.is((rdmsr(TASK_PRIORITY), cr8()), (Some(0x57), 5), "is CR8");
    tap.is(rdmsr(PROCESSOR_PRIORITY), Some(0x57), "and the processor's");
    // SAFETY: a task priority, with no interrupt that waits.
    unsafe { asm!("mov cr8, {}", in(reg) 6u64) };
    tap.is((rdmsr(TASK_PRIORITY), rdmsr(PROCESSOR_PRIORITY)), (Some(0x60), Some(0x60)), "CR8 is both");
    wrmsr(TASK_PRIORITY, 0x57);
    wrmsr(SELF_IPI, INNER);
    window();
    tap.is((taken(), word(REQUESTED, INNER)), (0, true), "an interrupt of its class waits");
    set_cr8(4);
    window();
    tap.is((taken(), word(REQUESTED, INNER)), (INNER, false), "until it is lower");
    tap.is(rdmsr(TASK_PRIORITY), Some(0x40), "CR8 is the task priority");
    set_cr8(0);
    wrmsr(SELF_IPI, LOW);
    tap.ok(word(REQUESTED, LOW), "one waits for the interrupt flag");
    // SAFETY: it comes at once.
    unsafe { asm!("sti", "hlt", "cli") };
    tap.is(taken(), LOW, "which ends a HLT");
}

/// One waits for the interrupt flag while the machine's own interrupts come. Bochs 2.7 lets it through then where its processor
/// serves the APIC (docs/decisions/0047), so this is told and not claimed.
fn held_off(tap: &mut Tap) {
    const TICKS: u64 = 400_000;
    // The APIC's timer is masked, and costs the machine an interrupt all the same.
    wrmsr(TIMER, 1 << 16 | BY_TIMER);
    wrmsr(SELF_IPI, LOW);
    wrmsr(INITIAL, 20_000);
    let begin = time::tsc();
    while time::tsc() - begin < TICKS {
        // SAFETY: they are off already.
        unsafe { asm!("cli") };
    }
    let early = taken() != 0;
    window();
    let all = early || taken() == LOW;
    tap.ok(all, "one that waits for the interrupt flag is not lost while the machine's own interrupts come");
    tap.note(format_args!("{}", if early { "it came with interrupts off" } else { "it came when interrupts were on" }));
}

/// Two more come while it is served: one that waits for its end, and one that does not.
fn outer(frame: &mut traps::Frame) {
    take(frame.vector);
    SEEN[0].store(rdmsr(PROCESSOR_PRIORITY).unwrap_or(0), Ordering::SeqCst);
    SEEN[1].store(word(IN_SERVICE, OUTER).into(), Ordering::SeqCst);
    wrmsr(SELF_IPI, SAME);
    wrmsr(SELF_IPI, INNER);
    window();
    SEEN[2].store(TAKEN.load(Ordering::SeqCst), Ordering::SeqCst);
    wrmsr(EOI, 0);
}

fn nested(tap: &mut Tap) {
    wrmsr(SELF_IPI, OUTER);
    window();
    window();
    let [priority, served, inside] = [0, 1, 2].map(|i| SEEN[i].load(Ordering::SeqCst));
    tap.is((priority, served), (0x40, 1), "what is served is the processor's priority");
    tap.is(inside, OUTER << 8 | INNER, "a higher one comes in between");
    tap.is(taken(), OUTER << 16 | INNER << 8 | SAME, "and one of its class behind it");
    tap.is(rdmsr(PROCESSOR_PRIORITY), Some(0), "nothing is served any more");
}

fn illegal(tap: &mut Tap) {
    tap.is(wrmsr(ERROR_ENTRY, BY_ERROR), None, "the entry for errors");
    for vector in [0, 5, 15] {
        tap.is(wrmsr(SELF_IPI, vector), None, "an exception's vector to oneself is an error");
        window();
        tap.is(taken(), BY_ERROR, "with an interrupt");
        wrmsr(ERRORS, 0);
        tap.is(rdmsr(ERRORS), Some(1 << 5), "and a reason");
    }
    wrmsr(ERRORS, 0);
    tap.is(rdmsr(ERRORS), Some(0), "once");
    wrmsr(ERROR_ENTRY, 1 << 16);
}

fn switched_off(tap: &mut Tap) {
    wrmsr(TASK_PRIORITY, 0x23);
    wrmsr(SELF_IPI, LOW);
    wrmsr(SPURIOUS, OFF);
    tap.ok(word(REQUESTED, LOW), "what was asked for stays where the APIC is switched off");
    tap.is(rdmsr(TASK_PRIORITY), Some(0x23), "and the task priority");
    window();
    tap.is(taken(), 0, "nothing comes");
    wrmsr(SPURIOUS, ON);
    window();
    tap.is(taken(), LOW, "until it is on again");
    // The same with one that is being served.
    traps::set_handler(
        OUTER,
        Some(|frame| {
            take(frame.vector);
            wrmsr(SPURIOUS, OFF);
            SEEN[0].store(word(IN_SERVICE, OUTER).into(), Ordering::SeqCst);
            wrmsr(SPURIOUS, ON);
            SEEN[1].store(word(IN_SERVICE, OUTER).into(), Ordering::SeqCst);
            wrmsr(EOI, 0);
            SEEN[2].store(word(IN_SERVICE, OUTER).into(), Ordering::SeqCst);
        }),
    );
    wrmsr(SELF_IPI, OUTER);
    window();
    let seen = [0, 1, 2].map(|i| SEEN[i].load(Ordering::SeqCst));
    tap.is((taken(), seen), (OUTER, [1, 1, 0]), "what is served is served across that, until its EOI");
    wrmsr(TASK_PRIORITY, 0);
}

fn timer(tap: &mut Tap) {
    // Seconds, or it ends meanwhile on a busy machine.
    const LONG: u64 = 500_000_000;
    wrmsr(TIMER, BY_TIMER);
    wrmsr(INITIAL, LONG);
    let first = rdmsr(CURRENT).unwrap_or(0);
    let mut second = first;
    for _ in 0..1000 {
        second = rdmsr(CURRENT).unwrap_or(0);
        if second != first {
            break;
        }
    }
    tap.ok(second < first && first <= LONG, "the timer counts down");
    tap.is(rdmsr(INITIAL), Some(LONG), "from where it began");
    wrmsr(INITIAL, 50_000);
    // SAFETY: the timer's interrupt ends it.
    unsafe { asm!("sti", "hlt", "cli") };
    tap.is(taken(), BY_TIMER, "and its interrupt ends a HLT");
    wrmsr(TIMER, 1 << 16);
}

/// One by `HVMOP_set_evtchn_upcall_vector`, as stock kernels hear of events.
fn event(tap: &mut Tap) {
    const SET_UPCALL_VECTOR: u64 = 23;
    let mut wanted = [u64::from(smp::this().0) | BY_EVENT << 32];
    let set = guests::call(HYPERVISOR_HVM_OP, [SET_UPCALL_VECTOR, wanted.as_mut_ptr() as u64]);
    tap.is(set.map(|_| ()), Ok(()), "events get a vector of this APIC's");
    window();
    // Where one was pending already, it has come.
    let _ = taken();
    while guest_pv::events::poll().is_some() {}
    let Ok(port) = guest_pv::events::bind_ipi() else { return tap.skip("an event", "no port") };
    guest_pv::events::unmask(port);
    let _ = guest_pv::events::notify(port);
    window();
    tap.is(taken(), BY_EVENT, "an event is an interrupt");
    tap.is(rdmsr(PROCESSOR_PRIORITY), Some(0), "and its EOI was the APIC's");
    let _ = guest_pv::events::close(port);
    traps::set_handler(2, Some(|_| take(2)));
    tap.is(call::vcpu::send_nmi(smp::this()), Ok(()), "an NMI");
    window();
    tap.is(taken(), 2, "is no event, too");
}

/// Without one CPUID tells of none (SDM vol. 3A, 10.4.3). All that it had is lost.
fn gone(tap: &mut Tap) {
    let told = || __cpuid_count(1, 0).edx & 1 << 9 != 0;
    tap.ok(told(), "CPUID tells of it");
    tap.is(wrmsr(APIC_BASE, 0xfee0_0100), None, "it is switched off for good");
    tap.ok(!told(), "and CPUID tells of none");
    wrmsr(APIC_BASE, 0xfee0_0900);
    wrmsr(APIC_BASE, 0xfee0_0d00);
    wrmsr(SPURIOUS, ON);
    tap.ok(told(), "until it is back");
}

/// The least that something takes, in ticks of the TSC.
fn least(mut what: impl FnMut()) -> u64 {
    (0..30)
        .map(|_| {
            let begin = time::tsc();
            what();
            time::tsc() - begin
        })
        .min()
        .unwrap_or(0)
}

fn cost(tap: &mut Tap) {
    let exit = least(|| {
        let _ = __cpuid_count(0, 0);
    });
    let eoi = least(|| {
        // SAFETY: there is nothing to end.
        unsafe { asm!("wrmsr", in("ecx") EOI, in("eax") 0, in("edx") 0) };
    });
    let null = least(|| {
        let _ = call::version::version();
    });
    tap.note(format_args!("ticks: EOI {eoi}, CPUID {exit}, a hypercall {null}"));
    let how = if eoi < exit { "an EOI stays in the container" } else { "an EOI leaves the container" };
    tap.note(format_args!("{how}"));
}

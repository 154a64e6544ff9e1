//! Events whose delivery comes out of a hardware container half-way: their stack is where nothing is, in the local APIC's page, or
//! in a page that was given back. The guest gets a fault first, and when it has mended the cause, the event, once. In a PV
//! domain there is nothing to see of it.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(unsafe_code)] // A processor's own tables, and instructions that fault.

use core::arch::asm;
use core::arch::x86_64::__cpuid_count;
use core::sync::atomic::{AtomicU64, Ordering};
use guest_pv::mem::Frame;
use guest_pv::tap::Tap;
use guest_pv::{Mode, call, events, mem, mode, smp, traps};
use guests::cpu::{rdmsr, wrmsr};
use guests::{load, page, store, trap_of};
use xen_abi::ids::DomId;

guest_pv::test!(run);

const GP: Option<(u64, u64)> = Some((13, 0));
const DOUBLE_FAULT: Option<(u64, u64)> = Some((8, 0));
const APIC: u64 = mem::DIRECT_MAP + 0xfee0_0000;
const APIC_BASE: u32 = 0x1b;
const EOI: u32 = 0x80b;
const SELF_IPI: u32 = 0x83f;
const VECTOR: u64 = 0x41;
/// Where events arrive.
const EVENT_VECTOR: u64 = 0xf3;
/// The entry of the table of stacks that is used here.
const STACK: u64 = 7;
/// A stack where nothing is, one in the page of the APIC's registers.
const NOWHERE: u64 = mem::DIRECT_MAP + 0xfd00_1000;
const IN_APIC: u64 = APIC + 0x1000;
/// A trap that comes as an interrupt has its stub look above its frame.
const SLACK: u64 = 64;

/// The gate that a fault mends, and the frame to fill instead where it is none.
static GATE: AtomicU64 = AtomicU64::new(0);
static FILL: AtomicU64 = AtomicU64::new(0);
/// How often the fault came, and the event.
static FAULTS: AtomicU64 = AtomicU64::new(0);
static TAKEN: AtomicU64 = AtomicU64::new(0);
/// Whether the fault was there when the event came.
static IN_ORDER: AtomicU64 = AtomicU64::new(0);
/// The stack pointer on which it came.
static TAKEN_ON: AtomicU64 = AtomicU64::new(0);

fn run(tap: &mut Tap) {
    if mode() == Mode::Pv {
        return tap.skip("events delivered half-way", "a PV domain");
    }
    traps::set_handler(VECTOR, Some(interrupt));
    traps::set_handler(traps::EVENT, Some(upcall));
    apic_write(SPURIOUS, ON);
    interrupts(tap, "its registers are memory", || {}, by_memory);
    exceptions(tap);
    upcalls(tap);
    nmi(tap);
    if __cpuid_count(1, 0).ecx & 1 << 21 == 0 {
        return tap.skip("the APIC as MSRs", "no x2APIC");
    }
    interrupts(tap, "its registers are MSRs", to_msrs, || {
        wrmsr(SELF_IPI, VECTOR);
    });
}

fn by_memory() {
    apic_write(0x300, 0x4_0000 | 0x41);
}

/// The APIC's registers are MSRs from now on. Bochs 2.7 says of an interrupt that the processor delivers by itself, and has to break
/// off, that it was the last event of another kind. So one of the same vector comes before, while the registers are memory.
fn to_msrs() {
    for base in [0xfee0_0100, 0xfee0_0900] {
        assert_eq!(wrmsr(APIC_BASE, base), None, "the APIC can be switched off and on");
    }
    apic_write(SPURIOUS, ON);
    by_memory();
    let_in();
    assert_eq!(wrmsr(APIC_BASE, 0xfee0_0d00), None, "x2APIC");
}

/// A register and its value with which the APIC is on.
const SPURIOUS: u64 = 0xf0;
const ON: u32 = 0x1ff;

fn apic_write(offset: u64, value: u32) {
    // SAFETY: the local APIC's registers, in the direct map.
    unsafe { asm!("mov [{}], {:e}", in(reg) APIC + offset, in(reg) value) };
}

/// Where a table is, by the instruction that stores its register.
macro_rules! table {
    ($instruction:literal) => {{
        let mut register = [0u16; 5];
        // SAFETY: ten bytes are written.
        unsafe { asm!(concat!($instruction, " [{}]"), in(reg) &raw mut register) };
        let [_, a, b, c, d] = register.map(u64::from);
        a | b << 16 | c << 32 | d << 48
    }};
}

/// Has a vector's gate name a stack of the table, or none.
fn name_stack(vector: u64, stack: u64) {
    let gate = table!("sidt") + vector * 16;
    store(gate, load(gate) & !(7 << 32) | stack << 32);
}

/// Where that stack is.
fn set_stack(top: u64) {
    const TASK: u64 = 0x18;
    let descriptor = table!("sgdt") + TASK;
    let low = load(descriptor);
    let base = low >> 16 & 0xff_ffff | low >> 56 << 24 | load(descriptor + 8) << 32;
    store(base + 36 + 8 * (STACK - 1), top - SLACK);
}

/// A fault in place of the event.
fn fault(frame: &mut traps::Frame) {
    if FAULTS.fetch_add(1, Ordering::SeqCst) > 3 {
        // Mending does not help.
        traps::abandon(frame);
    }
    match FILL.load(Ordering::SeqCst) {
        0 => name_stack(GATE.load(Ordering::SeqCst), 0),
        frame => {
            let filled = call::memory::populate_physmap(DomId::SELF, &mut [frame], 0, 0);
            assert_eq!(filled, Ok(1), "there is memory");
        }
    }
}

fn take() {
    TAKEN.fetch_add(1, Ordering::SeqCst);
    IN_ORDER.store(FAULTS.load(Ordering::SeqCst), Ordering::SeqCst);
}

fn interrupt(frame: &mut traps::Frame) {
    take();
    TAKEN_ON.store(core::ptr::from_mut(frame).addr() as u64, Ordering::SeqCst);
    if rdmsr(APIC_BASE).is_some_and(|base| base & 0x400 != 0) {
        wrmsr(EOI, 0);
    } else {
        apic_write(0xb0, 0);
    }
}

fn upcall(_: &mut traps::Frame) {
    take();
    while let Some(port) = events::poll() {
        events::clear(port);
    }
}

fn non_maskable(_: &mut traps::Frame) {
    take();
}

/// Lets interrupts in for long enough, and an exit come.
fn let_in() {
    // SAFETY: handlers of all that may come are set.
    unsafe { asm!("sti", "nop", "nop") };
    let _ = __cpuid_count(0, 0);
    // SAFETY: as it was.
    unsafe { asm!("nop", "cli") };
}

/// Has an event come while its gate's stack is bad: how often the fault came, how often the event, and after how many faults.
fn with_stack(vector: u64, top: u64, fill: Option<&Frame>, cause: impl FnOnce()) -> (u64, u64, u64) {
    for counter in [&FAULTS, &TAKEN, &IN_ORDER] {
        counter.store(0, Ordering::SeqCst);
    }
    GATE.store(vector, Ordering::SeqCst);
    FILL.store(fill.map_or(0, |frame| frame.mfn().0), Ordering::SeqCst);
    set_stack(top);
    traps::set_handler(13, Some(fault));
    name_stack(vector, STACK);
    let trap = trap_of(cause);
    traps::set_handler(13, None);
    name_stack(vector, 0);
    assert_eq!(trap, None, "nothing else comes");
    (FAULTS.load(Ordering::SeqCst), TAKEN.load(Ordering::SeqCst), IN_ORDER.load(Ordering::SeqCst))
}

fn interrupts(tap: &mut Tap, how: &str, prepare: impl Fn(), send: impl Fn()) {
    tap.note(format_args!("the local APIC: {how}"));
    let come = || {
        send();
        let_in();
    };
    for (top, text) in [
        (NOWHERE, "an interrupt whose stack is nowhere comes once, behind the fault that mends it"),
        (IN_APIC, "one whose stack is the APIC's page as well"),
    ] {
        prepare();
        tap.is(with_stack(VECTOR, top, None, come), (1, 1, 1), text);
    }
    prepare();
    let stack = page();
    let given = call::memory::decrease_reservation(DomId::SELF, &[stack.mfn().0], 0);
    tap.is(given, Ok(1), "a page is given back");
    let top = stack.address() + 4096;
    tap.is(with_stack(VECTOR, top, Some(&stack), come), (1, 1, 1), "one whose stack lay there comes when it is filled");
    let on = TAKEN_ON.load(Ordering::SeqCst);
    tap.ok((stack.address()..top).contains(&on), "on that stack");
    let_in();
    tap.is(TAKEN.load(Ordering::SeqCst), 1, "and does not come again");
    come();
    tap.is(TAKEN.load(Ordering::SeqCst), 2, "but the next one does");
}

fn upcalls(tap: &mut Tap) {
    let port = events::bind_ipi().expect("a free port");
    events::unmask(port);
    let found = with_stack(EVENT_VECTOR, NOWHERE, None, || {
        let _ = events::notify(port);
        let_in();
    });
    tap.is(found, (1, 1, 1), "an event's upcall comes once, behind the fault");
    events::close(port).expect("a port of ours");
}

fn nmi(tap: &mut Tap) {
    traps::set_handler(2, Some(non_maskable));
    let come = || {
        let _ = call::vcpu::send_nmi(smp::this());
        for _ in 0..100 {
            let _ = __cpuid_count(0, 0);
        }
    };
    tap.is(with_stack(2, NOWHERE, None, come), (1, 1, 1), "so does an NMI");
    come();
    tap.is(TAKEN.load(Ordering::SeqCst), 2, "and the next NMI comes");
    traps::set_handler(2, None);
}

/// Faults on the way to a fault's handler.
fn exceptions(tap: &mut Tap) {
    let with = |vector: u64, top: u64, cause: fn()| {
        set_stack(top);
        name_stack(vector, STACK);
        let trap = trap_of(cause);
        name_stack(vector, 0);
        trap
    };
    for top in [NOWHERE, IN_APIC] {
        // SAFETY: faults that end the body.
        unsafe {
            tap.is(with(6, top, || asm!("ud2")), GP, "#UD on such a stack is #GP");
            tap.is(with(6, top, || asm!("vmrun rax", in("rax") 0)), GP, "also where the hypervisor raises it");
            tap.is(with(13, top, || asm!("mov ds, {:e}", in(reg) 0x7ff8)), DOUBLE_FAULT, "#GP is a double fault");
            let rdmsr = || asm!("rdmsr", in("ecx") 0x1234_5678, out("eax") _, out("edx") _);
            tap.is(with(13, top, rdmsr), DOUBLE_FAULT, "also where the hypervisor raises it");
            let load = || asm!("mov {0}, [{0}]", inout(reg) 1u64 << 46 => _);
            tap.is(with(14, top, load), DOUBLE_FAULT, "#PF as well");
        }
        let step = || {
            // SAFETY: a step, whose fault ends the body.
            unsafe { asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq", "nop", "nop") };
        };
        tap.is(with(1, top, step), GP, "#DB is #GP");
        // SAFETY: a trap that ends the body.
        tap.is(with(3, top, || unsafe { asm!("int3") }), GP, "INT3 is #GP");
        // SAFETY: as above.
        tap.is(with(VECTOR, top, || unsafe { asm!("int 0x41") }), GP, "INT is #GP");
    }
}

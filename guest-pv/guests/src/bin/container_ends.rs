//! How a domain in a hardware container ends that its processor cannot go on with, or that keeps it busy within one instruction:
//! task switches, triple faults, states that cannot be entered, exceptions whose delivery raises themselves. What is hurt is
//! that domain; this one goes on, and so does a neighbour in a container of its own.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(clippy::cast_possible_truncation)] // Addresses below 4 GiB, and halves of descriptors.

use guest_pv::call::{domctl, hvm};
use guest_pv::tap::Tap;
use guest_pv::{Mode, mode, time};
use guests::code;
use guests::container::{Boxed, CODE, DATA};
use guests::cpu::is_intel;
use guests::domain::{CRASHED, End};
use xen_abi::errno::Errno;
use xen_abi::hvm::{HVM_PARAM_TRIPLE_FAULT_REASON, HvmHwCpu};
use xen_abi::sched::{SHUTDOWN_CRASH, SHUTDOWN_MAX, SHUTDOWN_POWEROFF, SHUTDOWN_REBOOT};

guest_pv::test!(run);

/// What the page of data has: the GDT, the IDT, two task state segments, the programs' words, the stacks.
const GDT: u64 = DATA;
const IDT: u64 = DATA + 0x100;
const TASK: u64 = DATA + 0x800;
const OTHER_TASK: u64 = DATA + 0x900;
/// The operands of `lgdt` and `lidt`.
const GDTR: u64 = DATA + 0xa00;
const IDTR: u64 = DATA + 0xa08;
/// Words of results.
const SAID: usize = 0xb00;
const STACK: u64 = DATA + 0xe00;
/// Handlers in the page of code; in the first the vector is noted, the second is for ring 3.
const HANDLER: u64 = CODE + 0x400;
const USER_HANDLER: u64 = CODE + 0x500;
const USER: u64 = CODE + 0x600;

const DONE: End = End::Shutdown(SHUTDOWN_POWEROFF);
const REBOOT: End = End::Shutdown(SHUTDOWN_REBOOT);

fn run(tap: &mut Tap) {
    if mode() == Mode::Pvh {
        return tap.skip("how domains in containers end", "a domain that makes none");
    }
    let Some(neighbour) = domain(neighbour_code()) else {
        return tap.skip("how domains in containers end", "there are no containers here");
    };
    neighbour.start();
    let mut scene = Scene { tap, neighbour };
    task_switches(&mut scene);
    triple_faults(&mut scene);
    refused(&mut scene);
    calls_of_ring_3(&mut scene);
    ports_of_ring_3(&mut scene);
    let checked = alignment(&mut scene);
    alignment_for_ever(&mut scene, checked);
    breakpoints_for_ever(&mut scene);
    port_at_the_end(&mut scene);
}

struct Scene<'a> {
    tap: &'a mut Tap,
    neighbour: Boxed,
}

impl Scene<'_> {
    /// A program's end is this one, and nobody else has one.
    fn ends(&mut self, boxed: &Boxed, wanted: End, text: &str) {
        boxed.start();
        self.tap.is(boxed.end(), wanted, text);
        self.goes_on("its neighbour goes on");
    }

    fn goes_on(&mut self, text: &str) {
        let before = self.neighbour.data.load_u32(SAID);
        let counted = (0..2000).any(|_| {
            time::sleep(1_000_000);
            self.neighbour.data.load_u32(SAID) != before
        });
        self.tap.ok(counted, text);
    }

    /// A program that may be in one instruction for good; whether it has come to its handler.
    fn stays(&mut self, boxed: Boxed) -> bool {
        boxed.start();
        self.goes_on("its neighbour goes on beside it");
        let came = boxed.data.load_u32(SAID) != 0;
        let id = boxed.id;
        drop(boxed);
        self.tap.ok(domctl::get_domain_info(id).is_err(), "it can be destroyed");
        self.goes_on("and its neighbour goes on");
        came
    }
}

/// Counts.
fn neighbour_code() -> &'static [u8] {
    code!(".code32", "2: inc dword ptr ds:[0x101b00]", "pause", "jmp 2b", ".code64")
}

/// A domain with a GDT, an IDT whose gates lead to [`HANDLER`], two tasks, and the program.
fn domain(code: &[u8]) -> Option<Boxed> {
    let boxed = Boxed::new(code)?;
    let task = |base: u64| 0x0000_8900_0000_0067 | (base & 0xff_ffff) << 16;
    let flat = |access: u64| 0x00cf_0000_0000_ffff | access << 40;
    // Selectors 8 and 0x10: ring 0; 0x1b and 0x23: ring 3; 0x28 and 0x30: tasks.
    let gdt = [0, flat(0x9b), flat(0x93), flat(0xfb), flat(0xf3), task(TASK), task(OTHER_TASK)];
    for (entry, at) in gdt.into_iter().zip((0..).step_by(8)) {
        boxed.data.store_u64(at, entry);
    }
    for vector in 0..0x30 {
        set_gate(&boxed, vector, gate(8, HANDLER, 0xee));
    }
    let pointer = |base: u64, limit: u64| limit | base << 16;
    boxed.data.store_u64(offset(GDTR), pointer(GDT, 0xff));
    boxed.data.store_u64(offset(IDTR), pointer(IDT, 0x17f));
    // Where interrupts in ring 3 lead, and where the other task begins.
    boxed.data.store_u32(offset(TASK) + 4, STACK as u32);
    boxed.data.store_u32(offset(TASK) + 8, 0x10);
    let other = |at: usize, value: u32| boxed.data.store_u32(offset(OTHER_TASK) + at, value);
    other(0x20, HANDLER as u32);
    other(0x24, 2);
    other(0x38, STACK as u32);
    for (at, selector) in [(0x48, 0x10), (0x4c, 8), (0x50, 0x10), (0x54, 0x10)] {
        other(at, selector);
    }
    let put = |at: u64, code: &[u8]| boxed.code.write((at - CODE) as usize, code);
    // That it came, where, with which error code if it has one, and the end.
    put(
        HANDLER,
        code!(".code32", "inc dword ptr ds:[0x101b00]", "pop dword ptr ds:[0x101b04]", "cli", "hlt", ".code64"),
    );
    put(USER_HANDLER, code!(".code32", "inc dword ptr ds:[0x101b00]", "2: pause", "jmp 2b", ".code64"));
    Some(boxed)
}

fn offset(address: u64) -> usize {
    (address - DATA) as usize
}

/// A gate to an address of a code segment; 0x8e: of ring 0, 0xee: of all, 0x85 and 0xe5: to a task.
fn gate(selector: u64, at: u64, kind: u64) -> u64 {
    at & 0xffff | selector << 16 | kind << 40 | at >> 16 << 48
}

fn set_gate(boxed: &Boxed, vector: usize, gate: u64) {
    boxed.data.store_u64(offset(IDT) + vector * 8, gate);
}

/// The program's tables are loaded, it has a stack, and then something happens.
macro_rules! program {
    ($($line:expr),+ $(,)?) => {
        code!(
            ".code32",
            "lgdt ds:[0x101a00]",
            "lidt ds:[0x101a08]",
            "mov eax, 0x10",
            "mov ds, eax",
            "mov es, eax",
            "mov ss, eax",
            "mov esp, 0x101e00",
            "mov eax, 0x28",
            "ltr ax",
            $($line,)+
            "cli",
            "hlt",
            ".code64"
        )
    };
}

/// The same in ring 3, at [`USER`], with flags and a stack pointer.
macro_rules! into_ring_3 {
    ($flags:literal, $stack:literal) => {
        program!(
            // CR0.AM.
            "mov eax, cr0",
            "or eax, 0x40000",
            "mov cr0, eax",
            "mov eax, 0x23",
            "mov ds, eax",
            "mov es, eax",
            "push 0x23",
            concat!("push ", $stack),
            concat!("push ", $flags),
            "push 0x1b",
            "push 0x100600",
            "iretd",
        )
    };
}

fn existing(code: &[u8]) -> Boxed {
    domain(code).expect("another one can be made")
}

/// Xen carries them out, and so does QEMU's processor of AMD's, which does not come out of the container for one; here they are a
/// crash, as the harness sees in the log.
fn task_switches(scene: &mut Scene<'_>) {
    let by_gate = existing(program!("int 0x20"));
    set_gate(&by_gate, 0x20, gate(0x30, 0, 0x85));
    let by_jump = existing(program!(".byte 0xea", ".long 0", ".word 0x30"));
    let by_call = existing(program!(".byte 0x9a", ".long 0", ".word 0x30"));
    for (boxed, text) in [(by_gate, "a task gate"), (by_jump, "a jump to a task"), (by_call, "a call of a task")] {
        boxed.start();
        let end = boxed.end();
        scene.tap.note(format_args!("{text}: {end:?}"));
        scene.tap.ok(matches!(end, CRASHED | DONE), text);
        scene.goes_on("its neighbour goes on");
    }
}

fn triple_faults(scene: &mut Scene<'_>) {
    // The gates are beyond the table's limit, or lie where nothing is.
    let no_table = || existing(program!("mov word ptr ds:[0x101a08], 0", "lidt ds:[0x101a08]", "ud2"));
    let nowhere = || existing(program!("mov dword ptr ds:[0x101a0a], 0xfd000000", "lidt ds:[0x101a08]", "ud2"));
    let no_stack = || existing(program!("mov esp, 0xfd001000", "ud2"));
    scene.ends(&no_table(), REBOOT, "a fault without a table of gates: reboot");
    scene.ends(&nowhere(), REBOOT, "gates where nothing is: reboot");
    scene.ends(&no_stack(), REBOOT, "a stack where nothing is: reboot");
    let chosen = no_table();
    let set = hvm::set_param(chosen.id, HVM_PARAM_TRIPLE_FAULT_REASON, SHUTDOWN_CRASH.into());
    scene.tap.is(set, Ok(()), "the toolstack chooses what a triple fault is");
    scene.ends(&chosen, CRASHED, "then it is that");
    let set = hvm::set_param(scene.neighbour.id, HVM_PARAM_TRIPLE_FAULT_REASON, u64::from(SHUTDOWN_MAX) + 1);
    scene.tap.is(set, Err(Errno::EINVAL), "there is no such end");
}

type Change = fn(&mut HvmHwCpu);

/// States that no processor enters.
fn refused(scene: &mut Scene<'_>) {
    const PG_PE: u64 = 0x8000_0011;
    const LME_LMA: u64 = 0x500;
    let states: [(&str, Change); 6] = [
        ("long mode without PAE", |cpu| (cpu.cr0, cpu.cr4, cpu.msr_efer) = (PG_PE, 0, LME_LMA)),
        ("64-bit and 32-bit code at once", |cpu| {
            (cpu.cr0, cpu.cr4, cpu.msr_efer, cpu.cs_arbytes) = (PG_PE, 0x20, LME_LMA, 0xe9b);
        }),
        ("paging without protected mode", |cpu| cpu.cr0 = 0x8000_0010),
        ("bits of CR0 above 32", |cpu| cpu.cr0 |= 1 << 40),
        ("bits of CR4 that there are not", |cpu| cpu.cr4 = 1 << 31),
        ("AMD-V inside", |cpu| cpu.msr_efer = 0x1000),
    ];
    for (text, change) in states {
        let boxed = existing(neighbour_code());
        let end = match boxed.start_with(change) {
            Err(errno) => End::Refused(errno),
            Ok(()) => boxed.end(),
        };
        scene.tap.note(format_args!("{text}: {end:?}"));
        scene.tap.ok(matches!(end, CRASHED | End::Refused(Errno::EINVAL)), text);
        scene.goes_on("its neighbour goes on");
    }
}

fn calls_of_ring_3(scene: &mut Scene<'_>) {
    let boxed = existing(into_ring_3!("2", "0x101f00"));
    let code = if is_intel() {
        code!(".code32", "mov eax, 17", "xor ebx, ebx", "vmcall", "mov ds:[0x101b08], eax", "int 0x21", ".code64")
    } else {
        code!(".code32", "mov eax, 17", "xor ebx, ebx", "vmmcall", "mov ds:[0x101b08], eax", "int 0x21", ".code64")
    };
    boxed.code.write((USER - CODE) as usize, code);
    scene.ends(&boxed, DONE, "ring 3 makes a hypercall");
    let said = boxed.data.load_u32(SAID + 8).cast_signed();
    scene.tap.is(said, -(Errno::EPERM as i32), "which is not for it");
}

/// With ports for it, but nothing that says which memory it may write: the processor comes out before it looks.
fn ports_of_ring_3(scene: &mut Scene<'_>) {
    let boxed = existing(into_ring_3!("0x3002", "0x101f00"));
    let code = code!(".code32", "mov edi, 0x101b08", "mov edx, 0x1234", "in al, dx", "insb", "int 0x21", ".code64");
    boxed.code.write((USER - CODE) as usize, code);
    scene.ends(&boxed, DONE, "ring 3 has ports");
    let said = [4, 8].map(|at| boxed.data.load_u32(SAID + at));
    scene.tap.is(said, [0, 0], "its INS is #GP with an error code of 0, and writes nothing");
}

/// A port is read by the last byte of a segment of 4 GiB, behind which addresses begin anew: no processor is entered at 4 GiB
/// outside 64-bit code (XSA-170).
fn port_at_the_end(scene: &mut Scene<'_>) {
    let boxed = existing(program!("xor eax, eax", ".byte 0xea", ".long 0xffffffff", ".word 0x38"));
    // Its base, behind the byte.
    const BASE: u64 = CODE + 0x700;
    boxed.data.store_u64(7 * 8, 0x00cf_9b00_0000_ffff | (BASE & 0xff_ffff) << 16);
    boxed.code.write(
        (BASE - 1 - CODE) as usize,
        code!(".code32", "in al, dx", "mov ds:[0x101b08], eax", "cli", "hlt", ".code64"),
    );
    scene.ends(&boxed, DONE, "a port is read by the last byte below 4 GiB");
    scene.tap.is(boxed.data.load_u32(SAID + 8), 0xff, "it goes on at 0");
}

/// An access of ring 3's that is not aligned.
fn crooked(boxed: &Boxed) {
    let code = code!(".code32", "mov eax, ds:[0x101b01]", "mov dword ptr ds:[0x101b08], 1", "int 0x21", ".code64");
    boxed.code.write((USER - CODE) as usize, code);
}

/// Whether the processor checks it at all.
fn alignment(scene: &mut Scene<'_>) -> bool {
    let boxed = existing(into_ring_3!("0x40002", "0x101f00"));
    crooked(&boxed);
    scene.ends(&boxed, DONE, "an access that is not aligned");
    let checked = boxed.data.load_u32(SAID + 8) == 0;
    if checked {
        scene.tap.is(boxed.data.load_u32(SAID + 4), 0, "is #AC with its error code");
    } else {
        scene.tap.skip("#AC", "QEMU's processor does not check");
    }
    checked
}

/// The class of XSA-156: the handler is ring 3's, and the stack that it is called on is not aligned either.
fn alignment_for_ever(scene: &mut Scene<'_>, checked: bool) {
    let boxed = existing(into_ring_3!("0x40002", "0x101f01"));
    set_gate(&boxed, 17, gate(0x1b, USER_HANDLER, 0xee));
    crooked(&boxed);
    let came = scene.stays(boxed);
    scene.tap.is(came, !checked, "an #AC whose delivery raises #AC has not come to its handler");
}

/// The same with #DB, by breakpoints on the stack that it is delivered on. A processor would not come to the handler; emulators
/// forget the breakpoints while they deliver it.
fn breakpoints_for_ever(scene: &mut Scene<'_>) {
    let boxed = existing(program!(
        "mov eax, 0x101dfc",
        "mov dr0, eax",
        "mov eax, 0x101df8",
        "mov dr1, eax",
        "mov eax, 0x101df4",
        "mov dr2, eax",
        // Writes of four bytes.
        "mov eax, 0xddd072a",
        "mov dr7, eax",
        "mov ds:[0x101dfc], eax",
        "nop",
    ));
    let came = scene.stays(boxed);
    scene.tap.note(format_args!("#DB has come to its handler: {came}"));
}

//! What a kernel in a hardware container does to come out of it on purpose: instructions that it has not, debugging across
//! instructions that are carried out for it, its task priority, an access storm where nothing is, and a processor that is
//! started in real mode and goes on in 32-bit code. In a PV domain there is nothing to see of it.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(unsafe_code)] // A kernel's own instructions, most of which fault, and a page of code for another processor.

use core::arch::asm;
use core::arch::x86_64::__cpuid_count;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use guest_pv::tap::Tap;
use guest_pv::{Mode, call, mem, mode, smp, time, traps};
use guests::cpu::{is_intel, wrmsr};
use guests::{code_elsewhere, frame_of, load, page, store, trap_of};

guest_pv::test!(run);

const UD: Option<(u64, u64)> = Some((6, 0));
const GP: Option<(u64, u64)> = Some((13, 0));
const VECTOR: u8 = 0x41;
const APIC_BASE: u32 = 0x1b;
const EOI: u32 = 0x80b;
const ICR: u32 = 0x830;
const SELF_IPI: u32 = 0x83f;

fn run(tap: &mut Tap) {
    if mode() == Mode::Pv {
        return tap.skip("ways out of a hardware container", "a PV domain");
    }
    instructions(tap);
    debugging(tap);
    nothing(tap);
    tap.is(code_elsewhere(), Some(1234), "code runs in a large page in which none has run");
    two_nmis(tap);
    end_of_lower_half(tap);
    if __cpuid_count(1, 0).ecx & 1 << 21 == 0 {
        return tap.skip("the APIC as MSRs", "no x2APIC");
    }
    tap.is(wrmsr(APIC_BASE, 0xfee0_0d00), None, "x2APIC");
    tap.is(wrmsr(0x80f, 0x1ff), None, "it is switched on");
    priority(tap);
    another_processor(tap);
}

/// Runs the bytes of one instruction, with rax pointing to 16 bytes.
macro_rules! bytes {
    ($($byte:literal),+) => {{
        let mut operand = [0u64; 2];
        // SAFETY: an instruction that faults, or does nothing.
        trap_of(|| unsafe { asm!(concat!(".byte ", $(stringify!($byte), ", ",)+ "0x90"), inout("rax") &raw mut operand => _, out("rcx") _, out("rdx") _) })
    }};
}

/// An instruction that is carried out by the hypervisor at the end of the lower half of the addresses: a processor is not entered
/// behind it (XSA-170).
fn end_of_lower_half(tap: &mut Tap) {
    const AT: u64 = 0x7fff_ffff_fffe;
    let [l3, l2, l1, mut code] = [page(), page(), page(), page()];
    let (cr3, instruction): (u64, &[u8]) = (read_cr3(), &[0x0f, 0xa2]);
    code.bytes_mut()[0xffe..].copy_from_slice(instruction);
    let slot = mem::DIRECT_MAP + (cr3 & !0xfff) + 255 * 8;
    for (entry, below) in
        [(slot, &l3), (l3.address() + 0xff8, &l2), (l2.address() + 0xff8, &l1), (l1.address() + 0xff8, &code)]
    {
        store(entry, below.mfn().0 << 12 | 3);
    }
    // SAFETY: `cpuid`, and a fault behind it.
    let frame = frame_of(|| unsafe {
        asm!("push rbx", "call {}", "pop rbx", in(reg) AT, inout("eax") 0 => _, inout("ecx") 0 => _, out("edx") _);
    });
    store(slot, 0);
    // SAFETY: the same tables, but for what was entered above.
    unsafe { asm!("mov cr3, {}", in(reg) cr3) };
    let frame = frame.map(|frame| (frame.vector, frame.rip << 16 >> 16));
    // QEMU's processor of AMD's looks into the tables there.
    let vectors = if is_intel() { [13, 13] } else { [13, 14] };
    tap.note(format_args!("behind the lower half: {frame:x?}"));
    tap.ok(
        frame.is_some_and(|(vector, at)| vectors.contains(&vector) && at == AT + 2),
        "CPUID at its end goes on with a fault",
    );
}

fn read_cr3() -> u64 {
    let cr3;
    // SAFETY: a read.
    unsafe { asm!("mov {}, cr3", out(reg) cr3) };
    cr3
}

/// One that comes while the handler of another runs.
fn two_nmis(tap: &mut Tap) {
    const IRETQ: u64 = 0xcf48;
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let handler: traps::Handler = |frame| {
        // What the last one interrupted.
        NEXT.store(load(frame.rip) & 0xffff, Ordering::Relaxed);
        if TAKEN.fetch_add(1, Ordering::Relaxed) == 0 {
            let _ = call::vcpu::send_nmi(smp::this());
        }
    };
    traps::set_handler(2, Some(handler));
    tap.is(call::vcpu::send_nmi(smp::this()), Ok(()), "an NMI is sent, and its handler sends another");
    // It is not there before the first has returned; then the next way out brings it.
    for _ in 0..10_000 {
        if TAKEN.load(Ordering::Relaxed) == 2 {
            break;
        }
        let _ = __cpuid_count(0, 0);
    }
    traps::set_handler(2, None);
    tap.is(TAKEN.load(Ordering::Relaxed), 2, "both are taken");
    tap.ok(
        NEXT.load(Ordering::Relaxed) != IRETQ,
        "the second behind the iret of the first one's handler, not before it",
    );
}

fn instructions(tap: &mut Tap) {
    tap.is(bytes!(0x0f, 0x01, 0xc4), UD, "VMXOFF is no instruction");
    tap.is(bytes!(0x0f, 0x01, 0xc2), UD, "nor VMLAUNCH");
    tap.is(bytes!(0x66, 0x0f, 0xc7, 0x30), UD, "nor VMCLEAR");
    tap.is(bytes!(0xf3, 0x0f, 0xc7, 0x30), UD, "nor VMXON");
    tap.is(bytes!(0x0f, 0x78, 0xc0), UD, "nor VMREAD");
    tap.is(bytes!(0x66, 0x0f, 0x38, 0x80, 0x08), UD, "nor INVEPT");
    tap.is(bytes!(0x66, 0x0f, 0x38, 0x81, 0x08), UD, "nor INVVPID");
    tap.is(bytes!(0x0f, 0x01, 0xc3), UD, "nor VMRESUME");
    tap.is(bytes!(0x0f, 0xc7, 0x30), UD, "nor VMPTRLD");
    tap.is(bytes!(0x0f, 0xc7, 0x38), UD, "nor VMPTRST");
    tap.is(bytes!(0x0f, 0x79, 0xc0), UD, "nor VMWRITE");
    tap.is(bytes!(0x0f, 0x01, 0xd4), UD, "nor VMFUNC");
    tap.is(bytes!(0x0f, 0x37), UD, "nor GETSEC");
    // These have their operand in rax looked at first (APM vol. 3, VMRUN), so it is 0.
    tap.is(bytes!(0x31, 0xc0, 0x0f, 0x01, 0xd8), UD, "nor VMRUN");
    tap.is(bytes!(0x31, 0xc0, 0x0f, 0x01, 0xda), UD, "nor VMLOAD");
    tap.is(bytes!(0x31, 0xc0, 0x0f, 0x01, 0xdb), UD, "nor VMSAVE");
    tap.is(bytes!(0x0f, 0x01, 0xdc), UD, "nor STGI");
    tap.is(bytes!(0x0f, 0x01, 0xdd), UD, "nor CLGI");
    tap.is(bytes!(0x0f, 0x01, 0xde), UD, "nor SKINIT");
    tap.is(bytes!(0x0f, 0x01, 0xdf), UD, "nor INVLPGA");
    tap.is(bytes!(0x0f, 0x01, 0xfd), UD, "nor RDPRU");
    tap.is(bytes!(0x0f, 0xaa), UD, "nor RSM");
    tap.is(bytes!(0x0f, 0x01, 0xc8), UD, "nor MONITOR");
    tap.is(bytes!(0x0f, 0x01, 0xc9), UD, "nor MWAIT");
    tap.is(bytes!(0x0f, 0x01, 0xfa), UD, "nor MONITORX");
    tap.is(bytes!(0x0f, 0x01, 0xfb), UD, "nor MWAITX");
    tap.is(bytes!(0x0f, 0xc7, 0x28), UD, "nor XSAVES");
    tap.is(bytes!(0x0f, 0x33), GP, "RDPMC: there are no counters");
    let other = if is_intel() { bytes!(0x0f, 0x01, 0xd9) } else { bytes!(0x0f, 0x01, 0xc1) };
    tap.is(other, UD, "nor the other vendor's hypercall");
    tap.is(bytes!(0x0f, 0x08), None, "INVD");
    tap.is(bytes!(0x0f, 0x09), None, "WBINVD");
    tap.is(bytes!(0xf3, 0x90), None, "PAUSE");
    if is_intel() {
        // QEMU's emulation of AMD's lets all bits pass, and has instructions that CPUID does not name.
        for (bit, of) in [(12, "LA57"), (13, "VMXE"), (14, "SMXE"), (22, "PKE"), (31, "what there is not")] {
            let cr4: u64;
            // SAFETY: reads, then a write that faults.
            let trap = unsafe {
                asm!("mov {}, cr4", out(reg) cr4);
                trap_of(|| asm!("mov cr4, {}", in(reg) cr4 | 1 << bit))
            };
            tap.is(trap, GP, of);
        }
    }
}

fn set_dr7(value: u64) {
    // SAFETY: no breakpoint.
    unsafe { asm!("mov dr7, {}", in(reg) value) };
}

fn dr6() -> u64 {
    let value;
    // SAFETY: reads, and clears for the next.
    unsafe { asm!("mov {0}, dr6", "mov dr6, {1}", out(reg) value, in(reg) 0xffff_0ff0u64) };
    value
}

fn debugging(tap: &mut Tap) {
    dr6();
    // A step over an instruction that is carried out by the hypervisor ends behind it, as any other.
    let mut behind = 0u64;
    // SAFETY: the trap ends the body, which is entered with RBX kept by whoever catches it.
    let frame = frame_of(|| unsafe {
        asm!(
            "lea {place}, [rip + 2f]", "mov [{behind}], {place}", "push rbx", "pushfq", "or qword ptr [rsp], 0x100",
            "xor eax, eax", "popfq", "cpuid", "2: nop", "pushfq", "and qword ptr [rsp], -257", "popfq", "pop rbx",
            place = out(reg) _, behind = in(reg) &raw mut behind, out("rax") _, out("rcx") _, out("rdx") _
        );
    });
    tap.is(frame.map(|frame| (frame.vector, frame.rip)), Some((1, behind)), "a step over CPUID ends in #DB behind it");
    tap.is(dr6() & 0x4000, 0x4000, "DR6 says that it was one");
    // QEMU's emulation has no guard.
    if !is_intel() {
        return;
    }
    set_dr7(1 << 13 | 1 << 10);
    // SAFETY: traps.
    let trap = trap_of(|| unsafe { asm!("mov {}, dr0", out(reg) _) });
    tap.is(trap.map(|(vector, _)| vector), Some(1), "a guarded debug register");
    tap.is(dr6() & 0x2000, 0x2000, "DR6 says so, and can be read: the guard is off");
    set_dr7(1 << 10);
}

/// Accesses to where nothing is: faults of the guest's, as many as it likes.
fn nothing(tap: &mut Tap) {
    const ROUNDS: u64 = 300;
    let place = mem::DIRECT_MAP + 0xfd00_0000;
    let mut answered = 0u64;
    for round in 0..ROUNDS {
        // SAFETY: nothing is there: it reads as ones, or faults.
        let trap = trap_of(|| unsafe { asm!("mov {}, [{}]", out(reg) _, in(reg) place + round * 4096) });
        answered += u64::from(trap.is_none_or(|trap| Some(trap) == GP));
    }
    tap.is(answered, ROUNDS, "a storm of accesses to nothing");
}

fn set_cr8(value: u64) {
    // SAFETY: a task priority.
    unsafe { asm!("mov cr8, {}", in(reg) value) };
}

fn priority(tap: &mut Tap) {
    static STEP: AtomicU32 = AtomicU32::new(0);
    let trap = trap_of(|| {
        set_cr8(15);
        wrmsr(SELF_IPI, VECTOR.into());
        // SAFETY: interrupts are let in.
        unsafe { asm!("sti", "nop", "nop", "pause") };
        STEP.store(1, Ordering::SeqCst);
        set_cr8(4);
        // SAFETY: nothing.
        unsafe { asm!("nop", "pause") };
        STEP.store(2, Ordering::SeqCst);
        set_cr8(3);
        for _ in 0..100 {
            core::hint::spin_loop();
        }
        STEP.store(3, Ordering::SeqCst);
        // Where nobody looks before the next exit, this is one.
        let _ = __cpuid_count(0, 0);
        // SAFETY: nothing.
        unsafe { asm!("nop", "nop") };
        STEP.store(4, Ordering::SeqCst);
    });
    set_cr8(0);
    wrmsr(EOI, 0);
    tap.is(trap.map(|(vector, _)| vector), Some(VECTOR.into()), "an interrupt comes when the task priority lets it");
    tap.ok((2..4).contains(&STEP.load(Ordering::SeqCst)), "not before, and by the next instruction that exits");
}

/// Real mode, 32-bit code, a hypercall from there.
mod trampoline {
    core::arch::global_asm!(
        ".pushsection .rodata, \"a\", @progbits",
        ".globl exits_trampoline",
        ".globl exits_trampoline_end",
        "exits_trampoline:",
        ".code16",
        "xor ax, ax",
        "mov ds, ax",
        "mov ax, cs",
        "mov word ptr ds:[0x8f00], ax",
        "mov eax, 0x40000000",
        "cpuid",
        "mov dword ptr ds:[0x8f04], ebx",
        "in al, 0x60",
        "mov byte ptr ds:[0x8f08], al",
        "lgdt ds:[0x8e00]",
        "mov eax, cr0",
        "or al, 1",
        "mov cr0, eax",
        ".byte 0x66, 0xea", // ljmp 8:0x8100
        ".long 0x8100",
        ".word 8",
        ".balign 256",
        ".code32",
        "mov eax, 16",
        "mov ds, eax",
        "mov es, eax",
        "mov ss, eax",
        "mov dword ptr [0x8f0c], 0x32323232",
        "mov eax, 17", // xen_version
        "xor ebx, ebx",
        ".byte 0x0f, 0x01",
        ".globl exits_trampoline_call",
        "exits_trampoline_call:",
        ".byte 0xc1", // vmcall; d9 is vmmcall
        "mov dword ptr [0x8f10], eax",
        "mov eax, 0x80000001",
        "cpuid",
        "mov dword ptr [0x8f18], edx",
        "lock inc dword ptr [0x8f14]",
        "7: cli",
        "hlt",
        "jmp 7b",
        "exits_trampoline_end:",
        ".code64",
        ".popsection",
    );
    unsafe extern "C" {
        pub static exits_trampoline: u8;
        pub static exits_trampoline_call: u8;
        pub static exits_trampoline_end: u8;
    }
}

fn low(offset: u64) -> *mut u32 {
    (mem::DIRECT_MAP + offset) as *mut u32
}

fn peek(offset: u64) -> u32 {
    // SAFETY: low memory that only these tests use.
    unsafe { low(offset).read_volatile() }
}

fn another_processor(tap: &mut Tap) {
    // SAFETY: low memory that nobody else uses; code as it lies in the image.
    unsafe {
        let from = &raw const trampoline::exits_trampoline;
        let length = (&raw const trampoline::exits_trampoline_end).offset_from_unsigned(from);
        core::ptr::copy_nonoverlapping(from, low(0x8000).cast(), length);
        if !is_intel() {
            let call = (&raw const trampoline::exits_trampoline_call).offset_from_unsigned(from);
            low(0x8000).cast::<u8>().add(call).write(0xd9);
        }
        let table: [u64; 3] = [0, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff];
        low(0x8e20).cast::<[u64; 3]>().write(table);
        low(0x8e00).cast::<u16>().write(23);
        low(0x8e02).cast::<u32>().write_unaligned(0x8e20);
        low(0x8f00).cast::<[u32; 8]>().write([0; 8]);
    }
    const SYSCALL: u32 = 1 << 11;
    tap.is(__cpuid_count(0x8000_0001, 0).edx & SYSCALL, SYSCALL, "SYSCALL in long mode");
    // vCPU 1 has APIC number 2.
    for round in 1..=2 {
        tap.is(wrmsr(ICR, 2 << 32 | 0x4500), None, "INIT");
        tap.is(wrmsr(ICR, 2 << 32 | 0x4608), None, "SIPI");
        for _ in 0..200 {
            if peek(0x8f14) == round {
                break;
            }
            time::sleep(1_000_000);
        }
        tap.is(peek(0x8f00), 0x800, "another processor begins in real mode at the page");
        tap.is(peek(0x8f04), u32::from_le_bytes(*b"XenV"), "CPUID there");
        tap.is(peek(0x8f08) & 0xff, 0xff, "a port");
        tap.is(peek(0x8f0c), 0x3232_3232, "it goes on in 32-bit code");
        tap.is(peek(0x8f10), 4 << 16 | 17, "a hypercall from there");
        tap.is(peek(0x8f18) & SYSCALL == 0, is_intel(), "there Intel's processors do not say that they have SYSCALL");
        tap.is(peek(0x8f14), round, "and is done");
    }
}

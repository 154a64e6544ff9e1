//! Every vector: `int n` through gates of every privilege, every exception that ring 3 can raise, flags in a handler, faults
//! in handlers, and NMIs.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(clippy::cast_possible_truncation)] // Offsets in a page.
#![allow(unsafe_code)] // Traps are made by instructions.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use guest_pv::call::traps::{fpu_taskswitch, set_trap_table};
use guest_pv::mem::Frame;
use guest_pv::tap::Tap;
use guest_pv::{events, traps};
use guests::user::{self, CODE, UserSpace};
use guests::{address_of, call, code, frame_of, load, make_read_only, make_writable, page, trap_of};
use xen_abi::Errno;
use xen_abi::arch_x86::FLAT_USER_CS32;
use xen_abi::hypercall::{HYPERVISOR_SET_GDT, HYPERVISOR_SET_TRAP_TABLE, HYPERVISOR_VCPU_OP};
use xen_abi::trap::{TI_IF, TrapInfo};
use xen_abi::vcpu::VCPUOP_SEND_NMI;

guest_pv::test!(run);

/// An instruction as a body for `trap_of`.
macro_rules! instruction {
    ($($text:tt)*) => {
        // SAFETY: the instruction traps before it changes anything that the compiler knows of.
        || unsafe { asm!($($text)*) }
    };
}

fn run(tap: &mut Tap) {
    let mut program = [0x90u8; 512];
    for (at, piece) in USER {
        let bytes = piece();
        program[*at as usize..*at as usize + bytes.len()].copy_from_slice(bytes);
    }
    let space = UserSpace::new(&program);
    software_interrupts(tap);
    privileges(tap);
    exceptions(tap);
    descriptors(tap);
    floating_point(tap);
    flags(tap);
    nested(tap);
    nmi(tap);
    table(tap);
    drop(space);
}

const INT_41: u64 = 0;
const BOUND: u64 = 16;
const INTO: u64 = 48;
const SPIN: u64 = 64;
const INT_1: u64 = 96;

/// Pieces of the user program and where they are.
type Piece = (u64, fn() -> &'static [u8]);
const USER: &[Piece] = &[
    (INT_41, || code!("int 0x41")),
    // bound eax, [CODE + 200], in 32-bit code: 0x90909090 to 0x90909090, which 0 is above.
    // By SS: a null DS is good enough for QEMU alone.
    (BOUND, || code!("xor eax, eax", ".byte 0x36, 0x62, 0x05, 0xc8, 0x00, 0x40, 0x00")),
    // Sets the overflow flag; into, in 32-bit code.
    (INTO, || code!("mov al, 0x7f", "add al, 1", ".byte 0xce")),
    (SPIN, || code!("2: jmp 2b")),
    (INT_1, || code!("int 1")),
];

const fn has_error_code(vector: u64) -> bool {
    matches!(vector, 8 | 10..=14 | 17)
}

/// A gate of a vector that tells its number; one whose stub expects an error code uses the stub of another.
fn gate(vector: u8, flags: u8) -> TrapInfo {
    let stub = if has_error_code(vector.into()) { vector + 0x20 } else { vector };
    TrapInfo { vector, flags, address: traps::stub(stub), ..traps::default_entry(vector) }
}

fn set(entries: &[TrapInfo]) {
    // SAFETY: the stubs are the runtime's.
    unsafe { set_trap_table(entries) }.expect("a good table");
}

fn set_gate(vector: u8, flags: u8) {
    set(&[gate(vector, flags), TrapInfo::default()]);
}

fn restore(vector: u8) {
    set(&[traps::default_entry(vector), TrapInfo::default()]);
}

/// Whether a vector that was seen is that of `int n`. The hypervisor learns the vector from the error code of the CPU, n * 8
/// + 2. QEMU's says n * 16 + 2, so that Xen sees twice the vector there.
fn is_vector(seen: u64, n: u64) -> bool {
    let told = |n: u64| if has_error_code(n) { n + 0x20 } else { n };
    seen == told(n) || seen == told((2 * n) & 0xff)
}

fn software_interrupts(tap: &mut Tap) {
    let mut program = page();
    let at = program.address();
    let mut wrong = None;
    for n in 0..=255u8 {
        set_gate(n, 3);
    }
    for n in 0..=255u8 {
        program.bytes_mut()[..3].copy_from_slice(&[0xcd, n, 0xc3]);
        let seen = frame_of(instruction!("call {}", in(reg) at)).unwrap_or_default();
        let good = is_vector(seen.vector, n.into()) && seen.error == 0 && seen.rip == at + 2;
        if !good && wrong.is_none() {
            wrong = Some((n, seen.vector, seen.error, seen.rip - at));
        }
    }
    tap.is(wrong, None, "int n goes through its gate, for all 256 vectors");
    for n in 0..=255u8 {
        set_gate(n, 0);
    }
    let mut wrong = None;
    // 3, 4 and 0x80 are open in the hypervisor's own table; 13 is told by its error code.
    for n in (0..=255u8).filter(|n| ![3, 4, 0x80].contains(n)) {
        program.bytes_mut()[..3].copy_from_slice(&[0xcd, n, 0xc3]);
        restore(13);
        let seen = frame_of(instruction!("call {}", in(reg) at)).unwrap_or_default();
        let error = u64::from(n);
        let good = seen.vector == 13 && [error * 8 + 2, error * 16 + 2].contains(&seen.error) && seen.rip == at;
        if !good && wrong.is_none() {
            wrong = Some((n, seen.vector, seen.error, seen.rip - at));
        }
    }
    tap.is(wrong, None, "a gate of level 0 is for nobody: #GP with the vector, at the instruction");
    for n in 0..=255u8 {
        restore(n);
    }
}

fn privileges(tap: &mut Tap) {
    // 0x82 is what Xen sees under QEMU, see `is_vector`.
    let both = |flags| [gate(0x41, flags), gate(0x82, flags), TrapInfo::default()];
    for (level, kernel, user) in [(0, false, false), (1, true, false), (2, true, false), (3, true, true)] {
        set(&both(level));
        let seen = trap_of(instruction!("int 0x41")).map_or(0, |(vector, _)| vector);
        let want = |allowed: bool, seen: u64| if allowed { is_vector(seen, 0x41) } else { seen == 13 };
        tap.ok(
            want(kernel, seen),
            ["level 0: the kernel", "level 1: the kernel", "level 2", "level 3"][level as usize],
        );
        let seen = user::run(user::start_at(INT_41)).vector;
        tap.ok(want(user, seen), "and user mode");
    }
    restore(0x41);
    restore(0x82);
    // The gate's level is for `int n` alone.
    set(&[TrapInfo { flags: 0, ..traps::default_entry(6) }, TrapInfo::default()]);
    tap.is(trap_of(instruction!("ud2")), Some((6, 0)), "an exception needs no level");
    restore(6);
}

fn compat(piece: u64) -> traps::Frame {
    user::run(traps::Frame { cs: FLAT_USER_CS32.into(), ..user::start_at(piece) })
}

fn exceptions(tap: &mut Tap) {
    let frame = compat(BOUND);
    tap.is((frame.vector, frame.error, frame.rip), (5, 0, CODE + BOUND + 2), "bound in 32-bit user code");
    tap.is(frame.cs & 0xffff, FLAT_USER_CS32.into(), "whose frame has its code segment");
    let frame = compat(INTO);
    tap.is((frame.vector, frame.error, frame.rip), (4, 0, CODE + INTO + 5), "into in 32-bit user code");
    let frame = user::run(user::start_at(INTO));
    tap.is((frame.vector, frame.rip), (6, CODE + INTO + 4), "into in 64-bit code is no instruction");
    let frame = user::run(user::start_at(INT_1));
    tap.is((frame.vector, frame.rip), (13, CODE + INT_1), "int 1 from user mode is not");
    tap.is(trap_of(instruction!("int 0x80")), Some((0x80, 0)), "int 0x80");
    tap.is(trap_of(instruction!("hlt")), Some((13, 0)), "hlt");
    tap.is(trap_of(instruction!(".byte 0x0f, 0xff")), Some((6, 0)), "ud0");
    tap.is(trap_of(instruction!(".byte 0xf0, 0x90")), Some((6, 0)), "a lock prefix where there must be none");
    let long =
        trap_of(instruction!(".byte 0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x90"));
    tap.is(long, Some((13, 0)), "an instruction of 16 bytes");
    // Alignment checks are off, or the CPU does not know them.
    let value = [0u64; 2];
    let odd = value.as_ptr() as u64 + 1;
    let unaligned = trap_of(instruction!("pushfq", "or dword ptr [rsp], 0x40000", "popfq", "mov {0}, [{0}]",
        "pushfq", "and dword ptr [rsp], 0xfffbffff", "popfq", inout(reg) odd => _));
    tap.ok(matches!(unaligned, None | Some((17, 0))), "an alignment check, if there are any");
}

fn descriptors(tap: &mut Tap) {
    // A GDT with a data segment and a code segment that are not present, a read-only and a writable data segment.
    const ENTRIES: [u64; 6] = [
        0,
        0x00cf_7300_0000_ffff,
        0x00af_7b00_0000_ffff,
        0x00cf_f100_0000_ffff,
        0x00cf_f300_0000_ffff,
        0x00cf_f900_0000_ffff,
    ];
    let mut table: Frame = page();
    for (at, entry) in ENTRIES.iter().enumerate() {
        table.bytes_mut()[at * 8..at * 8 + 8].copy_from_slice(&entry.to_le_bytes());
    }
    make_read_only(&table);
    let mut frames = [table.mfn().0];
    tap.is(call(HYPERVISOR_SET_GDT, [address_of(&mut frames), 6]), Ok(0), "a GDT");
    let load_es = |selector: u32| trap_of(instruction!("mov es, {0:e}", in(reg) selector));
    let load_ss = |selector: u32| trap_of(instruction!("mov ss, {0:e}", in(reg) selector));
    tap.is(load_es(0x0b), Some((11, 8)), "a data segment that is not present");
    tap.is(load_es(0x33), Some((13, 0x30)), "a selector beyond the end");
    tap.is(load_es(0x2b), Some((13, 0x28)), "code that cannot be read is no data");
    tap.is(load_es(0x23), None, "a good data segment");
    tap.is(load_es(0x27), Some((13, 0x24)), "a selector of an LDT that is not there");
    tap.is(load_ss(0x0b), Some((12, 8)), "a stack that is not present");
    tap.is(load_ss(0x1b), Some((13, 0x18)), "a stack that cannot be written to");
    tap.is(load_ss(0x20), Some((13, 0x20)), "a stack of another level");
    tap.is(load_ss(0), Some((13, 0)), "no stack in ring 3");
    let jump = |selector: u32| {
        let mut target = [0x40_0000u32, selector];
        let pointer = address_of(&mut target);
        trap_of(instruction!("jmp fword ptr [{}]", in(reg) pointer))
    };
    tap.is(jump(0x13), Some((11, 0x10)), "code that is not present");
    tap.is(jump(0x23), Some((13, 0x20)), "data is no code");
    tap.is(jump(0), Some((13, 0)), "the null selector is no code");
    tap.is(jump(0xe008), Some((13, 0xe008)), "nor is the hypervisor's");
    let user = user::run(traps::Frame { cs: 0x13, ..user::start_at(SPIN) });
    tap.is((user.vector, user.error), (11, 0x10), "iret to code that is not present");
    let user = user::run(traps::Frame { ss: 0x0b, ..user::start_at(SPIN) });
    // By the manual a stack fault, in the emulator a segment that is not present.
    tap.ok(matches!((user.vector, user.error), (11 | 12, 8)), "iret to a stack that is not present");
    let user = user::run(traps::Frame { ss: 0x1b, ..user::start_at(SPIN) });
    tap.is((user.vector, user.error), (13, 0x18), "iret to a stack that cannot be written to");
    tap.is((load_es(0), call(HYPERVISOR_SET_GDT, [0, 0])), (None, Ok(0)), "no GDT");
    make_writable(&table).expect("an ordinary page");
}

fn floating_point(tap: &mut Tap) {
    let unmasked: u16 = 0x037b;
    let x87 =
        trap_of(instruction!("fninit", "fldcw [{}]", "fld1", "fldz", "fdivp", "fwait", in(reg) &raw const unmasked));
    tap.is(x87, Some((16, 0)), "a division by zero of the x87");
    let _ = trap_of(instruction!("fninit"));
    let unmasked: u32 = 0x1f80 & !0x200;
    let sse = trap_of(instruction!("ldmxcsr [{}]", "xorps xmm0, xmm0", "mov eax, 0x3f800000", "movd xmm1, eax",
        "divss xmm1, xmm0", in(reg) &raw const unmasked, out("eax") _, out("xmm0") _, out("xmm1") _));
    // QEMU's emulation knows no exceptions of SSE. It says that it is one, where Bochs plays a bare machine.
    let noticed = core::arch::x86_64::__cpuid(1).ecx >> 31 == 0;
    let want = if noticed { sse == Some((19, 0)) } else { matches!(sse, None | Some((19, 0))) };
    tap.ok(want, "a division by zero of SSE, where it is noticed");
    let masked: u32 = 0x1f80;
    tap.is(trap_of(instruction!("ldmxcsr [{}]", in(reg) &raw const masked)), None, "is masked again");
    fpu_taskswitch(true).expect("always");
    let xmm = trap_of(instruction!("movd xmm0, {0:e}", in(reg) 0, out("xmm0") _));
    tap.is(xmm, Some((7, 0)), "SSE with TS set");
    fpu_taskswitch(true).expect("always");
    tap.is(trap_of(instruction!("fwait")), Some((7, 0)), "fwait with TS set: MP is set too");
    fpu_taskswitch(false).expect("always");
}

static SEEN: AtomicU64 = AtomicU64::new(0);
static FRAME: AtomicU64 = AtomicU64::new(0);

fn flags(tap: &mut Tap) {
    fn look(frame: &mut traps::Frame) {
        FRAME.store(frame.rflags, Ordering::SeqCst);
    }
    // The live flags of a handler are read before anything can change them: by a stub of its own.
    let stub: u64;
    // SAFETY: takes an address; the stub keeps its registers and returns by the iret hypercall.
    unsafe {
        asm!(
            "lea {stub}, [rip + 771f]", "jmp 772f",
            "771:",
            "pushfq", "pop rcx", "mov [rip + {seen}], rcx",
            "mov rcx, [rsp]", "mov r11, [rsp + 8]", "add rsp, 16",
            "push 0", "push rcx", "push r11", "push rax", "mov eax, 23", "syscall", "ud2",
            "772:",
            stub = out(reg) stub, seen = sym SEEN,
        );
    }
    traps::set_handler(0x80, Some(look));
    for (flag, live, what) in [
        (0x100, false, "TF"),
        (0x400, true, "DF"),
        (0x4000, false, "NT"),
        (0x4_0000, false, "AC"),
        (0x8d5, true, "the arithmetic flags"),
        (0x20_0000, true, "ID"),
    ] {
        let int = || {
            // SAFETY: the flags are the ABI's again afterwards.
            unsafe {
                asm!("pushfq", "pop {old}", "mov {new}, {old}", "or {new}, {flag}", "push {new}", "popfq", "int 0x80",
                    "push {old}", "popfq", flag = in(reg) flag, old = out(reg) _, new = out(reg) _);
            }
        };
        traps::set_handler(1, Some(|frame| frame.rflags &= !0x100));
        int();
        traps::set_handler(1, None);
        tap.is(FRAME.load(Ordering::SeqCst) & flag, flag, what);
        set(&[TrapInfo { address: stub, ..traps::default_entry(0x80) }, TrapInfo::default()]);
        traps::set_handler(1, Some(|frame| frame.rflags &= !0x100));
        int();
        traps::set_handler(1, None);
        restore(0x80);
        let seen = SEEN.load(Ordering::SeqCst) & flag;
        tap.is(seen, if live { flag } else { 0 }, "in the handler");
    }
    traps::set_handler(0x80, None);
}

fn nested(tap: &mut Tap) {
    fn faults(frame: &mut traps::Frame) {
        // A page fault in the handler of another trap.
        let missing = traps::peek(0x5000).is_none();
        SEEN.store(u64::from(missing) | events::cr2() << 8, Ordering::SeqCst);
        frame.rip += 2;
    }
    traps::set_handler(6, Some(faults));
    tap.is(trap_of(instruction!("ud2")), None, "a fault in a handler, and back");
    tap.is(SEEN.load(Ordering::SeqCst), 1 | 0x5000 << 8, "it was delivered");
    let frame = user::run(traps::Frame { rip: 0x7000_0000, ..user::start_at(0) });
    tap.is((frame.vector, events::cr2()), (14, 0x7000_0000), "CR2 of a fault in user mode");
    traps::set_handler(6, None);
    let before = events::cr2();
    let _ = trap_of(instruction!("hlt"));
    tap.is(events::cr2(), before, "only a page fault changes CR2");
    let _ = trap_of(|| _ = load(0x6001));
    tap.is(events::cr2(), 0x6001, "which has the byte's address");
}

/// NMIs that came, those that came while another was handled, and those from user mode.
static NMIS: AtomicU64 = AtomicU64::new(0);
static DEPTH: AtomicU64 = AtomicU64::new(0);

fn send_nmi() -> Result<u64, Errno> {
    call(HYPERVISOR_VCPU_OP, [VCPUOP_SEND_NMI.into(), 0, 0])
}

fn nmi(tap: &mut Tap) {
    fn count(frame: &mut traps::Frame) {
        let depth = DEPTH.fetch_add(1, Ordering::SeqCst);
        let seen = NMIS.fetch_add(1 + (depth << 16) + (u64::from(frame.from_user()) << 32), Ordering::SeqCst);
        if seen & 0xffff == 0 {
            // Twice: they are not counted.
            let _ = (send_nmi(), send_nmi());
        }
        DEPTH.fetch_sub(1, Ordering::SeqCst);
    }
    fn with_a_fault(frame: &mut traps::Frame) {
        let depth = DEPTH.fetch_add(1, Ordering::SeqCst);
        let seen = NMIS.fetch_add(1 + (depth << 16) + (u64::from(frame.from_user()) << 32), Ordering::SeqCst);
        if seen & 0xffff == 0 {
            let _ = send_nmi();
            let _ = traps::peek(0x5000);
        }
        DEPTH.fetch_sub(1, Ordering::SeqCst);
    }
    tap.is(call(HYPERVISOR_VCPU_OP, [VCPUOP_SEND_NMI.into(), 1000, 0]), Err(Errno::ENOENT), "an NMI for nobody");
    let argument = call(HYPERVISOR_VCPU_OP, [VCPUOP_SEND_NMI.into(), 0, 0x1000]);
    tap.is(argument, Err(Errno::EINVAL), "an NMI has no argument");
    traps::set_handler(2, Some(count));
    tap.is(send_nmi(), Ok(0), "an NMI for oneself");
    tap.is(NMIS.swap(0, Ordering::SeqCst), 2, "comes at once, and those sent by its handler once, after it");
    traps::set_handler(2, Some(with_a_fault));
    tap.is(send_nmi(), Ok(0), "an NMI whose handler has a fault");
    let seen = NMIS.swap(0, Ordering::SeqCst);
    tap.is(seen, 2 + (1 << 16), "the fault's iret ends the mask: what the handler sent comes while it runs still");
    traps::set_handler(2, Some(count));
    events::set_upcall_mask(true);
    NMIS.store(5, Ordering::SeqCst);
    tap.is(send_nmi(), Ok(0), "an NMI while events are masked");
    tap.is(NMIS.swap(0, Ordering::SeqCst), 6, "comes too");
    // Without a handler an NMI waits for one.
    set(&[TrapInfo { address: traps::stub(2), ..traps::default_entry(2) }, TrapInfo::default()]);
    NMIS.store(5, Ordering::SeqCst);
    // A batch: sent in the kernel and delivered in user mode, which the same batch goes to.
    use xen_abi::multicall::MulticallEntry;
    let entry = |op, args| MulticallEntry { op, result: 0, args };
    let mut batch = [entry(HYPERVISOR_VCPU_OP.into(), [VCPUOP_SEND_NMI.into(), 0, 0, 0, 0, 0]), entry(23, [0; 6])];
    let at = address_of(&mut batch);
    traps::set_handler(
        2,
        Some(|frame| {
            NMIS.store(u64::from(frame.from_user()) << 32 | frame.rip, Ordering::SeqCst);
            frame.rip = CODE + INT_41;
        }),
    );
    set(&[gate(0x41, 3), gate(0x82, 3), TrapInfo::default()]);
    let after = trap_of(instruction!(
        "push 0xe02b", "push 0x402000", "push 0x202", "push 0xe033", "push {rip}", "push 0", "push 0", "push 0", "push 0",
        "mov eax, 13", "mov esi, 2", "syscall", "ud2",
        rip = in(reg) CODE + SPIN, in("rdi") at, options(noreturn)
    ));
    tap.is(NMIS.load(Ordering::SeqCst), 1 << 32 | (CODE + SPIN), "an NMI in user mode");
    tap.ok(after.is_some_and(|(vector, _)| is_vector(vector, 0x41)), "which goes on where the handler says");
    traps::set_handler(2, None);
    restore(0x41);
    restore(0x82);
}

fn table(tap: &mut Tap) {
    let wild = [TrapInfo { address: 1 << 47, ..traps::default_entry(0x90) }, TrapInfo::default()];
    // SAFETY: the entries are never used.
    let set_raw = |table: &[TrapInfo]| unsafe { set_trap_table(table) };
    tap.is(set_raw(&wild), Err(Errno::EINVAL), "a handler that is not canonical");
    let some = [gate(0x91, 3), wild[0], gate(0x92, 3), TrapInfo::default()];
    tap.is(set_raw(&some), Err(Errno::EINVAL), "one among others");
    tap.is(set_raw(&[TrapInfo::default()]), Ok(()), "an empty table changes nothing");
    let inside = [TrapInfo { address: 0xffff_8300_0000_0000, ..traps::default_entry(0x90) }, TrapInfo::default()];
    tap.is(set_raw(&inside), Ok(()), "a handler in the hypervisor is accepted");
    set(&[TrapInfo { flags: 0xff, ..traps::default_entry(0x80) }, TrapInfo::default()]);
    tap.is(trap_of(instruction!("int 0x80")), Some((0x80, 0)), "flags that mean nothing mean nothing");
    set(&[TrapInfo { flags: 3 | TI_IF, ..traps::default_entry(0x80) }, TrapInfo::default()]);
    tap.is(call(HYPERVISOR_SET_TRAP_TABLE, [0]), Ok(0), "a null pointer empties the table");
    tap.is(trap_of(instruction!("nop")), None, "which matters when something traps only");
    for half in [0u8, 128] {
        let mut entries = [TrapInfo::default(); 129];
        for (entry, vector) in entries.iter_mut().take(128).zip(half..) {
            *entry = traps::default_entry(vector);
        }
        set(&entries);
    }
    tap.is(trap_of(instruction!("ud2")), Some((6, 0)), "and it is filled again");
}

//! Debug registers: which values are taken, what hits and what DR6 says then, single steps, breakpoints at places where the
//! trap comes late (MOV SS), in user mode and in the kernel's way in and out.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(clippy::cast_possible_truncation)] // Offsets in a page.
#![allow(unsafe_code)] // The claims are instructions.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use guest_pv::call::traps::{get_debugreg, set_debugreg};
use guest_pv::tap::Tap;
use guest_pv::traps;
use guests::user::{self, CODE, STACK, UserSpace};
use guests::{call, code, frame_of, load, page, store, trap_of};
use xen_abi::Errno;
use xen_abi::hypercall::{HYPERVISOR_GET_DEBUGREG, HYPERVISOR_SET_DEBUGREG, HYPERVISOR_XEN_VERSION};

guest_pv::test!(run);

/// An instruction as a body for `trap_of`.
macro_rules! instruction {
    ($($text:tt)*) => {
        // SAFETY: the hypervisor emulates it or makes it a fault.
        || unsafe { asm!($($text)*) }
    };
}

const DR6_IDLE: u64 = 0xffff_0ff0;
const NOPS: u64 = 0;
const MOV_SS: u64 = 32;
const PUSH: u64 = 64;

fn run(tap: &mut Tap) {
    let mut program = [0x90u8; 512];
    // mov ss, [STACK + 0x800]; int 0x80. And one with a syscall, and a push to the stack.
    let at = |program: &mut [u8], offset: u64, code: &[u8]| {
        program[offset as usize..offset as usize + code.len()].copy_from_slice(code);
    };
    at(&mut program, NOPS, code!("nop", "nop", "int 0x80"));
    at(&mut program, MOV_SS, code!("mov ss, [rbx]", "syscall", "int 0x80"));
    at(&mut program, PUSH, code!("push rax", "nop", "int 0x80"));
    let space = UserSpace::new(&program);
    values(tap);
    instructions(tap);
    hits(tap);
    steps(tap);
    in_user_mode(tap, &space);
    late(tap, &space);
    in_calls(tap);
    clear();
}

fn clear() {
    set_debugreg(7, 0).expect("always");
    set_debugreg(6, 0).expect("always");
    (0..4).for_each(|number| set_debugreg(number, 0).expect("always"));
}

fn values(tap: &mut Tap) {
    tap.is(get_debugreg(6), DR6_IDLE, "DR6 is idle");
    tap.is(get_debugreg(7), 0x400, "DR7 is idle");
    for number in 0..4 {
        for (address, want, what) in [
            (0x1000, Ok(()), "a low address"),
            (0x7fff_ffff_ffff, Ok(()), "the last one of the low half"),
            (0xffff_8800_0000_0000, Ok(()), "the first one after the hypervisor"),
            (u64::MAX, Ok(()), "the last one of all"),
            (0xffff_8000_0000_0000, Err(Errno::EPERM), "the first one of the hypervisor"),
            (0xffff_87ff_ffff_ffff, Err(Errno::EPERM), "the last one of the hypervisor"),
            (0xffff_82d0_4020_0000, Err(Errno::EPERM), "one in its image"),
            (1 << 47, Err(Errno::EPERM), "one that is not canonical"),
        ] {
            tap.is(set_debugreg(number, address), want, what);
        }
        tap.is(get_debugreg(number), u64::MAX, "the last good one stays");
        set_debugreg(number, 0).expect("always");
    }
    for (value, want, read) in [
        (0, Ok(()), 0x400),
        (0x3ff, Ok(()), 0x7ff),
        (0x1_0000, Ok(()), 0x1_0400),
        (0xffff_0000, Ok(()), 0xffff_0400),
        (1 << 11 | 1 << 12 | 1 << 14 | 1 << 15, Ok(()), 0x400),
        (1 << 13, Err(Errno::EPERM), 0x400),
        (1 << 32, Err(Errno::EINVAL), 0x400),
        (1 | 2 << 16, Err(Errno::EPERM), 0x400),
        (0x80 | 2 << 28, Err(Errno::EPERM), 0x400),
        (2 << 16, Ok(()), 0x2_0400),
    ] {
        tap.is(set_debugreg(7, value), want, "DR7: general detect and I/O breakpoints are refused, other bits fixed");
        tap.is(get_debugreg(7), read, "and reads back");
    }
    set_debugreg(7, 0).expect("always");
    for (value, want, read) in [
        (0, Ok(()), DR6_IDLE),
        (0xf, Ok(()), DR6_IDLE | 0xf),
        (0xffff_ffff, Ok(()), 0xffff_efff),
        (1 << 32, Err(Errno::EINVAL), 0xffff_efff),
    ] {
        tap.is(set_debugreg(6, value), want, "DR6: the fixed bits");
        tap.is(get_debugreg(6), read, "read back");
    }
    clear();
    tap.is((set_debugreg(4, 0xf), get_debugreg(6)), (Ok(()), DR6_IDLE | 0xf), "4 is another name of 6");
    tap.is((set_debugreg(5, 0x300), get_debugreg(7)), (Ok(()), 0x700), "5 is another name of 7");
    clear();
    for number in [8u64, 9, 100, 0xffff_ffff] {
        tap.is(call(HYPERVISOR_SET_DEBUGREG, [number, 0]), Err(Errno::ENODEV), "there are eight");
        tap.is(call(HYPERVISOR_GET_DEBUGREG, [number]), Err(Errno::ENODEV), "to read");
    }
    tap.is(call(HYPERVISOR_SET_DEBUGREG, [1 << 32, 0x1000]), Ok(0), "a number has 32 bits");
    tap.is(get_debugreg(0), 0x1000, "so this was register 0");
    clear();
}

fn instructions(tap: &mut Tap) {
    const GP: Option<(u64, u64)> = Some((13, 0));
    tap.is(trap_of(instruction!("mov dr3, {}", in(reg) 0x1234u64)), None, "mov to DR3");
    tap.is(get_debugreg(3), 0x1234, "is the same as the hypercall");
    tap.is(trap_of(instruction!("mov dr0, {}", in(reg) 0xffff_8300_0000_0000u64)), GP, "nor here the hypervisor");
    tap.is(trap_of(instruction!("mov dr0, {}", in(reg) 1u64 << 47)), GP, "nor what is not canonical");
    tap.is(trap_of(instruction!("mov dr7, {}", in(reg) 1u64 << 13)), GP, "general detect");
    tap.is(trap_of(instruction!("mov dr7, {}", in(reg) 1u64 << 32)), GP, "high bits of DR7");
    tap.is(trap_of(instruction!("mov dr6, {}", in(reg) 1u64 << 32)), GP, "high bits of DR6");
    tap.is(trap_of(instruction!("mov {}, dr6", out(reg) _)), None, "mov from DR6");
    if trap_of(instruction!(".byte 0x0f, 0x21, 0xe0", out("rax") _)) == Some((6, 0)) {
        tap.skip("DR4 and DR5 are DR6 and DR7", "a processor that looks at the hypervisor's CR4.DE first");
    } else {
        let (dr4, dr5): (u64, u64);
        // SAFETY: reads that are emulated.
        unsafe {
            asm!(".byte 0x0f, 0x21, 0xe0", "mov {}, rax", ".byte 0x0f, 0x21, 0xe8", out(reg) dr4, out("rax") dr5)
        };
        tap.is((dr4, dr5), (DR6_IDLE, 0x400), "DR4 and DR5 are DR6 and DR7");
    }
    let cr4: u64;
    // SAFETY: a read that is emulated.
    unsafe { asm!("mov {}, cr4", out(reg) cr4) };
    tap.is(trap_of(instruction!("mov cr4, {}", in(reg) cr4 | 8)), None, "CR4.DE");
    tap.is(trap_of(instruction!(".byte 0x0f, 0x21, 0xe0", out("rax") _)), Some((6, 0)), "with it DR4 is no register");
    tap.is(trap_of(instruction!(".byte 0x0f, 0x23, 0xe8", in("rax") 0)), Some((6, 0)), "nor is DR5");
    tap.is(set_debugreg(4, 0), Err(Errno::ENODEV), "nor for the hypercall");
    tap.is(set_debugreg(7, 1 | 2 << 16), Ok(()), "and there are breakpoints on ports");
    tap.is(get_debugreg(7), 0x2_0401, "which read back");
    set_debugreg(0, 0x80).expect("a port");
    let mut iopl = 1u32;
    guests::op(33, 6, &mut iopl).expect("I/O privilege");
    let port = frame_of(instruction!("in al, dx", in("dx") 0x80u16, out("al") _, options(nostack)));
    tap.is(port.map(|frame| frame.vector), Some(1), "a port that is watched");
    tap.is(get_debugreg(6) & 0xf, 1, "DR6 says which");
    set_debugreg(6, 0).expect("always");
    let other = trap_of(instruction!("in al, dx", in("dx") 0x84u16, out("al") _));
    tap.is(other, None, "one that is not");
    iopl = 0;
    guests::op(33, 6, &mut iopl).expect("no I/O privilege");
    clear();
    tap.is(trap_of(instruction!("mov cr4, {}", in(reg) cr4)), None, "CR4 as before");
}

fn hits(tap: &mut Tap) {
    let data = page();
    let at = data.address() + 64;
    for (number, kind, name) in [(0u32, 1u64, "writes"), (1, 3, "reads and writes"), (3, 1, "writes, register 3")] {
        for (length, bytes) in [(0u64, 1u64), (1, 2), (3, 4), (2, 8)] {
            set_debugreg(number, at).expect("an address of ours");
            let control = 1 << (2 * number) | (kind | length << 2) << (16 + 4 * number);
            set_debugreg(7, control).expect("a good value");
            let written = frame_of(|| store(at, 1));
            let hit = get_debugreg(6);
            set_debugreg(6, 0).expect("always");
            let beyond = trap_of(|| store(at + 8, 1));
            let read = trap_of(|| _ = load(at)).is_some();
            set_debugreg(6, 0).expect("always");
            let good = written.is_some_and(|frame| frame.vector == 1)
                && hit & 0xf == 1 << number
                && beyond.is_none()
                && read == (kind == 3);
            if !tap.ok(good, name) {
                tap.note(format_args!("{bytes} bytes: {written:?} DR6 {hit:#x} {beyond:?} {read}"));
            }
        }
        set_debugreg(7, 0).expect("always");
    }
    // Execution: a fault before the instruction. An address in a page of code.
    let mut code = page();
    code.bytes_mut()[..4].copy_from_slice(&[0x90, 0x90, 0x90, 0xc3]);
    let target = code.address() + 1;
    set_debugreg(2, target).expect("an address of ours");
    set_debugreg(7, 0x30).expect("a good value");
    let entry = code.address();
    let frame = frame_of(instruction!("call {}", in(reg) entry)).unwrap_or_default();
    tap.is((frame.vector, frame.rip), (1, target), "a breakpoint on an instruction");
    tap.is(get_debugreg(6), DR6_IDLE | 4, "DR6 says which");
    // Going on from it needs the resume flag.
    static HITS: AtomicU64 = AtomicU64::new(0);
    HITS.store(0, Ordering::SeqCst);
    traps::set_handler(
        1,
        Some(|frame| {
            HITS.fetch_add(1, Ordering::SeqCst);
            frame.rflags |= 0x1_0000;
        }),
    );
    let after = trap_of(instruction!("call {}", in(reg) entry));
    traps::set_handler(1, None);
    tap.is((after, HITS.load(Ordering::SeqCst)), (None, 1), "the resume flag of an iret goes over it");
    set_debugreg(6, 0).expect("always");
    set_debugreg(7, 0).expect("always");
    tap.is(trap_of(instruction!("call {}", in(reg) entry)), None, "without it in DR7 nothing happens");
    clear();
}

fn steps(tap: &mut Tap) {
    set_debugreg(6, 0xf).expect("always");
    let stepped =
        frame_of(instruction!("pushfq", "or qword ptr [rsp], 0x100", "popfq", "nop", "nop")).unwrap_or_default();
    tap.is((stepped.vector, stepped.rflags & 0x100), (1, 0x100), "a single step");
    tap.is(get_debugreg(6), DR6_IDLE | 0x400f, "DR6 says so, and keeps what was there");
    set_debugreg(6, 0).expect("always");
    // An emulated instruction is stepped like any other.
    let emulated =
        frame_of(instruction!("lea {1}, [rip + 2f]", "pushfq", "or qword ptr [rsp], 0x100", "popfq", "mov {0}, cr0",
        "2:", "nop", "nop", "mov {0}, 1", out(reg) _, out(reg) _))
        .unwrap_or_default();
    tap.is(emulated.vector, 1, "an emulated instruction with single steps");
    tap.is(get_debugreg(6) & 0x4000, 0x4000, "is stepped");
    let opcode = load(emulated.rip) & 0xff;
    tap.is(opcode, 0x90, "and done");
    set_debugreg(6, 0).expect("always");
    let cpuid = frame_of(instruction!("push rbx", "pushfq", "or qword ptr [rsp], 0x100", "popfq",
        ".byte 0x0f, 0x0b, 0x78, 0x65, 0x6e", "cpuid", "nop", "pop rbx", inout("eax") 0 => _, inout("ecx") 0 => _, out("edx") _))
    .unwrap_or_default();
    tap.is((cpuid.vector, load(cpuid.rip) & 0xff), (1, 0x90), "cpuid with the prefix is stepped as one");
    set_debugreg(6, 0).expect("always");
    let fault = frame_of(instruction!("pushfq", "or qword ptr [rsp], 0x100", "popfq", "hlt")).unwrap_or_default();
    tap.is((fault.vector, get_debugreg(6)), (13, DR6_IDLE), "a faulting instruction is not");
    clear();
}

fn in_user_mode(tap: &mut Tap, space: &UserSpace) {
    set_debugreg(0, CODE + NOPS + 1).expect("an address of the user's");
    set_debugreg(7, 1).expect("a good value");
    let frame = user::run(user::start_at(NOPS));
    tap.is((frame.vector, frame.rip, frame.from_user()), (1, CODE + NOPS + 1, true), "a breakpoint in user mode");
    tap.is(get_debugreg(6) & 0xf, 1, "DR6 says which");
    set_debugreg(6, 0).expect("always");
    set_debugreg(7, 2).expect("a good value");
    let frame = user::run(user::start_at(NOPS));
    tap.is((frame.vector, frame.rip), (1, CODE + NOPS + 1), "a global one too");
    set_debugreg(6, 0).expect("always");
    set_debugreg(0, STACK + 0xff8).expect("an address of the user's");
    set_debugreg(7, 1 | 0b1001 << 16).expect("a good value");
    let frame = user::run(user::start_at(PUSH));
    tap.is((frame.vector, frame.rip), (1, CODE + PUSH + 1), "a watched stack");
    set_debugreg(6, 0).expect("always");
    let frame = user::run(traps::Frame { rflags: 0x302, ..user::start_at(NOPS) });
    tap.is((frame.vector, frame.rip), (1, CODE + NOPS + 1), "a single step in user mode");
    let _ = space;
    clear();
}

fn late(tap: &mut Tap, space: &UserSpace) {
    // A watched word is loaded into SS: the trap waits until after the next instruction, which enters the hypervisor. It must
    // come out as a trap of the guest's, not of the hypervisor's (XSA-260).
    let stack = &space.pages[5];
    store(stack.address() + 0x800, 0xe02b);
    set_debugreg(0, STACK + 0x800).expect("an address of the user's");
    set_debugreg(7, 1 | 0b1111 << 16).expect("a good value");
    let frame = user::run(traps::Frame { rbx: STACK + 0x800, ..user::start_at(MOV_SS) });
    tap.ok(
        frame.vector == traps::SYSCALL || frame.vector == 1,
        "a syscall right behind a watched load of SS, from user mode",
    );
    set_debugreg(6, 0).expect("always");
    // The same in the kernel, before a hypercall, int 0x80, int3 and an emulated instruction.
    let mut selector = page();
    selector.bytes_mut()[..8].copy_from_slice(&0xe02bu64.to_le_bytes());
    let at = selector.address();
    set_debugreg(0, at).expect("an address of ours");
    let hypercall = trap_of(instruction!("mov ss, [{}]", "syscall", in(reg) at, inout("rax") 17u64 => _, in("rdi") 0,
        out("rcx") _, out("r11") _));
    tap.ok(matches!(hypercall, None | Some((1, 0))), "a hypercall behind it");
    let int = trap_of(instruction!("mov ss, [{}]", "int 0x80", in(reg) at));
    tap.ok(matches!(int, Some((1 | 0x80, 0))), "int 0x80 behind it");
    let int3 = trap_of(instruction!("mov ss, [{}]", "int3", in(reg) at));
    tap.ok(matches!(int3, Some((1 | 3, 0))), "int3 behind it");
    let emulated = trap_of(instruction!("mov ss, [{}]", "mov {}, cr0", in(reg) at, out(reg) _));
    tap.ok(matches!(emulated, None | Some((1, 0))), "an emulated instruction behind it");
    let ud2 = trap_of(instruction!("mov ss, [{}]", "ud2", in(reg) at));
    tap.ok(matches!(ud2, Some((1 | 6, 0))), "ud2 behind it");
    set_debugreg(7, 0).expect("always");
    let stepped = trap_of(
        instruction!("mov ecx, 0xe02b", "pushfq", "or qword ptr [rsp], 0x100", "popfq", "mov ss, ecx", "syscall",
        inout("rax") 17u64 => _, in("rdi") 0, out("rcx") _, out("r11") _),
    );
    tap.is(stepped, Some((1, 0)), "single steps over all that");
    tap.is(load(at), 0xe02b, "and everything is well");
    clear();
}

fn in_calls(tap: &mut Tap) {
    // Memory that the hypervisor reads or writes for the guest is watched: no trap of the hypervisor's comes of it.
    let mut text = page();
    text.bytes_mut()[..2].copy_from_slice(b"# ");
    set_debugreg(0, text.address()).expect("an address of ours");
    set_debugreg(7, 1 | 0b1111 << 16).expect("a good value");
    let extra = call(HYPERVISOR_XEN_VERSION, [1, text.address()]);
    set_debugreg(7, 0).expect("always");
    tap.is(extra, Ok(0), "a hypercall that writes to watched memory");
    tap.is(text.bytes()[0], b'.', "has written to it");
    set_debugreg(6, 0).expect("always");
    // The stack of a trap's frame.
    let stack: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rsp", out(reg) stack) };
    set_debugreg(0, (stack - 0x400) & !7).expect("an address of ours");
    set_debugreg(7, 1 | 0b1101 << 16).expect("a good value");
    let below = trap_of(instruction!("mov {old}, rsp", "lea rsp, [{old} - 0x380]", "int 0x80", "mov rsp, {old}",
        old = out(reg) _));
    set_debugreg(7, 0).expect("always");
    tap.ok(matches!(below, Some((0x80 | 1, 0))), "a trap whose frame lies in watched memory");
    set_debugreg(6, 0).expect("always");
    tap.is(trap_of(instruction!("ud2")), Some((6, 0)), "and traps work after that");
}

//! The ways into the kernel by `syscall` and `sysenter`, from 64- and 32-bit user mode, with and without callbacks; flags
//! on the way; addresses at the edge of what is canonical; and the iret hypercall in the forms that other guests leave out.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(clippy::cast_possible_truncation)] // Offsets in a page.
#![allow(unsafe_code)] // The claims are instructions.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use guest_pv::call::callback;
use guest_pv::mem::table::{self, READ_WRITE, TABLE, USER};
use guest_pv::tap::Tap;
use guest_pv::{events, traps};
use guests::cpu::is_intel;
use guests::user::{self, CODE, STACK_TOP, UserSpace};
use guests::{call, code, entry_of, frame_of, mmu_update, page};
use xen_abi::Errno;
use xen_abi::arch_x86::{FLAT_USER_CS32, VGCF_IN_SYSCALL};
use xen_abi::callback::*;

guest_pv::test!(run);

const SYSCALL: u64 = 0;
const SYSENTER: u64 = 16;
const INT: u64 = 32;
const FLAGS: u64 = 48;
const TOP: u64 = 64;
const STEPS: u64 = 80;

/// Pieces of the user program and where they are.
type Piece = (u64, fn() -> &'static [u8]);
const USER_PROGRAM: &[Piece] = &[
    (SYSCALL, || code!("syscall")),
    (SYSENTER, || code!("sysenter")),
    (INT, || code!("int 0x80")),
    (FLAGS, || code!("pushfq", "pop rax", "int 0x80")),
    (TOP, || code!("jmp rax")),
    (STEPS, || code!("nop", "nop", "syscall", "nop", "nop")),
];

/// What is put into rbp and rdi to see what arrives.
const MARK: u64 = 0x5a5a_0000_1234;

fn run(tap: &mut Tap) {
    let mut program = [0x90u8; 512];
    for (at, piece) in USER_PROGRAM {
        let bytes = piece();
        program[*at as usize..*at as usize + bytes.len()].copy_from_slice(bytes);
    }
    let space = UserSpace::new(&program);
    from_user(tap);
    compat(tap);
    sysenter(tap);
    user_flags(tap);
    kernel_flags(tap);
    edge(tap, &space);
    fast_returns(tap);
    selectors(tap);
    registrations(tap);
}

fn register(type_: u16, flags: u16, address: u64) {
    // SAFETY: the address is a stub of the runtime's, or zero.
    unsafe { callback::register(type_, flags, address) }.expect("a callback");
}

/// The stub that a plain callback can use: the frames are the same as those of a vector without error code.
fn stub() -> u64 {
    traps::stub(0xc0)
}

fn compat_at(piece: u64) -> traps::Frame {
    traps::Frame { cs: FLAT_USER_CS32.into(), rbp: MARK, rdi: MARK, ..user::start_at(piece) }
}

fn from_user(tap: &mut Tap) {
    let state = traps::Frame { rbp: MARK, rdi: MARK, r10: MARK, ..user::start_at(SYSCALL) };
    let frame = user::run(state);
    tap.is((frame.vector, frame.rip), (traps::SYSCALL, CODE + 2), "syscall");
    tap.is((frame.rbp, frame.rdi, frame.r10), (MARK, MARK, MARK), "keeps the registers");
    tap.is((frame.cs & 0xffff, frame.ss), (0xe033, 0xe02b), "comes with the flat selectors");
    register(CALLBACKTYPE_SYSCALL, 0, 0);
    let frame = user::run(state);
    tap.is((frame.vector, frame.rip), (6, CODE + SYSCALL), "without a callback it is an invalid opcode");
    register(CALLBACKTYPE_SYSCALL, 0, stub());
    SEEN.store(0, Ordering::SeqCst);
    traps::set_handler(0xc0, Some(look));
    user::run(user::start_at(SYSCALL));
    tap.is(SEEN.load(Ordering::SeqCst) & 0xff, 0, "a callback that leaves events open");
    register(CALLBACKTYPE_SYSCALL, CALLBACKF_MASK_EVENTS, stub());
    user::run(user::start_at(SYSCALL));
    tap.is(SEEN.load(Ordering::SeqCst) & 0xff, 1, "a callback that masks events");
    traps::set_handler(0xc0, None);
    events::set_upcall_mask(true);
}

fn compat(tap: &mut Tap) {
    let frame = user::run(compat_at(INT));
    tap.is((frame.vector, frame.rip, frame.cs & 0xffff), (0x80, CODE + INT + 2, 0xe023), "int 0x80 from 32-bit code");
    let frame = user::run(compat_at(SYSCALL));
    tap.is((frame.vector, frame.rip), (6, CODE), "syscall from 32-bit code does not go to the callback of 64-bit code");
    tap.is((frame.cs & 0xffff, frame.ss), (0xe023, 0xe02b), "and shows the 32-bit selectors");
    register(CALLBACKTYPE_SYSCALL32, 0, traps::stub(0xc1));
    let frame = user::run(compat_at(SYSCALL));
    // Intel's processors have no SYSCALL outside 64-bit mode (SDM vol. 2B, SYSCALL); QEMU gives it to all.
    let absent = is_intel() && (frame.vector, frame.rip) == (6, CODE);
    tap.ok(absent || (frame.vector, frame.rip) == (0xc1, CODE + 2), "but to its own");
    tap.is((frame.rbp, frame.rdi), (MARK & 0xffff_ffff_ffff, MARK & 0xffff_ffff_ffff), "with its registers");
    let frame = user::run(user::start_at(SYSCALL));
    tap.is(frame.vector, 0xc0, "64-bit code still has the other");
    register(CALLBACKTYPE_SYSCALL, 0, 0);
    let frame = user::run(compat_at(SYSCALL));
    tap.is(frame.vector, if absent { 6 } else { 0xc1 }, "it needs no callback for 64-bit code");
    register(CALLBACKTYPE_SYSCALL32, 0, 0);
    let frame = user::run(compat_at(SYSCALL));
    tap.is((frame.vector, frame.rip, frame.cs & 0xffff), (6, CODE, 0xe023), "without both it is an invalid opcode");
    register(CALLBACKTYPE_SYSCALL, CALLBACKF_MASK_EVENTS, stub());
    register(CALLBACKTYPE_SYSCALL32, CALLBACKF_MASK_EVENTS, traps::stub(0xc1));
}

fn sysenter(tap: &mut Tap) {
    // The instruction exists in 64-bit mode on Intel's CPUs only.
    let frame = user::run(user::start_at(SYSENTER));
    let exists = frame.vector != 6;
    let seen = |frame: &traps::Frame| (frame.vector, frame.error);
    if exists {
        tap.is((frame.vector, frame.error), (13, 0), "sysenter without a callback: #GP, or an invalid opcode");
    } else {
        tap.is(
            (frame.vector, frame.rip),
            (6, CODE + SYSENTER),
            "sysenter without a callback: #GP, or an invalid opcode",
        );
    }
    let frame = user::run(compat_at(SYSENTER));
    tap.is(seen(&frame), (13, 0), "sysenter from 32-bit code without a callback");
    tap.ok(frame.from_user(), "is a fault of user mode");
    tap.note(format_args!("rip {:#x} cs {:#x} rsp {:#x}", frame.rip, frame.cs, frame.rsp));
    register(CALLBACKTYPE_SYSENTER, CALLBACKF_MASK_EVENTS, traps::stub(0xc2));
    let frame = user::run(traps::Frame { rflags: 0x202 | 0x4000 | 0xc1, ..compat_at(SYSENTER) });
    // Xen leaves the instruction without a target on AMD's CPUs, where it is none in long mode.
    if frame.vector == 13 {
        tap.is((frame.error, frame.rip), (0, CODE + SYSENTER), "sysenter from 32-bit code faults with a callback too");
    } else {
        tap.is(frame.vector, 0xc2, "sysenter from 32-bit code goes to its callback");
        tap.is((frame.rip, frame.rsp), (0, 0), "which does not know where it came from");
        tap.is((frame.cs & 3, frame.ss), (3, 0xe02b), "but that it was user mode");
        tap.is(frame.rflags & 0xc1, 0xc1, "the arithmetic flags arrive");
        tap.is((frame.rbp, frame.rdi), (MARK, MARK), "and the registers");
        let frame = user::run(traps::Frame { rflags: 0x302, ..compat_at(SYSENTER) });
        tap.is(frame.vector, 0xc2, "single steps do not stop it");
    }
    if exists {
        let frame = user::run(user::start_at(SYSENTER));
        tap.is(frame.vector, 0xc2, "in 64-bit code too, where it exists");
    } else {
        tap.skip("in 64-bit code too, where it exists", "it does not");
    }
    register(CALLBACKTYPE_SYSENTER, 0, 0);
}

/// The event mask, live flags and saved flags that a handler sees.
static SEEN: AtomicU64 = AtomicU64::new(0);

fn look(frame: &mut traps::Frame) {
    let live: u64;
    // SAFETY: reads the flags.
    unsafe { asm!("pushfq", "pop {}", out(reg) live) };
    let mask = events::shared().u8_at(1).load(Ordering::SeqCst);
    SEEN.store(u64::from(mask) | (frame.rflags & 0xff_ffff) << 8 | live << 32, Ordering::SeqCst);
    // On to something that ends the run.
    frame.rip = CODE + INT;
}

fn user_flags(tap: &mut Tap) {
    traps::set_handler(0xc0, Some(look));
    for (flag, live, what) in [(0x1, 1, "carry"), (0x4000, 0, "NT"), (0x4_0000, 0, "AC")] {
        user::run(traps::Frame { rflags: 0x202 | flag, ..user::start_at(SYSCALL) });
        let seen = SEEN.load(Ordering::SeqCst);
        // NT is not taken on by a return to user mode.
        tap.is(seen >> 8 & flag, if flag == 0x4000 { seen >> 8 & flag } else { flag }, what);
        if flag == 1 {
            continue;
        }
        tap.is(seen >> 32 & flag, live, "in the callback");
    }
    traps::set_handler(0xc0, None);
    // Single steps through a syscall.
    static STEPPED: AtomicU64 = AtomicU64::new(0);
    traps::set_handler(
        1,
        Some(|frame| {
            STEPPED.store(STEPPED.load(Ordering::SeqCst) << 8 | (frame.rip & 0xff), Ordering::SeqCst);
        }),
    );
    let frame = user::run(traps::Frame { rflags: 0x302, ..user::start_at(STEPS) });
    tap.is((frame.vector, frame.rip), (0xc0, CODE + STEPS + 4), "a syscall with single steps");
    tap.is(frame.rflags & 0x100, 0x100, "whose frame has the flag");
    tap.is(STEPPED.load(Ordering::SeqCst), 0x5152, "each instruction before it was stepped");
    STEPPED.store(0, Ordering::SeqCst);
    traps::set_handler(0xc0, Some(|_| {}));
    traps::set_handler(
        1,
        Some(|frame| {
            STEPPED.store(STEPPED.load(Ordering::SeqCst) << 8 | (frame.rip & 0xff), Ordering::SeqCst);
            if frame.rip >= CODE + STEPS + 4 {
                frame.rip = CODE + INT;
                frame.rflags &= !0x100;
            }
        }),
    );
    user::run(traps::Frame { rflags: 0x302, ..user::start_at(STEPS) });
    tap.is(STEPPED.load(Ordering::SeqCst), 0x51_5255, "and after the return with the flag the next one");
    traps::set_handler(0xc0, None);
    traps::set_handler(1, None);
    let frame = user::run(traps::Frame { rflags: 0x2 | 0x3000 | 0x2_0000 | 0x18_0000, ..user::start_at(FLAGS) });
    tap.is(frame.rax & 0x3_3200, 0x200, "user mode runs with IF, without IOPL and VM, whatever iret is told");
}

fn kernel_flags(tap: &mut Tap) {
    // A hypercall with single steps: the step is reported behind it.
    let frame = frame_of(|| {
        // SAFETY: ends with the single step; rax is lost with the frame.
        unsafe {
            asm!(
                "pushfq",
                "or qword ptr [rsp], 0x100",
                "mov eax, 17",
                "xor edi, edi",
                "lea rbx, [rip + 2f]",
                "popfq",
                "syscall",
                "2:",
                "nop",
                "nop",
                options(noreturn)
            )
        }
    })
    .unwrap_or_default();
    tap.is((frame.vector, frame.rax), (1, 0x4_0011), "a hypercall with single steps is made");
    // Whether the instruction behind SYSRET is stepped over is the processor's own affair: QEMU's do not, Bochs's do.
    tap.ok(frame.rip - frame.rbx <= 1, "and the step is reported before the next instruction");
    let (flags, after): (u64, u64);
    // SAFETY: a harmless hypercall with the direction flag set, which is cleared again.
    unsafe {
        asm!("std", "mov eax, 17", "xor edi, edi", "syscall", "pushfq", "pop {flags}", "cld",
            flags = out(reg) flags, out("rax") after, out("rdi") _, out("rsi") _, out("rcx") _, out("r11") _);
    }
    tap.is((flags & 0x400, after), (0x400, 0x4_0011), "a hypercall with the direction flag set keeps it");
    let (flags, after): (u64, u64);
    // SAFETY: as above, with alignment checks.
    unsafe {
        asm!("pushfq", "pop {flags}", "mov {old}, {flags}", "or {flags}, 0x44000", "push {flags}", "popfq",
            "mov eax, 17", "xor edi, edi", "syscall", "pushfq", "pop {flags}", "push {old}", "popfq",
            flags = out(reg) flags, old = out(reg) _, out("rax") after, out("rdi") _, out("rsi") _, out("rcx") _,
            out("r11") _);
    }
    tap.is((flags & 0x4_0000, after), (0x4_0000, 0x4_0011), "AC and NT do not disturb a hypercall, and AC stays");
    tap.is(call(u32::MAX, []), Err(Errno::ENOSYS), "a number that is no hypercall");
    let high: u64;
    // SAFETY: an unknown number, if all 64 bits are looked at.
    unsafe {
        asm!("mov rax, 0x100000011", "xor edi, edi", "syscall", out("rax") high, out("rdi") _, out("rcx") _,
            out("r11") _);
    }
    tap.is(high, Errno::ENOSYS.as_ret(), "the number has 64 bits");
}

/// The last page before addresses stop to be canonical.
const LAST_PAGE: u64 = 0x7fff_ffff_f000;
/// The first address that is not.
const BEYOND: u64 = 1 << 47;

fn edge(tap: &mut Tap, space: &UserSpace) {
    let mut last = page();
    last.bytes_mut().fill(0x90);
    last.bytes_mut()[4094..].copy_from_slice(&[0x0f, 0x05]);
    last.bytes_mut()[4090..4094].copy_from_slice(&[0xeb, 0x02, 0xcd, 0x80]);
    let slot = table::ensure_slot(LAST_PAGE).expect("there is memory for tables");
    mmu_update(slot, last.mfn().0 << 12 | READ_WRITE | USER).expect("own memory can be mapped");
    let l3 = table::table_for(LAST_PAGE, 3).expect("it was just made");
    let user_root = entry_of(&space.pages[0], 255);
    mmu_update(user_root, l3.0 << 12 | TABLE).expect("a valid table");

    let frame = frame_of(|| {
        // SAFETY: the call returns to where no code can be.
        unsafe { asm!("jmp {}", in(reg) LAST_PAGE + 4094, in("rax") 17, in("rdi") 0, options(noreturn)) }
    })
    .unwrap_or_default();
    tap.is((frame.vector, frame.error), (13, 0), "a hypercall whose return address is not canonical faults");
    tap.is((frame.rip, frame.from_user()), (BEYOND, false), "in the kernel, at that address");
    tap.is(frame.rax, 0x4_0011, "after it was made");
    let frame = user::run(traps::Frame { rip: LAST_PAGE + 4094, ..user::start_at(0) });
    tap.is((frame.vector, frame.rip), (0xc0, BEYOND), "a syscall of user mode there arrives with that address");
    // Back to it, as after a system call.
    traps::set_handler(0xc0, Some(|frame| frame.rax = 0));
    let frame = user::run(traps::Frame { rip: LAST_PAGE + 4094, ..user::start_at(0) });
    traps::set_handler(0xc0, None);
    tap.is((frame.vector, frame.rip, frame.from_user()), (13, BEYOND, true), "to which there is no way back");
    let frame = fast_return(BEYOND, 0xe033, 0xe02b, 0x202);
    tap.is((frame.vector, frame.rip, frame.from_user()), (13, BEYOND, true), "nor by a return like sysret");
    let frame = fast_return(0xffff_7fff_ffff_ffff, 0xe033, 0xe02b, 0x202);
    tap.is((frame.vector, frame.from_user()), (13, true), "nor to the other end of what is not canonical");
    mmu_update(user_root, 0).expect("entries can be cleared");
    mmu_update(slot, 0).expect("entries can be cleared");
}

/// Goes to user mode by an iret with `VGCF_in_syscall`; the frame of the trap that ends it.
fn fast_return(rip: u64, cs: u64, ss: u64, rflags: u64) -> traps::Frame {
    frame_of(|| {
        // SAFETY: goes to user mode, which is left by a trap.
        unsafe {
            asm!("push {ss}", "push {sp}", "push {flags}", "push {cs}", "push {rip}", "push {vgcf}", "push 0x1111",
                "push 0x2222", "push 0x3333", "mov eax, 23", "syscall", "ud2",
                ss = in(reg) ss, sp = in(reg) STACK_TOP, flags = in(reg) rflags, cs = in(reg) cs, rip = in(reg) rip,
                vgcf = in(reg) VGCF_IN_SYSCALL, options(noreturn))
        }
    })
    .unwrap_or_default()
}

fn fast_returns(tap: &mut Tap) {
    let at = CODE + INT;
    let frame = fast_return(at, 0xe033, 0xe02b, 0x202);
    tap.is((frame.vector, frame.rip, frame.rax), (0x80, at + 2, 0x3333), "a return like sysret");
    tap.is((frame.rcx, frame.r11 & 0xffff), (at, 0x202), "leaves rip in rcx and the flags in r11");
    let frame = fast_return(at, 0xe023, 0xe02b, 0x202);
    tap.is((frame.vector, frame.cs & 0xffff, frame.rcx), (0x80, 0xe023, at), "to 32-bit code too");
    for (cs, ss, what) in [
        (0x1b, 0xe02b, "a code segment that is not there"),
        (0xe033, 0x1b, "a stack segment that is not there"),
        (0xe03b, 0, "no segments at all"),
    ] {
        let frame = fast_return(at, cs, ss, 0x202);
        tap.is((frame.vector, frame.cs & 0xffff, frame.ss), (0x80, 0xe033, 0xe02b), what);
    }
    let frame = fast_return(CODE + FLAGS, 0xe033, 0xe02b, 0x3002 | 0x8d5 | 0x400);
    tap.is(frame.rax & 0x3fd5 & !2, 0x200 | 0xcd5, "flags of such a return: no IOPL, and IF");
    let frame = fast_return(CODE + STEPS, 0xe033, 0xe02b, 0x302);
    tap.ok(frame.vector == 1 && frame.rip - CODE - STEPS <= 1, "single steps begin before the first instruction");
}

fn selectors(tap: &mut Tap) {
    let go = |cs: u64, ss: u64| {
        let frame = user::run(traps::Frame { cs, ss, ..user::start_at(INT) });
        (frame.vector, frame.error, frame.from_user(), frame.cs & 0xffff)
    };
    tap.is(go(0xe033, 0xe028), (0x80, 0, true, 0xe033), "iret forces the level of the stack's selector");
    tap.is(go(0x3, 0xe02b), (13, 0, true, 3), "the null selector is no code");
    tap.is(go(0xe02b, 0xe02b), (13, 0xe028, true, 0xe02b), "data is no code");
    tap.is(go(0xe00b, 0xe02b), (13, 0xe008, true, 0xe00b), "the hypervisor's code is not for ring 3");
    tap.is(go(0xe033, 0xe013), (13, 0xe010, true, 0xe033), "nor is its data");
    tap.is(go(0xe033, 0xe033), (13, 0xe030, true, 0xe033), "code is no stack");
    tap.is(go(0xe033, 0x3), (13, 0, true, 0xe033), "there must be a stack");
    tap.is(go(0xe037, 0xe02b), (13, 0xe034, true, 0xe037), "nor is a selector of the LDT");
    tap.is(go(0xfff3, 0xe02b), (13, 0xfff0, true, 0xfff3), "nor one beyond the end");
    let frame = user::run(traps::Frame { cs: 0x1_0000_e033, rflags: 0x202, ..user::start_at(INT) });
    tap.is((frame.vector, frame.events_masked()), (0x80, false), "what is above a selector does not matter");
    let frame = user::run(traps::Frame { rflags: 2, ..user::start_at(INT) });
    tap.is((frame.vector, frame.events_masked()), (0x80, true), "user mode with events masked");
    events::set_upcall_mask(true);
}

fn registrations(tap: &mut Tap) {
    let register = |type_, address| {
        // SAFETY: what is wild is refused.
        unsafe { callback::register(type_, 0, address) }
    };
    for type_ in
        [CALLBACKTYPE_EVENT, CALLBACKTYPE_FAILSAFE, CALLBACKTYPE_SYSCALL, CALLBACKTYPE_SYSCALL32, CALLBACKTYPE_SYSENTER]
    {
        tap.is(register(type_, BEYOND), Err(Errno::EINVAL), "a callback that is not canonical");
    }
    tap.is(register(6, 0), Err(Errno::ENOSYS), "a callback that does not exist");
    tap.is(register(99, 0), Err(Errno::ENOSYS), "another one");
    tap.is(register(CALLBACKTYPE_SYSENTER_DEPRECATED, 0), Err(Errno::ENOSYS), "the old number of sysenter");
    let mut argument = CallbackUnregister { type_: CALLBACKTYPE_SYSCALL, _unused: 0 };
    for (type_, want) in [
        (CALLBACKTYPE_EVENT, Err(Errno::EINVAL)),
        (CALLBACKTYPE_FAILSAFE, Err(Errno::EINVAL)),
        (CALLBACKTYPE_SYSCALL, Err(Errno::EINVAL)),
        (CALLBACKTYPE_SYSENTER, Err(Errno::EINVAL)),
        (CALLBACKTYPE_SYSENTER_DEPRECATED, Err(Errno::ENOSYS)),
        (CALLBACKTYPE_NMI, Ok(0)),
        (CALLBACKTYPE_SYSCALL32, Err(Errno::EINVAL)),
        (99, Err(Errno::ENOSYS)),
    ] {
        argument.type_ = type_;
        let result = guests::op(xen_abi::hypercall::HYPERVISOR_CALLBACK_OP, CALLBACKOP_UNREGISTER, &mut argument);
        tap.is(result, want, "unregistering");
    }
    let other = guests::op(xen_abi::hypercall::HYPERVISOR_CALLBACK_OP, 2, &mut argument);
    tap.is(other, Err(Errno::ENOSYS), "a command that does not exist");
}

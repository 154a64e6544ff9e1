//! User mode: the iret hypercall in its variants, the ways back into the kernel, and what changes between the modes.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(unsafe_code)] // Frames are made by hand.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use guest_pv::call::traps::set_segment_base;
use guest_pv::tap::Tap;
use guest_pv::{events, traps};
use guests::store;
use guests::user::{self, CODE, STACK, STACK_TOP, UserSpace};
use xen_abi::arch_x86::{
    FLAT_USER_CS64, FLAT_USER_SS64, SEGBASE_FS, SEGBASE_GS_KERNEL, SEGBASE_GS_USER, VGCF_IN_SYSCALL,
};
use xen_abi::hypercall::HYPERVISOR_XEN_VERSION;
use xen_abi::ids::VcpuId;
use xen_abi::multicall::MulticallEntry;

guest_pv::test!(run);

/// The user program: each piece starts at a multiple of 16.
const PROGRAM: &[&[u8]] = &[
    &[0x0f, 0x05],                                           // 0: syscall
    &[0xcd, 0x80],                                           // 1: int 0x80
    &[0x0f, 0x0b],                                           // 2: ud2
    &[0x48, 0x8b, 0x04, 0x25, 0x00, 0x10, 0x00, 0x00],       // 3: mov rax, [0x1000]
    &[0x48, 0x89, 0x04, 0x25, 0x00, 0x10, 0x00, 0x00],       // 4: mov [0x1000], rax
    &[0x48, 0x89, 0x04, 0x25, 0x00, 0x00, 0x40, 0x00],       // 5: mov [CODE], rax
    &[0xf4],                                                 // 6: hlt
    &[0x48, 0x8b, 0x03],                                     // 7: mov rax, [rbx]
    &[0x65, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0, 0x0f, 0x05], // 8: mov rax, gs:[0]; syscall
    &[0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0, 0x0f, 0x05], // 9: mov rax, fs:[0]; syscall
    &[0x9c, 0x58, 0x0f, 0x05],                               // 10: pushfq; pop rax; syscall
    &[0xeb, 0xfe],                                           // 11: jmp $
    &[0x0f, 0x20, 0xc0],                                     // 12: mov rax, cr0
    &[0xcd, 0x0e],                                           // 13: int 14
    &[0xfa],                                                 // 14: cli
    &[0x0f, 0xa2, 0x0f, 0x05],                               // 15: cpuid; syscall
    &[0x66, 0x8c, 0xc8, 0x0f, 0x05],                         // 16: mov ax, cs; syscall
    &[0xcc],                                                 // 17: int3
];

const fn at(piece: u64) -> u64 {
    piece * 16
}

fn run(tap: &mut Tap) {
    let mut code = [0x90u8; 16 * 32];
    for (piece, bytes) in PROGRAM.iter().enumerate() {
        code[piece * 16..piece * 16 + bytes.len()].copy_from_slice(bytes);
    }
    let space = UserSpace::new(&code);
    system_calls(tap);
    traps_from_user(tap);
    registers(tap);
    bases(tap, &space);
    masks(tap);
    within_kernel(tap);
    upcalls(tap);
    bad_returns(tap);
    in_a_batch(tap);
}

fn system_calls(tap: &mut Tap) {
    let frame = user::run(user::start_at(at(0)));
    tap.is(frame.vector, traps::SYSCALL, "syscall enters by its callback");
    tap.is(frame.rip, CODE + at(0) + 2, "rip is behind the instruction");
    tap.is(frame.rcx, frame.rip, "rcx too");
    tap.is(frame.r11 & 0xcd5, frame.rflags & 0xcd5, "r11 has the flags");
    tap.is(
        (frame.cs & 0xffff, frame.ss & 0xffff),
        (FLAT_USER_CS64.into(), FLAT_USER_SS64.into()),
        "the selectors are the user's",
    );
    tap.is(frame.rsp, STACK_TOP, "the stack too");
    tap.is(frame.rflags & 0x200, 0x200, "events were open");
    let mut state = user::start_at(at(0));
    state.rflags |= 0x400;
    tap.is(user::run(state).rflags & 0x400, 0x400, "the direction flag arrives in the frame");
    let frame = user::run(user::start_at(at(16)));
    tap.is(frame.rax, FLAT_USER_CS64.into(), "user mode sees the flat code segment");
}

fn traps_from_user(tap: &mut Tap) {
    let outcome = |piece| {
        let frame = user::run(user::start_at(at(piece)));
        (frame.vector, frame.error, frame.rip - CODE - at(piece))
    };
    tap.is(outcome(1), (0x80, 0, 2), "int 0x80");
    tap.is(outcome(2), (6, 0, 0), "ud2");
    tap.is(outcome(3), (14, 4, 0), "reading a missing page");
    tap.is(events::cr2(), 0x1000, "and its address");
    tap.is(outcome(4), (14, 6, 0), "writing to a missing page");
    tap.is(outcome(5), (14, 7, 0), "writing to a read-only page");
    tap.is(outcome(6), (13, 0, 0), "hlt is privileged");
    tap.is(outcome(12), (13, 0, 0), "so is reading CR0");
    tap.is(outcome(14), (13, 0, 0), "so is cli");
    tap.is(outcome(17), (3, 0, 1), "int3");
    let (vector, _, at_fault) = outcome(13);
    tap.is((vector, at_fault), (13, 0), "int 14 is not for users");
    let missing = user::run(traps::Frame { rip: 0x7000_0000, ..user::start_at(0) });
    tap.is((missing.vector, missing.error & !16, missing.rip), (14, 4, 0x7000_0000), "executing a missing page");
    let kernel = user::run(traps::Frame { rbx: guest_pv::mem::DIRECT_MAP, ..user::start_at(at(7)) });
    let there = CODE + at(7);
    tap.is((kernel.vector, kernel.error, kernel.rip), (14, 4, there), "the kernel's memory is not there");
    let hypervisor = user::run(traps::Frame { rbx: 0xffff_8300_0000_0000, ..user::start_at(at(7)) });
    tap.is((hypervisor.vector, hypervisor.error & 4, hypervisor.rip), (14, 4, there), "nor is the hypervisor's");
    let table = user::run(traps::Frame { rbx: 0xffff_8000_0000_0000, ..user::start_at(at(7)) });
    tap.is((table.vector, table.error & 4, table.rip), (14, 4, there), "nor is the M2P table");
    let outside = user::run(traps::Frame { rbx: 1 << 47, ..user::start_at(at(7)) });
    tap.is((outside.vector, outside.error), (13, 0), "an address that is not canonical");
    tap.is(outside.events_masked(), false, "events were open");
    tap.is(outside.from_user(), true, "the frame says user mode");
}

fn registers(tap: &mut Tap) {
    let state = traps::Frame {
        rax: 1,
        rbx: 2,
        rcx: 3,
        rdx: 4,
        rsi: 5,
        rdi: 6,
        rbp: 7,
        r8: 8,
        r9: 9,
        r10: 10,
        r11: 11,
        r12: 12,
        r13: 13,
        r14: 14,
        r15: 15,
        ..user::start_at(at(1))
    };
    let frame = user::run(state);
    let all = |f: &traps::Frame| {
        [f.rax, f.rbx, f.rcx, f.rdx, f.rsi, f.rdi, f.rbp, f.r8, f.r9, f.r10, f.r11, f.r12, f.r13, f.r14, f.r15]
    };
    tap.is(all(&frame), all(&state), "iret and a trap keep all registers, rcx and r11 too");
    let frame = user::run(user::start_at(at(10)));
    tap.is(frame.rax & 0x200, 0x200, "IF is set in user mode");
    let mut state = user::start_at(at(10));
    state.rflags = 0x3202;
    tap.is(user::run(state).rax & 0x3000, 0, "IOPL cannot be raised");
    let mut state = user::start_at(at(1));
    state.rflags = 0x202 | 0x4cd5;
    tap.is(user::run(state).rflags & 0x4cd5, 0x4cd5, "the other flags are kept, NT too");
    let frame = user::run(user::start_at(at(15)));
    tap.is((frame.vector, frame.rax != 0), (traps::SYSCALL, true), "cpuid works in user mode");
}

fn bases(tap: &mut Tap, space: &UserSpace) {
    let stack = &space.pages[5];
    store(stack.address(), 0x1111);
    store(stack.address() + 8, 0x2222);
    let kernel = guests::page();
    store(kernel.address(), 0x3333);
    // SAFETY: neither is used by the guest.
    let set = |which, base| unsafe { set_segment_base(which, base) }.expect("canonical");
    set(SEGBASE_GS_USER, STACK);
    set(SEGBASE_GS_KERNEL, kernel.address());
    set(SEGBASE_FS, STACK + 8);
    let gs = || {
        let value: u64;
        // SAFETY: the base is that of a page of ours.
        unsafe { asm!("mov {}, gs:[0]", out(reg) value) };
        value
    };
    tap.is(gs(), 0x3333, "the kernel has its own base of gs");
    tap.is(user::run(user::start_at(at(8))).rax, 0x1111, "the user has another");
    tap.is(gs(), 0x3333, "the kernel's is back after a syscall");
    user::run(user::start_at(at(1)));
    tap.is(gs(), 0x3333, "and after a trap");
    tap.is(user::run(user::start_at(at(8))).rax, 0x1111, "the user's is kept");
    tap.is(user::run(user::start_at(at(9))).rax, 0x2222, "the base of fs is the same in both");
    set(SEGBASE_FS, 0);
    set(SEGBASE_GS_USER, 0);
    set(SEGBASE_GS_KERNEL, 0);
}

fn mask() -> u8 {
    events::shared().u8_at(1).load(Ordering::SeqCst)
}

/// The event mask that the handler of a trap saw.
static MASK: AtomicU64 = AtomicU64::new(0);

fn masks(tap: &mut Tap) {
    fn note_and_leave(frame: &mut traps::Frame) {
        MASK.store(mask().into(), Ordering::SeqCst);
        // Behind ud2 there are nops, up to the next piece of the program.
        frame.rip += 2;
    }
    traps::set_handler(6, Some(note_and_leave));
    let frame = user::run(user::start_at(at(2)));
    traps::set_handler(6, None);
    tap.is(MASK.load(Ordering::SeqCst), 1, "a gate that masks events does so for user mode");
    tap.is((frame.vector, frame.rip), (14, CODE + at(3)), "and user mode goes on where the handler says");
    tap.is(frame.rflags & 0x200, 0x200, "with events open again");
}

/// One iret within the kernel, by a frame of the given flags; what rcx, r11 and rax are afterwards.
fn kernel_iret(vgcf: u64, rflags: u64) -> (u64, u64, u64) {
    let (rax, rcx, r11): (u64, u64, u64);
    // SAFETY: goes on behind the syscall with the same stack. RPL 0 is what stays in the kernel.
    unsafe {
        asm!(
            "mov {sp}, rsp",
            "push 0xe02b",
            "push {sp}",
            "push {rflags}",
            "push 0xe030",
            "lea {sp}, [rip + 2f]",
            "push {sp}",
            "push {vgcf}",
            "push 0x1111",
            "push 0x2222",
            "push 0x3333",
            "mov eax, 23",
            "syscall",
            "ud2",
            "2:",
            sp = out(reg) _,
            rflags = in(reg) rflags,
            vgcf = in(reg) vgcf,
            out("rax") rax,
            out("rcx") rcx,
            out("r11") r11,
        );
    }
    (rax, rcx, r11)
}

fn within_kernel(tap: &mut Tap) {
    tap.is(kernel_iret(0, 2), (0x3333, 0x1111, 0x2222), "iret to the kernel restores rax, rcx and r11");
    tap.is(mask(), 1, "IF clear masks events");
    let (rax, rcx, _) = kernel_iret(VGCF_IN_SYSCALL, 2);
    tap.is((rax, rcx != 0x1111), (0x3333, true), "VGCF_in_syscall restores rax and leaves rcx to sysret");
    kernel_iret(0, 0x202);
    tap.is(mask(), 0, "IF set opens events");
    events::set_upcall_mask(true);
    let flags: u64;
    kernel_iret(0, 0x202 | 0x3000);
    // SAFETY: reads the flags.
    unsafe { asm!("pushfq", "pop {}", out(reg) flags) };
    events::set_upcall_mask(true);
    tap.is(flags & 0x3000, 0, "IOPL cannot be raised");
}

static UPCALLS: AtomicU64 = AtomicU64::new(0);

fn upcalls(tap: &mut Tap) {
    fn upcall(frame: &mut traps::Frame) {
        UPCALLS.fetch_add(1 + (u64::from(frame.from_user()) << 32), Ordering::SeqCst);
        while events::poll().is_some() {}
    }
    let port = guest_pv::call::event_channel::bind_ipi(VcpuId(0)).expect("a free port");
    events::unmask(port);
    while events::poll().is_some() {}
    traps::set_handler(traps::EVENT, Some(upcall));
    events::notify(port).expect("bound");
    let frame = user::run(user::start_at(at(0)));
    tap.is(UPCALLS.swap(0, Ordering::SeqCst), 1 << 32 | 1, "an event that waited comes with the iret to user mode");
    tap.is((frame.vector, frame.rip), (traps::SYSCALL, CODE + 2), "and user mode runs after it");
    events::notify(port).expect("bound");
    kernel_iret(0, 0x202);
    events::set_upcall_mask(true);
    tap.is(UPCALLS.swap(0, Ordering::SeqCst), 1, "or with the iret that opens the mask");
    traps::set_handler(traps::EVENT, None);
    events::close(port).expect("a port of ours");
}

fn bad_returns(tap: &mut Tap) {
    let bad_cs = user::run(traps::Frame { cs: 0x1b, ..user::start_at(at(0)) });
    let seen = |frame: &traps::Frame| (frame.vector, frame.error, frame.cs & 0xffff, frame.rip);
    tap.is(seen(&bad_cs), (13, 0x18, 0x1b, CODE), "a code segment that is not there faults in user mode");
    let far = user::run(traps::Frame { rip: 1 << 47, ..user::start_at(at(0)) });
    tap.is(seen(&far), (13, 0, 0xe033, 1 << 47), "so does an address that is not canonical");
    let frame = user::run(user::start_at(at(0)));
    tap.is(frame.vector, traps::SYSCALL, "user mode can be entered after that");
}

/// An iret to user mode as one call of a batch: the rest of the batch is not made, since no kernel asks for it any more.
fn in_a_batch(tap: &mut Tap) {
    let version = u64::from(HYPERVISOR_XEN_VERSION);
    let entry = |op| MulticallEntry { op, result: 0xdead, args: [0; 6] };
    let mut calls = [entry(version), entry(23), entry(version)];
    let calls_at = (&raw mut calls) as u64;
    // SAFETY: goes to user mode, which is left by a trap; `catch` restores the stack then.
    let go = || unsafe {
        asm!(
            "push 0xe02b",
            "push {sp}",
            "push 0x202",
            "push 0xe033",
            "push {rip}",
            "push 0",
            "push 0x1111",
            "push 0x2222",
            "push 0x3333",
            "mov eax, 13",
            "syscall",
            "ud2",
            sp = in(reg) STACK_TOP,
            rip = in(reg) CODE + at(1),
            in("rdi") calls_at,
            in("rsi") 3u64,
            options(noreturn),
        )
    };
    // SAFETY: as above.
    let frame = unsafe { traps::catch(go) }.unwrap_or_default();
    tap.is((frame.vector, frame.rip, frame.from_user()), (0x80, CODE + at(1) + 2, true), "an iret in a batch is made");
    tap.is((frame.rax, frame.rcx, frame.r11), (0x3333, 0x1111, 0x2222), "with all registers of its frame");
    // SAFETY: the hypervisor has written to them.
    let results = unsafe { (&raw const calls).read_volatile() }.map(|call| call.result);
    tap.is((results[0], results[2]), (0x4_0011, 0xdead), "the call before it was made, the one after it not");
}

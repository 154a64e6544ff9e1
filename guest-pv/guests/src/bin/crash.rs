//! What ends a domain: traps without a handler, stacks that cannot take a frame, returns that cannot be made, and
//! shutdowns with every reason. Each claim is a second domain of a few instructions, which is gone afterwards.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(unsafe_code)] // The domains' programs are instructions.

use guest_pv::call::sysctl;
use guest_pv::tap::Tap;
use guests::code;
use guests::domain::{CODE, CRASHED, End, HOLE, READ_ONLY, STACK, STACK_TOP, Tiny, end_of, end_with};
use xen_abi::arch_x86::{FLAT_KERNEL_CS, VcpuGuestContext};
use xen_abi::trap::TrapInfo;

guest_pv::test!(run);

/// The hypervisor's direct map.
const HYPERVISOR: u64 = 0xffff_8300_0000_0000;
const NON_CANONICAL: u64 = 1 << 47;

fn run(tap: &mut Tap) {
    // The first domain makes the hypervisor allocate what it keeps for the next ones.
    end_of(&shutdown(0));
    let before = free_pages();
    shutdowns(tap);
    without_handlers(tap);
    stacks(tap);
    user_stacks(tap);
    returns(tap);
    failsafe(tap);
    first_states(tap);
    tap.is(free_pages(), before, "all memory of all these domains is back");
}

/// Free memory once all that was destroyed is gone.
fn free_pages() -> Result<u64, xen_abi::Errno> {
    guest_pv::time::sleep(300_000_000);
    sysctl::physinfo().map(|info| info.free_pages)
}

/// A program that shuts its domain down.
fn shutdown(reason: u32) -> [u8; 32] {
    let mut program = [0x90; 32];
    let code = code!(
        "push 0x77777777",
        "mov edi, 2", // SCHEDOP_shutdown
        "mov rsi, rsp",
        "mov eax, 29",
        "syscall",
        "ud2",
    );
    program[..code.len()].copy_from_slice(code);
    program[1..5].copy_from_slice(&reason.to_le_bytes());
    program
}

fn shutdowns(tap: &mut Tap) {
    for (reason, name) in [
        (0, "poweroff"),
        (1, "reboot"),
        (2, "suspend"),
        (3, "crash"),
        (4, "watchdog"),
        (5, "soft reset"),
        (6, "a reason that has no name"),
    ] {
        tap.is(end_of(&shutdown(reason)), End::Shutdown(reason), name);
    }
    tap.is(end_of(&shutdown(0x1_0102)), End::Shutdown(2), "a reason has 8 bits");
    // shutdown_code: the first one counts. The domain still runs while its shutdown waits for it to leave the CPU.
    let code = code!(
        "push 2",
        "mov edi, 5",
        "mov rsi, rsp",
        "mov eax, 29",
        "syscall", // SCHEDOP_shutdown_code, suspend
        "mov edi, 2",
        "push 0",
        "mov rsi, rsp",
        "mov eax, 29",
        "syscall",
        "ud2"
    );
    tap.is(end_of(code), End::Shutdown(2), "shutdown_code names the reason beforehand");
    // A watchdog of one second that nobody sets anew.
    let code = code!(
        "mov rax, 0x100000000",
        "push rax",
        "mov edi, 6",
        "mov rsi, rsp",
        "mov eax, 29",
        "syscall",
        "2: mov edi, 1",
        "xor esi, esi",
        "mov eax, 29",
        "syscall",
        "jmp 2b"
    );
    tap.is(end_of(code), End::Shutdown(4), "a watchdog that runs out");
}

fn without_handlers(tap: &mut Tap) {
    tap.is(end_of(code!("ud2")), CRASHED, "an invalid opcode without a handler");
    tap.is(end_of(code!("int3")), CRASHED, "a breakpoint without a handler");
    tap.is(end_of(code!("int 0x80")), CRASHED, "int 0x80 without a handler");
    tap.is(end_of(code!("int 0x33")), CRASHED, "int 0x33 without a handler");
    tap.is(end_of(code!("mov rax, [0x1000]")), CRASHED, "a page fault without a handler");
    tap.is(end_of(code!("hlt")), CRASHED, "hlt without a handler");
    tap.is(end_of(code!("mov rax, 0x800000000000", "jmp rax")), CRASHED, "a jump out of canonical addresses");
    tap.is(end_of(code!("pushfq", "or dword ptr [rsp], 0x100", "popfq", "nop", "nop")), CRASHED, "a single step");
    tap.is(end_of(code!("xor ecx, ecx", "div ecx")), CRASHED, "a division by zero");
    let unknown = code!("mov ecx, 0x12345678", "rdmsr", "xor ecx, ecx", "ud2");
    tap.is(end_of(unknown), CRASHED, "an MSR that does not exist");
}

/// A handler at an offset of the code page for a vector.
fn handler(context: &mut VcpuGuestContext, vector: u8, offset: u64) {
    context.trap_ctxt[usize::from(vector)] =
        TrapInfo { vector, flags: 3, cs: FLAT_KERNEL_CS, _pad: 0, address: CODE + offset };
}

/// A program whose handlers, at offset 64, shut the domain down as a reboot.
fn program(start: &[u8]) -> [u8; 128] {
    let mut program = [0x90; 128];
    program[..start.len()].copy_from_slice(start);
    let end = shutdown(1);
    program[64..64 + end.len()].copy_from_slice(&end);
    program
}

fn stacks(tap: &mut Tap) {
    let with_stack = |rsp: u64| {
        end_with(&program(code!("mov rsp, rbx", "ud2")), |context| {
            context.user_regs.rbx = rsp;
            handler(context, 6, 64);
        })
    };
    let taken = End::Shutdown(1);
    tap.is(with_stack(STACK_TOP), taken, "a good stack takes a frame");
    tap.is(with_stack(STACK + 0x100), taken, "so does a part of it");
    tap.is(with_stack(STACK_TOP - 7), taken, "a stack need not be aligned");
    for (rsp, what) in [
        (HOLE + 0x1000, "a stack that is not mapped"),
        (STACK + 16, "a frame that runs out of the stack's page"),
        (READ_ONLY + 0x1000, "a stack that is read-only"),
        (0, "a stack at the beginning of all addresses"),
        (0x30, "a frame that wraps around"),
        (HYPERVISOR + 0x1000, "a stack in the hypervisor"),
        (0xffff_8000_0000_0010, "a frame that runs into the M2P table"),
        (0xffff_8000_0000_1000, "a stack in the M2P table"),
        (0xffff_82d0_8000_0000, "a stack in the hypervisor's image"),
        (0xffff_8800_0000_0020, "a frame that runs into the hypervisor from above"),
        (NON_CANONICAL + 0x1000, "a stack that is not canonical"),
        (NON_CANONICAL, "a stack that ends where addresses are not canonical"),
        (u64::MAX - 15, "a stack at the end of all addresses"),
    ] {
        tap.is(with_stack(rsp), CRASHED, what);
    }
}

/// Sets the kernel's stack to rbx and goes to user mode at offset 56 of the code page, with the stack of results.
fn to_user() -> &'static [u8] {
    code!(
        "mov edi, 0xe02b",
        "mov rsi, rbx",
        "push 3",
        "pop rax",
        "syscall",
        "push 0xe02b",
        "push 0x403000",
        "push 0x202",
        "push 0xe033",
        "push 0x400038",
        "push 0",
        "push 0",
        "push 0",
        "push 0",
        "push 23",
        "pop rax",
        "syscall"
    )
}

fn user_stacks(tap: &mut Tap) {
    let with_stack = |what: &[u8], kernel_sp: u64| {
        let mut program = program(to_user());
        program[56..56 + what.len()].copy_from_slice(what);
        end_with(&program, |context| {
            context.user_regs.rbx = kernel_sp;
            context.syscall_callback_eip = CODE + 64;
            handler(context, 6, 64);
        })
    };
    let (ud2, syscall): (&[u8], &[u8]) = (&[0x0f, 0x0b], &[0x0f, 0x05]);
    for (what, name) in [(ud2, "a trap"), (syscall, "a syscall")] {
        tap.is(with_stack(what, STACK_TOP), End::Shutdown(1), name);
        let mut ends = [0, HOLE + 0x800, READ_ONLY + 0x800, HYPERVISOR, 0xffff_8800_0000_0000, NON_CANONICAL, 8]
            .map(|sp| with_stack(what, sp));
        ends.sort_by_key(|&end| end == CRASHED);
        tap.is(ends[0], CRASHED, "from user mode crashes with a kernel stack that cannot be used");
    }
    let no_handler = end_with(
        &{
            let mut program = program(to_user());
            program[56..58].copy_from_slice(ud2);
            program
        },
        |_| {},
    );
    tap.is(no_handler, CRASHED, "a trap of user mode without a handler");
}

fn returns(tap: &mut Tap) {
    let iret = code!("mov rsp, rbx", "mov eax, 23", "syscall");
    let with_stack = |rsp: u64| {
        end_with(&program(iret), |context| {
            context.user_regs.rbx = rsp;
            (0..32).for_each(|vector| handler(context, vector, 64));
        })
    };
    for (rsp, what) in [
        (HOLE, "iret with a frame that is not mapped"),
        (HYPERVISOR, "iret with a frame in the hypervisor"),
        (NON_CANONICAL, "iret with a frame that is not canonical"),
        (HOLE - 64, "iret with a frame that ends in a hole"),
        (u64::MAX - 7, "iret with a frame that wraps around"),
    ] {
        tap.is(with_stack(rsp), CRASHED, what);
    }
    let no_user = end_with(&program(to_user()), |context| {
        context.ctrlreg[1] = 0;
        (0..32).for_each(|vector| handler(context, vector, 64));
    });
    tap.is(no_user, CRASHED, "iret to user mode without a root for it");
}

fn failsafe(tap: &mut Tap) {
    // Data selectors that cannot be loaded: the guest is told by its failsafe callback, before its first instruction.
    let tiny = Tiny::new(&program(code!("ud2")));
    let mut context = tiny.context();
    context.failsafe_callback_eip = CODE + 64;
    context.user_regs.fs = 0x13;
    context.user_regs.gs = 0x1b;
    context.user_regs.rcx = 0xcccc;
    context.user_regs.r11 = 0x1111;
    tap.is(
        tiny.run(&context),
        End::Shutdown(1),
        "the failsafe callback is entered with selectors that cannot be loaded",
    );
    // The program that shuts down has pushed one word below the frame.
    let frame: [u64; 11] = tiny.stack(0x1000 - 88);
    tap.is(frame[0], 0xcccc, "its frame: rcx");
    tap.is(frame[1], 0x1111, "r11");
    tap.is(&frame[2..6], &[0, 0, 0x13, 0x1b][..], "ds, es, fs, gs");
    tap.is(frame[6], CODE, "the address");
    tap.is(frame[7] & 0xffff, 0xe030, "the kernel's code segment");
    tap.is((frame[9], frame[10]), (STACK_TOP, 0xe02b), "the stack");
    drop(tiny);
    let none = end_with(&program(code!("ud2")), |context| context.user_regs.fs = 0x13);
    tap.is(none, CRASHED, "without a failsafe callback there is no way on");
}

fn first_states(tap: &mut Tap) {
    let start = |change: fn(&mut VcpuGuestContext)| end_with(&shutdown(1), change);
    let well = End::Shutdown(1);
    tap.is(start(|_| {}), well, "a plain first state");
    tap.is(start(|c| c.user_regs.rflags |= 0x3000), well, "IOPL in the flags");
    tap.is(start(|c| c.user_regs.rflags |= 0x2_4000), well, "VM and NT in the flags");
    tap.is(start(|c| c.user_regs.cs = 0xe008), CRASHED, "a code segment of the hypervisor's");
    tap.is(start(|c| c.user_regs.rip = HYPERVISOR), CRASHED, "code in the hypervisor");
    let refused = |change: fn(&mut VcpuGuestContext)| matches!(start(change), End::Refused(_));
    tap.ok(refused(|c| c.ctrlreg[3] = 0x1000), "a root that is not the domain's");
    tap.ok(refused(|c| c.ctrlreg[3] = 1 << 51), "a root that does not exist");
    tap.ok(refused(|c| c.gdt_ents = 8193), "a GDT that is too long");
    tap.ok(refused(|c| (c.gdt_ents, c.gdt_frames[0]) = (1, 1 << 40)), "a GDT that does not exist");
    tap.ok(refused(|c| (c.ldt_ents, c.ldt_base) = (8193, 0)), "an LDT that is too long");
    tap.ok(refused(|c| (c.ldt_ents, c.ldt_base) = (1, 8)), "an LDT that is not on a page");
    tap.ok(refused(|c| c.failsafe_callback_eip = NON_CANONICAL), "a callback that is not canonical");
    tap.ok(refused(|c| c.user_regs.rip = NON_CANONICAL), "code that is not canonical");
    tap.ok(refused(|c| c.user_regs.rsp = NON_CANONICAL), "a stack that is not canonical");
    tap.ok(refused(|c| c.kernel_sp = NON_CANONICAL), "a stack of the kernel that is not canonical");
    tap.ok(refused(|c| c.trap_ctxt[7].address = NON_CANONICAL), "a handler that is not canonical");
    tap.ok(refused(|c| c.fs_base = NON_CANONICAL), "a base that is not canonical");
}

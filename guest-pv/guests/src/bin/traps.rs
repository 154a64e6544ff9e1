//! Exceptions and software interrupts: vectors, error codes, the frame, and the event mask.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(unsafe_code)] // Faults are made by instructions that no compiler emits.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use guest_pv::mem::Frame;
use guest_pv::tap::Tap;
use guest_pv::{call::traps as trap_calls, events, mem, traps};
use guests::{call, frame_of, load, make_read_only, make_writable, page, store, trap_of};
use xen_abi::Errno;
use xen_abi::hypercall::HYPERVISOR_SET_TRAP_TABLE;
use xen_abi::ids::Pfn;
use xen_abi::trap::TrapInfo;

guest_pv::test!(run);

/// An instruction as a body for `trap_of`.
macro_rules! instruction {
    ($($text:tt)*) => {
        // SAFETY: the instruction traps before it changes anything that the compiler knows of.
        || unsafe { asm!($($text)*) }
    };
}

fn run(tap: &mut Tap) {
    vectors(tap);
    page_faults(tap);
    frames(tap);
    masks(tap);
    table_errors(tap);
}

fn vectors(tap: &mut Tap) {
    let divide = instruction!("xor edx, edx", "xor ecx, ecx", "mov eax, 1", "div ecx",
        out("eax") _, out("ecx") _, out("edx") _);
    tap.is(trap_of(divide), Some((0, 0)), "division by zero");
    tap.is(trap_of(instruction!("int3")), Some((3, 0)), "int3");
    tap.is(trap_of(instruction!("int 3")), Some((3, 0)), "int 3 in two bytes");
    tap.is(trap_of(instruction!("int 4")), Some((4, 0)), "int 4");
    tap.is(trap_of(instruction!("ud2")), Some((6, 0)), "ud2");
    tap.is(trap_of(instruction!("int 0x80")), Some((0x80, 0)), "int 0x80");
    // Other `int n` are left out: the emulator's error code misleads Xen about n.
    // The error code of a forbidden `int n` differs between processors and emulators; the vector does not.
    let forbidden = trap_of(instruction!("int 14")).map(|(vector, _)| vector);
    tap.is(forbidden, Some(13), "int 14 is not for everyone");
    let stepped = instruction!("pushfq", "or qword ptr [rsp], 0x100", "popfq", "nop", "nop");
    tap.is(trap_of(stepped), Some((1, 0)), "single step");
}

fn page_faults(tap: &mut Tap) {
    tap.is(
        trap_of(|| {
            _ = load(0x10_0000);
        }),
        Some((14, 0)),
        "reading a missing page",
    );
    tap.is(trap_of(|| store(0x10_0000, 1)), Some((14, 2)), "writing to a missing page");
    tap.is(events::cr2(), 0x10_0000, "the address is in vcpu_info");
    let locked = page();
    make_read_only(&locked);
    tap.is(trap_of(|| store(locked.address() + 8, 1)), Some((14, 3)), "writing to a read-only page");
    tap.is(events::cr2(), locked.address() + 8, "and its address");
    make_writable(&locked).expect("an ordinary page");
    tap.is(
        trap_of(|| {
            _ = load(0x8000_0000_0000);
        }),
        Some((13, 0)),
        "a non-canonical address",
    );
    // Through rbp the stack segment is used; the stack itself must stay good, since the frame is pushed there.
    let through_rbp = instruction!("push rbp", "mov rbp, {}", "mov rax, [rbp]", "pop rbp",
        in(reg) 0x8000_0000_0000u64, out("rax") _);
    // A stack fault by the manual; the emulator makes it a general protection fault.
    let fault = trap_of(through_rbp);
    tap.ok(matches!(fault, Some((12 | 13, 0))), "a non-canonical address by the stack segment");
    let hypervisor = trap_of(|| {
        _ = load(0xffff_8300_0000_0000);
    });
    tap.is(hypervisor.map(|(vector, _)| vector), Some(14), "reading the hypervisor's memory");
    tap.is(trap_of(|| store(0xffff_8000_0000_0000, 1)).map(|(vector, _)| vector), Some(14), "writing to the M2P table");
    tap.ok(
        trap_of(|| {
            _ = load(0xffff_8000_0000_0000);
        })
        .is_none(),
        "reading the M2P table",
    );
    let jump = trap_of(instruction!("call {}", in(reg) 0x10_0000u64));
    tap.is(jump.map(|(vector, error)| (vector, error & !16)), Some((14, 0)), "executing a missing page");
}

fn frames(tap: &mut Tap) {
    let (before, at): (u64, u64);
    let (mut stack, mut flags) = (0u64, 0u64);
    let frame = frame_of(|| {
        // SAFETY: ends with a trap that is caught; the stack is as before at the time of the trap.
        unsafe {
            asm!("mov [{stack}], rsp", "pushfq", "pop qword ptr [{flags}]",
                "mov rax, 0xa0a1", "mov rbx, 0xb0b1", "mov rcx, 0xc0c1", "mov rdx, 0xd0d1", "mov r11, 0x1111",
                "mov r15, 0xf0f1", "int 0x80",
                stack = in(reg) &raw mut stack, flags = in(reg) &raw mut flags, options(noreturn));
        }
    })
    .unwrap_or_default();
    tap.is((frame.rax, frame.rdx), (0xa0a1, 0xd0d1), "general registers arrive");
    tap.is((frame.rbx, frame.r15), (0xb0b1, 0xf0f1), "those that calls preserve too");
    tap.is((frame.rcx, frame.r11), (0xc0c1, 0x1111), "and the two that syscall destroys");
    tap.is(frame.rsp, stack, "the stack pointer is the one before the trap");
    tap.is(frame.cs & 0xffff, 0xe030, "the code segment has RPL 0 for kernel mode");
    tap.is(frame.cs >> 33, 0, "above the event mask there is nothing");
    tap.is(frame.ss, 0xe02b, "the stack segment");
    // IF shows the event mask.
    tap.is(frame.rflags & 0xcd5, flags & 0xcd5, "arithmetic and direction flags arrive");
    tap.is(frame.rflags & traps::RFLAGS_IF, 0, "IF is clear with events masked");
    tap.is(frame.rflags >> 12 & 3, 0, "IOPL is zero");
    tap.ok(frame.events_masked(), "the saved mask says the same");
    // SAFETY: reads the two bytes of an instruction of this guest.
    let code = unsafe { (frame.rip.wrapping_sub(2) as *const [u8; 2]).read() };
    tap.is(code, [0xcd, 0x80], "after `int n`, rip is behind the instruction");

    let fault = frame_of(instruction!("ud2")).unwrap_or_default();
    // SAFETY: as above.
    let code = unsafe { (fault.rip as *const [u8; 2]).read() };
    tap.is(code, [0x0f, 0x0b], "after a fault, rip is at the instruction");

    // SAFETY: the trap's handler only moves on.
    unsafe {
        traps::set_handler(0x80, Some(|frame| frame.rax = frame.rsp));
        asm!("mov {at}, rsp", "sub rsp, 8", "int 0x80", "add rsp, 8", at = out(reg) at, out("rax") before);
        traps::set_handler(0x80, None);
    }
    tap.is(before, at - 8, "a handler can change registers");
}

/// Event mask and live flags as a handler sees them.
static SEEN: AtomicU64 = AtomicU64::new(0);

fn look(frame: &mut traps::Frame) {
    let flags: u64;
    // SAFETY: reads the flags.
    unsafe { asm!("pushfq", "pop {}", out(reg) flags) };
    let mask = events::shared().u8_at(1).load(Ordering::SeqCst);
    SEEN.store(
        u64::from(mask) | u64::from(frame.events_masked()) << 1 | frame.rflags & 0x200 | flags << 32,
        Ordering::SeqCst,
    );
}

fn masks(tap: &mut Tap) {
    let entry = |flags| [TrapInfo { flags, ..traps::default_entry(0x80) }, TrapInfo::default()];
    let int = instruction!("int 0x80");
    traps::set_handler(0x80, Some(look));
    // SAFETY: the entries are the runtime's own, with other flags.
    let set = |flags| unsafe { trap_calls::set_trap_table(&entry(flags)) }.expect("a good table");
    for (flags, mask, want, what) in [
        (3 | 4, true, 1 | 2, "masked, gate masks: masked, was masked, IF clear"),
        (3 | 4, false, 1 | 0x200, "open, gate masks: masked, was open, IF set"),
        (3, true, 1 | 2, "masked, gate leaves it: masked, was masked, IF clear"),
        (3, false, 0x200, "open, gate leaves it: open, was open, IF set"),
    ] {
        set(flags);
        events::set_upcall_mask(mask);
        int();
        let after = events::shared().u8_at(1).load(Ordering::SeqCst);
        events::set_upcall_mask(true);
        tap.is(SEEN.load(Ordering::SeqCst) & 0xffff_ffff, want, what);
        tap.is(after, u8::from(mask), "and the mask is restored");
    }
    // SAFETY: flags are set and the handler looks at them.
    unsafe { asm!("std", "int 0x80", "cld") };
    let live = SEEN.load(Ordering::SeqCst) >> 32;
    tap.is(live & 0x200, 0x200, "IF is really set in a handler");
    tap.is(live & 0x3000, 0, "IOPL is really zero in a handler");
    traps::set_handler(0x80, None);
    set(3 | 4);
}

fn table_errors(tap: &mut Tap) {
    let table = HYPERVISOR_SET_TRAP_TABLE;
    tap.is(call(table, [0x1000]), Err(Errno::EFAULT), "a table that is not mapped");
    tap.is(call(table, [0xffff_8300_0000_0000]), Err(Errno::EFAULT), "a table in the hypervisor");
    tap.is(call(table, [1 << 47]), Err(Errno::EFAULT), "a table at a non-canonical address");
    // A table that runs off the end of a page before its terminating entry.
    let mut last = page();
    let next = page();
    let entry = traps::default_entry(0x80);
    // SAFETY: a TrapInfo fits into 16 bytes.
    let bytes: [u8; 16] = unsafe { core::mem::transmute(entry) };
    last.bytes_mut()[4080..].copy_from_slice(&bytes);
    if next.pfn().0 == last.pfn().0 + 1 {
        let hole = Hole::at(&next);
        tap.is(call(table, [last.address() + 4080]), Err(Errno::EFAULT), "a table that ends in a hole");
        drop(hole);
    } else {
        tap.skip("a table that ends in a hole", "the frames are not neighbours");
    }
    let user_cs = [TrapInfo { cs: 0xe033, ..traps::default_entry(0x80) }, TrapInfo::default()];
    // SAFETY: the runtime's own entry.
    tap.is(unsafe { trap_calls::set_trap_table(&user_cs) }, Ok(()), "the flat code segment is accepted");
    let null_cs = [TrapInfo { cs: 0, ..traps::default_entry(0x80) }, TrapInfo::default()];
    // SAFETY: the entry is replaced before the vector is used.
    tap.is(unsafe { trap_calls::set_trap_table(&null_cs) }, Ok(()), "a null code segment is accepted");
    // SAFETY: as above.
    tap.is(unsafe { trap_calls::set_trap_table(&user_cs) }, Ok(()), "and replaced");
    tap.is(trap_of(instruction!("int 0x80")), Some((0x80, 0)), "a replaced entry works");
}

/// A page of the direct map that is not mapped for a while.
struct Hole<'a>(&'a Frame);

impl<'a> Hole<'a> {
    fn at(page: &'a Frame) -> Self {
        guests::update_va_mapping(mem::address(Pfn(page.pfn().0)), 0, 2).expect("own memory can be unmapped");
        Self(page)
    }
}

impl Drop for Hole<'_> {
    fn drop(&mut self) {
        guests::make_writable(self.0).expect("own memory can be mapped");
    }
}

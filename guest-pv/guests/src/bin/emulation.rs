//! The instructions other than for ports that are emulated for a PV guest, in all their forms: control registers, XCR0, the
//! time-stamp counter; and what is not emulated.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(clippy::cast_possible_truncation)] // Offsets in a page.
#![allow(unsafe_code)] // The claims are instructions.

use core::arch::asm;
use guest_pv::tap::Tap;
use guest_pv::{events, traps};
use guests::user::{self, STACK, UserSpace};
use guests::{code, page, trap_of};

guest_pv::test!(run);

const GP: Option<(u64, u64)> = Some((13, 0));
const UD: Option<(u64, u64)> = Some((6, 0));

/// An instruction as a body for `trap_of`.
macro_rules! instruction {
    ($($text:tt)*) => {
        // SAFETY: the hypervisor emulates it or makes it a fault.
        || unsafe { asm!($($text)*) }
    };
}

fn run(tap: &mut Tap) {
    let mut program = [0x90u8; 256];
    for (piece, offset) in USER.iter().zip((0..).step_by(16)) {
        let bytes = piece();
        program[offset..offset + bytes.len()].copy_from_slice(bytes);
    }
    let space = UserSpace::new(&program);
    control(tap);
    xcr0(tap);
    counter(tap);
    others(tap);
    drop(space);
}

const RDTSC: u64 = 0;
const RDTSCP: u64 = 16;
const XSETBV: u64 = 32;

const USER: &[fn() -> &'static [u8]] =
    &[|| code!("rdtsc", "int 0x80"), || code!("rdtscp", "int 0x80"), || code!("xsetbv", "int 0x80")];

fn control(tap: &mut Tap) {
    let cr0: u64;
    // SAFETY: a read that is emulated.
    unsafe { asm!("mov {}, cr0", out(reg) cr0) };
    for bit in [0, 1, 2, 4, 5, 16, 18, 29, 30, 31, 32, 63] {
        tap.is(trap_of(instruction!("mov cr0, {}", in(reg) cr0 ^ 1 << bit)), GP, "no bit of CR0 but TS changes");
    }
    // Other forms of the same: ModRM.mod does not matter, prefixes neither, REX chooses the register.
    let (a, b, c): (u64, u64, u64);
    // SAFETY: reads that are emulated.
    unsafe {
        asm!(".byte 0x0f, 0x20, 0x00", "mov {0}, rax", ".byte 0x66, 0x0f, 0x20, 0xc0", "mov {1}, rax",
            ".byte 0x41, 0x0f, 0x20, 0xc1", "mov {2}, r9", out(reg) a, out(reg) b, out(reg) c, out("rax") _, out("r9") _);
    }
    tap.is((a, b, c), (cr0, cr0, cr0), "forms of mov from CR0");
    for (code, what) in [(0xc8u8, "CR1"), (0xe8, "CR5"), (0xf0, "CR6"), (0xf8, "CR7")] {
        let mut program = page();
        program.bytes_mut()[..4].copy_from_slice(&[0x0f, 0x20, code, 0xc3]);
        let read = trap_of(instruction!("call {}", in(reg) program.address(), out("rax") _));
        tap.ok(matches!(read, Some((6 | 13, 0))), what);
        program.bytes_mut()[1] = 0x22;
        let written = trap_of(instruction!("call {}", in(reg) program.address(), in("rax") 0));
        tap.ok(matches!(written, Some((6 | 13, 0))), "nor to write");
    }
    let cr4: u64;
    // SAFETY: a read that is emulated.
    unsafe { asm!("mov {}, cr4", out(reg) cr4) };
    // Bits that are not the guest's are dropped, whatever is written.
    for value in [0, !(1 << 2 | 1 << 3 | 1 << 18), 1 << 20 | 1 << 21, 1 << 11, 1 << 12 | 1 << 22] {
        tap.is(trap_of(instruction!("mov cr4, {}", in(reg) value)), None, "any value is taken for CR4");
        let back: u64;
        // SAFETY: a read that is emulated.
        unsafe { asm!("mov {}, cr4", out(reg) back) };
        let chosen = 1 << 2 | 1 << 3 | 1 << 16 | 1 << 18;
        tap.is(back & !chosen, cr4 & !chosen, "and all but TSD, DE, FSGSBASE and OSXSAVE stay");
        tap.is(back & chosen & !value, 0, "which follow");
    }
    tap.is(trap_of(instruction!("mov cr4, {}", in(reg) cr4)), None, "CR4 as before");
    tap.is(trap_of(instruction!("lmsw {0:x}", in(reg) cr0 as u16)), GP, "lmsw is not emulated");
    let msw: u16;
    // SAFETY: reads a register.
    unsafe { asm!("smsw {0:x}", out(reg) msw) };
    tap.is(msw & 1, 1, "smsw needs no emulation");
    let mut table = [0u8; 10];
    let pointer = table.as_mut_ptr();
    tap.is(trap_of(instruction!("sgdt [{}]", in(reg) pointer)), None, "nor does sgdt");
    tap.is(trap_of(instruction!("sidt [{}]", in(reg) pointer)), None, "sidt");
    tap.is(trap_of(instruction!("sldt {0:x}", out(reg) _)), None, "sldt");
    tap.is(trap_of(instruction!("str {0:x}", out(reg) _)), None, "str");
    tap.is(trap_of(instruction!(".byte 0xf3, 0x0f, 0x09")), None, "wbnoinvd is wbinvd");
    tap.is(trap_of(instruction!("mov cr2, {}", in(reg) u64::MAX)), None, "any value for CR2");
    tap.is(events::cr2(), u64::MAX, "is kept");
}

fn xcr0(tap: &mut Tap) {
    let set = |index: u32, value: u64| {
        trap_of(instruction!("xsetbv", in("ecx") index, in("eax") value as u32, in("edx") (value >> 32) as u32))
    };
    let cr4: u64;
    // SAFETY: a read that is emulated.
    unsafe { asm!("mov {}, cr4", out(reg) cr4) };
    trap_of(instruction!("mov cr4, {}", in(reg) cr4 & !(1 << 18)));
    tap.is(set(0, 3), UD, "xsetbv without CR4.OSXSAVE");
    tap.is(trap_of(instruction!("mov cr4, {}", in(reg) cr4 | 1 << 18)), None, "CR4.OSXSAVE");
    let get = || {
        let low: u32;
        // SAFETY: reads a register that is there.
        unsafe { asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") _) };
        u64::from(low)
    };
    let (offered, size): (u32, u32);
    // SAFETY: reads processor identification; rbx is the compiler's.
    let sizes = || unsafe {
        let (mask, size): (u32, u32);
        asm!("mov {save:r}, rbx", ".byte 0x0f, 0x0b, 0x78, 0x65, 0x6e", "cpuid", "xchg {save:r}, rbx",
            save = out(reg) size, inout("eax") 13 => mask, inout("ecx") 0 => _, out("edx") _);
        (mask, size)
    };
    (offered, size) = sizes();
    let has_avx = offered & 4 != 0;
    tap.is(set(0, 3), None, "x87 and SSE");
    tap.is(get(), 3, "read back");
    tap.is(sizes().1, 576, "CPUID gives the size for that");
    if has_avx {
        tap.is(set(0, 7), None, "with AVX");
        tap.is((get(), sizes().1), (7, 832), "the size follows");
    } else {
        tap.skip("with AVX", "there is none");
        tap.skip("the size follows", "there is none");
    }
    for (index, value, what) in [
        (0, 0, "XCR0 without x87"),
        (0, 2, "SSE without x87"),
        (0, 5, "AVX without SSE"),
        (0, 1 << 63 | 3, "the bit for an extension"),
        (0, 1 << 62 | 3, "LWP"),
        (0, 0xff_ff00 | 3, "components that are not offered"),
        (0, 0x20 | 3, "half of AVX-512"),
        (0, 8 | 3, "half of MPX"),
        (1, 3, "XCR1"),
        (u32::MAX, 3, "a register that does not exist"),
    ] {
        tap.is(set(index, value), GP, what);
    }
    tap.is(get() & 3, 3, "XCR0 is a good one");
    let user = user::run(traps::Frame { rcx: 0, rax: 3, rdx: 0, ..user::start_at(XSETBV) });
    tap.is((user.vector, user.error), (13, 0), "user mode does not set it");
    tap.is(set(0, 3), None, "and the kernel again");
    trap_of(instruction!("mov cr4, {}", in(reg) cr4));
    tap.note(format_args!("offered {offered:#x}, size {size}"));
}

fn counter(tap: &mut Tap) {
    let cr4: u64;
    // SAFETY: a read that is emulated.
    unsafe { asm!("mov {}, cr4", out(reg) cr4) };
    let user = |piece: u64| {
        let frame = user::run(user::start_at(piece));
        (frame.vector, frame.error)
    };
    tap.is(user(RDTSC), (0x80, 0), "rdtsc from user mode");
    tap.is(trap_of(instruction!("mov cr4, {}", in(reg) cr4 | 4)), None, "CR4.TSD");
    tap.is(user(RDTSC), (13, 0), "forbids that");
    tap.is(user(RDTSCP), (13, 0), "and rdtscp");
    tap.is(trap_of(instruction!("rdtsc", out("eax") _, out("edx") _)), None, "the kernel still may");
    let (low, high): (u64, u64);
    // SAFETY: reads a counter by emulation.
    unsafe { asm!("mov rax, -1", "mov rdx, -1", "rdtsc", out("rax") low, out("rdx") high) };
    tap.ok(low >> 32 == 0 && high >> 32 == 0, "and gets two halves");
    tap.is(trap_of(instruction!("rdtscp", out("eax") _, out("edx") _, out("ecx") _)), None, "rdtscp too");
    tap.is(trap_of(instruction!("mov cr4, {}", in(reg) cr4)), None, "CR4 as before");
    tap.is(user(RDTSC), (0x80, 0), "and user mode may again");
}

fn others(tap: &mut Tap) {
    tap.is(trap_of(instruction!("hlt")), GP, "hlt");
    let performance = trap_of(instruction!("rdpmc", in("ecx") 0, out("eax") _, out("edx") _));
    tap.ok(matches!(performance, Some((6 | 13, 0))), "rdpmc");
    tap.is(trap_of(instruction!("swapgs")), GP, "swapgs");
    tap.is(trap_of(instruction!("sysretq", in("rcx") 0)), GP, "sysret");
    tap.is(trap_of(instruction!("sysexit")).map(|(vector, _)| vector == 6 || vector == 13), Some(true), "sysexit");
    let pcid = [0u64; 2];
    let invpcid = trap_of(instruction!("invpcid {}, [{}]", in(reg) 0u64, in(reg) pcid.as_ptr()));
    tap.ok(matches!(invpcid, Some((6 | 13, 0))), "invpcid");
    for (bytes, what) in [
        (&[0x0fu8, 0x01, 0xc1][..], "vmcall"),
        (&[0x0f, 0x01, 0xd9], "vmmcall"),
        (&[0x0f, 0x01, 0xd8], "vmrun"),
        (&[0x0f, 0x01, 0xdd], "clgi"),
        (&[0x0f, 0x01, 0xca], "clac"),
        (&[0x0f, 0x01, 0xc8], "monitor"),
        (&[0x0f, 0x01, 0xc9], "mwait"),
        (&[0x0f, 0x01, 0xee], "rdpkru"),
        (&[0x0f, 0xaa], "rsm"),
    ] {
        let mut program = page();
        program.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
        program.bytes_mut()[bytes.len()] = 0xc3;
        let result =
            trap_of(instruction!("call {}", in(reg) program.address(), in("rax") STACK, in("ecx") 0, in("edx") 0));
        tap.ok(matches!(result, Some((6 | 13, 0))), what);
    }
}

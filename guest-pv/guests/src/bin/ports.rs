//! Ports: the instructions that use them in all their forms, who may use them, string instructions that fault on the way, and
//! instructions at the edge of what is mapped.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(clippy::cast_possible_truncation)] // Offsets in a page.
#![allow(unsafe_code)] // The claims are instructions.

use core::arch::asm;
use guest_pv::call::traps::vm_assist;
use guest_pv::mem::Frame;
use guest_pv::tap::Tap;
use guest_pv::{events, traps};
use guests::user::{self, STACK, UserSpace};
use guests::{Cliff, call, code, frame_of, load, make_read_only, make_writable, op, page, store, trap_of};
use xen_abi::Errno;
use xen_abi::arch_x86::FLAT_USER_CS32;
use xen_abi::hypercall::HYPERVISOR_PHYSDEV_OP;
use xen_abi::physdev::{PHYSDEVOP_SET_IOBITMAP, PHYSDEVOP_SET_IOPL, SetIobitmap, SetIopl};
use xen_abi::vm_assist::{VMASST_CMD_DISABLE, VMASST_CMD_ENABLE, VMASST_TYPE_ARCHITECTURAL_IOPL};

guest_pv::test!(run);

const GP: Option<(u64, u64)> = Some((13, 0));
const UD: Option<(u64, u64)> = Some((6, 0));
/// A port that nobody answers.
const NOBODY: u16 = 0x5000;

/// An instruction as a body for `trap_of`.
macro_rules! instruction {
    ($($text:tt)*) => {
        // SAFETY: the hypervisor emulates it or makes it a fault.
        || unsafe { asm!($($text)*) }
    };
}

fn run(tap: &mut Tap) {
    let mut program = [0x90u8; 1024];
    for (piece, offset) in USER.iter().zip((0..).step_by(16)) {
        let bytes = piece();
        program[offset..offset + bytes.len()].copy_from_slice(bytes);
    }
    let space = UserSpace::new(&program);
    set_iopl(1).expect("a level");
    ports(tap);
    strings(tap);
    edges(tap);
    set_iopl(0).expect("a level");
    privileges(tap);
    user_strings(tap, &space);
    bitmaps(tap);
}

const IN: u64 = 0;
const IN_WORD: u64 = 16;
const IN_DWORD: u64 = 32;
const OUTS_ES: u64 = 48;
const REP_INS: u64 = 64;
const REP_OUTS_16: u64 = 80;
const CLI: u64 = 96;
const IMMEDIATE: u64 = 112;
const READS: u64 = 128;

const USER: &[fn() -> &'static [u8]] = &[
    || code!("in al, dx", "int 0x80"),
    || code!("in ax, dx", "int 0x80"),
    || code!("in eax, dx", "int 0x80"),
    || code!(".byte 0x26, 0x6e", "int 0x80"), // es outsb
    || code!("rep insb", "int 0x80"),
    || code!(".byte 0x67, 0xf3, 0x6e", "int 0x80"), // rep outsb with addresses of the other size
    || code!("cli", "int 0x80"),
    || code!("in al, 0x80", "int 0x80"),
    || code!("mov rax, cr4", "int 0x80"),
];

fn set_iopl(iopl: u32) -> Result<u64, Errno> {
    op(HYPERVISOR_PHYSDEV_OP, PHYSDEVOP_SET_IOPL, &mut SetIopl { iopl })
}

fn ports(tap: &mut Tap) {
    let (byte, word, dword, immediate): (u64, u64, u64, u64);
    // SAFETY: nobody answers; the port's numbers are not in use.
    unsafe {
        asm!("mov rax, -2", "mov rax, 0x1111111111111100", "in al, dx", "mov {0}, rax",
            "mov rax, 0x1111111111110000", "in ax, dx", "mov {1}, rax",
            "mov rax, 0x1111111100000000", "in eax, dx", "mov {2}, rax",
            "mov rax, 0x1111111100000000", ".byte 0x48, 0xed",
            out(reg) byte, out(reg) word, out(reg) dword, out("rax") immediate, in("dx") NOBODY);
    }
    tap.is(byte, 0x1111_1111_1111_11ff, "in al changes a byte");
    tap.is(word, 0x1111_1111_1111_ffff, "in ax changes a word");
    tap.is(dword, 0xffff_ffff, "in eax clears the upper half");
    tap.is(immediate, 0xffff_ffff, "REX.W makes no difference");
    let prefixed: u64;
    // SAFETY: as above.
    unsafe { asm!("mov rax, 0", ".byte 0xf3, 0x2e, 0xec", out("rax") prefixed, in("dx") NOBODY) };
    tap.is(prefixed, 0xff, "prefixes that mean nothing");
    tap.is(trap_of(instruction!(".byte 0xf0, 0xec", in("dx") NOBODY, out("al") _)), UD, "a lock prefix");
    tap.is(
        trap_of(instruction!("out dx, eax", in("dx") 0xffffu16, in("eax") 0)),
        None,
        "out to the last port and beyond",
    );
    tap.is(trap_of(instruction!("in eax, dx", in("dx") 0xfffeu16, out("eax") _)), None, "in from there");
    tap.is(trap_of(instruction!("in al, 0x80", out("al") _)), None, "a port in the instruction");
    tap.is(trap_of(instruction!("out 0x80, ax", in("ax") 0u16)), None, "out to one");
    // What the hypervisor keeps for itself reads as if nobody were there, writes are ignored.
    for port in [0x20u16, 0x21, 0x40, 0x43, 0xa0, 0xa1, 0x3f8, 0x3ff] {
        let value: u8;
        // SAFETY: the hypervisor answers.
        unsafe { asm!("in al, dx", in("dx") port, out("al") value) };
        if port == 0x43 || port == 0x40 {
            continue;
        }
        tap.is(value, 0xff, "a port of the hypervisor");
    }
    tap.is(trap_of(instruction!("out dx, al", in("dx") 0x43u16, in("al") 0x30u8)), None, "out to the timer");
    // Configuration of PCI: the address is the guest's own, the data are the machine's.
    let vendor: u32;
    // SAFETY: reads the identification of the first device.
    unsafe {
        asm!("mov edx, 0xcf8", "mov eax, 0x80000000", "out dx, eax", "mov edx, 0xcfc", "in eax, dx", out("eax") vendor, out("edx") _)
    };
    tap.ok(vendor & 0xffff != 0xffff && vendor != 0, "PCI configuration can be read");
    let back: u32;
    // SAFETY: as above.
    unsafe { asm!("in eax, dx", in("dx") 0xcf8u16, out("eax") back) };
    tap.is(back, 0x8000_0000, "and its address reads back");
    let again: u16;
    // SAFETY: as above.
    unsafe { asm!("in ax, dx", in("dx") 0xcfeu16, out("ax") again) };
    tap.is(u32::from(again), vendor >> 16, "by words too");
}

/// Registers after a string instruction: rcx, rsi, rdi.
type After = (u64, u64, u64);

fn string(body: impl FnOnce() -> After) -> Result<After, (u64, u64)> {
    let mut after = (0, 0, 0);
    trap_of(|| after = body()).map_or(Ok(after), Err)
}

macro_rules! string {
    ($text:literal, $count:expr, $from:expr, $to:expr) => {
        string(|| {
            let (count, from, to): After;
            // SAFETY: nobody answers at the port; the memory is the guest's.
            unsafe {
                asm!($text, "cld", in("dx") NOBODY, inout("rcx") $count => count, inout("rsi") $from => from,
                    inout("rdi") $to => to);
            }
            (count, from, to)
        })
    };
}

fn strings(tap: &mut Tap) {
    let buffer = page();
    let at = buffer.address();
    tap.is(string!("insb", 5u64, 1u64, at), Ok((5, 1, at + 1)), "insb");
    tap.is(load(at), 0xff, "one byte");
    tap.is(string!("insw", 5u64, 1u64, at), Ok((5, 1, at + 2)), "insw");
    tap.is(string!("insd", 5u64, 1u64, at), Ok((5, 1, at + 4)), "insd");
    tap.is(load(at), 0xffff_ffff, "four bytes");
    tap.is(string!(".byte 0x48, 0x6d", 5u64, 1u64, at), Ok((5, 1, at + 4)), "with REX.W as well");
    tap.is(string!("rep insb", 0u64, 1u64, at), Ok((0, 1, at)), "none with a count of zero");
    tap.is(string!("rep insb", 1000u64, 1u64, at + 8), Ok((0, 1, at + 1008)), "a thousand");
    tap.is((load(at + 1000), load(at + 1008)), (u64::MAX, 0), "and no more");
    tap.is(string!("repne insb", 3u64, 1u64, at), Ok((0, 1, at + 3)), "repne is the same");
    tap.is(string!("std\nrep insw", 3u64, 1u64, at + 100), Ok((0, 1, at + 94)), "downwards");
    tap.is(string!("rep outsb", 700u64, at, 1u64), Ok((0, at + 700, 1)), "outsb");
    tap.is(string!("std\nrep outsd", 2u64, at + 8, 1u64), Ok((0, at, 1)), "outsd downwards");
    // An address of 32 bits, which nothing is mapped at in the kernel.
    let fault = string!(".byte 0x67\ninsb", 1u64, 1u64, 0xdead_0000_1000u64);
    tap.is((fault, events::cr2()), (Err((14, 2)), 0x1000), "an address size of 32 bits");
    // Faults on the way: registers tell how far it came.
    let hole = Cliff::new();
    let edge = hole.edge();
    let frame =
        frame_of(instruction!("rep insb", in("dx") NOBODY, inout("rcx") 10u64 => _, inout("rdi") edge - 4 => _));
    let frame = frame.unwrap_or_default();
    tap.is((frame.vector, frame.error, frame.rcx, frame.rdi), (14, 2, 6, edge), "rep insb into a hole");
    tap.is(events::cr2(), edge, "CR2 is its first byte");
    let frame =
        frame_of(instruction!("rep outsw", in("dx") NOBODY, inout("rcx") 10u64 => _, inout("rsi") edge - 5 => _));
    let frame = frame.unwrap_or_default();
    tap.is((frame.vector, frame.error, frame.rcx, frame.rsi), (14, 0, 8, edge - 1), "rep outsw out of a hole");
    tap.is(events::cr2(), edge, "CR2 is the part that is not there");
    let frame = frame_of(instruction!("insd", in("dx") NOBODY, inout("rdi") edge - 2 => _)).unwrap_or_default();
    tap.is((frame.vector, frame.error, frame.rdi), (14, 2, edge - 2), "insd across the edge");
    tap.is(events::cr2(), edge, "CR2 is behind it");
    drop(hole);
    let locked = page();
    make_read_only(&locked);
    let fault = string!("insb", 1u64, 1u64, locked.address());
    tap.ok(matches!(fault, Err((14, 2 | 3))), "insb into read-only memory");
    tap.is(load(locked.address()), 0, "which stays");
    make_writable(&locked).expect("an ordinary page");
    for (to, what) in [
        (0xffff_8300_0000_0000u64, "insb into the hypervisor"),
        (0xffff_8000_0000_0000, "insb into the M2P table"),
        (1 << 47, "insb where addresses are not canonical"),
    ] {
        let fault = string!("insb", 1u64, 1u64, to);
        tap.ok(matches!(fault, Err((13 | 14, _))), what);
        let fault = string!("outsb", 1u64, to, 1u64);
        tap.ok(matches!(fault, Err((13 | 14, _))) || to == 0xffff_8000_0000_0000, "and outsb from there");
    }
}

fn edges(tap: &mut Tap) {
    // Instructions in the last bytes before a hole: all of them is there, so they are emulated.
    let mut hole = Cliff::new();
    let edge = hole.edge();
    for (bytes, what) in [
        (&[0xecu8][..], "in al, dx"),
        (&[0x66, 0xed], "in ax, dx"),
        (&[0x0f, 0x20, 0xc0], "mov rax, cr0"),
        (&[0x0f, 0x31], "rdtsc"),
        (&[0x0f, 0x06], "clts"),
        (&[0x0f, 0x01, 0xd1], "xsetbv"),
        (&[0x0f, 0x0b, 0x78, 0x65, 0x6e, 0x0f, 0xa2], "cpuid with the prefix"),
    ] {
        let length = bytes.len();
        hole.page.bytes_mut()[4096 - length..].copy_from_slice(bytes);
        let frame =
            frame_of(instruction!("push rbx", "jmp {}", in(reg) edge - length as u64, in("rdx") NOBODY, in("ecx") 1,
            in("eax") 0, options(noreturn)))
            .unwrap_or_default();
        if what == "xsetbv" {
            // Without CR4.OSXSAVE, or for a register that does not exist.
            tap.ok(matches!((frame.vector, frame.rip == edge - 3), (6 | 13, true)), what);
        } else {
            tap.is((frame.vector, frame.error & !16, frame.rip), (14, 0, edge), what);
        }
    }
    for (bytes, what) in [
        (&[0x0fu8][..], "0f and nothing"),
        (&[0x0f, 0x20], "mov from a control register without a register"),
        (&[0xe4], "in without a port"),
        (&[0xf3, 0x66], "prefixes alone"),
        (&[0x0f, 0x0b, 0x78, 0x65, 0x6e], "the prefix alone"),
        (&[0x0f, 0x0b], "ud2: the prefix is looked for"),
        (&[0xf0, 0x0f, 0x20], "a lock prefix in front"),
    ] {
        let length = bytes.len();
        hole.page.bytes_mut()[4096 - length..].copy_from_slice(bytes);
        let frame =
            frame_of(instruction!("jmp {}", in(reg) edge - length as u64, options(noreturn))).unwrap_or_default();
        tap.is((frame.vector, events::cr2()), (14, edge), what);
    }
}

fn privileges(tap: &mut Tap) {
    let at = |piece: u64| {
        let frame = user::run(traps::Frame { rdx: NOBODY.into(), ..user::start_at(piece) });
        (frame.vector, frame.error)
    };
    for level in 0..=3 {
        set_iopl(level).expect("a level");
        let want = if level == 3 { (0x80, 0) } else { (13, 0) };
        tap.is(at(IN), want, "a port from user mode needs level 3");
        tap.is(at(CLI), want, "so does cli");
        let want = if level >= 1 { None } else { GP };
        tap.is(trap_of(instruction!("in al, dx", in("dx") NOBODY, out("al") _)), want, "from the kernel level 1");
        tap.is(trap_of(instruction!("cli")), want, "and cli");
    }
    tap.is(at(IMMEDIATE), (0x80, 0), "a port in the instruction");
    tap.is(at(READS), (13, 0), "control registers stay the kernel's at any level");
    set_iopl(0).expect("a level");
    vm_assist(VMASST_CMD_ENABLE, VMASST_TYPE_ARCHITECTURAL_IOPL).expect("an assist");
    tap.is(
        trap_of(instruction!("in al, dx", in("dx") NOBODY, out("al") _)),
        None,
        "with architectural IOPL the kernel has level 0",
    );
    let flags = frame_of(instruction!("int 0x80")).unwrap_or_default().rflags;
    tap.is(flags >> 12 & 3, 0, "which its frames show");
    set_iopl(2).expect("a level");
    let flags = frame_of(instruction!("int 0x80")).unwrap_or_default().rflags;
    tap.is(flags >> 12 & 3, 2, "as they show others");
    let frame = user::run(traps::Frame { rflags: 0x3202, rdx: NOBODY.into(), ..user::start_at(IN) });
    tap.is((frame.vector, frame.rflags >> 12 & 3), (0x80, 3), "iret sets the level then");
    let frame = user::run(traps::Frame { rflags: 0x202, rdx: NOBODY.into(), ..user::start_at(IN) });
    tap.is((frame.vector, frame.rflags >> 12 & 3), (13, 0), "or takes it away");
    vm_assist(VMASST_CMD_DISABLE, VMASST_TYPE_ARCHITECTURAL_IOPL).expect("an assist");
    tap.is(set_iopl(4), Err(Errno::EINVAL), "there are four levels");
    tap.is(set_iopl(u32::MAX), Err(Errno::EINVAL), "no more");
    set_iopl(0).expect("a level");
}

fn user_strings(tap: &mut Tap, space: &UserSpace) {
    set_iopl(3).expect("a level");
    let compat = |piece: u64, rcx: u64, rsi: u64, rdi: u64| {
        let state =
            traps::Frame { cs: FLAT_USER_CS32.into(), rdx: NOBODY.into(), rcx, rsi, rdi, ..user::start_at(piece) };
        let frame = user::run(state);
        (frame.vector, frame.rcx, frame.rsi, frame.rdi)
    };
    let stack = &space.pages[5];
    store(stack.address(), 0);
    // Segments other than CS and SS are null: what 32-bit code addresses through them faults.
    let (vector, ..) = compat(REP_INS, 4, 1, STACK);
    tap.is(vector, 13, "32-bit code with null segments faults");
    let frame = user::run(traps::Frame { rdx: NOBODY.into(), rcx: 4, rdi: STACK, rsi: 1, ..user::start_at(REP_INS) });
    tap.is((frame.vector, frame.rcx, frame.rsi, frame.rdi), (0x80, 0, 1, STACK + 4), "64-bit code does not");
    tap.is(load(stack.address()), 0xffff_ffff, "and has its bytes");
    // SAFETY: data segments mean nothing to 64-bit code.
    unsafe { asm!("mov ds, {0:e}", "mov es, {0:e}", in(reg) 0xe02bu32) };
    tap.is(compat(REP_INS, 4, 1, STACK), (0x80, 0, 1, STACK + 4), "with flat ones it works");
    tap.is(compat(OUTS_ES, 4, STACK + 8, 7), (0x80, 4, STACK + 9, 7), "outsb through ES goes along ESI");
    // 16-bit addresses.
    let (vector, rcx, ..) = compat(REP_OUTS_16, 2, STACK, 7);
    tap.ok(matches!((vector, rcx), (13 | 14, 2)), "16-bit addresses find nothing, or are not taken");
    let wrapped = user::run(traps::Frame {
        cs: FLAT_USER_CS32.into(),
        rdx: NOBODY.into(),
        rcx: 1,
        rdi: 0xffff_8300_0000_0000 | STACK,
        ..user::start_at(REP_INS)
    });
    tap.is((wrapped.vector, wrapped.rdi & 0xffff_ffff), (0x80, STACK + 1), "registers have 32 bits there");
    // SAFETY: as above.
    unsafe { asm!("mov ds, {0:e}", "mov es, {0:e}", in(reg) 0u32) };
    let fault = user::run(traps::Frame { rdx: NOBODY.into(), rcx: 9, rdi: STACK + 0xffe, ..user::start_at(REP_INS) });
    tap.is(
        (fault.vector, fault.error, fault.rcx, events::cr2()),
        (14, 6, 7, STACK + 0x1000),
        "a fault of user mode says so",
    );
    let hypervisor =
        user::run(traps::Frame { rdx: NOBODY.into(), rcx: 9, rdi: 0xffff_8300_0000_0000, ..user::start_at(REP_INS) });
    tap.ok(matches!(hypervisor.vector, 13 | 14), "user mode does not write to the hypervisor");
    set_iopl(0).expect("a level");
}

fn bitmaps(tap: &mut Tap) {
    let mut map = page();
    map.bytes_mut().fill(0xff);
    let set = |bitmap: u64, nr_ports: u32| {
        op(HYPERVISOR_PHYSDEV_OP, PHYSDEVOP_SET_IOBITMAP, &mut SetIobitmap { bitmap, nr_ports, _pad: 0 })
    };
    let try_port =
        |piece: u64, port: u16| user::run(traps::Frame { rdx: port.into(), ..user::start_at(piece) }).vector == 0x80;
    tap.is(set(map.address(), 65537), Err(Errno::EINVAL), "more ports than there are");
    tap.is(set(0xffff_8300_0000_0000, 8), Err(Errno::EINVAL), "a bitmap in the hypervisor");
    tap.is(set(map.address(), 0x5010), Ok(0), "a bitmap");
    tap.is(try_port(IN, 0x5000), false, "forbids");
    let byte = |map: &mut Frame, port: usize, value: u8| map.bytes_mut()[port / 8] = value;
    byte(&mut map, 0x5000, 0xfe);
    tap.is((try_port(IN, 0x5000), try_port(IN, 0x5001)), (true, false), "allows a port");
    tap.is((try_port(IN_WORD, 0x5000), try_port(IN_DWORD, 0x5000)), (false, false), "but not two or four from there");
    byte(&mut map, 0x5000, 0x0f);
    tap.is((try_port(IN_DWORD, 0x5004), try_port(IN_WORD, 0x5007)), (true, false), "allows four ports");
    byte(&mut map, 0x5008, 0xfe);
    tap.is(try_port(IN_WORD, 0x5007), true, "across bytes");
    byte(&mut map, 0x5008, 0);
    tap.is(
        (try_port(IN, 0x500f), try_port(IN, 0x5010), try_port(IN_WORD, 0x500f)),
        (true, false, false),
        "ends where it ends",
    );
    tap.is(trap_of(instruction!("in al, dx", in("dx") 0x500fu16, out("al") _)), None, "it holds for the kernel too");
    tap.is(set(0x1000, 0x5010), Ok(0), "a bitmap that is not mapped");
    tap.is(try_port(IN, 0x500f), false, "allows nothing");
    // It ends with its page, and nothing is behind.
    let hole = Cliff::new();
    store(hole.edge() - 8, 0);
    tap.is(set(hole.edge() - 1, 16), Ok(0), "a bitmap that runs into a hole");
    tap.is((try_port(IN, 7), try_port(IN, 8)), (false, false), "is not good: two bytes of it are looked at");
    tap.is(set(0, 0), Ok(0), "no bitmap");
    tap.is(call(HYPERVISOR_PHYSDEV_OP, [99, 0]), Err(Errno::ENOSYS), "an operation that does not exist");
}

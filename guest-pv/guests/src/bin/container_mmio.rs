//! A kernel in a hardware container and its local APIC's registers, by every instruction that accesses memory: whatever one does to
//! memory it does to a register, and so to the flags and the other operand. In a PV domain there is nothing to see of it.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(unsafe_code)] // A kernel's own instructions, on the APIC's registers.
#![allow(clippy::cast_possible_truncation)] // Halves are cut out of words on purpose.

use core::arch::asm;
use guest_pv::tap::Tap;
use guest_pv::{Mode, mem, mode};
use guests::code_32::{self, DATA};
use guests::{address_of, trap_of};

guest_pv::test!(run);

const APIC: u64 = mem::DIRECT_MAP + 0xfee0_0000;
const VERSION: u64 = 0x30;
const ERRORS: u64 = 0x280;
const TIMER: u64 = 0x320;
/// What the timer counts down from: of all registers only this one takes any number.
const COUNT: u64 = 0x380;
const LAST: u64 = 0x3e0;
/// The version, and six entries in its table.
const VERSION_IS: u32 = 0x5_0014;
/// Nothing is there.
const NOTHING: u64 = mem::DIRECT_MAP + 0xfd00_0000;
/// The arithmetic flags.
const ARITHMETIC: u64 = 0x8d5;

fn run(tap: &mut Tap) {
    if mode() == Mode::Pv {
        return tap.skip("registers in memory", "a PV domain");
    }
    // Its interrupt is masked, and it counts down once.
    poke(TIMER, 0x1_0041);
    everything(tap);
    widths(tap);
    between(tap);
    strings(tap);
    nothing(tap);
    code_of_32_bits(tap);
}

fn peek(offset: u64) -> u32 {
    let value;
    // SAFETY: a register of the local APIC, in the direct map.
    unsafe { asm!("mov {:e}, [{}]", out(reg) value, in(reg) APIC + offset) };
    value
}

fn poke(offset: u64, value: u32) {
    // SAFETY: as above.
    unsafe { asm!("mov [{}], {:e}", in(reg) APIC + offset, in(reg) value) };
}

/// What an instruction finds in registers, and leaves there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Registers {
    rax: u64,
    rcx: u64,
    rdi: u64,
    flags: u64,
}

type Instruction = fn(Registers) -> Registers;

/// Each is its text, the bytes of memory it accesses, and itself: with RDI, RAX, RCX and the arithmetic flags.
macro_rules! instructions {
    ($($bytes:literal $text:literal)*) => {
        [$(($text, $bytes, {
            fn one(mut regs: Registers) -> Registers {
                // SAFETY: it accesses what RDI points to: a variable or a register of the APIC.
                unsafe {
                    asm!(
                        "pushfq", "and qword ptr [rsp], -0x8d6", "or [rsp], {flags}", "popfq",
                        $text,
                        "pushfq", "pop {flags}",
                        flags = inout(reg) regs.flags, inout("rax") regs.rax, inout("rcx") regs.rcx, inout("rdi") regs.rdi
                    );
                }
                regs.flags &= ARITHMETIC;
                regs
            }
            one as Instruction
        })),*]
    };
}

/// Each instruction on a variable and on a register of the APIC.
fn everything(tap: &mut Tap) {
    const VALUES: [(u32, u64, u64, u64); 3] = [
        (0x8142_7f18, 0x1122_3344_5566_7788, 0x99aa_bbcc_ddee_ff81, 0),
        (0x0000_0001, u64::MAX, 1, 1),
        (0xffff_ff80, 0x8000_0000_ffff_ff80, 0x7f, 0x8d5),
    ];
    let all: &[(&str, u64, Instruction)] = &instructions! {
        1 "mov al, [rdi]"
        2 "mov cx, [rdi]"
        4 "mov eax, [rdi]"
        1 "mov [rdi], al"
        1 "mov [rdi], ch"
        2 "mov [rdi], cx"
        4 "mov [rdi], ecx"
        1 "mov byte ptr [rdi], 0x81"
        2 "mov word ptr [rdi], 0x8142"
        4 "mov dword ptr [rdi], 0x81422418"
        1 "movzx eax, byte ptr [rdi]"
        1 "movzx cx, byte ptr [rdi]"
        2 "movzx rax, word ptr [rdi]"
        1 "movsx eax, byte ptr [rdi]"
        1 "movsx rcx, byte ptr [rdi]"
        2 "movsx rax, word ptr [rdi]"
        4 "movsxd rax, dword ptr [rdi]"
        1 "test [rdi], cl"
        4 "test [rdi], eax"
        2 "test word ptr [rdi], 0x8001"
        1 "add [rdi], al"
        4 "add eax, [rdi]"
        4 "add dword ptr [rdi], -3"
        2 "adc [rdi], cx"
        4 "adc ecx, [rdi]"
        1 "adc byte ptr [rdi], 0x7f"
        4 "sub [rdi], ecx"
        1 "sub ah, [rdi]"
        4 "sub dword ptr [rdi], 0x12345678"
        4 "sbb [rdi], eax"
        2 "sbb cx, [rdi]"
        2 "sbb word ptr [rdi], 1"
        2 "and [rdi], cx"
        1 "and al, [rdi]"
        4 "and dword ptr [rdi], 0x0f0f0f0f"
        4 "or [rdi], eax"
        4 "or ecx, [rdi]"
        1 "lock or byte ptr [rdi], 0x10"
        1 "xor [rdi], cl"
        4 "xor rax, rax; xor eax, [rdi]"
        4 "lock xor dword ptr [rdi], -1"
        4 "cmp [rdi], eax"
        1 "cmp cl, [rdi]"
        2 "cmp word ptr [rdi], 0x1234"
        4 "not dword ptr [rdi]"
        1 "not byte ptr [rdi]"
        4 "neg dword ptr [rdi]"
        2 "neg word ptr [rdi]"
        4 "inc dword ptr [rdi]"
        1 "lock inc byte ptr [rdi]"
        4 "dec dword ptr [rdi]"
        2 "dec word ptr [rdi]"
        4 "xchg [rdi], ecx"
        1 "xchg [rdi], ah"
        4 "xadd [rdi], eax"
        2 "lock xadd [rdi], cx"
        4 "cmpxchg [rdi], ecx"
        1 "lock cmpxchg [rdi], cl"
        4 "mov eax, [rdi]; lock cmpxchg [rdi], ecx"
        4 "bt dword ptr [rdi], 9"
        4 "bts dword ptr [rdi], 4"
        4 "btr dword ptr [rdi], 31"
        4 "btc dword ptr [rdi], 17"
        1 "stosb"
        4 "stosd"
    };
    for (text, bytes, instruction) in all {
        let mut same = true;
        for (memory, rax, rcx, flags) in VALUES {
            for within in (0..4).step_by(*bytes as usize) {
                let mut variable = memory;
                let place = address_of(&mut variable);
                let mut expected = instruction(Registers { rax, rcx, rdi: place + within, flags });
                expected.rdi -= place;
                // SAFETY: the instruction has changed it behind the compiler's back.
                let variable = unsafe { (&raw const variable).read_volatile() };
                poke(COUNT, memory);
                let mut found = instruction(Registers { rax, rcx, rdi: APIC + COUNT + within, flags });
                found.rdi -= APIC + COUNT;
                let register = peek(COUNT);
                if (register, found) != (variable, expected) {
                    same = false;
                    tap.note(format_args!(
                        "{memory:x}+{within}: {register:x} {found:x?}, not {variable:x} {expected:x?}"
                    ));
                }
            }
        }
        tap.ok(same, text);
    }
    poke(COUNT, 0);
}

/// Loads of all widths.
fn load(place: u64) -> (u8, u16, u32, u64) {
    let (byte, word, double, long): (u8, u16, u32, u64);
    // SAFETY: a register of the APIC's, or nothing.
    unsafe {
        asm!("mov {}, [{}]", out(reg_byte) byte, in(reg) place);
        asm!("mov {:x}, [{}]", out(reg) word, in(reg) place);
        asm!("mov {:e}, [{}]", out(reg) double, in(reg) place);
        asm!("mov {}, [{}]", out(reg) long, in(reg) place);
    }
    (byte, word, double, long)
}

fn widths(tap: &mut Tap) {
    tap.is(load(APIC + VERSION), (0x14, 0x14, VERSION_IS, 0), "the version by 8, 16 and 32 bits; by 64 there is none");
    tap.is(load(APIC + VERSION + 2), (5, 5, 0, 0), "from its third byte on");
    let (low, whole): (u64, u64);
    // SAFETY: the registers of the local APIC.
    unsafe {
        asm!("movabs al, [{}]", const APIC + VERSION, inout("rax") 0x1111_1111_1111_1111u64 => low);
        asm!("movabs eax, [{}]", const APIC + VERSION, inout("rax") u64::MAX => whole);
    }
    let expected = (0x1111_1111_1111_1114, u64::from(VERSION_IS));
    tap.is((low, whole), expected, "by an address in the instruction");
    poke(COUNT, 0x1234_5678);
    // SAFETY: as above.
    unsafe {
        asm!("movabs [{}], eax", const APIC + COUNT, in("rax") 0x4321u64);
        asm!("mov [{}], {}", in(reg) APIC + COUNT, in(reg) u64::MAX);
    }
    tap.is(peek(COUNT), 0x4321, "stores of 32 and of 64 bits, of which the second goes nowhere");
    // SAFETY: as above.
    unsafe { asm!("or qword ptr [{}], -1", "and byte ptr [{0} + 0x10], 0", in(reg) APIC + COUNT) };
    tap.is(peek(COUNT), 0x4321, "changes of 64 bits, and of the current count");
}

/// Where no register is.
fn between(tap: &mut Tap) {
    poke(COUNT, 0x5555_5555);
    let places = [COUNT + 1, COUNT + 4, COUNT + 8, COUNT + 14, LAST + 4, LAST + 16, 0xffc];
    let mut zero = true;
    for place in places {
        zero &= load(APIC + place).2 == 0;
        poke(place, u32::MAX);
    }
    tap.ok(zero, "what lies between registers, behind the last, or across their ends reads as 0");
    tap.is(peek(COUNT), 0x5555_5555, "and takes no write");
    // SAFETY: the register's last byte and one behind it.
    unsafe { asm!("mov word ptr [{}], 0", in(reg) APIC + COUNT + 3) };
    tap.is(peek(COUNT), 0x5555_5555, "not the last byte of one either");
    let _ = load(APIC + 0x40);
    poke(ERRORS, 0);
    tap.is(peek(ERRORS), 0, "none of that is an error of the APIC's");
}

fn strings(tap: &mut Tap) {
    let mut left = 4u64;
    let mut at = APIC + COUNT;
    // SAFETY: the count, and what lies between it and the next register.
    unsafe { asm!("rep stosd", inout("rcx") left, inout("rdi") at, in("eax") 0x7654_3210u32) };
    tap.is((peek(COUNT), left, at), (0x7654_3210, 0, APIC + COUNT + 16), "REP STOS goes over a register");
    let mut from = APIC + COUNT + 2;
    let low: u64;
    // SAFETY: the count's upper half.
    unsafe { asm!("lodsw", inout("rsi") from, inout("rax") u64::MAX << 32 => low) };
    tap.is((low, from), (u64::MAX << 32 | 0x7654, APIC + COUNT + 4), "LODS");
    let mut numbers = [1u32, 2, 3];
    let (mut left, mut from, mut at) = (2u64, address_of(&mut numbers), APIC + COUNT);
    // SAFETY: from an array to the count.
    unsafe { asm!("rep movsd", inout("rcx") left, inout("rsi") from, inout("rdi") at) };
    let moved = (left, from - address_of(&mut numbers), at - APIC - COUNT);
    tap.is((peek(COUNT), moved), (1, (0, 8, 8)), "REP MOVS from memory");
    let (mut left, mut from, mut at) = (3u64, APIC + VERSION + 4, address_of(&mut numbers) + 8);
    // SAFETY: from the version and what is around it to the array, downwards.
    unsafe { asm!("std", "rep movsd", "cld", inout("rcx") left, inout("rsi") from, inout("rdi") at) };
    let moved = (left, from, at.wrapping_sub(address_of(&mut numbers)).cast_signed());
    // SAFETY: written behind the compiler's back.
    let numbers = unsafe { (&raw const numbers).read_volatile() };
    tap.is((numbers, moved), ([0, VERSION_IS, 0], (0, APIC + VERSION - 8, -4)), "and to memory, downwards");
    let mut left = 0u64;
    // SAFETY: nothing is done.
    unsafe { asm!("rep stosb", inout("rcx") left, inout("rdi") at => _, in("al") 0u8) };
    tap.is((left, peek(COUNT)), (0, 1), "none at all");
    poke(COUNT, 0);
}

fn nothing(tap: &mut Tap) {
    let ones = (u8::MAX, u16::MAX, u32::MAX, u64::MAX);
    let mut found = ones;
    let trap = trap_of(|| found = load(NOTHING));
    tap.is((trap, found), (None, ones), "where nothing is all reads as ones");
    let (mut old, mut equal) = (7u64, 0u8);
    // SAFETY: nothing is there.
    let trap = trap_of(|| unsafe {
        asm!("lock xadd [{0}], {1:e}", "cmp dword ptr [{0}], -1", "sete {2}", in(reg) NOTHING, inout(reg) old, out(reg_byte) equal);
    });
    tap.is((trap, old, equal), (None, 0xffff_ffff, 1), "and stays so");
}

/// The other processor's APIC, by code of 32 bits without paging.
fn code_of_32_bits(tap: &mut Tap) {
    code_32::install();
    if !tap.is(code_32::start(), Ok(()), "another processor begins in 32-bit code") {
        return;
    }
    let mut at = DATA;
    let mut does = |code: &[u8], values: [u32; 3]| {
        for byte in code.iter().chain(&[0xc3]) {
            code_32::put(at, byte);
            at += 1;
        }
        let length = code.len() as u64 + 1;
        code_32::run(at - length, values)
    };
    // As in 64-bit code they are the other way round: what has a prefix here has none there.
    let apic = 0xfee0_0000u32;
    let load = does(&[0xa1, 0x30, 0, 0xe0, 0xfe], [1, 2, 3]);
    tap.is(load.0, VERSION_IS, "MOV of an address in the instruction");
    let load = does(&[0x66, 0xa1, 0x30, 0, 0xe0, 0xfe], [u32::MAX, 2, 3]);
    tap.is(load.0, 0xffff_0014, "of 16 bits");
    let load = does(&[0x0f, 0xb6, 0x47, 0x32], [0, 0, apic]);
    tap.is(load.0, 5, "MOVZX of one byte");
    let _ = does(&[0xc7, 0x87, 0x20, 3, 0, 0, 0x41, 0, 1, 0], [0, 0, apic]);
    let _ = does(&[0x89, 0x8f, 0x80, 3, 0, 0], [0, 0x7fff_ffff, apic]);
    let sum = does(&[0x83, 0x87, 0x80, 3, 0, 0, 1, 0x8b, 0x87, 0x80, 3, 0, 0], [0, 0, apic]);
    tap.is((sum.0, sum.1 & 0x8d5), (0x8000_0000, 0x894), "ADD to memory, and its flags");
    let swapped = does(&[0x87, 0x4f, 0, 0x91], [0, 0x55, apic + 0x380]);
    tap.is(swapped.0, 0x8000_0000, "XCHG");
    let filled = does(&[0xab, 0x97], [0x99, 0, apic + 0x380]);
    tap.is(filled.0, apic + 0x384, "STOS moves EDI");
    let load = does(&[0x8b, 0x04, 0x0f], [0, 0x380, apic]);
    tap.is(load.0, 0x99, "and fills the register");
}

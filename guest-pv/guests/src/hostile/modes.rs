//! Other modes of the processor, for a guest in a hardware container: vCPU 0 goes to 32-bit code, does without paging, and
//! goes on to real mode and back, with deeds on the way; another vCPU runs random bytes in real mode.
//!
//! All of that lies in the first 640 KiB, which the runtime leaves alone. A fault outside of long mode ends the visit, or begins
//! the vCPU's life in real mode anew: there are descriptor tables for each.
//!
//! Unsafe: code and page tables of our own.
#![allow(clippy::cast_possible_truncation)] // Numbers are cut to size on purpose.

use super::Hostile;
use super::container::STRINGS;
use super::watch;
use crate::{page, store, trap_of};
use guest_pv::mem::{DIRECT_MAP, Frame, table};
use guest_pv::smp;

/// Where the code of the modes is.
#[cfg_attr(not(target_os = "none"), allow(dead_code, reason = "on the host there are no other modes"))]
const CODE: u64 = 0x8000;
/// Where the vCPU that is sacrificed starts: what random 16-bit code writes to seldom.
const VICTIM: u64 = 0x9_0000;
/// Its segments: what it writes to all the time, and far from all that vCPU 0 needs.
#[cfg_attr(not(target_os = "none"), allow(dead_code, reason = "on the host there are no other modes"))]
const VICTIM_SEGMENT: u64 = 0x3000;
/// Random bytes to be run as 16-bit code, in that segment, and as 32-bit code.
const BYTES_16: u64 = 0x3_b000;
const BYTES_32: u64 = 0xc000;
/// What is to be done in the modes.
const DEEDS: u64 = 0xd000;
/// The list's end.
const END: u32 = 0xff;
/// Deeds of a visit.
const MOST: u64 = 12;

/// How far a visit goes: 0 to 32-bit code, 1 to no paging, 2 to real mode, 3 to random 32-bit code.
const RANDOM_CODE: u32 = 3;

/// What these deeds need.
pub struct Modes {
    /// The kernel's page tables, and where they are the first MiB and the last GiB below 4: the image must not be in the reach
    /// of random code.
    root: Frame,
    _tables: [Frame; 3],
}

impl Modes {
    /// Puts the code where it runs.
    #[expect(clippy::new_without_default, reason = "it writes to memory")]
    pub fn new() -> Self {
        let root = page();
        for slot in 0..512 {
            store(root.address() + slot * 8, table::read_entry(table::root(), slot));
        }
        let tables = core::array::from_fn(|_| page());
        let [third, second, first] = &tables;
        let entry = |frame: &Frame| frame.mfn().0 << 12 | table::TABLE;
        store(root.address(), entry(third));
        store(third.address(), entry(second));
        let direct = table::frame_of(table::read_entry(table::root(), table::index(DIRECT_MAP, 4)));
        store(third.address() + 3 * 8, table::read_entry(direct, 3));
        store(second.address(), entry(first));
        for frame in 0..256 {
            store(first.address() + frame * 8, frame << 12 | table::READ_WRITE);
        }
        Self { root, _tables: tables }
    }
}

fn physical(address: u64) -> u64 {
    DIRECT_MAP + address
}

impl Hostile {
    /// A visit to another mode.
    pub fn other_mode(&mut self) {
        if smp::index() != 0 {
            return;
        }
        let depth = self.chance.below(4) as u32;
        let count = self.chance.below(MOST);
        let mut at = physical(DEEDS);
        for _ in 0..count {
            let kind = match self.chance.below(16) {
                13 | 14 if !self.chance.rarely(STRINGS / 8) => 12,
                kind => kind,
            };
            let ports = [0x60, 0x80, 0x3f8, 0xcf8, 0x510, 0x1234];
            let registers = match kind {
                // A hypercall.
                1 => [self.chance.below(64), self.half(), self.half(), self.half(), DEEDS, BYTES_32],
                6 | 7 | 10 => {
                    let place = 0xfee0_0000 + 16 * self.chance.one(&[2, 3, 8, 0xd, 0xf, 0x20, 0x32, 0x38, 0x39]);
                    let edi = self.chance.one(&[place, place, 0xf000_0000, BYTES_32]);
                    [0, self.half(), self.half(), self.half(), BYTES_32, edi]
                }
                // EFER, which is there.
                11 => [0, 0, 0xc000_0080, 0, 0, 0],
                13 => [0, 0, self.chance.below(9), self.chance.one(&ports), BYTES_32, BYTES_32],
                _ => [self.half(), self.half(), self.half(), self.chance.one(&ports), BYTES_32, BYTES_32],
            };
            store(at, kind | registers[0] << 32);
            store(at + 8, registers[1] & 0xffff_ffff | registers[2] << 32);
            store(at + 16, registers[3] & 0xffff_ffff | registers[4] << 32);
            store(at + 24, registers[5]);
            at += 32;
        }
        store(at, END.into());
        if depth == RANDOM_CODE {
            self.scatter(BYTES_32, 32);
            store(physical(BYTES_32) + 32, 0xcccc_cccc_cccc_cccc);
        }
        // Whatever has become of it.
        metal::install();
        let root = self.modes.as_ref().map_or(0, |modes| modes.root.mfn().0 << 12);
        // What random code does to 32-bit registers is its own affair; a trap leads back to 64-bit code here.
        watch::set_away((1..RANDOM_CODE).contains(&depth));
        let _ = trap_of(|| metal::visit(root, depth));
        watch::set_away(false);
        // Before the page tables change: the segments' descriptors lie in low memory still.
        guest_pv::traps::init();
        self.registers.restore();
        // Now and then the other one starts anew.
        if self.chance.rarely(4) {
            self.sacrifice();
        }
    }

    fn scatter(&mut self, at: u64, bytes: u64) {
        for word in 0..bytes / 8 {
            store(physical(at) + word * 8, self.chance.any());
        }
    }

    /// Has the last vCPU run random bytes in real mode.
    fn sacrifice(&mut self) {
        let Some(victim) = self.victim else { return };
        self.scatter(BYTES_16, 256);
        let address = physical(0xfee0_0000);
        // SAFETY: our APIC's command register: INIT, and where to begin.
        let _ = trap_of(|| unsafe {
            for command in [0x4500u32, 0x4600 | (VICTIM >> 12) as u32] {
                ((address + 0x310) as *mut u32).write_volatile((victim * 2) << 24);
                ((address + 0x300) as *mut u32).write_volatile(command);
            }
        });
    }
}

/// The vCPU that is sacrificed, of so many: none of a few.
pub fn victim(vcpus: u32) -> Option<u32> {
    (vcpus > 2).then(|| vcpus - 1)
}

#[cfg(target_os = "none")]
mod metal {
    use super::physical;
    use super::{BYTES_16, BYTES_32, CODE, DEEDS, END, RANDOM_CODE, VICTIM, VICTIM_SEGMENT};
    use crate::store;
    use core::arch::{asm, global_asm};

    global_asm!(
        ".pushsection .rodata.modes, \"a\", @progbits",
        ".balign 16",
        "hostile_modes:",
        ".code64",
        // edi says how far to go.
        "mov [{depth}], edi",
        "mov [{stack}], rsp",
        "sidt [{idt_64}]",
        "lgdt [rip + hostile_gdt_register]",
        "mov esp, 0x7800",
        "push 0x18",
        "lea rax, [rip + hostile_32]",
        "push rax",
        "retfq",
        ".code32",
        "hostile_32:",
        "mov eax, 16",
        "mov ds, eax",
        "mov es, eax",
        "mov ss, eax",
        "mov esp, 0x7800",
        "call hostile_deeds_32",
        "cmp dword ptr [{depth}], 0",
        "je 8f",
        "cmp dword ptr [{depth}], {random}",
        "jne 2f",
        "mov eax, {bytes_32}",
        "jmp eax",
        // Without paging, and so out of long mode.
        "2:",
        "mov eax, cr0",
        "and eax, 0x7fffffff",
        "mov cr0, eax",
        "jmp 3f",
        "3:",
        "lidt [{idt_32}]",
        "call hostile_deeds_32",
        "cmp dword ptr [{depth}], 1",
        "je 7f",
        ".byte 0xea", // a far jump
        ".long {code} + hostile_16 - hostile_modes",
        ".word 0x20",
        ".code16",
        "hostile_16:",
        "mov eax, cr0",
        "and al, 0xfe",
        "mov cr0, eax",
        ".byte 0xea",
        ".word {code} + hostile_real - hostile_modes",
        ".word 0",
        "hostile_real:",
        "xor ax, ax",
        "mov ds, ax",
        "mov es, ax",
        "mov ss, ax",
        "lidt [{idt_16}]",
        "mov ebp, {deeds}",
        "4:",
        "movzx eax, byte ptr [bp]",
        "cmp al, {end}",
        "je 5f",
        "shl ax, 4",
        "add ax, [{table_16}]",
        "mov [{jump}], ax",
        "mov eax, [bp + 4]",
        "mov ebx, [bp + 8]",
        "mov ecx, [bp + 12]",
        "mov edx, [bp + 16]",
        "mov esi, [bp + 20]",
        "mov edi, [bp + 24]",
        "push bp",
        "jmp word ptr [{jump}]",
        "hostile_next_16:",
        "pop bp",
        "add bp, 32",
        "jmp 4b",
        // A fault here ends the visit.
        "hostile_fault_16:",
        "xor ax, ax",
        "mov ds, ax",
        "mov ss, ax",
        "mov esp, 0x7800",
        "5:",
        "mov eax, cr0",
        "or al, 1",
        "mov cr0, eax",
        ".byte 0x66, 0xea",
        ".long {code} + hostile_again_32 - hostile_modes",
        ".word 0x18",
        ".macro hostile_deed_16 line:vararg",
        ".balign 16",
        "\\line",
        "jmp hostile_next_16",
        ".endm",
        ".balign 16",
        "hostile_table_16:",
        "hostile_deed_16 cpuid",
        "hostile_deed_16 vmmcall",
        "hostile_deed_16 in al, dx",
        "hostile_deed_16 in eax, dx",
        "hostile_deed_16 out dx, al",
        "hostile_deed_16 out dx, eax",
        "hostile_deed_16 mov eax, [si]",
        "hostile_deed_16 mov [si], eax",
        "hostile_deed_16 rdtsc",
        "hostile_deed_16 wbinvd",
        "hostile_deed_16 nop",
        "hostile_deed_16 rdmsr",
        "hostile_deed_16 mov eax, cr3",
        "hostile_deed_16 nop",
        "hostile_deed_16 mov eax, cr4",
        "hostile_deed_16 clts",
        ".code32",
        "hostile_again_32:",
        // And here.
        "hostile_fault_32:",
        "mov eax, 16",
        "mov ds, eax",
        "mov es, eax",
        "mov ss, eax",
        "mov esp, 0x7800",
        "7:",
        "mov eax, cr0",
        "or eax, 0x80000000",
        "mov cr0, eax",
        "8:",
        ".byte 0xea",
        ".long {code} + hostile_64 - hostile_modes",
        ".word 8",
        "hostile_deeds_32:",
        "mov ebp, {deeds}",
        "9:",
        "movzx eax, byte ptr [ebp]",
        "cmp al, {end}",
        "je 10f",
        "shl eax, 4",
        "add eax, [{table_32}]",
        "mov [{jump}], eax",
        "mov eax, [ebp + 4]",
        "mov ebx, [ebp + 8]",
        "mov ecx, [ebp + 12]",
        "mov edx, [ebp + 16]",
        "mov esi, [ebp + 20]",
        "mov edi, [ebp + 24]",
        "push ebp",
        "jmp dword ptr [{jump}]",
        "hostile_next_32:",
        "pop ebp",
        "add ebp, 32",
        "jmp 9b",
        "10: ret",
        ".macro hostile_deed_32 line:vararg",
        ".balign 16",
        "\\line",
        "jmp hostile_next_32",
        ".endm",
        ".balign 16",
        "hostile_table_32:",
        "hostile_deed_32 cpuid",
        "hostile_deed_32 vmmcall",
        "hostile_deed_32 in al, dx",
        "hostile_deed_32 in eax, dx",
        "hostile_deed_32 out dx, al",
        "hostile_deed_32 out dx, eax",
        "hostile_deed_32 mov eax, [edi]",
        "hostile_deed_32 mov [edi], eax",
        "hostile_deed_32 rdtsc",
        "hostile_deed_32 wbinvd",
        "hostile_deed_32 invlpg [edi]",
        "hostile_deed_32 rdmsr",
        "hostile_deed_32 mov eax, cr3",
        "hostile_deed_32 rep outsb",
        "hostile_deed_32 rep insd",
        "hostile_deed_32 clts",
        ".code64",
        "hostile_64:",
        "lidt [{idt_64}]",
        "mov rsp, [{stack}]",
        "ret",
        ".balign 8",
        // 64-bit code, data, 32-bit code, 16-bit code: the first two as the runtime has them.
        "hostile_gdt: .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cf9b000000ffff, 0x00009b000000ffff",
        "hostile_gdt_register: .word 39",
        ".quad {code} + hostile_gdt - hostile_modes",
        "hostile_modes_end:",
        // The vCPU that is sacrificed: random bytes with a stack of their own; each trap begins anew.
        "hostile_victim:",
        ".code16",
        "cli",
        "cld",
        "mov ax, cs",
        "mov ds, ax",
        "lidt [{victim_idt}]",
        "mov ax, {victim_segment}",
        "mov ds, ax",
        "mov es, ax",
        "mov ss, ax",
        "mov sp, 0x6000",
        "mov bp, sp",
        ".byte 0xea",
        ".word {bytes_16} - {victim_segment} * 16",
        ".word {victim_segment}",
        "hostile_victim_end:",
        ".code64",
        ".popsection",
        code = const CODE,
        deeds = const DEEDS,
        end = const END,
        random = const RANDOM_CODE,
        depth = const WORDS,
        stack = const WORDS + 8,
        jump = const WORDS + 16,
        table_16 = const WORDS + 24,
        table_32 = const WORDS + 32,
        idt_64 = const WORDS + 40,
        idt_32 = const WORDS + 56,
        idt_16 = const WORDS + 64,
        victim_idt = const VICTIM_IDT,
        bytes_16 = const BYTES_16,
        victim_segment = const VICTIM_SEGMENT,
        bytes_32 = const BYTES_32,
    );

    /// Interrupt vectors of vCPU 0 in real mode, and in 32-bit code without paging; and the victim's.
    const VECTORS_16: u64 = 0x2_0000;
    const VECTORS_32: u64 = 0x2_1000;
    const VICTIM_VECTORS: u64 = VICTIM + 0x1000;

    /// Behind the code: how far to go, the stack to come back to, where to jump next, the two tables of deeds, and what to load
    /// as IDTR in each mode.
    const WORDS: u64 = CODE + 0xf00;
    /// The same for the victim, in its segment.
    const VICTIM_IDT: u64 = 0x100;

    unsafe extern "C" {
        static hostile_modes: u8;
        static hostile_table_16: u8;
        static hostile_table_32: u8;
        static hostile_modes_end: u8;
        static hostile_fault_16: u8;
        static hostile_fault_32: u8;
        static hostile_victim: u8;
        static hostile_victim_end: u8;
    }

    /// Copies the code to where it runs, and makes each real-mode trap lead to the victim's beginning.
    pub fn install() {
        let copy = |from: *const u8, end: *const u8, to: u64| {
            // SAFETY: bytes of the program, and pages that nobody else uses.
            unsafe { core::ptr::copy_nonoverlapping(from, physical(to) as *mut u8, end as usize - from as usize) };
        };
        copy(&raw const hostile_modes, &raw const hostile_modes_end, CODE);
        copy(&raw const hostile_victim, &raw const hostile_victim_end, VICTIM);
        for (at, table) in [(WORDS + 24, &raw const hostile_table_16), (WORDS + 32, &raw const hostile_table_32)] {
            store(physical(at), CODE + (table as u64 - (&raw const hostile_modes) as u64));
        }
        store(physical(WORDS + 56), VECTORS_32 << 16 | 2047);
        store(physical(WORDS + 64), VECTORS_16 << 16 | 1023);
        store(physical(VICTIM + VICTIM_IDT), VICTIM_VECTORS << 16 | 1023);
        let fault = |symbol: *const u8| CODE + (symbol as u64 - (&raw const hostile_modes) as u64);
        let [real, protected] = [fault(&raw const hostile_fault_16), fault(&raw const hostile_fault_32)];
        for vector in 0..256u64 {
            // An interrupt gate of 32 bits.
            store(physical(VECTORS_32 + vector * 8), protected & 0xffff | 0x18 << 16 | 0x8e00 << 32);
            // A segment, and an offset there.
            for (table, to) in [(VICTIM_VECTORS, VICTIM << 12), (VECTORS_16, real)] {
                // SAFETY: memory that nobody else uses.
                unsafe { (physical(table + vector * 4) as *mut u32).write_volatile(to as u32) };
            }
        }
    }

    /// Goes there and back on page tables that have the code where it runs.
    pub fn visit(root: u64, depth: u32) {
        // SAFETY: the code comes back with its stack, or ends in a trap; what it may change is named or kept here.
        unsafe {
            asm!("push rbx", "push rbp", "mov cr3, {root}", "call {code}", "pop rbp", "pop rbx",
                root = in(reg) root, code = in(reg) CODE, in("edi") depth, clobber_abi("sysv64"),
                lateout("r12") _, lateout("r13") _, lateout("r14") _, lateout("r15") _);
        }
    }
}

#[cfg(not(target_os = "none"))]
mod metal {
    pub fn install() {}
    pub fn visit(_root: u64, _depth: u32) {}
}

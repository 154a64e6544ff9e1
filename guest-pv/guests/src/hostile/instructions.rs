//! Random instructions: privileged ones, traps, stores to page tables, segment loads, and bytes that are no instructions
//! at all.
//!
//! Unsafe: bytes are run as code, with whatever in the registers.
#![allow(clippy::cast_possible_truncation, clippy::cast_lossless)] // Numbers are cut to size on purpose.

use super::Hostile;
use crate::{store, trap_of};
use core::arch::asm;
use guest_pv::{Mode, mode};

const MOV_TO_CR8: &[u8] = b"\x44\x0f\x22\xc0";
const MOV_TO_DR7: &[u8] = b"\x0f\x23\xf8";

/// What ends QEMU 7.2 itself when a container does it: a write to CR8 while an interrupt waits for it, and breakpoints:
/// VMRUN loads DR7 behind the back of what it keeps of them, and in the end it looks for a debugger that there is not.
const HARMS_THE_EMULATOR: [&[u8]; 2] = [MOV_TO_CR8, MOV_TO_DR7];

/// What succeeds in a container and does not let it live for long: mov cr0, mov cr4 (bits of them are changed elsewhere), and
/// hlt, which is for ever when the other vCPUs do the same.
const HARMS_ITSELF: [&[u8]; 3] = [b"\x0f\x22\xc0", b"\x0f\x22\xe0", b"\xf4"];

/// Instructions with registers as operands; rax, rcx, rdx, rsi, rdi hold random words. The byte `0xnn` after an `N` is
/// random.
const TEMPLATES: [&[u8]; 64] = [
    b"\x0f\x30",                     // wrmsr
    b"\x0f\x32",                     // rdmsr
    b"\x0f\xa2",                     // cpuid
    b"\x0f\x0b\x78\x65\x6e\x0f\xa2", // cpuid, forced emulation
    b"\x0f\x0b",                     // ud2
    b"\x0f\x20\xc0",                 // mov rax, cr0
    b"\x0f\x22\xc0",                 // mov cr0, rax
    b"\x0f\x20\xd0",                 // mov rax, cr2
    b"\x0f\x22\xd0",                 // mov cr2, rax
    b"\x0f\x20\xe0",                 // mov rax, cr4
    b"\x0f\x22\xe0",                 // mov cr4, rax
    MOV_TO_CR8,
    b"\x0f\x21\xf8", // mov rax, dr7
    b"\x0f\x23\xc0", // mov dr0, rax
    b"\x0f\x23\xf0", // mov dr6, rax
    MOV_TO_DR7,
    b"\xec",                     // in al, dx
    b"\xed",                     // in eax, dx
    b"\xee",                     // out dx, al
    b"\x6c",                     // ins
    b"\x6f",                     // outs
    b"\xf3\x6d",                 // rep ins
    b"\xf4",                     // hlt
    b"\xfa",                     // cli
    b"\xfb",                     // sti
    b"\x0f\x06",                 // clts
    b"\x0f\x09",                 // wbinvd
    b"\x0f\x08",                 // invd
    b"\x0f\x01\xd0",             // xgetbv
    b"\x0f\x01\xd1",             // xsetbv
    b"\x0f\x01\xd8",             // vmrun
    b"\x0f\x01\xd9",             // vmmcall
    b"\x0f\x01\xc1",             // vmcall
    b"\x0f\x01\xf8",             // swapgs
    b"\x0f\x01\xf9",             // rdtscp
    b"\x0f\x01\x3f",             // invlpg [rdi]
    b"\x0f\x01\x17",             // lgdt [rdi]
    b"\x0f\x01\x1f",             // lidt [rdi]
    b"\x0f\x01\xf0",             // lmsw ax
    b"\x0f\x00\xd0",             // lldt ax
    b"\x8e\xd8",                 // mov ds, eax
    b"\x8e\xc0",                 // mov es, eax
    b"\x8e\xe0",                 // mov fs, eax
    b"\x8e\xe8",                 // mov gs, eax
    b"\x8e\xd0",                 // mov ss, eax
    b"\x50\x9d",                 // push rax; popf
    b"\x0f\x34",                 // sysenter
    b"\x0f\x07",                 // sysret
    b"\xcc",                     // int3
    b"\xf1",                     // int1
    b"\x0f\xc7\x3f",             // vmptrst [rdi]
    b"\x48\x0f\xae\x0f",         // fxrstor [rdi]
    b"\x48\x0f\xae\x2f",         // xrstor [rdi]
    b"\x0f\xae\x17",             // ldmxcsr [rdi]
    b"\x48\x89\x07",             // mov [rdi], rax
    b"\x89\x07",                 // mov [rdi], eax
    b"\x66\x89\x07",             // mov [rdi], ax
    b"\x88\x07",                 // mov [rdi], al
    b"\x48\x87\x07",             // xchg [rdi], rax
    b"\xf0\x48\x0f\xb1\x37",     // lock cmpxchg [rdi], rsi
    b"\xf0\x48\x0f\xba\x2f\x01", // lock bts [rdi], 1
    b"\xf0\x48\x0f\xc7\x0f",     // lock cmpxchg16b [rdi]
    b"\x48\xab",                 // stosq
    // mov ax, 8; ltr ax: of selector 0 QEMU makes a TR by which it ends at the next exception in ring 3.
    b"\x66\xb8\x08\x00\x0f\x00\xd8",
];

impl Hostile {
    /// Executes one instruction.
    pub fn instruction(&mut self) {
        match self.chance.below(8) {
            // int n
            0 => {
                let vector = self.chance.any() as u8;
                self.execute(&[0xcd, vector]);
            }
            // A store of an entry, most of all into a page table.
            1..4 => {
                let (address, entry) = (self.address() & !7, self.entry());
                let _ = trap_of(|| store(address, entry));
            }
            _ => {
                let template = self.chance.one(&TEMPLATES);
                let harms = mode() == Mode::Pvh && HARMS_ITSELF.contains(&template);
                let harms_the_emulator = mode() == Mode::Pvh && HARMS_THE_EMULATOR.contains(&template);
                if !harms_the_emulator && (!harms || self.chance.rarely(if template == b"\xf4" { 20 } else { 2000 })) {
                    self.execute(template);
                }
            }
        }
    }

    /// Executes what may be no instruction, or several.
    pub fn anything(&mut self) {
        let bytes = (self.chance.any() as u128) << 64 | self.chance.any() as u128;
        let length = 1 + self.chance.below(8) as usize;
        self.execute(&bytes.to_le_bytes()[..length]);
    }

    /// Runs bytes of code with random registers; what comes of it ends there.
    fn execute(&mut self, code: &[u8]) {
        // Should the bytes swallow the return, they run into traps.
        let bytes = self.code.bytes_mut();
        bytes[..64].fill(0xcc);
        bytes[..code.len()].copy_from_slice(code);
        bytes[code.len()] = 0xc3;
        let entry = self.code.address();
        if mode() == Mode::Pvh {
            let mut values = self.values();
            let [_, rcx, ..] = &mut values;
            *rcx = if matches!(code, [0x0f, 0x30 | 0x32, ..]) { self.half() } else { self.chance.below(16) };
            return self.run_wild(entry, &values);
        }
        let (rax, rcx, rdx) = (self.word(), self.half(), self.word());
        let (rsi, rdi) = (self.word(), self.address());
        // What counts in rcx must not count far.
        let rcx = if matches!(code, [0x0f, 0x30 | 0x32, ..]) { rcx } else { self.chance.below(16) };
        // SAFETY: this guest answers for nothing; all registers that a called function may change are named.
        let _ = trap_of(|| unsafe {
            asm!("call {entry}", "push 2", "popf", entry = in(reg) entry, inlateout("rax") rax => _, inlateout("rcx") rcx => _,
                inlateout("rdx") rdx => _, inlateout("rsi") rsi => _, inlateout("rdi") rdi => _,
                clobber_abi("sysv64"));
        });
    }
}

//! Random deeds of a guest in a hardware container: registers of all kinds, ports, CPUID, its local APIC as memory and as
//! MSRs, page tables that lead anywhere.
//!
//! Unsafe: a kernel's own instructions, with whatever as operands.
#![allow(clippy::cast_possible_truncation)] // Numbers are cut to size on purpose.

use super::{DEEDS, Hostile};
use crate::cpu::{rdmsr, wrmsr};
use crate::{load, store, trap_of};
use core::arch::asm;
use core::arch::x86_64::__cpuid_count;
use core::sync::atomic::Ordering;
use guest_pv::mem::{DIRECT_MAP, table};

/// Where registers lie close together: the first, and how many.
const MSRS: [(u32, u64); 22] = [
    (0, 0x20),
    (0x1b, 1),
    (0x3a, 2),
    (0x48, 2),
    (0x79, 0x13),
    (0xc1, 8),
    (0x10a, 2),
    (0x174, 3),
    (0x179, 0x20),
    (0x1a0, 1),
    (0x1d9, 4),
    (0x200, 16),
    (0x250, 0x30),
    (0x2ff, 1),
    (0x38d, 4),
    (0x400, 0x20),
    (0x480, 0x12),
    (0x6e0, 1),
    (0x800, 0x40),
    (0x4000_0000, 0x100),
    (0xc000_0080, 0x90),
    (0xc001_0000, 0x150),
];

/// Registers of the local APIC, by their places in its page: the first, and how many.
const APIC: [(u64, u64); 8] = [(2, 2), (8, 7), (15, 1), (16, 24), (0x28, 8), (0x30, 2), (0x32, 7), (0x3e, 1)];
/// One access to a port in so many is by a string.
pub const STRINGS: u64 = 20;
/// Bits of CR0 that QEMU's processor lets 64-bit code change, and no other does: paging, protection, NW without CD. The guest
/// would not go on, or the container would not be entered.
const NOT_CR0: u64 = 1 << 31 | 1 << 29 | 1;
/// Of CR4 the same: 64-bit entries of page tables.
const NOT_CR4: u64 = 1 << 5;
const APIC_PAGE: u64 = 0xfee0_0000;
/// The command register: it must not stop the vCPUs that all this runs on.
const COMMAND: u64 = 0x30;
const INIT: u64 = 5 << 8;
const NMI: u64 = 4 << 8;

/// The processor's registers as the runtime keeps them.
#[derive(Clone, Copy)]
pub struct Registers {
    cr0: u64,
    cr4: u64,
    efer: u64,
}

impl Registers {
    /// Those in force.
    pub fn now() -> Self {
        let (cr0, cr4): (u64, u64);
        // SAFETY: reads registers.
        unsafe { asm!("mov {}, cr0", "mov {}, cr4", out(reg) cr0, out(reg) cr4) };
        Self { cr0, cr4, efer: rdmsr(0xc000_0080).unwrap_or(0xd01) }
    }

    /// Puts them back.
    pub fn restore(self) {
        let root = table::root().0 << 12;
        // SAFETY: they were in force before.
        unsafe {
            asm!("mov cr0, {}", "mov cr4, {}", "mov cr3, {}", "mov dr7, {}",
                in(reg) self.cr0, in(reg) self.cr4, in(reg) root, in(reg) 0x400u64);
        }
        wrmsr(0xc000_0080, self.efer);
    }
}

/// Bits of CR4 that CPUID offers, of those that matter.
fn cr4_offered() -> u64 {
    let (first, seventh) = (__cpuid_count(1, 0), __cpuid_count(7, 0));
    let offered = |word: u32, bit: u32, in_cr4: u32| u64::from(word >> bit & 1) << in_cr4;
    0x7df
        | offered(seventh.ecx, 2, 11)
        | offered(seventh.ebx, 0, 16)
        | offered(first.ecx, 17, 17)
        | offered(seventh.ebx, 7, 20)
        | offered(seventh.ebx, 20, 21)
}

impl Hostile {
    /// Does something that leaves the container, or ought to.
    pub fn deed(&mut self) {
        DEEDS.fetch_add(1, Ordering::Relaxed);
        match self.chance.below(100) {
            0..22 => self.register(),
            22..30 => self.leaf(),
            30..42 => self.port(),
            42..58 => self.apic(),
            58..76 => self.translation(),
            76..86 => self.control(),
            86..90 => self.nothing_there(),
            90..93 => self.other_mode(),
            _ => self.instruction(),
        }
    }

    fn register(&mut self) {
        let (first, count) = self.chance.one(&MSRS);
        let number = match self.chance.below(16) {
            0 => self.half() as u32,
            _ => first + self.chance.below(count) as u32,
        };
        if self.chance.rarely(2) {
            let _ = rdmsr(number);
            return;
        }
        let now = if self.chance.rarely(2) { rdmsr(number) } else { None };
        let value = match now {
            Some(now) => now ^ 1 << self.chance.below(64),
            None => self.word(),
        };
        if (0x800..0x840).contains(&number) {
            return self.write_apic(u64::from(number & 0x3f), value);
        }
        let _ = wrmsr(number, value);
        // Where hypercalls go by, and what the segments are.
        if (0xc000_0080..=0xc000_0084).contains(&number) {
            self.registers.restore();
            guest_pv::traps::init();
        }
    }

    fn leaf(&mut self) {
        let leaf = match self.chance.below(6) {
            0 => self.half() as u32,
            1 => 0x8000_0000 + self.chance.below(0x22) as u32,
            2 => 0x4000_0000 + self.chance.below(0x110) as u32,
            _ => self.chance.below(0x24) as u32,
        };
        let _ = __cpuid_count(leaf, self.half() as u32);
    }

    fn port(&mut self) {
        let port = match self.chance.below(3) {
            0 => self
                .chance
                .one(&[0x20, 0x21, 0x40, 0x43, 0x60, 0x61, 0x64, 0x70, 0x71, 0x80, 0x92, 0xa1, 0xb2, 0xcf8, 0xcfc]),
            1 => self.chance.one(&[0x3f8, 0x3fd, 0xe9, 0x510, 0x511, 0x600, 0x604, 0xb000, 0xb004, 0xcf9, 0x8900]),
            _ => self.chance.below(1 << 16) as u16,
        };
        let (value, memory, count) = (self.word(), self.address(), self.chance.below(20));
        let kind = if self.chance.rarely(STRINGS) { 6 + self.chance.below(2) } else { self.chance.below(6) };
        let _ = trap_of(|| {
            // SAFETY: nobody has ports, or the guest has itself to blame; stray string accesses end in a trap.
            unsafe {
                match kind {
                    0 => asm!("in al, dx", in("dx") port, inout("rax") value => _),
                    1 => asm!("in ax, dx", in("dx") port, inout("rax") value => _),
                    2 => asm!("in eax, dx", in("dx") port, inout("rax") value => _),
                    3 => asm!("out dx, al", in("dx") port, in("rax") value),
                    4 => asm!("out dx, ax", in("dx") port, in("rax") value),
                    5 => asm!("out dx, eax", in("dx") port, in("rax") value),
                    6 => asm!("rep insb", in("dx") port, inout("rcx") count => _, inout("rdi") memory => _),
                    _ => asm!("rep outsd", in("dx") port, inout("rcx") count => _, inout("rsi") memory => _),
                }
            }
        });
    }

    fn apic(&mut self) {
        let (first, count) = self.chance.one(&APIC);
        let place = if self.chance.rarely(8) { self.chance.below(256) } else { first + self.chance.below(count) };
        if self.chance.rarely(2) {
            let value = self.word();
            return self.write_apic(place, value);
        }
        let offset = if self.chance.rarely(8) { self.chance.below(16) } else { 0 };
        let address = DIRECT_MAP + APIC_PAGE + (place << 4) + offset;
        let kind = self.chance.below(5);
        let _ = trap_of(|| {
            // SAFETY: the registers of our APIC.
            unsafe {
                match kind {
                    0 => asm!("mov al, [{}]", in(reg) address, out("al") _),
                    1 => asm!("mov ax, [{}]", in(reg) address, out("ax") _),
                    2 => asm!("mov rax, [{}]", in(reg) address, out("rax") _),
                    3 => asm!("or dword ptr [{}], 0", in(reg) address),
                    _ => asm!("mov eax, [{}]", in(reg) address, out("eax") _),
                }
            }
        });
    }

    fn write_apic(&mut self, place: u64, value: u64) {
        let stops = value & 0x700 == INIT || value & 0x700 == NMI && !self.chance.rarely(8);
        let value = if place == COMMAND && stops { value & !0x700 } else { value };
        if self.chance.rarely(4) {
            let _ = wrmsr(0x800 + place as u32, value);
            return;
        }
        let address = DIRECT_MAP + APIC_PAGE + (place << 4);
        // SAFETY: the registers of our APIC.
        let _ = trap_of(|| unsafe { asm!("mov [{}], {:e}", in(reg) address, in(reg) value) });
    }

    /// A frame for a page table to name: its own, one of another use, one that is not there, none that can be.
    fn place(&mut self) -> u64 {
        match self.chance.below(16) {
            0 => APIC_PAGE >> 12,
            1 => 0xf_0000 + self.chance.below(0x1_0000),
            2 => self.chance.below(1 << 20),
            3 => self.chance.any() >> 28,
            _ => self.mfn(),
        }
    }

    /// Page tables of our own making in a free part of the address space, and an access by them.
    fn translation(&mut self) {
        const SLOT: u64 = 400;
        const BASE: u64 = 0xffff_0000_0000_0000 | SLOT << 39;
        let top = self.mfn();
        for _ in 0..1 + self.chance.below(6) {
            let table = &mut self.pool[self.chance.below(48) as usize];
            let at = self.chance.below(4) as usize * 8;
            let address = table.address();
            let (place, odd) = (self.place(), self.chance.any());
            let flags = match self.chance.below(8) {
                0 => odd & 0xfff,
                1 => 0xe3,
                2 => 7,
                _ => 0x67,
            };
            let high = if self.chance.rarely(12) { odd & 0xfff0_0000_0000_0000 } else { 0 };
            let _ = trap_of(|| store(address + at as u64, place << 12 | flags | high));
        }
        let root = DIRECT_MAP + (table::root().0 << 12) + SLOT * 8;
        store(root, top << 12 | 0x67);
        let indices = self.chance.any();
        let part = |shift: u32, to: u64| (indices >> shift & 3) << to;
        let address = BASE | part(0, 30) | part(2, 21) | part(4, 12) | self.chance.below(4090);
        let kind = self.chance.below(8);
        if kind == 7 {
            let values = self.values();
            self.run_wild(address, &values);
        }
        let _ = trap_of(|| {
            // SAFETY: the tables belong to nobody else; what they lead to is this guest's, or nothing.
            unsafe {
                match kind {
                    0..3 => _ = load(address),
                    3 => store(address, indices),
                    4 => asm!("lock add qword ptr [{}], 1", in(reg) address),
                    5 => {
                        asm!("rep movsb", in("rsi") address, in("rdi") self.buffers[1].address(), inout("rcx") 64u64 => _)
                    }
                    6 => asm!("invlpg [{}]", in(reg) address),
                    _ => {}
                }
            }
        });
        store(root, 0);
        // SAFETY: the root as it was.
        unsafe { asm!("mov {0}, cr3", "mov cr3, {0}", out(reg) _) };
    }

    fn control(&mut self) {
        let (now, bit, word) = (self.registers, 1 << self.chance.below(40), self.word());
        let root = table::root().0 << 12;
        let kind = self.chance.below(9);
        let _ = trap_of(|| {
            // SAFETY: what faults ends here, and the rest is put back below.
            unsafe {
                match kind {
                    0 => asm!("mov cr0, {}", in(reg) now.cr0 ^ (bit & 0xffff_ffff & !NOT_CR0)),
                    // With a reserved bit it leaves the container for good.
                    1 => asm!("mov cr4, {}", in(reg) now.cr4 ^ (bit & cr4_offered() & !NOT_CR4)),
                    2 => asm!("mov cr3, {}", in(reg) root | word & 0x18),
                    3 => asm!("mov {}, cr8", out(reg) _),
                    4 => asm!("mov cr2, {}", in(reg) word),
                    // No breakpoint is switched on: see `HARMS_THE_EMULATOR`.
                    5 => asm!("mov dr0, {0}", "mov dr7, {1}", in(reg) word, in(reg) word & 0x2300),
                    6 => asm!("mov dr6, {}", in(reg) word),
                    7 => asm!("xsetbv", in("ecx") word & 1, in("eax") word as u32, in("edx") 0),
                    _ => asm!("lmsw ax", in("ax") word as u16 | 1),
                }
            }
        });
        now.restore();
        // Without these, what the compiler makes of this does not run.
        let _ = crate::cpu::xsetbv(0, 7);
        let _ = crate::cpu::xsetbv(0, 3);
    }

    /// An access where no memory is: by instructions of all kinds.
    fn nothing_there(&mut self) {
        let address = DIRECT_MAP + 0xf000_0000 + self.chance.below(1 << 24);
        let (kind, word) = (self.chance.below(8), self.word());
        let _ = trap_of(|| {
            // SAFETY: nobody answers there.
            unsafe {
                match kind {
                    0 => _ = load(address),
                    1 => store(address, word),
                    2 => asm!("mov al, [{}]", in(reg) address, out("al") _),
                    3 => asm!("mov word ptr [{}], 7", in(reg) address),
                    4 if word & 31 == 0 => asm!("movdqu xmm0, [{}]", in(reg) address, out("xmm0") _),
                    5 if word & 31 == 0 => asm!("xchg [{}], {}", in(reg) address, inout(reg) word => _),
                    6 if word & 31 == 0 => asm!("fxsave64 [{}]", in(reg) address & !15),
                    _ => asm!("movzx eax, byte ptr [{}]", in(reg) address, out("eax") _),
                }
            }
        });
    }
}

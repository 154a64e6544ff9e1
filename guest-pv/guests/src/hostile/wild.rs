//! Code that nobody knows, run so that it seldom ends the guest: on a stack of its own, and what it leaves of the descriptor
//! tables' registers is put right before the trap that it ends with in every case.
//!
//! Unsafe: bytes are run as code, with whatever in the registers.

use super::Hostile;

/// General registers: rax, rcx, rdx, rbx, rbp, rsi, rdi, r8 to r15.
pub type Values = [u64; 15];

impl Hostile {
    /// Registers by chance; what serves as an address leads to memory that is there to be spoiled, or nowhere.
    pub fn values(&mut self) -> Values {
        let mut values = [0; 15];
        for value in &mut values {
            *value = match self.chance.below(4) {
                0 => self.word(),
                1 => 1 << 63,
                2 => self.buffers[1].address() + self.chance.below(4000),
                _ => self.address(),
            };
        }
        values
    }

    /// Runs what is at an address. It ends by a trap, whatever happens.
    pub fn run_wild(&mut self, entry: u64, values: &Values) {
        let stack = self.stack.address() + 4096 - 128;
        let _ = crate::trap_of(|| metal::run(entry, stack, values));
        // All that it may have changed, and that the next deed needs.
        self.registers.restore();
        guest_pv::traps::init();
    }
}

/// Notes the descriptor tables of the vCPU that runs this: they are what is put back.
pub fn init() {
    metal::note_tables();
}

#[cfg(target_os = "none")]
mod metal {
    use super::Values;
    use core::arch::{asm, global_asm};
    use guest_pv::smp;

    global_asm!(
        ".pushsection .text.wild, \"ax\", @progbits",
        // rdi: the code, rsi: its stack, rdx: its registers, rcx: where to go behind it.
        "hostile_wild:",
        "mov rsp, rsi",
        "push rcx",
        "push rdi",
        "mov rax, [rdx]",
        "mov rcx, [rdx + 8]",
        "mov rbx, [rdx + 24]",
        "mov rbp, [rdx + 32]",
        "mov rsi, [rdx + 40]",
        "mov rdi, [rdx + 48]",
        "mov r8, [rdx + 56]",
        "mov r9, [rdx + 64]",
        "mov r10, [rdx + 72]",
        "mov r11, [rdx + 80]",
        "mov r12, [rdx + 88]",
        "mov r13, [rdx + 96]",
        "mov r14, [rdx + 104]",
        "mov r15, [rdx + 112]",
        "mov rdx, [rdx + 16]",
        "ret",
        // One end for each vCPU: no register can be relied on to find its tables by.
        ".balign 32",
        "hostile_wild_ends:",
        ".set hostile_vcpu, 0",
        ".rept {vcpus}",
        ".balign 32",
        "lgdt [rip + hostile_tables + 32 * hostile_vcpu]",
        "lidt [rip + hostile_tables + 32 * hostile_vcpu + 16]",
        "ud2",
        ".set hostile_vcpu, hostile_vcpu + 1",
        ".endr",
        ".popsection",
        ".pushsection .bss.wild, \"aw\", @nobits",
        ".balign 32",
        "hostile_tables: .skip 32 * {vcpus}",
        ".popsection",
        vcpus = const smp::MAX,
    );

    unsafe extern "C" {
        static hostile_wild: u8;
        static hostile_wild_ends: u8;
        static mut hostile_tables: u8;
    }

    pub fn note_tables() {
        let to = (&raw mut hostile_tables) as u64 + 32 * smp::index() as u64;
        // SAFETY: this vCPU's part of what is there for that.
        unsafe { asm!("sgdt [{0}]", "sidt [{0} + 16]", in(reg) to, options(nostack, preserves_flags)) };
    }

    pub fn run(entry: u64, stack: u64, values: &Values) {
        let end = (&raw const hostile_wild_ends) as u64 + 32 * smp::index() as u64;
        // SAFETY: it never comes back here: a trap ends the function that calls this.
        unsafe {
            asm!("jmp {wild}", wild = in(reg) &raw const hostile_wild, in("rdi") entry, in("rsi") stack,
                in("rdx") values.as_ptr(), in("rcx") end, options(noreturn));
        }
    }
}

#[cfg(not(target_os = "none"))]
mod metal {
    pub fn note_tables() {}
    pub fn run(_entry: u64, _stack: u64, _values: &super::Values) {}
}

//! The registers of a guest as the entry code saves them: one frame at the top of the CPU's stack.
//!
//! The order is that of `struct cpu_user_regs` (Xen public header `arch-x86/xen-x86_64.h`) up to `ss`; the data
//! segment selectors are not part of the frame, they are switched with the vCPU.

/// General registers and the interrupt frame of a guest.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the registers are named after themselves")]
pub struct GuestRegs {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    /// What the CPU pushed, or 0 for vectors without an error code.
    pub error_code: u32,
    /// The vector, or an `EntryKind` above 255 for `syscall` and `sysenter`.
    pub entry_vector: u32,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

impl GuestRegs {
    /// The six hypercall arguments in the order of the 64-bit convention: rdi rsi rdx r10 r8 r9.
    #[must_use]
    pub const fn hypercall_args(&self) -> [u64; 6] {
        [self.rdi, self.rsi, self.rdx, self.r10, self.r8, self.r9]
    }

    /// Writes the six hypercall arguments back, as a continuation does.
    pub const fn set_hypercall_args(&mut self, args: [u64; 6]) {
        [self.rdi, self.rsi, self.rdx, self.r10, self.r8, self.r9] = args;
    }
}

//! The register frame of a guest, as the entry path leaves it on the stack and as a vCPU keeps it when it does not run.
//!
//! The order is that of `struct cpu_user_regs` (Xen header `arch-x86/xen-x86_64.h`) without the data segments, which the
//! entry path does not save: they stay in the CPU and belong to the vCPU's own state.

/// Bits of RFLAGS (SDM vol. 1, 3.4.3).
pub mod rflags {
    /// Carry.
    pub const CF: u64 = 1 << 0;
    /// Trap flag: single step.
    pub const TF: u64 = 1 << 8;
    /// Interrupt enable.
    pub const IF: u64 = 1 << 9;
    /// Direction.
    pub const DF: u64 = 1 << 10;
    /// I/O privilege level, two bits.
    pub const IOPL: u64 = 3 << 12;
    /// Nested task.
    pub const NT: u64 = 1 << 14;
    /// Resume: suppresses instruction breakpoints once.
    pub const RF: u64 = 1 << 16;
    /// Virtual 8086 mode.
    pub const VM: u64 = 1 << 17;
    /// Alignment check, and SMAP's override in ring 0.
    pub const AC: u64 = 1 << 18;
    /// Bit 1 always reads as one.
    pub const FIXED: u64 = 1 << 1;
}

/// Segment selectors of the hypervisor's part of every GDT (`FLAT_*` of Xen header `arch-x86/xen-x86_64.h`).
pub mod selector {
    /// First GDT index that belongs to the hypervisor.
    pub const FIRST_RESERVED_ENTRY: u16 = 7168;
    /// Hypervisor code.
    pub const HYPERVISOR_CS: u16 = 0xe008;
    /// Hypervisor data.
    pub const HYPERVISOR_DS: u16 = 0xe010;
    /// Compatibility-mode code of ring 3.
    pub const FLAT_RING3_CS32: u16 = 0xe023;
    /// Flat data and stack of ring 3.
    pub const FLAT_RING3_SS: u16 = 0xe02b;
    /// 64-bit code of ring 3: guest kernels and their user space alike.
    pub const FLAT_RING3_CS64: u16 = 0xe033;
}

/// Vector number kept in the frame of an entry by SYSCALL or SYSENTER, which have no vector of their own. The exit path
/// may use SYSRET only while this bit is set (RCX and R11 are lost by it).
pub const TRAP_SYSCALL: u32 = 256;

/// General registers and the interrupt frame of a guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
#[allow(missing_docs)]
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
    /// Error code of the exception, or 0.
    pub error_code: u32,
    /// Vector of the exception or interrupt, or [`TRAP_SYSCALL`].
    pub entry_vector: u32,
    pub rip: u64,
    /// Selector in the low 16 bits; the rest is ignored on the way out.
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    /// Selector in the low 16 bits; the rest is ignored on the way out.
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

    /// Whether the frame was saved by an entry from ring 3, that is by a guest.
    #[must_use]
    pub const fn from_guest(&self) -> bool {
        self.cs & 3 != 0
    }
}

const _: () = assert!(size_of::<GuestRegs>() == 21 * 8);

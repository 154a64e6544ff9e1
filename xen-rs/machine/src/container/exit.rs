//! Why a guest left its container, and what it is given on the way back in.

/// An access to guest-physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Data is read, or the guest's own page tables.
    Read,
    /// Data is written, or bits of the guest's own page tables.
    Write,
    /// An instruction is fetched.
    Execute,
}

/// An access to an I/O port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortAccess {
    /// The first port.
    pub port: u16,
    /// 1, 2 or 4.
    pub bytes: u8,
    /// `in`, else `out`.
    pub reads: bool,
    /// `ins` and `outs`.
    pub string: bool,
    /// With a `rep` prefix.
    pub repeated: bool,
    /// The instruction pointer behind the instruction.
    pub next: u64,
}

/// Why the guest stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// An interrupt of the machine waits for this CPU.
    Interrupt,
    /// An NMI of the machine: it has been taken.
    Nmi,
    /// It has written a register of its local APIC, as an MSR, and is behind that instruction: the hardware, which serves its
    /// interrupts, knows no more of it than that it is this value now.
    ApicWritten {
        /// The MSR.
        number: u32,
        /// The value.
        value: u32,
    },
    /// `cpuid`.
    Cpuid,
    /// `hlt`.
    Hlt,
    /// `vmcall` or `vmmcall`.
    Hypercall,
    /// `rdmsr`, or `wrmsr`.
    Msr {
        /// `wrmsr`.
        writes: bool,
    },
    /// `rdtsc`, or `rdtscp`.
    ReadTsc {
        /// `rdtscp`.
        with_aux: bool,
    },
    /// An I/O instruction.
    Port(PortAccess),
    /// The nested tables do not allow an access.
    NestedFault {
        /// The guest-physical address.
        address: u64,
        /// What was tried.
        access: Access,
    },
    /// A debug register is used whose values are not in the CPU: they are now, the instruction is to be executed again.
    Debug,
    /// `xsetbv`.
    Xsetbv,
    /// The guest can take an interrupt now.
    Window,
    /// The guest's handler of an NMI has returned.
    NmiWindow,
    /// It returns by the instruction that comes next.
    NmiReturn,
    /// An exception that the hypervisor wants to see.
    Exception {
        /// Its vector.
        vector: u8,
        /// Its error code, 0 where it has none.
        error: u32,
    },
    /// `int1`, which is to be #DB behind it.
    Int1,
    /// `wbinvd` or `invd`.
    CacheFlush,
    /// An instruction that this virtual CPU does not have.
    Undefined,
    /// An instruction that its privilege or its operands forbid.
    Forbidden,
    /// A task switch.
    Task,
    /// A triple fault.
    Shutdown,
    /// The state could not be entered, or the hardware says something that is not known; the number is the hardware's.
    Refused(u64),
}

/// What kind of event is injected (its numbers are the hardware's, of both vendors).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EventKind {
    /// An interrupt.
    Interrupt = 0,
    /// An NMI.
    Nmi = 2,
    /// An exception.
    Exception = 3,
}

/// An interrupt, NMI or exception to be delivered through the guest's IDT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What it is.
    pub kind: EventKind,
    /// Its vector.
    pub vector: u8,
    /// Its error code, if it has one.
    pub error: Option<u32>,
}

impl Event {
    /// An interrupt.
    #[must_use]
    pub const fn interrupt(vector: u8) -> Self {
        Event { kind: EventKind::Interrupt, vector, error: None }
    }

    /// An exception without an error code.
    #[must_use]
    pub const fn exception(vector: u8) -> Self {
        Event { kind: EventKind::Exception, vector, error: None }
    }

    /// A general protection fault.
    #[must_use]
    pub const fn general_protection() -> Self {
        Event { kind: EventKind::Exception, vector: 13, error: Some(0) }
    }
}

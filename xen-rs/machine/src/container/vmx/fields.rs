//! The fields of the VMCS that are used (SDM vol. 3D, appendix B), and the controls that are set in it (vol. 3C, 25.6 to 25.8).

/// A field, by its encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field(pub u32);

macro_rules! fields {
    ($($name:ident = $number:literal;)*) => {
        #[allow(missing_docs)]
        impl Field {
            $(pub(super) const $name: Field = Field($number);)*
        }
    };
}

fields! {
    VPID = 0x0000;
    INTERRUPT_STATUS = 0x0810;
    HOST_ES = 0x0c00;
    HOST_CS = 0x0c02;
    HOST_SS = 0x0c04;
    HOST_DS = 0x0c06;
    HOST_FS = 0x0c08;
    HOST_GS = 0x0c0a;
    HOST_TR = 0x0c0c;
    MSR_BITMAP = 0x2004;
    TSC_OFFSET = 0x2010;
    VIRTUAL_APIC = 0x2012;
    EPT_POINTER = 0x201a;
    EOI_EXITS0 = 0x201c;
    EOI_EXITS1 = 0x201e;
    EOI_EXITS2 = 0x2020;
    EOI_EXITS3 = 0x2022;
    TSC_MULTIPLIER = 0x2032;
    GUEST_PHYSICAL = 0x2400;
    LINK_POINTER = 0x2800;
    GUEST_DEBUGCTL = 0x2802;
    GUEST_PAT = 0x2804;
    GUEST_EFER = 0x2806;
    GUEST_PDPTE0 = 0x280a;
    HOST_PAT = 0x2c00;
    HOST_EFER = 0x2c02;
    PIN_CONTROLS = 0x4000;
    PRIMARY_CONTROLS = 0x4002;
    EXCEPTIONS = 0x4004;
    PAGE_FAULT_MASK = 0x4006;
    PAGE_FAULT_MATCH = 0x4008;
    CR3_TARGETS = 0x400a;
    EXIT_CONTROLS = 0x400c;
    EXIT_MSR_STORES = 0x400e;
    EXIT_MSR_LOADS = 0x4010;
    ENTRY_CONTROLS = 0x4012;
    ENTRY_MSR_LOADS = 0x4014;
    ENTRY_EVENT = 0x4016;
    ENTRY_ERROR = 0x4018;
    TPR_THRESHOLD = 0x401c;
    SECONDARY_CONTROLS = 0x401e;
    INSTRUCTION_ERROR = 0x4400;
    EXIT_REASON = 0x4402;
    EXIT_EVENT = 0x4404;
    EXIT_EVENT_ERROR = 0x4406;
    VECTORING_EVENT = 0x4408;
    VECTORING_ERROR = 0x440a;
    INSTRUCTION_LENGTH = 0x440c;
    GUEST_GDTR_LIMIT = 0x4810;
    GUEST_IDTR_LIMIT = 0x4812;
    INTERRUPTIBILITY = 0x4824;
    ACTIVITY = 0x4826;
    GUEST_SYSENTER_CS = 0x482a;
    PREEMPTION_TIMER = 0x482e;
    HOST_SYSENTER_CS = 0x4c00;
    CR0_MASK = 0x6000;
    CR4_MASK = 0x6002;
    CR0_SHADOW = 0x6004;
    CR4_SHADOW = 0x6006;
    QUALIFICATION = 0x6400;
    GUEST_CR0 = 0x6800;
    GUEST_CR3 = 0x6802;
    GUEST_CR4 = 0x6804;
    GUEST_GDTR_BASE = 0x6816;
    GUEST_IDTR_BASE = 0x6818;
    GUEST_DR7 = 0x681a;
    GUEST_RSP = 0x681c;
    GUEST_RIP = 0x681e;
    GUEST_RFLAGS = 0x6820;
    PENDING_DEBUG = 0x6822;
    GUEST_SYSENTER_ESP = 0x6824;
    GUEST_SYSENTER_EIP = 0x6826;
    HOST_CR0 = 0x6c00;
    HOST_CR3 = 0x6c02;
    HOST_CR4 = 0x6c04;
    HOST_FS_BASE = 0x6c06;
    HOST_GS_BASE = 0x6c08;
    HOST_TR_BASE = 0x6c0a;
    HOST_GDTR_BASE = 0x6c0c;
    HOST_IDTR_BASE = 0x6c0e;
    HOST_SYSENTER_ESP = 0x6c10;
    HOST_SYSENTER_EIP = 0x6c12;
    HOST_RSP = 0x6c14;
    HOST_RIP = 0x6c16;
}

/// The guest's segment registers in the order of their fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Register {
    Es = 0,
    Cs = 1,
    Ss = 2,
    Ds = 3,
    Fs = 4,
    Gs = 5,
    Ldtr = 6,
    Tr = 7,
}

impl Register {
    pub(super) const fn selector(self) -> Field {
        Field(0x0800 + 2 * self as u32)
    }
    pub(super) const fn limit(self) -> Field {
        Field(0x4800 + 2 * self as u32)
    }
    pub(super) const fn rights(self) -> Field {
        Field(0x4814 + 2 * self as u32)
    }
    pub(super) const fn base(self) -> Field {
        Field(0x6806 + 2 * self as u32)
    }
}

/// Pin-based controls.
pub(super) mod pin {
    pub const INTERRUPTS: u32 = 1;
    pub const NMIS: u32 = 1 << 3;
    pub const VIRTUAL_NMIS: u32 = 1 << 5;
    pub const PREEMPTION_TIMER: u32 = 1 << 6;
    pub const POSTED_INTERRUPTS: u32 = 1 << 7;
}

/// Primary processor-based controls.
pub(super) mod primary {
    pub const INTERRUPT_WINDOW: u32 = 1 << 2;
    pub const TSC_OFFSETTING: u32 = 1 << 3;
    pub const HLT: u32 = 1 << 7;
    pub const MWAIT: u32 = 1 << 10;
    pub const RDPMC: u32 = 1 << 11;
    pub const RDTSC: u32 = 1 << 12;
    pub const CR3_LOADS: u32 = 1 << 15;
    pub const CR3_STORES: u32 = 1 << 16;
    pub const CR8_LOADS: u32 = 1 << 19;
    pub const CR8_STORES: u32 = 1 << 20;
    pub const TPR_SHADOW: u32 = 1 << 21;
    pub const NMI_WINDOW: u32 = 1 << 22;
    pub const DEBUG_REGISTERS: u32 = 1 << 23;
    pub const PORTS: u32 = 1 << 24;
    pub const MSR_BITMAP: u32 = 1 << 28;
    pub const MONITOR: u32 = 1 << 29;
    pub const SECONDARY: u32 = 1 << 31;
}

/// Secondary processor-based controls.
pub(super) mod secondary {
    pub const APIC_ACCESSES: u32 = 1;
    pub const EPT: u32 = 1 << 1;
    pub const RDTSCP: u32 = 1 << 3;
    pub const X2APIC: u32 = 1 << 4;
    pub const VPID: u32 = 1 << 5;
    pub const WBINVD: u32 = 1 << 6;
    pub const UNRESTRICTED: u32 = 1 << 7;
    pub const APIC_REGISTERS: u32 = 1 << 8;
    pub const VIRTUAL_INTERRUPTS: u32 = 1 << 9;
    pub const PAUSE_LOOP: u32 = 1 << 10;
    pub const INVPCID: u32 = 1 << 12;
    pub const VM_FUNCTIONS: u32 = 1 << 13;
    pub const VMCS_SHADOWING: u32 = 1 << 14;
    pub const PML: u32 = 1 << 17;
    pub const VIRTUALIZATION_EXCEPTIONS: u32 = 1 << 18;
    pub const TSC_SCALING: u32 = 1 << 25;
}

/// VM-exit controls.
pub(super) mod exit {
    pub const SAVE_DEBUG: u32 = 1 << 2;
    pub const HOST_64: u32 = 1 << 9;
    pub const LOAD_PAT: u32 = 1 << 19;
    pub const SAVE_EFER: u32 = 1 << 20;
    pub const LOAD_EFER: u32 = 1 << 21;
    pub const SAVE_PREEMPTION_TIMER: u32 = 1 << 22;
}

/// VM-entry controls.
pub(super) mod entry {
    pub const LOAD_DEBUG: u32 = 1 << 2;
    pub const LONG_MODE: u32 = 1 << 9;
    pub const LOAD_PAT: u32 = 1 << 14;
    pub const LOAD_EFER: u32 = 1 << 15;
}

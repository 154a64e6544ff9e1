//! The state of a virtual CPU beside its general registers, in one form for both vendors.

/// Attributes of segments in the packed form of `struct hvm_hw_cpu` (and of AMD's VMCB, APM vol. 2, 15.5.1): the type in
/// bits 3:0, S, DPL, P, then AVL, L, D/B, G from bit 8 on.
pub mod attributes {
    /// 64-bit code, present, accessed.
    pub const CODE64: u16 = 0xa9b;
    /// 32-bit flat code, present, accessed.
    pub const CODE32: u16 = 0xc9b;
    /// 32-bit flat data, present, accessed, writable.
    pub const DATA32: u16 = 0xc93;
    /// 16-bit code and data, as after INIT.
    pub const CODE16: u16 = 0x09b;
    /// See `CODE16`.
    pub const DATA16: u16 = 0x093;
    /// A busy 32-bit or 64-bit task state segment.
    pub const TSS: u16 = 0x08b;
    /// A local descriptor table.
    pub const LDT: u16 = 0x082;
    /// Present.
    pub const PRESENT: u16 = 0x080;
    /// 64-bit code.
    pub const LONG: u16 = 0x200;
    /// Default operand size 32 bits.
    pub const BIG: u16 = 0x400;
}

/// Of DR7: a breakpoint is on, so DR0 to DR3 count.
pub const BREAKPOINTS: u64 = 0xff;

/// A segment register with what is hidden behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Segment {
    /// The selector.
    pub selector: u16,
    /// [`attributes`]; 0: not usable.
    pub attributes: u16,
    /// The limit in bytes.
    pub limit: u32,
    /// The base.
    pub base: u64,
}

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DescriptorTable {
    /// The limit in bytes.
    pub limit: u32,
    /// The base.
    pub base: u64,
}

/// Everything the container holds of a vCPU; rip, rsp and the flags go with the general registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct CpuState {
    pub cr0: u64,
    pub cr2: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub efer: u64,
    pub cs: Segment,
    pub ss: Segment,
    pub ds: Segment,
    pub es: Segment,
    pub fs: Segment,
    pub gs: Segment,
    pub ldtr: Segment,
    pub tr: Segment,
    pub gdtr: DescriptorTable,
    pub idtr: DescriptorTable,
    pub dr: [u64; 4],
    pub dr6: u64,
    pub dr7: u64,
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub sfmask: u64,
    pub kernel_gs_base: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub pat: u64,
}

impl CpuState {
    /// The state after INIT, but for CS, as SDM vol. 3A, table 9-1 has it.
    #[must_use]
    pub fn after_init() -> Self {
        let data = Segment { selector: 0, attributes: attributes::DATA16, limit: 0xffff, base: 0 };
        Self {
            cr0: 0x6000_0010,
            cs: Segment { selector: 0xf000, attributes: attributes::CODE16, limit: 0xffff, base: 0xffff_0000 },
            ss: data,
            ds: data,
            es: data,
            fs: data,
            gs: data,
            ldtr: Segment { attributes: attributes::LDT, limit: 0xffff, ..Segment::default() },
            tr: Segment { attributes: attributes::TSS, limit: 0xffff, ..Segment::default() },
            gdtr: DescriptorTable { limit: 0xffff, base: 0 },
            idtr: DescriptorTable { limit: 0xffff, base: 0 },
            dr6: 0xffff_0ff0,
            dr7: 0x400,
            pat: 0x0007_0406_0007_0406,
            ..Self::default()
        }
    }
}

//! The x86 part (`arch-x86/xen.h`, `arch-x86/xen-x86_64.h`) and the shared pages built from it (`xen.h`).
//!
//! `SharedInfo` and what lies in it are memory a guest writes at any time: never form a reference to it; address the fields by
//! the offsets below and access them as atomics.

use core::mem::{offset_of, size_of};

use crate::layout::{constants, structures};
pub use crate::trap::TrapInfo;

constants! {
    pub const FLAT_RING3_CS32: u16 = 0xe023;
    pub const FLAT_RING3_CS64: u16 = 0xe033;
    pub const FLAT_RING3_DS32: u16 = 0xe02b;
    pub const FLAT_RING3_DS64: u16 = 0;
    pub const FLAT_RING3_SS32: u16 = 0xe02b;
    pub const FLAT_RING3_SS64: u16 = 0xe02b;
    pub const FLAT_KERNEL_DS64: u16 = FLAT_RING3_DS64;
    pub const FLAT_KERNEL_DS32: u16 = FLAT_RING3_DS32;
    pub const FLAT_KERNEL_DS: u16 = FLAT_RING3_DS64;
    pub const FLAT_KERNEL_CS64: u16 = FLAT_RING3_CS64;
    pub const FLAT_KERNEL_CS32: u16 = FLAT_RING3_CS32;
    pub const FLAT_KERNEL_CS: u16 = FLAT_RING3_CS64;
    pub const FLAT_KERNEL_SS64: u16 = FLAT_RING3_SS64;
    pub const FLAT_KERNEL_SS32: u16 = FLAT_RING3_SS32;
    pub const FLAT_KERNEL_SS: u16 = FLAT_RING3_SS64;
    pub const FLAT_USER_DS64: u16 = FLAT_RING3_DS64;
    pub const FLAT_USER_DS32: u16 = FLAT_RING3_DS32;
    pub const FLAT_USER_DS: u16 = FLAT_RING3_DS64;
    pub const FLAT_USER_CS64: u16 = FLAT_RING3_CS64;
    pub const FLAT_USER_CS32: u16 = FLAT_RING3_CS32;
    pub const FLAT_USER_CS: u16 = FLAT_RING3_CS64;
    pub const FLAT_USER_SS64: u16 = FLAT_RING3_SS64;
    pub const FLAT_USER_SS32: u16 = FLAT_RING3_SS32;
    pub const FLAT_USER_SS: u16 = FLAT_RING3_SS64;

    /// First page of a guest's GDT that is the hypervisor's.
    pub const FIRST_RESERVED_GDT_PAGE: u32 = 14;
    /// Its offset in bytes.
    pub const FIRST_RESERVED_GDT_BYTE: u32 = FIRST_RESERVED_GDT_PAGE * 4096;
    /// Its first descriptor.
    pub const FIRST_RESERVED_GDT_ENTRY: u32 = FIRST_RESERVED_GDT_BYTE / 8;

    /// The hypervisor's part of a PV guest's address space: start, and end (not included).
    pub const HYPERVISOR_VIRT_START: u64 = 0xffff_8000_0000_0000;
    pub const HYPERVISOR_VIRT_END: u64 = 0xffff_8800_0000_0000;
    /// The machine-to-physical table a PV guest can read: start, end (not included), entries of 8 bytes.
    pub const MACH2PHYS_VIRT_START: u64 = 0xffff_8000_0000_0000;
    pub const MACH2PHYS_VIRT_END: u64 = 0xffff_8040_0000_0000;
    pub const MACH2PHYS_NR_ENTRIES: u64 = (MACH2PHYS_VIRT_END - MACH2PHYS_VIRT_START) >> 3;

    /// `set_segment_base`: which base.
    pub const SEGBASE_FS: u32 = 0;
    pub const SEGBASE_GS_USER: u32 = 1;
    pub const SEGBASE_GS_KERNEL: u32 = 2;
    /// The value is a selector for `gs`.
    pub const SEGBASE_GS_USER_SEL: u32 = 3;

    /// [`VcpuGuestContext::flags`]: the FPU image is valid.
    pub const VGCF_I387_VALID: u64 = 1 << 0;
    /// The vCPU is in kernel mode.
    pub const VGCF_IN_KERNEL: u64 = 1 << 2;
    /// The failsafe callback masks events.
    pub const VGCF_FAILSAFE_DISABLES_EVENTS: u64 = 1 << 3;
    /// The syscall callback masks events.
    pub const VGCF_SYSCALL_DISABLES_EVENTS: u64 = 1 << 4;
    /// The vCPU is up.
    pub const VGCF_ONLINE: u64 = 1 << 5;
    /// In the flags of an [`IretContext`]: the frame may be left by `sysret`.
    pub const VGCF_IN_SYSCALL: u64 = 1 << 8;

    /// vCPUs that have their `vcpu_info` in the shared page.
    pub const XEN_LEGACY_MAX_VCPUS: usize = 32;

    /// [`VcpuTimeInfo::flags`]: the TSC counts alike on all CPUs.
    pub const XEN_PVCLOCK_TSC_STABLE_BIT: u8 = 1 << 0;
    /// The guest was stopped by its host.
    pub const XEN_PVCLOCK_GUEST_STOPPED: u8 = 1 << 1;

    /// Port of the HVM debug console.
    pub const XEN_HVM_DEBUGCONS_IOPORT: u16 = 0xe9;
    /// [`CpuidLeaf::subleaf`] of a leaf without any.
    pub const XEN_CPUID_NO_SUBLEAF: u32 = 0xffff_ffff;

    /// [`ArchDomainConfig::emulation_flags`]: device models in the hypervisor.
    pub const XEN_X86_EMU_LAPIC: u32 = 1 << 0;
    pub const XEN_X86_EMU_HPET: u32 = 1 << 1;
    pub const XEN_X86_EMU_PM: u32 = 1 << 2;
    pub const XEN_X86_EMU_RTC: u32 = 1 << 3;
    pub const XEN_X86_EMU_IOAPIC: u32 = 1 << 4;
    pub const XEN_X86_EMU_PIC: u32 = 1 << 5;
    pub const XEN_X86_EMU_VGA: u32 = 1 << 6;
    pub const XEN_X86_EMU_IOMMU: u32 = 1 << 7;
    pub const XEN_X86_EMU_PIT: u32 = 1 << 8;
    pub const XEN_X86_EMU_USE_PIRQ: u32 = 1 << 9;
    pub const XEN_X86_EMU_VPCI: u32 = 1 << 10;
    pub const XEN_X86_EMU_ALL: u32 = 0x7ff;
    /// [`ArchDomainConfig::misc_flags`]: unknown MSRs read as 0.
    pub const XEN_X86_MSR_RELAXED: u32 = 1 << 0;
    pub const XEN_X86_MISC_FLAGS_MAX: u32 = XEN_X86_MSR_RELAXED;
}

/// Bytes before an instruction that ask for Xen's emulation of it: `ud2; .ascii "xen"`.
pub const XEN_EMULATE_PREFIX: [u8; 5] = [0x0f, 0x0b, 0x78, 0x65, 0x6e];

structures! {
    /// What the `iret` hypercall finds on the guest's stack.
    pub struct IretContext = "struct iret_context" {
        pub rax: u64,
        pub r11: u64,
        pub rcx: u64,
        /// [`VGCF_IN_SYSCALL`] or 0.
        pub flags: u64,
        pub rip: u64,
        pub cs: u64,
        pub rflags: u64,
        pub rsp: u64,
        pub ss: u64,
    }
    /// General registers, in the order of the hypervisor's own frame.
    pub struct CpuUserRegs = "struct cpu_user_regs" {
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
        pub error_code: u32,
        pub entry_vector: u32,
        pub rip: u64,
        pub cs: u16,
        pub _pad0: u16,
        /// The event mask of the interrupted code: bit 0 of the byte above `cs` in a PV exception frame.
        pub saved_upcall_mask: u8,
        pub _pad1: [u8; 3],
        pub rflags: u64,
        pub rsp: u64,
        pub ss: u16,
        pub _pad2: [u16; 3],
        pub es: u16,
        pub _pad3: [u16; 3],
        pub ds: u16,
        pub _pad4: [u16; 3],
        pub fs: u16,
        pub _pad5: [u16; 3],
        pub gs: u16,
        pub _pad6: [u16; 3],
    }
    /// A PV vCPU's whole state: `VCPUOP_initialise`, `XEN_DOMCTL_setvcpucontext`.
    pub struct VcpuGuestContext = "struct vcpu_guest_context" {
        /// FXSAVE image.
        pub fpu_ctxt: [u8; 512],
        /// `VGCF_*`.
        pub flags: u64,
        pub user_regs: CpuUserRegs,
        pub trap_ctxt: [TrapInfo; 256],
        /// Virtual address.
        pub ldt_base: u64,
        /// Descriptors.
        pub ldt_ents: u64,
        /// Machine frames.
        pub gdt_frames: [u64; 16],
        /// Descriptors.
        pub gdt_ents: u64,
        pub kernel_ss: u64,
        pub kernel_sp: u64,
        /// CR0..CR7. `[3]` holds the kernel's root frame `<< 12`, `[1]` the user's with bit 0 set when valid.
        pub ctrlreg: [u64; 8],
        pub debugreg: [u64; 8],
        pub event_callback_eip: u64,
        pub failsafe_callback_eip: u64,
        pub syscall_callback_eip: u64,
        /// Bits `1 << VMASST_TYPE_*`.
        pub vm_assist: u64,
        pub fs_base: u64,
        pub gs_base_kernel: u64,
        pub gs_base_user: u64,
    }
    /// The x86 part of the shared page, written by the guest.
    pub struct ArchSharedInfo = "struct arch_shared_info" {
        /// Entries of the P2M.
        pub max_pfn: u64,
        /// Frame of the top of the three-level P2M list; 0 or all ones: none.
        pub pfn_to_mfn_frame_list_list: u64,
        /// `XEN_NMIREASON_*`.
        pub nmi_reason: u64,
        /// Root in which `p2m_vaddr` is valid; 0: none.
        pub p2m_cr3: u64,
        /// Virtual address of the linear P2M.
        pub p2m_vaddr: u64,
        /// Odd while the guest changes the mapping of the list.
        pub p2m_generation: u64,
    }
    /// The x86 part of [`VcpuInfo`].
    pub struct ArchVcpuInfo = "struct arch_vcpu_info" {
        /// Faulting address of the last page fault.
        pub cr2: u64,
        pub pad: u64,
    }
    /// pvclock: system time = `system_time + scale(tsc - tsc_timestamp)`.
    pub struct VcpuTimeInfo = "struct vcpu_time_info" {
        /// Odd while being written.
        pub version: u32,
        pub pad0: u32,
        /// TSC at the last update.
        pub tsc_timestamp: u64,
        /// Nanoseconds since boot at the last update.
        pub system_time: u64,
        /// 32.32 fixed point: ns = `((tsc << tsc_shift) * mul) >> 32`.
        pub tsc_to_system_mul: u32,
        /// Left shift; right when negative.
        pub tsc_shift: i8,
        /// `XEN_PVCLOCK_*`.
        pub flags: u8,
        pub pad1: [u8; 2],
    }
    /// Per-vCPU part of the shared page, or of the page registered by `VCPUOP_register_vcpu_info`. 64 bytes.
    pub struct VcpuInfo = "struct vcpu_info" {
        pub evtchn_upcall_pending: u8,
        pub evtchn_upcall_mask: u8,
        pub _pad: [u8; 6],
        /// Bit n: word n of `evtchn_pending` has work.
        pub evtchn_pending_sel: u64,
        pub arch: ArchVcpuInfo,
        pub time: VcpuTimeInfo,
    }
    /// The shared page.
    pub struct SharedInfo = "struct shared_info" {
        pub vcpu_info: [VcpuInfo; XEN_LEGACY_MAX_VCPUS],
        pub evtchn_pending: [u64; 64],
        pub evtchn_mask: [u64; 64],
        /// Odd while the wall clock is being written.
        pub wc_version: u32,
        /// Unix time of system time 0, seconds, low half.
        pub wc_sec: u32,
        pub wc_nsec: u32,
        pub wc_sec_hi: u32,
        pub arch: ArchSharedInfo,
    }
    /// The x86 part of `XEN_DOMCTL_createdomain`.
    pub struct ArchDomainConfig = "struct xen_arch_domainconfig" {
        /// `XEN_X86_EMU_*`.
        pub emulation_flags: u32,
        /// `XEN_X86_MSR_RELAXED`.
        pub misc_flags: u32,
    }
    /// One CPUID leaf of a policy.
    pub struct CpuidLeaf = "xen_cpuid_leaf_t" {
        pub leaf: u32,
        pub subleaf: u32,
        pub a: u32,
        pub b: u32,
        pub c: u32,
        pub d: u32,
    }
    /// One MSR of a policy.
    pub struct MsrEntry = "xen_msr_entry_t" {
        pub idx: u32,
        /// Zero.
        pub flags: u32,
        pub val: u64,
    }
}

/// Offsets in bytes within the shared page ([`SharedInfo`]).
pub mod shared_info {
    use super::{SharedInfo, VcpuInfo, offset_of, size_of};

    /// Array of 32 [`VcpuInfo`].
    pub const VCPU_INFO: usize = offset_of!(SharedInfo, vcpu_info);
    /// Bytes from one [`VcpuInfo`] to the next.
    pub const VCPU_INFO_STRIDE: usize = size_of::<VcpuInfo>();
    /// 64 words.
    pub const EVTCHN_PENDING: usize = offset_of!(SharedInfo, evtchn_pending);
    /// 64 words.
    pub const EVTCHN_MASK: usize = offset_of!(SharedInfo, evtchn_mask);
    /// u32.
    pub const WC_VERSION: usize = offset_of!(SharedInfo, wc_version);
    /// u32.
    pub const WC_SEC: usize = offset_of!(SharedInfo, wc_sec);
    /// u32.
    pub const WC_NSEC: usize = offset_of!(SharedInfo, wc_nsec);
    /// u32.
    pub const WC_SEC_HI: usize = offset_of!(SharedInfo, wc_sec_hi);
    /// [`super::ArchSharedInfo`].
    pub const ARCH: usize = offset_of!(SharedInfo, arch);
    /// u64.
    pub const ARCH_MAX_PFN: usize = offset_of!(SharedInfo, arch.max_pfn);
    /// u64.
    pub const ARCH_PFN_TO_MFN_FRAME_LIST_LIST: usize = offset_of!(SharedInfo, arch.pfn_to_mfn_frame_list_list);
    /// u64.
    pub const ARCH_NMI_REASON: usize = offset_of!(SharedInfo, arch.nmi_reason);
}

/// Offsets in bytes within one [`VcpuInfo`].
pub mod vcpu_info {
    use super::{VcpuInfo, offset_of};

    /// u8.
    pub const EVTCHN_UPCALL_PENDING: usize = offset_of!(VcpuInfo, evtchn_upcall_pending);
    /// u8.
    pub const EVTCHN_UPCALL_MASK: usize = offset_of!(VcpuInfo, evtchn_upcall_mask);
    /// u64.
    pub const EVTCHN_PENDING_SEL: usize = offset_of!(VcpuInfo, evtchn_pending_sel);
    /// u64.
    pub const ARCH_CR2: usize = offset_of!(VcpuInfo, arch.cr2);
    /// [`super::VcpuTimeInfo`].
    pub const TIME: usize = offset_of!(VcpuInfo, time);
    /// u32.
    pub const TIME_VERSION: usize = offset_of!(VcpuInfo, time.version);
    /// u64.
    pub const TIME_TSC_TIMESTAMP: usize = offset_of!(VcpuInfo, time.tsc_timestamp);
    /// u64.
    pub const TIME_SYSTEM_TIME: usize = offset_of!(VcpuInfo, time.system_time);
    /// u32.
    pub const TIME_TSC_TO_SYSTEM_MUL: usize = offset_of!(VcpuInfo, time.tsc_to_system_mul);
    /// i8.
    pub const TIME_TSC_SHIFT: usize = offset_of!(VcpuInfo, time.tsc_shift);
    /// u8.
    pub const TIME_FLAGS: usize = offset_of!(VcpuInfo, time.flags);
}

//! HVM and PVH guests: `hvm_op` and parameters (`hvm/hvm_op.h`, `hvm/params.h`), PVH start (`arch-x86/hvm/start_info.h`), vCPU
//! contexts (`hvm/hvm_vcpu.h`) and saved state (`hvm/save.h`, `arch-x86/hvm/save.h`).

use crate::ids::{DomId, VcpuId};
use crate::layout::{constants, structures};

constants! {
    pub const HVMOP_SET_PARAM: u32 = 0;
    pub const HVMOP_GET_PARAM: u32 = 1;
    pub const HVMOP_FLUSH_TLBS: u32 = 5;
    pub const HVMOP_PAGETABLE_DYING: u32 = 9;
    pub const HVMOP_GET_TIME: u32 = 10;
    pub const HVMOP_XENTRACE: u32 = 11;
    pub const HVMOP_SET_MEM_ACCESS: u32 = 12;
    pub const HVMOP_GET_MEM_ACCESS: u32 = 13;
    pub const HVMOP_GET_MEM_TYPE: u32 = 15;
    pub const HVMOP_SET_EVTCHN_UPCALL_VECTOR: u32 = 23;
    pub const HVMOP_GUEST_REQUEST_VM_EVENT: u32 = 24;
    pub const HVMOP_ALTP2M: u32 = 25;

    pub const HVM_PARAM_PAE_ENABLED: u32 = 4;
    pub const HVM_PARAM_DM_DOMAIN: u32 = 13;
    pub const HVM_PARAM_MEMORY_EVENT_CR0: u32 = 20;
    pub const HVM_PARAM_MEMORY_EVENT_CR3: u32 = 21;
    pub const HVM_PARAM_MEMORY_EVENT_CR4: u32 = 22;
    pub const HVM_PARAM_MEMORY_EVENT_INT3: u32 = 23;
    pub const HVM_PARAM_NESTEDHVM: u32 = 24;
    pub const HVM_PARAM_MEMORY_EVENT_SINGLE_STEP: u32 = 25;
    pub const HVM_PARAM_BUFIOREQ_EVTCHN: u32 = 26;
    pub const HVM_PARAM_MEMORY_EVENT_MSR: u32 = 30;
    /// How event upcalls arrive: type in bits 63:56 (`HVM_PARAM_CALLBACK_TYPE_*`), vector in bits 7:0.
    pub const HVM_PARAM_CALLBACK_IRQ: u32 = 0;
    pub const HVM_PARAM_CALLBACK_TYPE_GSI: u32 = 0;
    pub const HVM_PARAM_CALLBACK_TYPE_PCI_INTX: u32 = 1;
    pub const HVM_PARAM_CALLBACK_TYPE_VECTOR: u32 = 2;
    /// Frame of the xenstore ring.
    pub const HVM_PARAM_STORE_PFN: u32 = 1;
    /// Its port.
    pub const HVM_PARAM_STORE_EVTCHN: u32 = 2;
    pub const HVM_PARAM_IOREQ_PFN: u32 = 5;
    pub const HVM_PARAM_BUFIOREQ_PFN: u32 = 6;
    pub const HVM_PARAM_VIRIDIAN: u32 = 9;
    /// `HVMPTM_*`.
    pub const HVM_PARAM_TIMER_MODE: u32 = 10;
    pub const HVMPTM_DELAY_FOR_MISSED_TICKS: u32 = 0;
    pub const HVMPTM_NO_DELAY_FOR_MISSED_TICKS: u32 = 1;
    pub const HVMPTM_NO_MISSED_TICKS_PENDING: u32 = 2;
    pub const HVMPTM_ONE_MISSED_TICK_PENDING: u32 = 3;
    pub const HVM_PARAM_HPET_ENABLED: u32 = 11;
    /// Guest-physical address of a one-to-one page directory for guests without paging.
    pub const HVM_PARAM_IDENT_PT: u32 = 12;
    pub const HVM_PARAM_ACPI_S_STATE: u32 = 14;
    pub const HVM_PARAM_VM86_TSS: u32 = 15;
    pub const HVM_PARAM_VPT_ALIGN: u32 = 16;
    /// Frame of the console ring.
    pub const HVM_PARAM_CONSOLE_PFN: u32 = 17;
    /// Its port.
    pub const HVM_PARAM_CONSOLE_EVTCHN: u32 = 18;
    pub const HVM_PARAM_ACPI_IOPORTS_LOCATION: u32 = 19;
    pub const HVM_PARAM_PAGING_RING_PFN: u32 = 27;
    pub const HVM_PARAM_MONITOR_RING_PFN: u32 = 28;
    pub const HVM_PARAM_SHARING_RING_PFN: u32 = 29;
    pub const HVM_PARAM_TRIPLE_FAULT_REASON: u32 = 31;
    pub const HVM_PARAM_IOREQ_SERVER_PFN: u32 = 32;
    pub const HVM_PARAM_NR_IOREQ_SERVER_PAGES: u32 = 33;
    pub const HVM_PARAM_VM_GENERATION_ID_ADDR: u32 = 34;
    pub const HVM_PARAM_ALTP2M: u32 = 35;
    pub const XEN_ALTP2M_DISABLED: u32 = 0;
    pub const XEN_ALTP2M_MIXED: u32 = 1;
    pub const XEN_ALTP2M_EXTERNAL: u32 = 2;
    pub const XEN_ALTP2M_LIMITED: u32 = 3;
    pub const HVM_PARAM_X87_FIP_WIDTH: u32 = 36;
    /// Guest-physical address and size `<< 32` of a TSS for real mode.
    pub const HVM_PARAM_VM86_TSS_SIZED: u32 = 37;
    pub const HVM_PARAM_MCA_CAP: u32 = 38;
    /// One more than the highest parameter.
    pub const HVM_NR_PARAMS: u32 = 39;
    pub const HVM_PARAM_CALLBACK_IRQ_TYPE_MASK: u64 = 0xff00_0000_0000_0000;

    /// [`HvmStartInfo::magic`].
    pub const XEN_HVM_START_MAGIC_VALUE: u32 = 0x336ec578;
    /// [`HvmMemmapTableEntry::type_`].
    pub const XEN_HVM_MEMMAP_TYPE_RAM: u32 = 1;
    pub const XEN_HVM_MEMMAP_TYPE_RESERVED: u32 = 2;
    pub const XEN_HVM_MEMMAP_TYPE_ACPI: u32 = 3;
    pub const XEN_HVM_MEMMAP_TYPE_NVS: u32 = 4;
    pub const XEN_HVM_MEMMAP_TYPE_UNUSABLE: u32 = 5;
    pub const XEN_HVM_MEMMAP_TYPE_DISABLED: u32 = 6;
    pub const XEN_HVM_MEMMAP_TYPE_PMEM: u32 = 7;

    /// [`VcpuHvmContext::mode`].
    pub const VCPU_HVM_MODE_32B: u32 = 0;
    pub const VCPU_HVM_MODE_64B: u32 = 1;

    /// [`HvmSaveHeader::magic`].
    pub const HVM_FILE_MAGIC: u32 = 0x5438_1286;
    pub const HVM_FILE_VERSION: u32 = 1;
    /// [`HvmHwCpu::flags`].
    pub const XEN_X86_FPU_INITIALISED: u32 = 1;
    /// Variable ranges and fixed registers of [`HvmHwMtrr`].
    pub const MTRR_VCNT: usize = 8;
    pub const NUM_FIXED_MSR: usize = 11;
    /// [`HvmSaveDescriptor::typecode`].
    pub const HVM_SAVE_CODE_HEADER: u16 = 1 => "HVM_SAVE_CODE(HEADER)";
    pub const HVM_SAVE_CODE_CPU: u16 = 2 => "HVM_SAVE_CODE(CPU)";
    pub const HVM_SAVE_CODE_PIC: u16 = 3 => "HVM_SAVE_CODE(PIC)";
    pub const HVM_SAVE_CODE_IOAPIC: u16 = 4 => "HVM_SAVE_CODE(IOAPIC)";
    pub const HVM_SAVE_CODE_LAPIC: u16 = 5 => "HVM_SAVE_CODE(LAPIC)";
    pub const HVM_SAVE_CODE_LAPIC_REGS: u16 = 6 => "HVM_SAVE_CODE(LAPIC_REGS)";
    pub const HVM_SAVE_CODE_PCI_IRQ: u16 = 7 => "HVM_SAVE_CODE(PCI_IRQ)";
    pub const HVM_SAVE_CODE_ISA_IRQ: u16 = 8 => "HVM_SAVE_CODE(ISA_IRQ)";
    pub const HVM_SAVE_CODE_PCI_LINK: u16 = 9 => "HVM_SAVE_CODE(PCI_LINK)";
    pub const HVM_SAVE_CODE_PIT: u16 = 10 => "HVM_SAVE_CODE(PIT)";
    pub const HVM_SAVE_CODE_RTC: u16 = 11 => "HVM_SAVE_CODE(RTC)";
    pub const HVM_SAVE_CODE_HPET: u16 = 12 => "HVM_SAVE_CODE(HPET)";
    pub const HVM_SAVE_CODE_PMTIMER: u16 = 13 => "HVM_SAVE_CODE(PMTIMER)";
    pub const HVM_SAVE_CODE_MTRR: u16 = 14 => "HVM_SAVE_CODE(MTRR)";
    pub const HVM_SAVE_CODE_VIRIDIAN_DOMAIN: u16 = 15 => "HVM_SAVE_CODE(VIRIDIAN_DOMAIN)";
    pub const HVM_SAVE_CODE_CPU_XSAVE: u16 = 16 => "CPU_XSAVE_CODE";
    pub const HVM_SAVE_CODE_VIRIDIAN_VCPU: u16 = 17 => "HVM_SAVE_CODE(VIRIDIAN_VCPU)";
    pub const HVM_SAVE_CODE_VMCE_VCPU: u16 = 18 => "HVM_SAVE_CODE(VMCE_VCPU)";
    pub const HVM_SAVE_CODE_TSC_ADJUST: u16 = 19 => "HVM_SAVE_CODE(TSC_ADJUST)";
    pub const HVM_SAVE_CODE_CPU_MSR: u16 = 20 => "CPU_MSR_CODE";
    /// Ends a record stream.
    pub const HVM_SAVE_CODE_END: u16 = 0 => "HVM_SAVE_CODE(END)";
    pub const HVM_SAVE_CODE_MAX: u16 = 20;
}

structures! {
    /// Argument of `HVMOP_SET_PARAM` and `HVMOP_GET_PARAM`.
    pub struct HvmParam = "struct xen_hvm_param" {
        pub domid: DomId,
        pub pad: u16,
        /// `HVM_PARAM_*`.
        pub index: u32,
        pub value: u64,
    }
    pub struct HvmPagetableDying = "struct xen_hvm_pagetable_dying" {
        pub domid: DomId,
        pub pad: [u16; 3],
        pub gpa: u64,
    }
    pub struct HvmGetTime = "struct xen_hvm_get_time" {
        /// Nanoseconds since boot.
        pub now: u64,
    }
    pub struct HvmGetMemType = "struct xen_hvm_get_mem_type" {
        pub domid: DomId,
        /// Out.
        pub mem_type: u16,
        pub pad: [u16; 2],
        pub pfn: u64,
    }
    pub struct HvmEvtchnUpcallVector = "struct xen_hvm_evtchn_upcall_vector" {
        pub vcpu: VcpuId,
        pub vector: u8,
        pub _pad: [u8; 3],
    }
    /// What ebx points to when a PVH kernel starts; all addresses are physical.
    pub struct HvmStartInfo = "struct hvm_start_info" {
        pub magic: u32,
        /// 1.
        pub version: u32,
        /// `SIF_*`.
        pub flags: u32,
        pub nr_modules: u32,
        /// Of [`HvmModlistEntry`].
        pub modlist_paddr: u64,
        /// Zero-terminated.
        pub cmdline_paddr: u64,
        pub rsdp_paddr: u64,
        /// Of [`HvmMemmapTableEntry`].
        pub memmap_paddr: u64,
        pub memmap_entries: u32,
        pub reserved: u32,
    }
    pub struct HvmModlistEntry = "struct hvm_modlist_entry" {
        pub paddr: u64,
        /// Bytes.
        pub size: u64,
        pub cmdline_paddr: u64,
        pub reserved: u64,
    }
    pub struct HvmMemmapTableEntry = "struct hvm_memmap_table_entry" {
        pub addr: u64,
        /// Bytes.
        pub size: u64,
        /// `XEN_HVM_MEMMAP_TYPE_*`.
        pub type_: u32 => "type",
        pub reserved: u32,
    }
    /// Start state of a vCPU in 32-bit mode.
    pub struct VcpuHvmX86_32 = "struct vcpu_hvm_x86_32" {
        pub eax: u32,
        pub ecx: u32,
        pub edx: u32,
        pub ebx: u32,
        pub esp: u32,
        pub ebp: u32,
        pub esi: u32,
        pub edi: u32,
        pub eip: u32,
        pub eflags: u32,
        pub cr0: u32,
        pub cr3: u32,
        pub cr4: u32,
        pub pad1: u32,
        pub efer: u64,
        pub cs_base: u32,
        pub ds_base: u32,
        pub ss_base: u32,
        pub es_base: u32,
        pub tr_base: u32,
        pub cs_limit: u32,
        pub ds_limit: u32,
        pub ss_limit: u32,
        pub es_limit: u32,
        pub tr_limit: u32,
        pub cs_ar: u16,
        pub ds_ar: u16,
        pub ss_ar: u16,
        pub es_ar: u16,
        pub tr_ar: u16,
        pub pad2: [u16; 3],
    }
    /// Start state of a vCPU in 64-bit mode.
    pub struct VcpuHvmX86_64 = "struct vcpu_hvm_x86_64" {
        pub rax: u64,
        pub rcx: u64,
        pub rdx: u64,
        pub rbx: u64,
        pub rsp: u64,
        pub rbp: u64,
        pub rsi: u64,
        pub rdi: u64,
        pub rip: u64,
        pub rflags: u64,
        pub cr0: u64,
        pub cr3: u64,
        pub cr4: u64,
        pub efer: u64,
    }
    /// Argument of `VCPUOP_INITIALISE` for HVM and PVH.
    pub struct VcpuHvmContext = "struct vcpu_hvm_context" {
        /// `VCPU_HVM_MODE_*`.
        pub mode: u32,
        pub pad: u32,
        /// [`VcpuHvmX86_32`] or [`VcpuHvmX86_64`].
        pub cpu_regs: [u64; 15],
    }
    /// Start of each saved record; `length` bytes follow.
    pub struct HvmSaveDescriptor = "struct hvm_save_descriptor" {
        /// `HVM_SAVE_CODE_*`.
        pub typecode: u16,
        /// vCPU or device number.
        pub instance: u16,
        pub length: u32,
    }
    /// First record.
    pub struct HvmSaveHeader = "struct hvm_save_header" {
        pub magic: u32,
        pub version: u32,
        pub changeset: u64,
        /// CPUID 1 eax of the host.
        pub cpuid: u32,
        pub gtsc_khz: u32,
    }
    /// Registers of a vCPU; `arbytes` hold the attribute bits of the VMCS, packed to 12 bits as in SVM.
    pub struct HvmHwCpu = "struct hvm_hw_cpu" {
        pub fpu_regs: [u8; 512],
        pub rax: u64,
        pub rbx: u64,
        pub rcx: u64,
        pub rdx: u64,
        pub rbp: u64,
        pub rsi: u64,
        pub rdi: u64,
        pub rsp: u64,
        pub r8: u64,
        pub r9: u64,
        pub r10: u64,
        pub r11: u64,
        pub r12: u64,
        pub r13: u64,
        pub r14: u64,
        pub r15: u64,
        pub rip: u64,
        pub rflags: u64,
        pub cr0: u64,
        pub cr2: u64,
        pub cr3: u64,
        pub cr4: u64,
        pub dr0: u64,
        pub dr1: u64,
        pub dr2: u64,
        pub dr3: u64,
        pub dr6: u64,
        pub dr7: u64,
        pub cs_sel: u32,
        pub ds_sel: u32,
        pub es_sel: u32,
        pub fs_sel: u32,
        pub gs_sel: u32,
        pub ss_sel: u32,
        pub tr_sel: u32,
        pub ldtr_sel: u32,
        pub cs_limit: u32,
        pub ds_limit: u32,
        pub es_limit: u32,
        pub fs_limit: u32,
        pub gs_limit: u32,
        pub ss_limit: u32,
        pub tr_limit: u32,
        pub ldtr_limit: u32,
        pub idtr_limit: u32,
        pub gdtr_limit: u32,
        pub cs_base: u64,
        pub ds_base: u64,
        pub es_base: u64,
        pub fs_base: u64,
        pub gs_base: u64,
        pub ss_base: u64,
        pub tr_base: u64,
        pub ldtr_base: u64,
        pub idtr_base: u64,
        pub gdtr_base: u64,
        pub cs_arbytes: u32,
        pub ds_arbytes: u32,
        pub es_arbytes: u32,
        pub fs_arbytes: u32,
        pub gs_arbytes: u32,
        pub ss_arbytes: u32,
        pub tr_arbytes: u32,
        pub ldtr_arbytes: u32,
        pub sysenter_cs: u64,
        pub sysenter_esp: u64,
        pub sysenter_eip: u64,
        pub shadow_gs: u64,
        pub msr_flags: u64,
        pub msr_lstar: u64,
        pub msr_star: u64,
        pub msr_cstar: u64,
        pub msr_syscall_mask: u64,
        pub msr_efer: u64,
        pub msr_tsc_aux: u64,
        pub tsc: u64,
        pub pending_event: u32,
        pub error_code: u32,
        pub flags: u32,
        pub pad0: u32,
    }
    pub struct HvmHwLapic = "struct hvm_hw_lapic" {
        pub apic_base_msr: u64,
        pub disabled: u32,
        pub timer_divisor: u32,
        pub tdt_msr: u64,
    }
    pub struct HvmHwLapicRegs = "struct hvm_hw_lapic_regs" {
        pub data: [u8; 1024],
    }
    pub struct HvmHwMtrr = "struct hvm_hw_mtrr" {
        pub msr_pat_cr: u64,
        pub msr_mtrr_var: [u64; 16],
        pub msr_mtrr_fixed: [u64; 11],
        pub msr_mtrr_cap: u64,
        pub msr_mtrr_def_type: u64,
    }
    pub struct HvmTscAdjust = "struct hvm_tsc_adjust" {
        pub tsc_adjust: u64,
    }
}

//! What this processor can do, its control registers, and the few instructions that Rust has no word for.
//!
//! Unsafe: instructions on control registers, model-specific registers and CPUID.

use core::arch::asm;
use core::arch::x86_64::{__cpuid_count, CpuidResult};
use core::sync::atomic::{AtomicU64, Ordering};

bitflags::bitflags! {
    /// Features that the hypervisor itself makes use of. Detected on the boot processor, never assumed.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Features: u64 {
        /// No-execute page table bit.
        const NX = 1 << 0;
        /// 1 GiB pages.
        const PAGE_1G = 1 << 1;
        /// Supervisor mode execution prevention.
        const SMEP = 1 << 2;
        /// Supervisor mode access prevention.
        const SMAP = 1 << 3;
        /// Process context identifiers.
        const PCID = 1 << 4;
        /// INVPCID instruction.
        const INVPCID = 1 << 5;
        /// RDFSBASE and its relatives.
        const FSGSBASE = 1 << 6;
        /// XSAVE and XCR0.
        const XSAVE = 1 << 7;
        /// XSAVEOPT.
        const XSAVEOPT = 1 << 8;
        /// x2APIC.
        const X2APIC = 1 << 9;
        /// TSC-deadline mode of the APIC timer.
        const TSC_DEADLINE = 1 << 10;
        /// The TSC runs at one rate in all states.
        const INVARIANT_TSC = 1 << 11;
        /// RDTSCP and TSC_AUX.
        const RDTSCP = 1 << 12;
        /// UMIP.
        const UMIP = 1 << 13;
        /// CPUID faulting (Intel).
        const CPUID_FAULTING = 1 << 14;
        /// Fast `rep movsb` and `rep stosb`.
        const ERMS = 1 << 15;
        /// VT-x.
        const VMX = 1 << 16;
        /// AMD-V.
        const SVM = 1 << 17;
        /// Running under another hypervisor.
        const HYPERVISOR = 1 << 18;
        /// Memory type range registers.
        const MTRR = 1 << 19;
        /// Page attribute table.
        const PAT = 1 << 20;
        /// SYSCALL from compatibility mode works (AMD), SYSENTER from long mode does not.
        const AMD_CALLS = 1 << 21;
        /// The processor is QEMU's emulation.
        const EMULATED = 1 << 22;
        /// Global pages are used.
        const GLOBAL_PAGES = 1 << 23;
        /// PKRU, a component of XSAVE.
        const PROTECTION_KEYS = 1 << 24;
    }
}

static FEATURES: AtomicU64 = AtomicU64::new(0);

/// CPUID of the real processor. Harmless: it reads.
#[inline]
#[must_use]
pub fn cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
    __cpuid_count(leaf, subleaf)
}

/// Features of the processors of this machine.
#[inline]
#[must_use]
pub fn features() -> Features {
    Features::from_bits_retain(FEATURES.load(Ordering::Relaxed))
}

/// Whether the processors have all of these.
#[inline]
#[must_use]
pub fn has(wanted: Features) -> bool {
    features().contains(wanted)
}

/// "TCGT", how QEMU's emulation without acceleration calls itself in CPUID 0x40000000.
const TCG_SIGNATURE: u32 = u32::from_le_bytes(*b"TCGT");

/// Looks at the boot processor.
pub(crate) fn detect(line: crate::command_line::CommandLine<'_>) {
    let max = cpuid(0, 0);
    let max_extended = cpuid(0x8000_0000, 0).eax;
    let one = cpuid(1, 0);
    let seven = if max.eax >= 7 { cpuid(7, 0) } else { CpuidResult { eax: 0, ebx: 0, ecx: 0, edx: 0 } };
    let extended = cpuid(0x8000_0001, 0);
    let power = if max_extended >= 0x8000_0007 { cpuid(0x8000_0007, 0).edx } else { 0 };
    let xsaveopt = max.eax >= 0xd && cpuid(0xd, 1).eax & 1 != 0;
    let amd = matches!(max.ebx, 0x6874_7541 | 0x6f67_7948); // "Auth", "Hygo"
    let mut features = Features::empty();
    let mut put = |condition: bool, feature: Features| features.set(feature, condition);
    put(extended.edx & (1 << 20) != 0, Features::NX);
    put(extended.edx & (1 << 26) != 0, Features::PAGE_1G);
    put(extended.edx & (1 << 27) != 0, Features::RDTSCP);
    put(extended.ecx & (1 << 2) != 0, Features::SVM);
    put(seven.ebx & 1 != 0, Features::FSGSBASE);
    put(seven.ebx & (1 << 7) != 0 && line.flag("smep", true), Features::SMEP);
    // QEMU's TCG before 9.1 reads the stack of an `iretq` in ring 3 as ring 0, which SMAP forbids; PV kernels use it.
    let emulated = one.ecx & (1 << 31) != 0 && cpuid(0x4000_0000, 0).ebx == TCG_SIGNATURE;
    put(seven.ebx & (1 << 20) != 0 && line.flag("smap", !emulated), Features::SMAP);
    put(emulated, Features::EMULATED);
    put(seven.ebx & (1 << 10) != 0, Features::INVPCID);
    put(seven.ebx & (1 << 9) != 0, Features::ERMS);
    put(seven.ecx & (1 << 2) != 0, Features::UMIP);
    put(one.ecx & (1 << 17) != 0, Features::PCID);
    let xsaves_keys = max.eax >= 0xd && cpuid(0xd, 0).eax & (1 << 9) != 0;
    put(seven.ecx & (1 << 3) != 0 && xsaves_keys && line.flag("xsave", true), Features::PROTECTION_KEYS);
    put(one.ecx & (1 << 26) != 0 && line.flag("xsave", true), Features::XSAVE);
    put(one.ecx & (1 << 26) != 0 && xsaveopt, Features::XSAVEOPT);
    put(one.ecx & (1 << 21) != 0 && line.flag("x2apic", true), Features::X2APIC);
    put(one.ecx & (1 << 24) != 0, Features::TSC_DEADLINE);
    put(one.ecx & (1 << 5) != 0, Features::VMX);
    put(one.ecx & (1 << 31) != 0, Features::HYPERVISOR);
    put(one.edx & (1 << 12) != 0, Features::MTRR);
    put(one.edx & (1 << 16) != 0, Features::PAT);
    put(power & (1 << 8) != 0, Features::INVARIANT_TSC);
    put(amd, Features::AMD_CALLS);
    // As Xen chooses: where AMD's processors run us as a guest, each write to CR4 is an exit to who runs us, and it takes two
    // to flush global pages.
    let under_another = one.ecx & (1 << 31) != 0;
    put(line.flag("global-pages", !(amd && under_another)), Features::GLOBAL_PAGES);
    FEATURES.store(features.bits(), Ordering::Relaxed);
    log::info!("CPU features: {features:?}");
}

/// Bits of CR4 (SDM vol. 3A, 2.5).
pub mod cr4 {
    /// Timestamp reading is privileged.
    pub const TSD: u64 = 1 << 2;
    /// Debugging extensions.
    pub const DE: u64 = 1 << 3;
    /// Page size extensions; always on in long mode in effect.
    pub const PSE: u64 = 1 << 4;
    /// Physical address extension.
    pub const PAE: u64 = 1 << 5;
    /// Machine check exceptions.
    pub const MCE: u64 = 1 << 6;
    /// Global pages.
    pub const PGE: u64 = 1 << 7;
    /// FXSAVE and SSE.
    pub const OSFXSR: u64 = 1 << 9;
    /// SIMD exceptions.
    pub const OSXMMEXCPT: u64 = 1 << 10;
    /// RDFSBASE and its relatives.
    pub const FSGSBASE: u64 = 1 << 16;
    /// Process context identifiers.
    pub const PCIDE: u64 = 1 << 17;
    /// XSAVE.
    pub const OSXSAVE: u64 = 1 << 18;
    /// Supervisor mode execution prevention.
    pub const SMEP: u64 = 1 << 20;
    /// Supervisor mode access prevention.
    pub const SMAP: u64 = 1 << 21;
}

/// Reads CR4.
#[inline]
#[must_use]
pub fn read_cr4() -> u64 {
    let value;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr4", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Writes CR4.
///
/// # Safety
/// Keeps PAE, and whatever the running code relies on.
#[inline]
pub(crate) unsafe fn write_cr4(value: u64) {
    // SAFETY: the caller's promise.
    unsafe { asm!("mov cr4, {}", in(reg) value, options(nostack, preserves_flags)) };
}

/// Reads CR3.
#[inline]
#[must_use]
pub fn read_cr3() -> u64 {
    let value;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr3", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Loads a root table, which flushes all entries that are not global.
///
/// # Safety
/// The table maps the hypervisor as the current one does.
#[inline]
pub(crate) unsafe fn write_cr3(value: u64) {
    // SAFETY: the caller's promise.
    unsafe { asm!("mov cr3, {}", in(reg) value, options(nostack, preserves_flags)) };
}

/// Reads a model-specific register.
///
/// # Safety
/// The register exists (else #GP in the hypervisor).
#[inline]
#[must_use]
pub unsafe fn rdmsr(number: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reading an MSR that exists has no effect on memory.
    unsafe {
        asm!("rdmsr", in("ecx") number, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags))
    };
    u64::from(low) | u64::from(high) << 32
}

/// Writes a model-specific register.
///
/// # Safety
/// The register exists, and the value keeps the hypervisor whole.
#[inline]
pub(crate) unsafe fn wrmsr(number: u32, value: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("wrmsr", in("ecx") number, in("eax") value as u32, in("edx") (value >> 32) as u32,
             options(nostack, preserves_flags));
    }
}

/// Reads an MSR that may not exist: `None` when the CPU faults.
#[must_use]
pub fn rdmsr_safe(number: u32) -> Option<u64> {
    let (low, high, fault): (u32, u32, u32);
    // SAFETY: a fault is caught by the exception table; reading has no effect on memory.
    unsafe {
        asm!(
            "xor {fault:e}, {fault:e}",
            "2: rdmsr",
            "3:",
            ".pushsection .text.fixup, \"ax\"",
            "4: mov {fault:e}, 1",
            "jmp 3b",
            ".popsection",
            ".pushsection .ex_table, \"a\"",
            ".long 2b - ., 4b - .",
            ".popsection",
            fault = out(reg) fault,
            in("ecx") number, out("eax") low, out("edx") high,
            options(nomem, nostack)
        );
    }
    (fault == 0).then(|| u64::from(low) | u64::from(high) << 32)
}

/// Sets XCR0.
///
/// # Safety
/// There is XSAVE, CR4.OSXSAVE is set, and the CPU takes the value.
#[inline]
pub(crate) unsafe fn xsetbv(value: u64) {
    // SAFETY: the hypervisor uses no extended state, and the caller promises that it does not fault.
    unsafe {
        asm!("xsetbv", in("ecx") 0, in("eax") value as u32, in("edx") (value >> 32) as u32,
             options(nomem, nostack, preserves_flags));
    }
}

/// Whether a machine check has come that nobody has looked at (`IA32_MCG_STATUS`, MCIP).
#[must_use]
pub fn is_machine_checked() -> bool {
    const MCG_STATUS: u32 = 0x17a;
    const IN_PROGRESS: u64 = 1 << 2;
    rdmsr_safe(MCG_STATUS).is_some_and(|status| status & IN_PROGRESS != 0)
}

/// A machine check that met a guest in a container is taken as one that met the hypervisor: it ends the machine.
#[cfg(target_os = "none")]
pub fn take_machine_check() -> ! {
    // SAFETY: the hypervisor's own gate, whose handler does not return.
    unsafe { asm!("int 18", "ud2", options(noreturn)) }
}

/// The time stamp counter, after all earlier loads.
#[inline]
#[must_use]
pub fn rdtsc() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reads a counter.
    unsafe { asm!("lfence", "rdtsc", out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags)) };
    u64::from(low) | u64::from(high) << 32
}

/// Prepares the running CPU for guests: control registers, segments, interrupt table, system call entries.
///
/// # Safety
/// Once on each CPU, on the stack of its own region.
#[cfg(target_os = "none")]
pub(crate) unsafe fn init_this() {
    use super::percpu;
    use logic::regs::{rflags, selector};

    const EFER: u32 = 0xc000_0080;
    const EFER_SCE: u64 = 1;
    const EFER_NXE: u64 = 1 << 11;
    /// Write-back, write-through, uncached-, uncached, write-combining, write-protected: what Xen promises to guests.
    const PAT_VALUE: u64 = 0x0000_0501_0007_0406;
    let mut value = cr4::PAE | cr4::OSFXSR | cr4::OSXMMEXCPT | cr4::MCE | cr4::DE | cr4::PSE;
    for (feature, bit) in [
        (Features::GLOBAL_PAGES, cr4::PGE),
        (Features::SMEP, cr4::SMEP),
        (Features::SMAP, cr4::SMAP),
        (Features::XSAVE, cr4::OSXSAVE),
        (Features::FSGSBASE, cr4::FSGSBASE),
    ] {
        if has(feature) {
            value |= bit;
        }
    }
    let region = percpu::region();
    // SAFETY: the tables and stubs of this region are in place, and every feature was detected.
    unsafe {
        super::gdt::load();
        super::idt::load();
        // CR0: protected, monitor coprocessor, native errors, write protection, alignment checks (of ring 3, which has
        // the flag for it), paging; caches on, no task switch trap.
        asm!("mov cr0, {}", in(reg) 0x8005_0033_u64, options(nostack, preserves_flags));
        write_cr4(value);
        let nx = if has(Features::NX) { EFER_NXE } else { 0 };
        wrmsr(EFER, (rdmsr(EFER) & 0x500) | EFER_SCE | nx);
        if has(Features::PAT) {
            wrmsr(0x277, PAT_VALUE);
        }
        // STAR, LSTAR, CSTAR, FMASK (APM vol. 2, 6.1.1).
        wrmsr(0xc000_0081, u64::from(selector::FLAT_RING3_CS32) << 48 | u64::from(selector::HYPERVISOR_CS) << 32);
        wrmsr(0xc000_0082, region + percpu::STUB_SYSCALL64);
        wrmsr(0xc000_0083, region + percpu::STUB_SYSCALL32);
        let masked =
            rflags::TF | rflags::IF | rflags::DF | rflags::IOPL | rflags::NT | rflags::RF | rflags::VM | rflags::AC;
        wrmsr(0xc000_0084, masked);
        // SYSENTER's code segment, stack and entry (SDM vol. 3A, 5.8.7).
        wrmsr(0x174, u64::from(selector::HYPERVISOR_CS));
        wrmsr(0x175, region + percpu::TOP);
        wrmsr(0x176, region + percpu::STUB_SYSENTER);
    }
    super::speculation::init_this();
}

#[cfg(target_os = "none")]
unsafe extern "C" {
    fn enter_guest_asm(frame: u64) -> !;
}

/// Gives this CPU to its guests: from here on the hypervisor runs in upcalls only. `cpu` is what they get.
#[cfg(target_os = "none")]
pub fn run<H: crate::upcall::Hypervisor>(cpu: alloc::boxed::Box<H::Cpu>) -> ! {
    use super::percpu;
    let this = percpu::this();
    assert!(this.hypervisor_cpu.load(Ordering::Relaxed) == 0, "this CPU runs guests already");
    this.hypervisor_cpu.store(alloc::boxed::Box::into_raw(cpu) as u64, Ordering::Relaxed);
    let frame = percpu::region() + percpu::TOP - size_of::<logic::regs::GuestRegs>() as u64;
    // SAFETY: the stack is abandoned: this function does not return. The frame lies at the stack's top.
    unsafe { enter_guest_asm(frame) }
}

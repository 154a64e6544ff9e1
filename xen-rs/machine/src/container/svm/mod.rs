//! AMD-V: what the CPU has of it (CPUID 0x8000000a, APM vol. 3, E.4.9), and how it is switched on.
//!
//! Unsafe: model-specific registers are written, and the host's own state is stored for `vmload`.

mod enter;
mod exits;
mod maps;
mod mode;
mod vcpu;
mod vmcb;

pub use vcpu::SvmVcpu;

use core::arch::asm;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::arch::x86_64::cpu::{self, Features, cpuid, has};
use crate::arch::x86_64::percpu;
use logic::hvm::walk::Paging;
use logic::time::Scaling;

const MSR_EFER: u32 = 0xc000_0080;
const EFER_SVME: u64 = 1 << 12;
const MSR_VM_CR: u32 = 0xc001_0114;
const VM_CR_SVMDIS: u64 = 1 << 4;
const MSR_VM_HSAVE_PA: u32 = 0xc001_0117;
/// What guests' TSCs are multiplied by, but not the hypervisor's (APM vol. 2, 15.30.5).
const MSR_TSC_RATIO: u32 = 0xc000_0104;

bitflags::bitflags! {
    /// Bits of CPUID 0x8000000a EDX.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct SvmFeatures: u32 {
        const NPT = 1 << 0;
        const LBR = 1 << 1;
        const NRIP_SAVE = 1 << 3;
        const TSC_RATE = 1 << 4;
        const CLEAN_BITS = 1 << 5;
        const FLUSH_BY_ASID = 1 << 6;
        const DECODE_ASSISTS = 1 << 7;
        const PAUSE_FILTER = 1 << 10;
        const PAUSE_THRESHOLD = 1 << 12;
        const VIRTUAL_VMLOAD = 1 << 15;
        const VIRTUAL_GIF = 1 << 16;
        const SUPERVISOR_SHADOW_STACK = 1 << 19;
        const SPEC_CTRL = 1 << 20;
    }
}

static FEATURES: AtomicU32 = AtomicU32::new(0);
/// How many address space identifiers there are, the host's own included.
static ASIDS: AtomicU32 = AtomicU32::new(0);

pub(super) fn features() -> SvmFeatures {
    SvmFeatures::from_bits_truncate(FEATURES.load(Ordering::Relaxed))
}

/// How the CPU can make a guest's TSC of its own.
pub(super) fn tsc_scaling() -> Option<Scaling> {
    features().contains(SvmFeatures::TSC_RATE).then_some(Scaling::SVM)
}

/// How many ASIDs there are.
pub(super) fn asids() -> u32 {
    ASIDS.load(Ordering::Relaxed)
}

/// Whether PVH guests can run by AMD-V here. On the boot processor.
pub(super) fn detect() -> bool {
    if !has(Features::SVM) || cpuid(0x8000_0000, 0).eax < 0x8000_000a {
        return false;
    }
    // The firmware may have switched it off for good (APM vol. 2, 15.4).
    if cpu::rdmsr_safe(MSR_VM_CR).is_some_and(|value| value & VM_CR_SVMDIS != 0) {
        log::warn!("SVM: disabled by the firmware");
        return false;
    }
    let leaf = cpuid(0x8000_000a, 0);
    let features = SvmFeatures::from_bits_truncate(leaf.edx);
    FEATURES.store(features.bits(), Ordering::Relaxed);
    ASIDS.store(leaf.ebx, Ordering::Relaxed);
    log::info!("SVM: Supported advanced features:");
    let known = [
        (SvmFeatures::NPT, "Nested Page Tables (NPT)"),
        (SvmFeatures::LBR, "Last Branch Record (LBR) Virtualisation"),
        (SvmFeatures::NRIP_SAVE, "Next-RIP Saved on #VMEXIT"),
        (SvmFeatures::CLEAN_BITS, "VMCB Clean Bits"),
        (SvmFeatures::FLUSH_BY_ASID, "Flush by ASID"),
        (SvmFeatures::DECODE_ASSISTS, "DecodeAssists"),
        (SvmFeatures::VIRTUAL_VMLOAD, "Virtual VMLOAD/VMSAVE"),
        (SvmFeatures::VIRTUAL_GIF, "Virtual GIF"),
        (SvmFeatures::PAUSE_FILTER, "Pause-Intercept Filter"),
        (SvmFeatures::PAUSE_THRESHOLD, "Pause-Intercept Filter Threshold"),
        (SvmFeatures::TSC_RATE, "TSC Rate MSR"),
        (SvmFeatures::SUPERVISOR_SHADOW_STACK, "NPT Supervisor Shadow Stack"),
        (SvmFeatures::SPEC_CTRL, "MSR_SPEC_CTRL virtualisation"),
    ];
    for (_, name) in known.iter().filter(|(feature, _)| features.contains(*feature)) {
        log::info!(" - {name}");
    }
    if known.iter().all(|(feature, _)| !features.contains(*feature)) {
        log::info!(" - none");
    }
    // Guests' own page tables under shadow ones are not offered.
    if !features.contains(SvmFeatures::NPT) || leaf.ebx < 2 {
        log::info!("HVM: SVM without nested paging is not used");
        return false;
    }
    log::info!("HVM: SVM enabled");
    log::info!("HVM: Hardware Assisted Paging (HAP) detected");
    let huge = if has(Features::PAGE_1G) { ", 1GB" } else { "" };
    log::info!("HVM: HAP page sizes: 4kB, 2MB{huge}");
    true
}

/// Switches SVM on. The CPU's own state for `vmload` is stored now, while none of it is a guest's.
pub(super) fn start_this() {
    let pages = percpu::this().container_pages.load(Ordering::Relaxed);
    if pages == 0 {
        return;
    }
    // SAFETY: the CPU has SVM; the two pages were set aside for this CPU at boot; `vmsave` writes to the second one.
    unsafe {
        cpu::wrmsr(MSR_EFER, cpu::rdmsr(MSR_EFER) | EFER_SVME);
        cpu::wrmsr(MSR_VM_HSAVE_PA, pages);
        asm!("vmsave rax", in("rax") host_state(), options(nostack, preserves_flags));
    }
}

/// Where the state of this CPU lies that `vmload` brings back.
#[inline(always)]
pub(super) fn host_state() -> u64 {
    percpu::this().container_pages.load(Ordering::Relaxed) + 4096
}

/// How the guest translates whose control block lies there.
pub(super) fn paging_of(block: u64) -> Paging {
    let block = block as *const vmcb::Fields;
    // SAFETY: the block that this CPU has loaded, which only this CPU writes; any bytes are fields.
    let (cr0, cr3, cr4, efer) = unsafe {
        (
            (&raw const (*block).cr0).read_volatile(),
            (&raw const (*block).cr3).read_volatile(),
            (&raw const (*block).cr4).read_volatile(),
            (&raw const (*block).efer).read_volatile(),
        )
    };
    Paging { cr0, cr3, cr4, efer }
}

//! Model-specific registers as a PV guest sees them: which answer, which take a write, all others raise #GP.
//!
//! The list follows what stock kernels touch under Xen 4.17; a register that is not here does not exist for the guest.

use crate::cpuid::Vendor;
use crate::trap::is_canonical;

/// Register numbers (SDM vol. 4; APM vol. 2, appendix A).
#[allow(missing_docs, reason = "the manuals name them")]
pub mod index {
    pub const TSC: u32 = 0x10;
    pub const PLATFORM_ID: u32 = 0x17;
    pub const APIC_BASE: u32 = 0x1b;
    pub const FEATURE_CONTROL: u32 = 0x3a;
    pub const PRED_CMD: u32 = 0x49;
    pub const UCODE_REV: u32 = 0x8b;
    pub const PLATFORM_INFO: u32 = 0xce;
    pub const ARCH_CAPABILITIES: u32 = 0x10a;
    pub const MISC_FEATURES_ENABLES: u32 = 0x140;
    pub const SYSENTER_CS: u32 = 0x174;
    pub const SYSENTER_EIP: u32 = 0x176;
    pub const MCG_CAP: u32 = 0x179;
    pub const MCG_STATUS: u32 = 0x17a;
    pub const MCG_CTL: u32 = 0x17b;
    pub const PERF_STATUS: u32 = 0x198;
    pub const PERF_CTL: u32 = 0x199;
    pub const MISC_ENABLE: u32 = 0x1a0;
    pub const PAT: u32 = 0x277;
    pub const PERF_CAPABILITIES: u32 = 0x345;
    pub const HYPERCALL_PAGE: u32 = 0x4000_0000;
    pub const EFER: u32 = 0xc000_0080;
    pub const STAR: u32 = 0xc000_0081;
    pub const LSTAR: u32 = 0xc000_0082;
    pub const CSTAR: u32 = 0xc000_0083;
    pub const SYSCALL_MASK: u32 = 0xc000_0084;
    pub const FS_BASE: u32 = 0xc000_0100;
    pub const GS_BASE: u32 = 0xc000_0101;
    pub const SHADOW_GS_BASE: u32 = 0xc000_0102;
    pub const TSC_AUX: u32 = 0xc000_0103;
    pub const K8_SYSCFG: u32 = 0xc001_0010;
    pub const K8_HWCR: u32 = 0xc001_0015;
    pub const K7_FID_VID_CTL: u32 = 0xc001_0041;
    pub const K7_FID_VID_STATUS: u32 = 0xc001_0042;
    pub const K8_PSTATE_LIMIT: u32 = 0xc001_0061;
    pub const K8_PSTATE7: u32 = 0xc001_006b;
    pub const K8_VM_CR: u32 = 0xc001_0114;
    pub const AMD64_NB_CFG: u32 = 0xc001_001f;
    pub const AMD64_LS_CFG: u32 = 0xc001_1020;
    pub const AMD64_DE_CFG: u32 = 0xc001_1029;
}

/// PAT of the hypervisor: WB, WT, UC-, UC, WC, WP, UC, UC (`0x050100070406`).
pub const PAT_VALUE: u64 = 0x0000_0501_0007_0406;

/// EFER bits shown to a guest: SCE, LME, LMA, NXE and FFXSR; never SVME.
pub const EFER_SHOWN: u64 = 1 | 1 << 8 | 1 << 10 | 1 << 11 | 1 << 14;

const APIC_BASE_DEFAULT: u64 = 0xfee0_0000;
const APIC_ENABLED: u64 = 1 << 11;
const APIC_BOOTSTRAP: u64 = 1 << 8;
/// Nothing is enabled, and nothing can be.
const FEATURE_CONTROL_LOCKED: u64 = 1;
const HWCR_TSC_FREQ_SEL: u64 = 1 << 24;
const DE_CFG_LFENCE_SERIALISE: u64 = 1 << 1;

/// What the answers depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guest {
    /// Vendor in the domain's CPUID policy.
    pub vendor: Vendor,
    /// The vCPU is number 0.
    pub bootstrap: bool,
    /// CPUID offers `rdtscp` or `rdpid`.
    pub rdtscp: bool,
    /// CPUID offers the invariant TSC.
    pub itsc: bool,
    /// CPUID offers the branch-prediction barrier.
    pub ibpb: bool,
    /// CPUID offers IA32_ARCH_CAPABILITIES.
    pub arch_capabilities: bool,
}

/// Where the value of a read comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// From here.
    Value(u64),
    /// The live FS base.
    FsBase,
    /// The live GS base.
    GsBase,
    /// The GS base of the other mode.
    ShadowGsBase,
    /// The time-stamp counter.
    Tsc,
    /// The host's EFER, masked with [`EFER_SHOWN`].
    Efer,
    /// The vCPU's TSC_AUX.
    TscAux,
    /// The host's register as it is; #GP if the host has none.
    Host,
    /// The host's MISC_ENABLE through [`misc_enable`]; #GP if the host has none.
    MiscEnable,
    /// What the domain's policy has for IA32_ARCH_CAPABILITIES.
    ArchCapabilities,
}

/// What a write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// Nothing, quietly.
    Ignored,
    /// Set the live FS base.
    FsBase(u64),
    /// Set the live GS base.
    GsBase(u64),
    /// Set the GS base of the other mode.
    ShadowGsBase(u64),
    /// Set the vCPU's TSC_AUX.
    TscAux(u32),
    /// Issue the barrier.
    PredictionBarrier,
    /// Fill the guest frame with hypercall stubs.
    HypercallPage(u64),
    /// Taken if it equals what a read would return, else #GP.
    Efer(u64),
    /// Taken if it equals what a read would return, else #GP.
    MiscEnable(u64),
}

/// The register does not exist for the guest, or not with this value: #GP(0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault;

/// Decides a read.
///
/// # Errors
/// [`Fault`].
pub const fn read(msr: u32, guest: &Guest) -> Result<Read, Fault> {
    use index::*;
    let amd = guest.vendor.is_amd_like();
    let intel = matches!(guest.vendor, Vendor::Intel);
    Ok(match msr {
        FS_BASE => Read::FsBase,
        GS_BASE => Read::GsBase,
        SHADOW_GS_BASE => Read::ShadowGsBase,
        TSC => Read::Tsc,
        EFER => Read::Efer,
        APIC_BASE => Read::Value(APIC_BASE_DEFAULT | APIC_ENABLED | if guest.bootstrap { APIC_BOOTSTRAP } else { 0 }),
        PAT => Read::Value(PAT_VALUE),
        MISC_ENABLE => Read::MiscEnable,
        PERF_CAPABILITIES | PLATFORM_INFO | MISC_FEATURES_ENABLES | HYPERCALL_PAGE => Read::Value(0),
        // No banks are offered.
        MCG_CAP | MCG_STATUS => Read::Value(0),
        TSC_AUX if guest.rdtscp => Read::TscAux,
        UCODE_REV if amd || intel => Read::Host,
        ARCH_CAPABILITIES if guest.arch_capabilities => Read::ArchCapabilities,
        PLATFORM_ID if intel => Read::Host,
        FEATURE_CONTROL if intel => Read::Value(FEATURE_CONTROL_LOCKED),
        PERF_STATUS | PERF_CTL if intel => Read::Value(0),
        K8_SYSCFG | K8_VM_CR if amd => Read::Value(0),
        K8_HWCR if amd => Read::Value(if guest.itsc { HWCR_TSC_FREQ_SEL } else { 0 }),
        K7_FID_VID_CTL | K7_FID_VID_STATUS | K8_PSTATE_LIMIT..=K8_PSTATE7 if amd => Read::Value(0),
        AMD64_NB_CFG => Read::Value(0),
        AMD64_DE_CFG if amd => Read::Value(DE_CFG_LFENCE_SERIALISE),
        _ => return Err(Fault),
    })
}

/// Decides a write.
///
/// # Errors
/// [`Fault`].
pub const fn write(msr: u32, value: u64, guest: &Guest) -> Result<Write, Fault> {
    use index::*;
    let amd = guest.vendor.is_amd_like();
    let intel = matches!(guest.vendor, Vendor::Intel);
    Ok(match msr {
        FS_BASE if is_canonical(value) => Write::FsBase(value),
        GS_BASE if is_canonical(value) => Write::GsBase(value),
        SHADOW_GS_BASE if is_canonical(value) => Write::ShadowGsBase(value),
        #[allow(clippy::cast_possible_truncation, reason = "the upper half is checked")]
        TSC_AUX if guest.rdtscp && value >> 32 == 0 => Write::TscAux(value as u32),
        PRED_CMD if guest.ibpb && value & !1 == 0 => {
            if value == 0 {
                Write::Ignored
            } else {
                Write::PredictionBarrier
            }
        }
        EFER => Write::Efer(value),
        MISC_ENABLE => Write::MiscEnable(value),
        // Reading the revision begins with writing zero.
        UCODE_REV if intel && value == 0 => Write::Ignored,
        MISC_FEATURES_ENABLES if value == 0 => Write::Ignored,
        PERF_CTL if intel => Write::Ignored,
        K7_FID_VID_CTL | K7_FID_VID_STATUS | K8_PSTATE_LIMIT..=K8_PSTATE7 | K8_HWCR if amd => Write::Ignored,
        AMD64_NB_CFG | AMD64_DE_CFG if amd => Write::Ignored,
        // The low bits number the page of several: CPUID says that there is one.
        HYPERCALL_PAGE if value & 0xfff == 0 => Write::HypercallPage(value >> 12),
        _ => return Err(Fault),
    })
}

/// MISC_ENABLE as a guest sees it: no performance counters, no MONITOR, no branch trace, no precise events.
#[must_use]
pub const fn misc_enable(host: u64) -> u64 {
    const PERFORMANCE_AVAILABLE: u64 = 1 << 7;
    const BTS_UNAVAILABLE: u64 = 1 << 11;
    const PEBS_UNAVAILABLE: u64 = 1 << 12;
    const MONITOR: u64 = 1 << 18;
    const XTPR_DISABLE: u64 = 1 << 23;
    host & !(PERFORMANCE_AVAILABLE | MONITOR) | BTS_UNAVAILABLE | PEBS_UNAVAILABLE | XTPR_DISABLE
}

#[cfg(test)]
mod tests {
    use super::*;

    const AMD: Guest = Guest {
        vendor: Vendor::Amd,
        bootstrap: true,
        rdtscp: true,
        itsc: false,
        ibpb: false,
        arch_capabilities: false,
    };

    #[test]
    fn what_linux_reads_answers() {
        assert_eq!(read(index::PAT, &AMD), Ok(Read::Value(0x0000_0501_0007_0406)));
        assert_eq!(read(index::APIC_BASE, &AMD), Ok(Read::Value(0xfee0_0900)));
        let second = Guest { bootstrap: false, ..AMD };
        assert_eq!(read(index::APIC_BASE, &second), Ok(Read::Value(0xfee0_0800)));
        assert_eq!(read(index::GS_BASE, &AMD), Ok(Read::GsBase));
        assert_eq!(read(index::EFER, &AMD), Ok(Read::Efer));
    }

    #[test]
    fn unknown_registers_fault() {
        for msr in [0x277_0000, index::LSTAR, index::STAR, 0x1d9, 0x2ff, 0x800] {
            assert_eq!(read(msr, &AMD), Err(Fault), "{msr:x}");
            assert_eq!(write(msr, 0, &AMD), Err(Fault), "{msr:x}");
        }
        assert_eq!(write(index::EFER, 0, &AMD), Ok(Write::Efer(0)));
        assert_eq!(write(index::PAT, PAT_VALUE, &AMD), Err(Fault));
        assert_eq!(write(index::PRED_CMD, 1, &AMD), Err(Fault));
    }

    #[test]
    fn one_hypercall_page() {
        assert_eq!(read(index::HYPERCALL_PAGE, &AMD), Ok(Read::Value(0)));
        assert_eq!(write(index::HYPERCALL_PAGE, 0x5000, &AMD), Ok(Write::HypercallPage(5)));
        assert_eq!(write(index::HYPERCALL_PAGE, 0x5001, &AMD), Err(Fault));
    }

    #[test]
    fn bases_must_be_canonical() {
        assert_eq!(write(index::GS_BASE, 0x8000_0000_0000, &AMD), Err(Fault));
        assert_eq!(write(index::FS_BASE, 0x7fff, &AMD), Ok(Write::FsBase(0x7fff)));
    }
}

//! The CPUID policy of a domain: computed once from the host's leaves, then answered from a table.
//!
//! Leaves out of range answer zeros (AMD's model). What a PV guest is offered are the features of class `A`
//! ([`features::PV`]); structure leaves (caches, topology, thermal, monitoring) are cleared as Xen 4.17 clears them.

mod exchange;
mod structure;
#[cfg(test)]
mod tests;

pub use exchange::{Culprit, MAX_LEAVES, MAX_MSRS, OutOfRange};

use super::features::{self, FeatureSet};
use super::xstate::{self, COMPONENTS, Component, xcr0};
use super::{Leaf, Vendor};

const BASIC: usize = 0xe;
const CACHE: usize = 6;
const FEAT: usize = 3;
const EXTENDED: usize = 0x22;
const TOPOLOGY: usize = 2;
const EXTENDED_INTEL: u32 = 8;

/// Bits of a guest-physical address that nested tables of four levels translate.
const PHYSICAL_BITS_PVH: u32 = 48;

/// Bits of leaf 1 EDX that AMD repeats in leaf 0x80000001 EDX.
const COMMON_1D: u32 = 0x0183_f3ff;

/// Leaves of a CPU or domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    vendor: Vendor,
    basic: [Leaf; BASIC],
    cache: [Leaf; CACHE],
    feat: [Leaf; FEAT],
    components: [Component; COMPONENTS],
    /// Components the domain may enable in XCR0.
    states: u64,
    /// Leaf 0xd, 1, EAX.
    xsave_features: u32,
    extended: [Leaf; EXTENDED],
    /// Leaf 0xb of the host; guests are told nothing there.
    topology: [Leaf; TOPOLOGY],
    msrs: Msrs,
    /// Highest of the hypervisor's own leaves, and of those for another hypervisor's guests; 0: as many as there are.
    hypervisor_limits: [u8; 2],
    /// The host has SYSENTER; and MTRRs, MONITOR, Enhanced SpeedStep: shown to the hardware domain's kernel only.
    host: HostBits,
    hardware_domain: bool,
}

/// Registers that belong to a policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Msrs {
    /// `MSR_INTEL_PLATFORM_INFO`: whether CPUID can be made to fault.
    pub platform_info: u32,
    /// IA32_ARCH_CAPABILITIES.
    pub arch_capabilities: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct HostBits {
    sep: bool,
    mtrr: bool,
    eist: bool,
    monitor: bool,
    monitor_leaf: Leaf,
}

/// The live state that some answers depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    /// The vCPU is in its kernel.
    pub in_kernel: bool,
    /// Asked by `ud2; "xen"; cpuid`, not by CPUID faulting.
    pub forced: bool,
    /// The guest set CR4.OSXSAVE.
    pub osxsave: bool,
    /// The vCPU's XCR0.
    pub xcr0: u64,
}

impl Policy {
    /// Reads the host's leaves. `cpuid` executes the instruction.
    #[must_use]
    pub fn of_host(cpuid: impl Fn(u32, u32) -> Leaf, msrs: Msrs) -> Self {
        let first = cpuid(0, 0);
        let max_basic = first.a.min(0xd);
        let max_extended = cpuid(0x8000_0000, 0).a;
        let vendor = Vendor::of(first);

        let mut policy = Self {
            vendor,
            basic: [Leaf::ZERO; BASIC],
            cache: [Leaf::ZERO; CACHE],
            feat: [Leaf::ZERO; FEAT],
            components: [Component::default(); COMPONENTS],
            states: xstate::FP_SSE,
            xsave_features: 0,
            extended: [Leaf::ZERO; EXTENDED],
            topology: [Leaf::ZERO; TOPOLOGY],
            msrs,
            hypervisor_limits: [0; 2],
            host: HostBits::default(),
            hardware_domain: false,
        };
        for (leaf, slot) in (0..=max_basic).zip(&mut policy.basic) {
            // Those with sub-leaves have tables of their own.
            if !matches!(leaf, 4 | 7 | 0xb | 0xd) {
                *slot = cpuid(leaf, 0);
            }
        }
        policy.basic[0].a = max_basic;
        if max_basic >= 4 {
            for (sub, slot) in (0..).zip(&mut policy.cache) {
                *slot = cpuid(4, sub);
                if slot.a & 0x1f == 0 {
                    break;
                }
            }
        }
        if max_basic >= 7 {
            let max = cpuid(7, 0).a.min(2);
            for (sub, slot) in (0..=max).zip(&mut policy.feat) {
                *slot = cpuid(7, sub);
            }
            policy.feat[0].a = max;
        }
        if max_basic >= 0xb {
            for (sub, slot) in (0..).zip(&mut policy.topology) {
                *slot = cpuid(0xb, sub);
            }
        }
        if max_basic >= 0xd {
            policy.xsave_features = cpuid(0xd, 1).a;
            let main = cpuid(0xd, 0);
            policy.states = u64::from(main.d) << 32 | u64::from(main.a);
            for (sub, slot) in (0..).zip(&mut policy.components) {
                if sub >= 2 {
                    let leaf = cpuid(0xd, sub);
                    *slot = Component { size: leaf.a, offset: leaf.b, aligned: leaf.c & 2 != 0 };
                }
            }
        }
        if max_extended >> 16 == 0x8000 {
            for (leaf, slot) in (0x8000_0000..=max_extended).zip(&mut policy.extended) {
                *slot = cpuid(leaf, 0);
            }
            policy.extended[0].a = max_extended.min(0x8000_0021);
        }

        let set = policy.features();
        policy.host = HostBits {
            sep: set.has(features::SEP),
            mtrr: set.has(features::MTRR),
            eist: set.has(features::EIST),
            monitor: set.has(features::MONITOR),
            monitor_leaf: policy.basic[5],
        };
        // SYSENTER has no use for 64-bit guests where the CPU ignores it in long mode.
        if vendor.is_amd_like() {
            policy.basic[1].d &= !(1 << 11);
        }
        policy
    }

    /// The policy of a PV domain on this host.
    #[must_use]
    pub fn for_pv(&self, hardware_domain: bool) -> Self {
        self.offering(&features::PV, &[], hardware_domain)
    }

    /// The policy of a PVH domain: what paging of its own can make use of, and a local APIC that is the hypervisor's.
    #[must_use]
    pub fn for_pvh(&self) -> Self {
        let mut policy = self.offering(&features::PVH, &[features::X2APIC, features::MTRR], false);
        // Its 32-bit code may use SYSENTER on every CPU.
        let mut set = policy.features();
        set.put(features::SEP, self.host.sep);
        policy.put_features(&set);
        // As far as its map of physical memory goes.
        let bits = (policy.extended[8].a & 0xff).min(PHYSICAL_BITS_PVH);
        policy.extended[8].a = policy.extended[8].a & !0xff | bits;
        policy
    }

    /// The most that a PVH domain's policy can be made into.
    #[must_use]
    pub fn most_for_pvh(&self) -> Self {
        self.for_pvh().extended_for_toolstack(self)
    }

    /// A policy with those of the features that the host has, and `always` some others.
    fn offering(&self, offered: &FeatureSet, always: &[features::Feature], hardware_domain: bool) -> Self {
        let mut policy = self.clone();
        policy.hardware_domain = hardware_domain;
        let host_set = self.features();

        let mut set = host_set.intersect(offered);
        always.iter().for_each(|feature| set.put(*feature, true));
        set.put(features::HYPERVISOR, true);
        // Address masks of breakpoints are nobody's: vCPUs do not have them exchanged.
        set.put(features::DBEXT, false);
        // A guest's speculation controls are not virtualised yet: the barrier alone works, as it is a command.
        set.put(features::IBRSB, false);
        set.put(features::IBRS, false);
        if host_set.has(features::IBRSB) {
            set.put(features::IBPB, true);
        }
        // What that register says can be told on every CPU of Intel's line.
        set.put(features::ARCH_CAPS, self.vendor == Vendor::Intel);
        if !set.has(features::ARCH_CAPS) {
            set.put_arch_capabilities(0);
        }
        if hardware_domain {
            // It does not migrate away from its TSC.
            set.put(features::ITSC, host_set.has(features::ITSC));
        }
        // `lfence` is made to serialise dispatch on every CPU of AMD's line.
        if self.vendor.is_amd_like() {
            set.put(features::LFENCE_DISPATCH, true);
            policy.extended[0].a = 0x8000_0021;
        }
        set.make_consistent();
        // Facts about the hardware, not offers.
        set.put(features::FDP_EXCP_ONLY, host_set.has(features::FDP_EXCP_ONLY));
        set.put(features::NO_FPU_SEL, host_set.has(features::NO_FPU_SEL));

        policy.put_features(&set);
        policy.states &= offered_states(&set);
        // That CPUID can be made to fault is not passed on.
        policy.msrs.platform_info = 0;
        policy.clear_structure();
        policy
    }

    /// The most that a PV domain's policy can be made into: besides what it is given anyway, what the toolstack may tell it
    /// about the TSC and about the place of CPUs.
    #[must_use]
    pub fn most_for_pv(&self) -> Self {
        self.for_pv(false).extended_for_toolstack(self)
    }

    fn extended_for_toolstack(mut self, host: &Self) -> Self {
        let mut set = self.features();
        for feature in [features::HTT, features::X2APIC, features::CMP_LEGACY] {
            set.put(feature, true);
        }
        set.put(features::ITSC, host.features().has(features::ITSC));
        self.put_features(&set);
        self
    }

    /// Its registers.
    #[must_use]
    pub const fn msrs(&self) -> Msrs {
        self.msrs
    }

    /// The highest of the hypervisor's leaves that it was given; 0: no limit.
    #[must_use]
    pub const fn hypervisor_limit(&self) -> u8 {
        self.hypervisor_limits[0]
    }

    /// Who made the CPU.
    #[must_use]
    pub const fn vendor(&self) -> Vendor {
        self.vendor
    }

    /// The feature words.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "two halves")]
    pub const fn features(&self) -> FeatureSet {
        FeatureSet([
            self.basic[1].d,
            self.basic[1].c,
            self.extended[1].d,
            self.extended[1].c,
            self.xsave_features,
            self.feat[0].b,
            self.feat[0].c,
            self.extended[7].d,
            self.extended[8].b,
            self.feat[0].d,
            self.feat[1].a,
            self.extended[0x21].a,
            self.feat[1].b,
            self.feat[2].d,
            self.feat[1].c,
            self.feat[1].d,
            self.msrs.arch_capabilities as u32,
            (self.msrs.arch_capabilities >> 32) as u32,
            self.extended[0x21].c,
        ])
    }

    /// Components that the domain may enable in XCR0.
    #[must_use]
    pub const fn xcr0_offered(&self) -> u64 {
        self.states
    }

    /// Layout of the XSAVE components.
    #[must_use]
    pub const fn components(&self) -> &[Component; COMPONENTS] {
        &self.components
    }

    const fn put_features(&mut self, set: &FeatureSet) {
        let w = &set.0;
        self.basic[1].d = w[0];
        self.basic[1].c = w[1];
        self.extended[1].d = w[2];
        self.extended[1].c = w[3];
        self.xsave_features = w[4];
        self.feat[0].b = w[5];
        self.feat[0].c = w[6];
        self.extended[7].d = w[7];
        self.extended[8].b = w[8];
        self.feat[0].d = w[9];
        self.feat[1].a = w[10];
        self.extended[0x21].a = w[11];
        self.feat[1].b = w[12];
        self.feat[2].d = w[13];
        self.feat[1].c = w[14];
        self.feat[1].d = w[15];
        self.msrs.arch_capabilities = w[16] as u64 | (w[17] as u64) << 32;
        self.extended[0x21].c = w[18];
    }

    /// Answers a leaf outside the hypervisor's own range.
    #[inline(always)]
    #[must_use]
    pub fn answer(&self, leaf: u32, subleaf: u32, live: &Live) -> Leaf {
        let entry = |table: &[Leaf], index: u32| {
            usize::try_from(index).ok().and_then(|i| table.get(i)).copied().unwrap_or_default()
        };
        let mut answer = match leaf {
            0x8000_0000..=0x8000_ffff => {
                if leaf > self.extended[0].a {
                    return Leaf::ZERO;
                }
                entry(&self.extended, leaf & 0xffff)
            }
            _ if leaf > self.basic[0].a => return Leaf::ZERO,
            4 => entry(&self.cache, subleaf),
            7 if subleaf > self.feat[0].a => Leaf::ZERO,
            7 => entry(&self.feat, subleaf),
            0xd => self.xstate(subleaf, live),
            _ => entry(&self.basic, leaf),
        };
        let shown_to_kernel = self.hardware_domain && live.in_kernel;
        match leaf {
            1 => {
                // The kernel sees OSXSAVE before it sets CR4 (a de facto ABI); the instruction itself is honest.
                let xsave = answer.c & 1 << 26 != 0;
                if live.osxsave || (xsave && live.forced && live.in_kernel) {
                    answer.c |= 1 << 27;
                }
                if shown_to_kernel {
                    answer.c |= u32::from(self.host.eist) << 7 | u32::from(self.host.monitor && !live.forced) << 3;
                    answer.d |= u32::from(self.host.mtrr) << 12;
                }
            }
            5 if shown_to_kernel && self.host.monitor && !live.forced => {
                answer = self.host.monitor_leaf;
            }
            0x8000_0001 if shown_to_kernel => answer.d |= u32::from(self.host.mtrr) << 12,
            _ => {}
        }
        answer
    }

    fn xstate(&self, subleaf: u32, live: &Live) -> Leaf {
        let has_xsave = self.basic[1].c & 1 << 26 != 0;
        if !has_xsave {
            return Leaf::ZERO;
        }
        #[allow(clippy::cast_possible_truncation, reason = "two halves")]
        let (low, high) = (self.states as u32, (self.states >> 32) as u32);
        match subleaf {
            0 => Leaf {
                a: low,
                b: xstate::standard_size(&self.components, live.xcr0),
                c: xstate::standard_size(&self.components, self.states),
                d: high,
            },
            1 => {
                let compacts = self.xsave_features & 2 != 0;
                let size = xstate::compacted_size(&self.components, live.xcr0);
                Leaf { a: self.xsave_features, b: if compacts { size } else { 0 }, ..Leaf::ZERO }
            }
            _ if subleaf < 63 && self.states >> subleaf & 1 != 0 => {
                let component =
                    usize::try_from(subleaf).ok().and_then(|i| self.components.get(i)).copied().unwrap_or_default();
                Leaf { a: component.size, b: component.offset, c: u32::from(component.aligned) << 1, d: 0 }
            }
            _ => Leaf::ZERO,
        }
    }
}

fn offered_states(set: &FeatureSet) -> u64 {
    let mut states = xstate::FP_SSE;
    for (feature, bits) in [
        (features::AVX, xcr0::YMM),
        (features::MPX, xcr0::MPX),
        (features::AVX512F, xcr0::AVX512),
        (features::PKU, xcr0::PKRU),
    ] {
        if set.has(feature) {
            states |= bits;
        }
    }
    states
}

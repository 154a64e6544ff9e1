//! The CPUID policy of a domain: computed once from the host's leaves, then answered from a table.
//!
//! Leaves out of range answer zeros (AMD's model). What a PV guest is offered are the features of class `A`
//! ([`features::PV`]); structure leaves (caches, topology, thermal, monitoring) are cleared as Xen 4.17 clears them.

use super::features::{self, FeatureSet};
use super::xstate::{self, COMPONENTS, Component, xcr0};
use super::{Leaf, Vendor};

const BASIC: usize = 0xe;
const CACHE: usize = 6;
const FEAT: usize = 3;
const EXTENDED: usize = 0x22;
const EXTENDED_INTEL: u32 = 8;

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
    /// The host has MTRRs, MONITOR, Enhanced SpeedStep: shown to the hardware domain's kernel only.
    host: HostBits,
    hardware_domain: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct HostBits {
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
    pub fn of_host(cpuid: impl Fn(u32, u32) -> Leaf) -> Self {
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
        let mut policy = self.clone();
        policy.hardware_domain = hardware_domain;
        let host_set = self.features();

        let mut set = host_set.intersect(&features::PV);
        set.put(features::HYPERVISOR, true);
        // A guest's speculation controls are not virtualised yet: the barrier alone works, as it is a command.
        set.put(features::IBRSB, false);
        set.put(features::IBRS, false);
        if host_set.has(features::IBRSB) {
            set.put(features::IBPB, true);
        }
        // What that register says can be told on every CPU of Intel's line.
        set.put(features::ARCH_CAPS, self.vendor == Vendor::Intel);
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
        policy.clear_structure();
        policy
    }

    /// Who made the CPU.
    #[must_use]
    pub const fn vendor(&self) -> Vendor {
        self.vendor
    }

    /// The feature words (without those that live in MSRs).
    #[must_use]
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
            0,
            0,
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
        self.extended[0x21].c = w[18];
    }

    /// Clears what describes the host's structure, power and performance counters, and what is reserved.
    fn clear_structure(&mut self) {
        self.basic[1].a &= 0x0fff_0fff;
        self.basic[1].b &= 0x00ff_ffff;
        for leaf in [5, 6, 8, 0xa, 0xb, 0xc] {
            self.basic[leaf] = Leaf::ZERO;
        }
        self.extended[1].d &= !COMMON_1D;
        let power = &mut self.extended[7];
        *power = Leaf { d: power.d, ..Leaf::ZERO };
        self.extended[8].d = 0;
        // Four-level paging, whatever the CPU has.
        self.extended[8].a = self.extended[8].a & !0xff00 | 48 << 8;
        self.extended[0xa] = Leaf::ZERO;

        match self.vendor {
            Vendor::Intel | Vendor::Other => self.clear_structure_intel(),
            Vendor::Amd | Vendor::Hygon => self.clear_structure_amd(),
        }
        if self.extended[1].d & 1 << 26 == 0 {
            self.extended[0x19] = Leaf::ZERO; // TLBs of 1 GiB pages
        }
        let mut valid = true;
        for leaf in &mut self.cache {
            valid &= (1..=3).contains(&(leaf.a & 0x1f));
            if valid {
                leaf.a &= 0xffff_c3ff;
                leaf.d &= 7;
            } else {
                *leaf = Leaf::ZERO;
            }
        }
    }

    const fn clear_structure_intel(&mut self) {
        if self.basic[0].a >= 2 {
            self.basic[2].a = self.basic[2].a & !0xff | 1;
        }
        self.basic[3] = Leaf::ZERO;
        self.basic[9] = Leaf::ZERO;
        let max = self.extended[0].a & 0xffff;
        let max = if max > EXTENDED_INTEL { EXTENDED_INTEL } else { max };
        self.extended[0] = Leaf { a: 0x8000_0000 | max, ..Leaf::ZERO };
        self.extended[1].a = 0;
        self.extended[1].b = 0;
        self.extended[5] = Leaf::ZERO;
        self.extended[6] = Leaf { c: self.extended[6].c, ..Leaf::ZERO };
        self.extended[8].a &= 0xffff;
        self.extended[8].c = 0;
    }

    fn clear_structure_amd(&mut self) {
        for leaf in [2, 3, 9] {
            self.basic[leaf] = Leaf::ZERO;
        }
        self.cache = [Leaf::ZERO; CACHE];
        let name = self.basic[0];
        self.extended[0] = Leaf { a: self.extended[0].a, ..name };
        self.extended[1].a = self.basic[1].a;
        self.extended[1].b &= 0xff00_ffff;
        self.extended[1].d |= self.basic[1].d & COMMON_1D;
        self.extended[8].a &= 0xffff;
        self.extended[8].c &= 0x0003_f0ff;
        self.extended[9] = Leaf::ZERO;
        for leaf in &mut self.extended[0xb..=0x18] {
            *leaf = Leaf::ZERO;
        }
        for leaf in &mut self.extended[0x1b..=0x20] {
            *leaf = Leaf::ZERO;
        }
        self.extended[0x21].b = 0;
        self.extended[0x21].d = 0;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A made-up AMD CPU with everything.
    fn host(leaf: u32, sub: u32) -> Leaf {
        let ones = Leaf { a: u32::MAX, b: u32::MAX, c: u32::MAX, d: u32::MAX };
        match (leaf, sub) {
            (0, _) => Leaf { a: 0x1f, b: 0x6874_7541, c: 0x444d_4163, d: 0x6974_6e65 },
            (7, 0) => Leaf { a: 1, ..ones },
            (0xd, 0) => Leaf { a: 0x2e7, b: 0, c: 2696, d: 0 },
            (0xd, 1) => Leaf { a: 0xf, ..Leaf::ZERO },
            (0xd, 2) => Leaf { a: 256, b: 576, c: 0, d: 0 },
            (0xd, 5) => Leaf { a: 64, b: 1088, c: 0, d: 0 },
            (0xd, 6) => Leaf { a: 512, b: 1152, c: 0, d: 0 },
            (0xd, 7) => Leaf { a: 1024, b: 1664, c: 0, d: 0 },
            (0xd, 9) => Leaf { a: 8, b: 2688, c: 0, d: 0 },
            (0xd, _) => Leaf::ZERO,
            (0x8000_0000, _) => Leaf { a: 0x8000_0021, ..Leaf::ZERO },
            _ => ones,
        }
    }

    const KERNEL: Live = Live { in_kernel: true, forced: true, osxsave: false, xcr0: 3 };

    fn pv() -> Policy {
        Policy::of_host(host).for_pv(false)
    }

    #[test]
    fn hidden_from_pv() {
        let one = pv().answer(1, 0, &KERNEL);
        let hidden_d = [1, 3, 12, 13, 17, 21, 29]; // VME PSE MTRR PGE PSE36 DS TM1
        assert!(hidden_d.iter().all(|bit| one.d >> bit & 1 == 0), "{:x}", one.d);
        let hidden_c = [2, 3, 5, 7, 8, 15, 17, 21, 24]; // .. MONITOR VMX EIST TM2 PDCM PCID X2APIC TSC_DEADLINE
        assert!(hidden_c.iter().all(|bit| one.c >> bit & 1 == 0), "{:x}", one.c);
        assert_eq!(one.c >> 31, 1, "the hypervisor bit");
        let seven = pv().answer(7, 0, &KERNEL);
        assert_eq!(seven.b & 1, 1, "FSGSBASE");
        let hidden_b = [1, 2, 7, 10, 12, 15, 20, 25]; // TSC_ADJUST SGX SMEP INVPCID PQM PQE SMAP PT
        assert!(hidden_b.iter().all(|bit| seven.b >> bit & 1 == 0), "{:x}", seven.b);
        assert_eq!(seven.c & (1 << 2 | 1 << 3 | 1 << 7 | 1 << 16), 0, "UMIP PKU CET_SS LA57");
        let extended = pv().answer(0x8000_0001, 0, &KERNEL);
        assert_eq!(extended.d >> 26 & 1, 0, "PAGE1GB");
        assert_eq!(extended.c & (1 << 2 | 1 << 4 | 1 << 10 | 1 << 22), 0, "SVM CR8_LEGACY IBS TOPOEXT");
        assert_eq!(pv().answer(0xd, 1, &KERNEL).a, 7, "XSAVES");
    }

    #[test]
    fn osxsave_leaks_only_to_the_asking_kernel() {
        let bit = |live: Live| pv().answer(1, 0, &live).c >> 27 & 1;
        assert_eq!(bit(KERNEL), 1);
        assert_eq!(bit(Live { in_kernel: false, ..KERNEL }), 0);
        assert_eq!(bit(Live { forced: false, ..KERNEL }), 0);
        assert_eq!(bit(Live { forced: false, in_kernel: false, osxsave: true, xcr0: 3 }), 1);
    }

    #[test]
    fn xsave_sizes_follow_xcr0() {
        assert_eq!(pv().answer(0xd, 0, &KERNEL), Leaf { a: 0xe7, b: 576, c: 2688, d: 0 });
        assert_eq!(pv().answer(0xd, 0, &Live { xcr0: 7, ..KERNEL }).b, 832);
        assert_eq!(pv().answer(0xd, 2, &KERNEL).a, 256);
        assert_eq!(pv().answer(0xd, 9, &KERNEL), Leaf::ZERO, "PKRU is not offered");
        assert_eq!(pv().answer(0xd, 63, &KERNEL), Leaf::ZERO);
    }

    #[test]
    fn ranges() {
        assert_eq!(pv().answer(0, 0, &KERNEL).a, 0xd);
        assert_eq!(pv().answer(0xe, 0, &KERNEL), Leaf::ZERO);
        assert_eq!(pv().answer(0x8000_0022, 0, &KERNEL), Leaf::ZERO);
        assert_eq!(pv().answer(0x8000_0000, 0, &KERNEL).b, 0x6874_7541);
        assert_eq!(pv().answer(7, 2, &KERNEL), Leaf::ZERO);
        assert_eq!(pv().answer(0xffff_ffff, 0, &KERNEL), Leaf::ZERO);
        assert_eq!(pv().answer(4, u32::MAX, &KERNEL), Leaf::ZERO);
    }

    #[test]
    fn the_hardware_domains_kernel_sees_more() {
        let dom0 = Policy::of_host(host).for_pv(true);
        assert_eq!(dom0.answer(1, 0, &KERNEL).d >> 12 & 1, 1, "MTRR");
        assert_eq!(dom0.answer(1, 0, &KERNEL).c >> 3 & 1, 0, "MONITOR");
        assert_eq!(dom0.answer(1, 0, &Live { forced: false, ..KERNEL }).c >> 3 & 1, 1);
        assert_eq!(dom0.answer(1, 0, &Live { in_kernel: false, ..KERNEL }).d >> 12 & 1, 0);
        assert_eq!(dom0.answer(0x8000_0007, 0, &KERNEL), Leaf { d: 1 << 8, ..Leaf::ZERO }, "ITSC");
    }
}

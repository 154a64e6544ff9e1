//! Which CPUs let one PV guest read another's memory, or the hypervisor's, by speculation. PV guests share the address
//! space with the hypervisor, so on a CPU with Meltdown they are no security boundary, and nothing makes them one.

use crate::cpuid::Vendor;

/// What a CPU suffers from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vulnerable {
    /// Rogue data cache load: a guest reads memory that is mapped but not its own.
    pub meltdown: bool,
    /// L1 terminal fault: a guest reads what the first-level cache holds.
    pub l1tf: bool,
    /// Microarchitectural data sampling: a guest reads what the CPU's buffers hold.
    pub mds: bool,
    /// Returns of the hypervisor are predicted as a guest has taught (Retbleed, branch type confusion).
    pub retbleed: bool,
    /// Instruction TLB multihit: code in a large page that changes its size stops the machine (CVE-2018-12207).
    pub multihit: bool,
}

impl Vulnerable {
    /// Whether PV guests are kept apart.
    #[must_use]
    pub const fn pv_is_safe(self) -> bool {
        !self.meltdown && !self.l1tf
    }
}

/// IA32_ARCH_CAPABILITIES.RDCL_NO: neither Meltdown nor L1TF.
const RDCL_NO: u64 = 1;
/// IA32_ARCH_CAPABILITIES.IBRS_ALL: enhanced IBRS.
pub(super) const IBRS_ALL: u64 = 1 << 1;
/// IA32_ARCH_CAPABILITIES.MDS_NO.
pub(super) const MDS_NO: u64 = 1 << 5;
/// IA32_ARCH_CAPABILITIES.IF_PSCHANGE_MC_NO: no machine check by pages that change their size.
const PAGE_SIZE_CHANGE_NO: u64 = 1 << 6;

/// Judges a CPU by its vendor, its signature (leaf 1, EAX) and IA32_ARCH_CAPABILITIES where it has that; `told`: it says that
/// it confuses no branches (AMD's BTC_NO).
#[must_use]
pub fn of(vendor: Vendor, signature: u32, arch_capabilities: Option<u64>, told: bool) -> Vulnerable {
    let family = signature >> 8 & 0xf;
    let model = signature >> 4 & 0xf | (signature >> 16 & 0xf) << 4;
    let says = |bit| arch_capabilities.is_some_and(|bits| bits & bit != 0);
    // Atoms that do not speculate; later ones, which had L1TF fixed; the manycore processors.
    let early_atom = family == 6 && matches!(model, 0x1c | 0x26 | 0x27 | 0x35 | 0x36);
    let later_atom = family == 6 && matches!(model, 0x37 | 0x4a | 0x4c | 0x4d | 0x5a | 0x5c | 0x5f | 0x7a | 0x86);
    // Those of them, from Goldmont on, whose buffers hold nothing back.
    let sealed_atom = later_atom && matches!(model, 0x5c | 0x5f | 0x7a | 0x86);
    // Skylake to Comet Lake, which predict returns as other branches when the return stack is empty.
    let skylake = family == 6 && matches!(model, 0x4e | 0x55 | 0x5e | 0x66 | 0x8e | 0x9e | 0xa5 | 0xa6);
    let manycore = family == 6 && matches!(model, 0x57 | 0x85);
    match vendor {
        // AMD's answers to CVE-2017-5754, CVE-2018-3620 and CVE-2022-23825; Intel's lists of processors for CVE-2018-12207,
        // CVE-2018-12126 and CVE-2022-29901.
        Vendor::Amd | Vendor::Hygon => {
            let family = if family == 0xf { family + (signature >> 20 & 0xff) } else { family };
            Vulnerable { retbleed: matches!(family, 0x15..=0x18) && !told, ..Vulnerable::default() }
        }
        Vendor::Intel => {
            let speculates = !says(RDCL_NO) && !early_atom;
            let multihit = !(says(PAGE_SIZE_CHANGE_NO) || early_atom || later_atom || manycore);
            let mds = !(says(MDS_NO) || early_atom || sealed_atom);
            let retbleed = skylake && !says(IBRS_ALL);
            Vulnerable { meltdown: speculates, l1tf: speculates && !later_atom, mds, retbleed, multihit }
        }
        Vendor::Other => Vulnerable { meltdown: true, ..Vulnerable::default() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn judgements() {
        let of = |vendor, signature, capabilities| super::of(vendor, signature, capabilities, false);
        let skylake = 0x0005_06e3;
        let all = Vulnerable { meltdown: true, l1tf: true, mds: true, retbleed: true, multihit: true };
        assert_eq!(of(Vendor::Intel, skylake, None), all);
        let cascade_lake = of(Vendor::Intel, 0x0005_0657, Some(RDCL_NO | IBRS_ALL | MDS_NO));
        assert_eq!(cascade_lake, Vulnerable { multihit: true, ..Vulnerable::default() });
        assert!(cascade_lake.pv_is_safe());
        let ice_lake = of(Vendor::Intel, 0x0006_06a6, Some(RDCL_NO | MDS_NO | PAGE_SIZE_CHANGE_NO));
        assert_eq!(ice_lake, Vulnerable::default());
        assert!(!of(Vendor::Intel, 0x0005_0654, Some(0)).pv_is_safe());
        assert!(of(Vendor::Amd, 0x0080_0f12, None).pv_is_safe());
        assert!(of(Vendor::Intel, 0x0001_06c2, None).pv_is_safe(), "an in-order Atom");
        let silvermont = of(Vendor::Intel, 0x0003_0678, None);
        assert_eq!(silvermont, Vulnerable { meltdown: true, mds: true, ..Vulnerable::default() });
        assert!(!of(Vendor::Intel, 0x0005_06c9, None).mds, "Goldmont");
        assert!(!of(Vendor::Intel, 0x0005_0671, None).multihit, "a manycore processor");
    }

    #[test]
    fn branches_that_are_confused() {
        let of = |signature, told| of(Vendor::Amd, signature, None, told).retbleed;
        assert!(of(0x0080_0f12, false) && of(0x0083_0f10, false), "Zen and Zen 2");
        assert!(!of(0x00a2_0f10, false), "Zen 3");
        assert!(!of(0x0083_0f10, true));
    }
}

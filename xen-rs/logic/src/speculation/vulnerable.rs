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
/// IA32_ARCH_CAPABILITIES.IF_PSCHANGE_MC_NO: no machine check by pages that change their size.
const PAGE_SIZE_CHANGE_NO: u64 = 1 << 6;

/// Judges a CPU by its vendor, its signature (leaf 1, EAX) and IA32_ARCH_CAPABILITIES where it has that.
#[must_use]
pub fn of(vendor: Vendor, signature: u32, arch_capabilities: Option<u64>) -> Vulnerable {
    let family = signature >> 8 & 0xf;
    let model = signature >> 4 & 0xf | (signature >> 16 & 0xf) << 4;
    let says = |bit| arch_capabilities.is_some_and(|bits| bits & bit != 0);
    // Atoms that do not speculate; later ones, which had L1TF fixed; the manycore processors.
    let early_atom = family == 6 && matches!(model, 0x1c | 0x26 | 0x27 | 0x35 | 0x36);
    let later_atom = family == 6 && matches!(model, 0x37 | 0x4a | 0x4c | 0x4d | 0x5a | 0x5c | 0x5f | 0x7a | 0x86);
    let manycore = family == 6 && matches!(model, 0x57 | 0x85);
    match vendor {
        // AMD's answers to CVE-2017-5754 and CVE-2018-3620; Intel's list of processors for CVE-2018-12207.
        Vendor::Amd | Vendor::Hygon => Vulnerable::default(),
        Vendor::Intel => {
            let speculates = !says(RDCL_NO) && !early_atom;
            let multihit = !(says(PAGE_SIZE_CHANGE_NO) || early_atom || later_atom || manycore);
            Vulnerable { meltdown: speculates, l1tf: speculates && !later_atom, multihit }
        }
        Vendor::Other => Vulnerable { meltdown: true, ..Vulnerable::default() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn judgements() {
        let skylake = 0x0005_06e3;
        assert_eq!(of(Vendor::Intel, skylake, None), Vulnerable { meltdown: true, l1tf: true, multihit: true });
        let cascade_lake = of(Vendor::Intel, 0x0005_0657, Some(RDCL_NO));
        assert_eq!(cascade_lake, Vulnerable { multihit: true, ..Vulnerable::default() });
        assert!(cascade_lake.pv_is_safe());
        assert_eq!(of(Vendor::Intel, 0x0006_06a6, Some(RDCL_NO | PAGE_SIZE_CHANGE_NO)), Vulnerable::default());
        assert!(!of(Vendor::Intel, 0x0005_0654, Some(0)).pv_is_safe());
        assert!(of(Vendor::Amd, 0x0080_0f12, None).pv_is_safe());
        assert!(of(Vendor::Intel, 0x0001_06c2, None).pv_is_safe(), "an in-order Atom");
        assert_eq!(of(Vendor::Intel, 0x0003_0678, None), Vulnerable { meltdown: true, ..Vulnerable::default() });
        assert!(!of(Vendor::Intel, 0x0005_0671, None).multihit, "a manycore processor");
    }
}

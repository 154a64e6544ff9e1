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
}

impl Vulnerable {
    /// Whether PV guests are kept apart.
    #[must_use]
    pub const fn pv_is_safe(self) -> bool {
        !self.meltdown && !self.l1tf
    }
}

/// IA32_ARCH_CAPABILITIES.RDCL_NO: neither.
const RDCL_NO: u64 = 1;

/// Judges a CPU by its vendor, its signature (leaf 1, EAX) and IA32_ARCH_CAPABILITIES where it has that.
#[must_use]
pub fn of(vendor: Vendor, signature: u32, arch_capabilities: Option<u64>) -> Vulnerable {
    let family = signature >> 8 & 0xf;
    let model = signature >> 4 & 0xf | (signature >> 16 & 0xf) << 4;
    match vendor {
        // AMD's answers to CVE-2017-5754 and CVE-2018-3620.
        Vendor::Amd | Vendor::Hygon => Vulnerable::default(),
        Vendor::Intel if arch_capabilities.is_some_and(|bits| bits & RDCL_NO != 0) => Vulnerable::default(),
        // Atoms that do not speculate.
        Vendor::Intel if family == 6 && matches!(model, 0x1c | 0x26 | 0x27 | 0x35 | 0x36) => Vulnerable::default(),
        // Later Atoms had one of the two fixed.
        Vendor::Intel if family == 6 && matches!(model, 0x37 | 0x4a | 0x4c | 0x4d | 0x5a | 0x5c | 0x5f | 0x7a) => {
            Vulnerable { meltdown: true, l1tf: false }
        }
        Vendor::Intel => Vulnerable { meltdown: true, l1tf: true },
        Vendor::Other => Vulnerable { meltdown: true, l1tf: false },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn judgements() {
        let skylake = 0x0005_06e3;
        assert_eq!(of(Vendor::Intel, skylake, None), Vulnerable { meltdown: true, l1tf: true });
        assert!(of(Vendor::Intel, 0x0005_0657, Some(RDCL_NO)).pv_is_safe());
        assert!(!of(Vendor::Intel, 0x0005_0654, Some(0)).pv_is_safe());
        assert!(of(Vendor::Amd, 0x0080_0f12, None).pv_is_safe());
        assert!(of(Vendor::Intel, 0x0001_06c2, None).pv_is_safe(), "an in-order Atom");
        assert_eq!(of(Vendor::Intel, 0x0003_0678, None), Vulnerable { meltdown: true, l1tf: false });
    }
}

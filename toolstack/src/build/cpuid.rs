//! What a PVH domain's CPUID says of threads and cores: each vCPU is a core of its own, with an even number for its local
//! APIC, as libxenguest 4.17 arranges it.

use xen_abi::arch_x86::CpuidLeaf;

use crate::calls::CpuPolicy;

/// CPUID.1 (SDM vol. 2A; APM vol. 3, E.3.2): logical processors of the package in EBX 23:16, HTT in EDX.
const FEATURES: u32 = 1;
const HTT: u32 = 1 << 28;
/// Intel's caches: EAX 31:26 cores of the package less one, 25:14 threads that share a cache less one, 4:0 the kind.
const CACHES: u32 = 4;
/// AMD's features: CmpLegacy in ECX.
const AMD_FEATURES: u32 = 0x8000_0001;
const CMP_LEGACY: u32 = 1 << 1;
/// AMD's sizes: ECX 7:0 cores less one, 15:12 bits of an APIC number that name a core.
const AMD_SIZES: u32 = 0x8000_0008;
/// The first letters of AMD's and Hygon's names in EBX of CPUID.0.
const VENDORS_LIKE_AMD: [u32; 2] = [u32::from_le_bytes(*b"Auth"), u32::from_le_bytes(*b"Hygo")];
const INTEL: u32 = u32::from_le_bytes(*b"Genu");

/// The policy with twice the numbers of processors, so that there is room for APIC numbers that are twice the vCPU's.
#[must_use]
pub fn without_threads(mut policy: CpuPolicy) -> CpuPolicy {
    let vendor = policy.leaves.iter().find(|leaf| leaf.leaf == 0).map_or(0, |leaf| leaf.b);
    for leaf in &mut policy.leaves {
        match leaf.leaf {
            FEATURES => {
                leaf.d |= HTT;
                let processors = (leaf.b >> 16) & 0xff;
                if processors < 0x80 {
                    leaf.b = leaf.b & !0x00ff_0000 | processors << 17;
                }
            }
            AMD_FEATURES => leaf.c &= !CMP_LEGACY,
            CACHES if vendor == INTEL && leaf.a & 0x1f != 0 => {
                let cores = (leaf.a >> 26) << 1 | 1;
                leaf.a = leaf.a & 0x3fff | (cores & 0x3f) << 26;
            }
            AMD_SIZES if VENDORS_LIKE_AMD.contains(&vendor) => amd_sizes(leaf),
            _ => {}
        }
    }
    policy
}

fn amd_sizes(leaf: &mut CpuidLeaf) {
    let (cores, bits) = (leaf.c & 0xff, (leaf.c >> 12) & 0xf);
    if cores < 0x7f {
        let bits = if bits != 0 && bits < 0xf { bits + 1 } else { bits };
        leaf.c = leaf.c & !0xf0ff | bits << 12 | cores << 1 | 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn leaf(leaf: u32, a: u32, b: u32, c: u32, d: u32) -> CpuidLeaf {
        CpuidLeaf { leaf, a, b, c, d, ..Default::default() }
    }

    #[test]
    fn amd() {
        let policy = CpuPolicy {
            leaves: vec![
                leaf(0, 13, u32::from_le_bytes(*b"Auth"), 0, 0),
                leaf(1, 0, 0x0401_0800, 0, 0),
                leaf(4, 0x0400_0121, 0, 0, 0),
                leaf(0x8000_0001, 0, 0, 3, 0),
                leaf(0x8000_0008, 0, 0, 0x2003, 0),
            ],
            ..Default::default()
        };
        let policy = without_threads(policy);
        let words: vec::Vec<_> = policy.leaves.iter().map(|leaf| (leaf.a, leaf.b, leaf.c, leaf.d)).collect();
        assert_eq!(words[1], (0, 0x0402_0800, 0, HTT));
        assert_eq!(words[2], (0x0400_0121, 0, 0, 0), "not AMD's leaf");
        assert_eq!((words[3].2, words[4].2), (1, 0x3007));
    }

    #[test]
    fn intel() {
        let leaves = vec![
            leaf(0, 13, INTEL, 0, 0),
            leaf(4, 0x0c00_4121, 0, 0, 0),
            leaf(4, 0, 0, 0, 0),
            leaf(1, 0, 0x80_0000, 0, 0),
        ];
        let policy = without_threads(CpuPolicy { leaves, ..Default::default() });
        assert_eq!(policy.leaves[1].a, 0x1c00_0121);
        assert_eq!((policy.leaves[2].a, policy.leaves[3].b), (0, 0x80_0000));
    }
}

//! The hypervisor's own CPUID leaves from 0x40000000 on (Xen public header `arch-x86/cpuid.h`).

use super::Leaf;

/// First of the leaves.
pub const FIRST: u32 = 0x4000_0000;
/// Last of the range that is answered.
pub const LAST: u32 = 0x4000_01ff;
/// Highest leaf of ours, counted from [`FIRST`].
pub const MAX_LEAF: u32 = 5;

const SIGNATURE: (u32, u32, u32) = (0x566e_6558, 0x6558_4d4d, 0x4d4d_566e);
const FEATURE_PRESERVE_AD: u32 = 1;
/// The MSR by which older guests have their hypercall page filled.
pub const HYPERCALL_PAGE_MSR: u32 = 0x4000_0000;

/// What the time leaves tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    /// `rdtsc` is emulated.
    pub emulated: bool,
    /// The host's TSC can be trusted across CPUs and sleep states.
    pub host_is_safe: bool,
    /// The CPU has `rdtscp`.
    pub rdtscp: bool,
    /// `XEN_DOMCTL_settscinfo` mode.
    pub mode: u32,
    /// Frequency that the guest sees.
    pub guest_khz: u32,
    /// Frequency of the CPU.
    pub cpu_khz: u32,
    /// Counts restores and migrations.
    pub incarnation: u32,
    /// Added to the TSC.
    pub offset: u64,
    /// Nanoseconds per tick, as a binary fraction.
    pub scale: u32,
    /// Shift before scaling.
    pub shift: i8,
}

/// What differs between domains of one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Domain {
    /// Major and minor version.
    pub version: (u16, u16),
    /// Paravirtualised, or in a hardware container.
    pub pv: bool,
    /// The highest leaf that the toolstack wants it to see; 0: all.
    pub limit: u8,
    /// Bits of the highest machine address.
    pub address_bits: u32,
    /// Time.
    pub time: Time,
    /// For hardware containers: vCPU and domain.
    pub ids: (u32, u32),
}

/// Answers a leaf between [`FIRST`] and [`LAST`].
#[must_use]
pub fn answer(leaf: u32, subleaf: u32, domain: &Domain) -> Leaf {
    /// Nobody is given less: version and the number of pages are in them.
    const LEAST: u32 = 2;
    let limit = match domain.limit {
        0 => MAX_LEAF,
        limit => u32::from(limit).clamp(LEAST, MAX_LEAF),
    };
    match leaf.wrapping_sub(FIRST) {
        0 => Leaf { a: FIRST + limit, b: SIGNATURE.0, c: SIGNATURE.1, d: SIGNATURE.2 },
        index if index > limit => Leaf::ZERO,
        1 => Leaf { a: u32::from(domain.version.0) << 16 | u32::from(domain.version.1), ..Leaf::ZERO },
        2 => Leaf { a: 1, b: HYPERCALL_PAGE_MSR, c: if domain.pv { FEATURE_PRESERVE_AD } else { 0 }, d: 0 },
        3 => time(subleaf, &domain.time),
        4 if !domain.pv && subleaf == 0 => container(domain),
        5 if domain.pv && subleaf == 0 => Leaf { b: domain.address_bits & 0xff, ..Leaf::ZERO },
        _ => Leaf::ZERO,
    }
}

fn time(subleaf: u32, time: &Time) -> Leaf {
    match subleaf {
        0 => Leaf {
            a: u32::from(time.emulated) | u32::from(time.host_is_safe) << 1 | u32::from(time.rdtscp) << 2,
            b: time.mode,
            c: time.guest_khz,
            d: time.incarnation,
        },
        #[allow(clippy::cast_possible_truncation, reason = "two halves")]
        1 => Leaf {
            a: time.offset as u32,
            b: (time.offset >> 32) as u32,
            c: time.scale,
            d: i32::from(time.shift).cast_unsigned(),
        },
        2 => Leaf { a: time.cpu_khz, ..Leaf::ZERO },
        _ => Leaf::ZERO,
    }
}

fn container(domain: &Domain) -> Leaf {
    const IOMMU_MAPPINGS: u32 = 1 << 2;
    const VCPU_ID: u32 = 1 << 3;
    const DOMAIN_ID: u32 = 1 << 4;
    const UPCALL_VECTOR: u32 = 1 << 6;
    Leaf { a: IOMMU_MAPPINGS | VCPU_ID | DOMAIN_ID | UPCALL_VECTOR, b: domain.ids.0, c: domain.ids.1, d: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pv_guest_finds_xen() {
        let domain = Domain {
            version: (4, 17),
            pv: true,
            limit: 0,
            address_bits: 30,
            time: Time { guest_khz: 2_000_000, shift: -1, ..Time::default() },
            ids: (0, 0),
        };
        let first = answer(FIRST, 0, &domain);
        assert_eq!(first.a, 0x4000_0005);
        let mut name = [0; 12];
        for (to, from) in name.chunks_exact_mut(4).zip([first.b, first.c, first.d]) {
            to.copy_from_slice(&from.to_le_bytes());
        }
        assert_eq!(&name, b"XenVMMXenVMM");
        assert_eq!(answer(FIRST + 1, 0, &domain).a, 0x0004_0011);
        assert_eq!(answer(FIRST + 2, 0, &domain).c, 1);
        assert_eq!(answer(FIRST + 3, 0, &domain).c, 2_000_000);
        assert_eq!(answer(FIRST + 3, 1, &domain).d, u32::MAX);
        assert_eq!(answer(FIRST + 4, 0, &domain), Leaf::ZERO);
        assert_eq!(answer(FIRST + 5, 0, &domain).b, 30);
        assert_eq!(answer(FIRST + 6, 0, &domain), Leaf::ZERO);
        let limited = Domain { limit: 1, ..domain };
        assert_eq!(answer(FIRST, 0, &limited).a, 0x4000_0002);
        assert_eq!(answer(FIRST + 2, 0, &limited).c, 1);
        assert_eq!(answer(FIRST + 3, 0, &limited), Leaf::ZERO);
    }
}

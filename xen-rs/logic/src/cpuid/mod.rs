//! CPUID as a domain sees it: a policy computed once from the host's leaves, and the few bits that follow the vCPU's
//! live state.

pub mod features;
pub mod hypervisor;
pub mod policy;
pub mod xstate;

/// The four registers of one CPUID leaf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the registers are named after themselves")]
pub struct Leaf {
    pub a: u32,
    pub b: u32,
    pub c: u32,
    pub d: u32,
}

impl Leaf {
    /// All zeros: what leaves out of range answer.
    pub const ZERO: Self = Self { a: 0, b: 0, c: 0, d: 0 };
}

/// Who made the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vendor {
    /// GenuineIntel
    Intel,
    /// AuthenticAMD
    Amd,
    /// HygonGenuine
    Hygon,
    /// Any other.
    Other,
}

impl Vendor {
    /// From leaf 0.
    #[must_use]
    pub fn of(leaf0: Leaf) -> Self {
        let mut name = [0; 12];
        for (to, from) in name.chunks_exact_mut(4).zip([leaf0.b, leaf0.d, leaf0.c]) {
            to.copy_from_slice(&from.to_le_bytes());
        }
        match &name {
            b"GenuineIntel" => Self::Intel,
            b"AuthenticAMD" => Self::Amd,
            b"HygonGenuine" => Self::Hygon,
            _ => Self::Other,
        }
    }

    /// AMD's line of CPUs, Hygon's included.
    #[must_use]
    pub const fn is_amd_like(self) -> bool {
        matches!(self, Self::Amd | Self::Hygon)
    }
}

//! What a CPU does that the program did not ask for: what this one suffers from, what the administrator wishes
//! (`spec-ctrl=`, `pv-l1tf=`), and what is done about it in the end.

mod vulnerable;
mod wishes;

use core::fmt;

use vulnerable::{IBRS_ALL, MDS_NO};
pub use vulnerable::{Vulnerable, of};
pub use wishes::{Kinds, Wishes};

use crate::cpuid::Vendor;

/// What the CPU says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hardware {
    /// Its maker; `Vendor::Other` by default.
    pub vendor: Option<Vendor>,
    /// Leaf 1, EAX.
    pub signature: u32,
    /// Leaf 7, EBX.
    pub leaf_7_ebx: u32,
    /// Leaf 7, EDX.
    pub leaf_7_edx: u32,
    /// Leaf 0x8000_0008, EAX: the width of physical addresses.
    pub leaf_8_eax: u32,
    /// Leaf 0x8000_0008, EBX: AMD's features.
    pub leaf_8_ebx: u32,
    /// Leaf 0x8000_0021, EAX: more of AMD's.
    pub leaf_21_eax: u32,
    /// `IA32_ARCH_CAPABILITIES`, where it is.
    pub arch_capabilities: Option<u64>,
    /// Supervisor mode execution prevention is in use.
    pub smep: bool,
}

/// `IA32_ARCH_CAPABILITIES`: no transactional asynchronous abort; no register file data sampling, and VERW clears those files.
const TAA_NO: u64 = 1 << 8;
const RFDS_NO: u64 = 1 << 27;
const RFDS_CLEAR: u64 = 1 << 28;

impl Hardware {
    fn vendor(&self) -> Vendor {
        self.vendor.unwrap_or(Vendor::Other)
    }

    fn is_amd(&self) -> bool {
        matches!(self.vendor(), Vendor::Amd | Vendor::Hygon)
    }

    fn capability(&self, bit: u64) -> bool {
        self.arch_capabilities.is_some_and(|bits| bits & bit != 0)
    }

    /// Indirect branch prediction barrier: `IA32_PRED_CMD`.
    #[must_use]
    pub fn has_ibpb(&self) -> bool {
        self.leaf_7_edx >> 26 & 1 != 0 || self.leaf_8_ebx >> 12 & 1 != 0
    }

    /// The first-level cache can be flushed: `IA32_FLUSH_CMD`.
    #[must_use]
    pub fn has_l1d_flush(&self) -> bool {
        self.leaf_7_edx >> 28 & 1 != 0
    }

    /// VERW empties the CPU's buffers.
    #[must_use]
    pub fn has_md_clear(&self) -> bool {
        self.leaf_7_edx >> 10 & 1 != 0
    }

    /// Indirect branch restriction that can stay on: a guest trains no branch of the hypervisor's.
    #[must_use]
    pub fn has_enhanced_ibrs(&self) -> bool {
        self.leaf_7_edx >> 26 & 1 != 0 && self.capability(IBRS_ALL)
    }

    /// AMD's automatic IBRS.
    #[must_use]
    pub fn has_automatic_ibrs(&self) -> bool {
        self.is_amd() && self.leaf_21_eax >> 8 & 1 != 0
    }

    /// LFENCE waits for all before it, without being told to.
    #[must_use]
    pub fn lfence_serializes(&self) -> bool {
        !self.is_amd() || self.leaf_21_eax >> 2 & 1 != 0
    }

    /// What it suffers from.
    #[must_use]
    pub fn vulnerable(&self) -> Vulnerable {
        let found = of(self.vendor(), self.signature, self.arch_capabilities, self.leaf_8_ebx >> 29 & 1 != 0);
        Vulnerable { mds: found.mds || self.leaks_by_others(), ..found }
    }

    /// Its buffers are read by aborted transactions (TAA), or its registers' files are (RFDS), for which VERW is told to help.
    fn leaks_by_others(&self) -> bool {
        let transactions = self.vendor() == Vendor::Intel && self.leaf_7_ebx >> 11 & 1 != 0;
        (transactions && !self.capability(TAA_NO)) || (self.capability(RFDS_CLEAR) && !self.capability(RFDS_NO))
    }

    /// Entries that are not present read nothing from the first-level cache where they name an address from here on.
    /// The cache may know more bits of addresses than the CPU says; its upper quarter is memory that is not cached.
    #[must_use]
    pub fn l1tf_safe_from(&self) -> u64 {
        let told = self.leaf_8_eax & 0xff;
        let model = self.signature >> 4 & 0xf | (self.signature >> 12 & 0xf0);
        let known = match model {
            // Nehalem and Westmere.
            0x1a | 0x1e | 0x1f | 0x25 | 0x2c | 0x2e | 0x2f => 44,
            // Sandy Bridge to Kaby Lake.
            0x2a | 0x2d | 0x3a | 0x3c | 0x3d | 0x3e | 0x3f | 0x45 | 0x46 | 0x47 | 0x4e | 0x4f | 0x55 | 0x56 | 0x5e
            | 0x66 | 0x8e | 0x9e => 46,
            _ => told,
        };
        match (told, known) {
            (0 | 53.., _) => u64::MAX,
            (told, known) if known > told => 1 << told,
            (told, _) => 3 << (told - 2),
        }
    }
}

/// What is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "one measure each")]
pub struct Plan {
    /// VERW before each return to a guest: what the CPU's buffers hold is not for it (MDS and its like).
    pub verw: bool,
    /// The same before each entry of a container.
    pub verw_containers: bool,
    /// The return stack is filled at each entry: returns of the hypervisor are not predicted to lead into a guest.
    pub rsb: bool,
    /// IBPB when a CPU goes to another vCPU: one does not train the branches of the other.
    pub ibpb: bool,
    /// IBPB at each entry: no branch of the hypervisor's is predicted as a guest has taught. From PV guests, and from
    /// containers.
    pub ibpb_entry: bool,
    /// See above.
    pub ibpb_entry_containers: bool,
    /// The first-level cache is flushed before a container is entered.
    pub l1d_flush: bool,
    /// Enhanced IBRS stays on.
    pub ibrs: bool,
    /// Automatic IBRS stays on.
    pub automatic_ibrs: bool,
    /// LFENCE is told to serialize.
    pub lfence: bool,
    /// Entries that are not present and that L1TF could use crash the control domain.
    pub l1tf_control: bool,
    /// They crash other domains.
    pub l1tf_guests: bool,
    /// PVH guests run no code in large pages, which could change their size under it.
    pub small_code: bool,
}

impl Plan {
    /// What this hardware needs, and what was wished.
    #[must_use]
    pub fn new(hardware: &Hardware, wishes: &Wishes) -> Self {
        let Vulnerable { l1tf, retbleed, multihit, .. } = hardware.vulnerable();
        let verw = hardware.has_md_clear() && (!hardware.capability(MDS_NO) || hardware.leaks_by_others());
        let ibpb = hardware.has_ibpb();
        // Where it is Intel's, PV guests are not kept apart anyhow.
        let ibpb_entry = retbleed && hardware.is_amd();
        Plan {
            verw: wishes.verw.pv.unwrap_or(verw),
            verw_containers: wishes.verw.containers.unwrap_or(verw),
            ibpb_entry: wishes.ibpb_entry.pv.unwrap_or(ibpb_entry) && ibpb,
            ibpb_entry_containers: wishes.ibpb_entry.containers.unwrap_or(retbleed) && ibpb,
            l1d_flush: wishes.l1d_flush.unwrap_or(l1tf) && hardware.has_l1d_flush(),
            // With SMEP, what a guest can make a return lead to is not executed.
            rsb: wishes.rsb.unwrap_or(!hardware.smep),
            ibpb: wishes.ibpb.unwrap_or(true) && ibpb,
            ibrs: wishes.ibrs.unwrap_or(true) && hardware.has_enhanced_ibrs(),
            automatic_ibrs: wishes.ibrs.unwrap_or(true) && hardware.has_automatic_ibrs(),
            lfence: wishes.lfence.unwrap_or(true) && !hardware.lfence_serializes(),
            // As in Xen, the control domain is trusted not to.
            l1tf_control: wishes.l1tf_control.unwrap_or(false),
            l1tf_guests: wishes.l1tf_guests.unwrap_or(l1tf),
            small_code: wishes.large_code.map_or(multihit, |wanted| !wanted),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let measures = [
            (self.verw, "VERW"),
            (self.rsb, "RSB"),
            (self.ibpb, "IBPB-ctxt"),
            (self.ibpb_entry, "IBPB-entry"),
            (self.ibrs, "IBRS+"),
            (self.automatic_ibrs, "AUTO-IBRS"),
            (self.lfence, "LFENCE+"),
        ];
        let mut any = false;
        for (_, name) in measures.iter().filter(|(on, _)| *on) {
            write!(f, " {name}")?;
            any = true;
        }
        if !any {
            f.write_str(" none")?;
        }
        let word = |on| if on { "enabled" } else { "disabled" };
        write!(f, "; PV L1TF: Dom0 {}, DomU {}", word(self.l1tf_control), word(self.l1tf_guests))
    }
}

#[cfg(test)]
mod tests;

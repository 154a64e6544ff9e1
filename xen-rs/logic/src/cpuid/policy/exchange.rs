//! A policy as arrays of leaves and registers: how a toolstack reads it, and what it may make of a domain's.
//!
//! Order, limits and errors are those of Xen's public interface (`xen_cpuid_leaf_t`, `xen_msr_entry_t`): no leaf beyond
//! the policy's own limits is told, and any may come back in any order.

use xen_abi::{
    arch_x86::{CpuidLeaf, MsrEntry, XEN_CPUID_NO_SUBLEAF},
    errno::Errno,
};

use super::{BASIC, CACHE, EXTENDED, FEAT, Policy, TOPOLOGY, offered_states};
use crate::{
    cpuid::{
        Leaf, Vendor,
        features::{self, FeatureSet},
        xstate::COMPONENTS,
    },
    msr::index::{ARCH_CAPABILITIES, PLATFORM_INFO},
};

/// The most leaves a policy consists of: those with sub-leaves have tables of their own, two are the hypervisor's.
#[allow(clippy::cast_possible_truncation, reason = "a hundred or so")]
pub const MAX_LEAVES: u32 = (BASIC + FEAT - 1 + CACHE - 1 + TOPOLOGY - 1 + COMPONENTS - 1 + EXTENDED + 2) as u32;
/// The registers of a policy.
pub const MAX_MSRS: u32 = 2;

/// A leaf, or a register, that no policy has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfRange;

/// What is more than a domain can be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Culprit {
    /// A leaf and sub-leaf of CPUID.
    Leaf(u32, u32),
    /// A register.
    Msr(u32),
}

const HYPERVISOR: u32 = 0x4000_0000;
const OTHER_HYPERVISOR: u32 = 0x4000_0100;
const EXTENDED_BASE: u32 = 0x8000_0000;
/// EBX of leaf 1: the size of a cache line.
const CLFLUSH: u32 = 0xff00;

impl Policy {
    /// Tells each leaf in order.
    pub fn each_leaf(&self, mut put: impl FnMut(CpuidLeaf) -> Result<(), Errno>) -> Result<(), Errno> {
        let mut tell =
            |leaf, subleaf, from: Leaf| put(CpuidLeaf { leaf, subleaf, a: from.a, b: from.b, c: from.c, d: from.d });
        for (leaf, value) in (0..=self.basic[0].a).zip(&self.basic) {
            match leaf {
                4 => {
                    for (sub, value) in (0..).zip(&self.cache) {
                        tell(leaf, sub, *value)?;
                        if value.a & 0x1f == 0 {
                            break;
                        }
                    }
                }
                7 => {
                    for (sub, value) in (0..=self.feat[0].a).zip(&self.feat) {
                        tell(leaf, sub, *value)?;
                    }
                }
                0xb => {
                    for (sub, value) in (0..).zip(&self.topology) {
                        tell(leaf, sub, *value)?;
                        if value.c & 0xff00 == 0 {
                            break;
                        }
                    }
                }
                0xd => self.each_xstate(&mut tell)?,
                _ => tell(leaf, XEN_CPUID_NO_SUBLEAF, *value)?,
            }
        }
        for (leaf, limit) in [HYPERVISOR, OTHER_HYPERVISOR].into_iter().zip(self.hypervisor_limits) {
            tell(leaf, XEN_CPUID_NO_SUBLEAF, Leaf { a: limit.into(), ..Leaf::ZERO })?;
        }
        let last = self.extended[0].a & 0xffff;
        for (leaf, value) in (0..=last).zip(&self.extended) {
            tell(EXTENDED_BASE | leaf, XEN_CPUID_NO_SUBLEAF, *value)?;
        }
        Ok(())
    }

    fn each_xstate(&self, tell: &mut impl FnMut(u32, u32, Leaf) -> Result<(), Errno>) -> Result<(), Errno> {
        /// What the sizes are for depends on a vCPU: a policy does not tell that.
        const NOBODY: super::Live = super::Live { in_kernel: false, forced: false, osxsave: false, xcr0: 0 };
        for sub in 0..2 {
            tell(0xd, sub, Leaf { b: 0, ..self.xstate(sub, &NOBODY) })?;
        }
        let has_xsave = self.features().has(features::XSAVE);
        let states = if has_xsave { self.states } else { 0 };
        for sub in 2..u64::BITS - states.leading_zeros() {
            tell(0xd, sub, self.xstate(sub, &NOBODY))?;
        }
        Ok(())
    }

    /// Tells each register.
    pub fn each_msr(&self, mut put: impl FnMut(MsrEntry) -> Result<(), Errno>) -> Result<(), Errno> {
        put(MsrEntry { idx: PLATFORM_INFO, flags: 0, val: self.msrs.platform_info.into() })?;
        put(MsrEntry { idx: ARCH_CAPABILITIES, flags: 0, val: self.msrs.arch_capabilities })
    }

    /// Takes over one leaf, unchecked as yet: [`Policy::agreed`] comes afterwards.
    pub fn take_leaf(&mut self, from: &CpuidLeaf) -> Result<(), OutOfRange> {
        let value = Leaf { a: from.a, b: from.b, c: from.c, d: from.d };
        let sub = usize::try_from(from.subleaf).map_err(|_| OutOfRange)?;
        let whole = from.subleaf == XEN_CPUID_NO_SUBLEAF;
        let slot = match from.leaf {
            4 => self.cache.get_mut(sub),
            7 => self.feat.get_mut(sub),
            0xb => self.topology.get_mut(sub),
            0xd => {
                // All else there follows from the features.
                if from.subleaf == 1 {
                    self.xsave_features = from.a;
                }
                return if sub < COMPONENTS { Ok(()) } else { Err(OutOfRange) };
            }
            HYPERVISOR | OTHER_HYPERVISOR if whole => {
                let [limit, ..] = from.a.to_le_bytes();
                self.hypervisor_limits[usize::from(from.leaf == OTHER_HYPERVISOR)] = limit;
                return Ok(());
            }
            leaf @ ..HYPERVISOR if whole => usize::try_from(leaf).ok().and_then(|leaf| self.basic.get_mut(leaf)),
            leaf @ EXTENDED_BASE.. if whole => {
                usize::try_from(leaf - EXTENDED_BASE).ok().and_then(|leaf| self.extended.get_mut(leaf))
            }
            _ => None,
        };
        *slot.ok_or(OutOfRange)? = value;
        Ok(())
    }

    /// Takes over one register. `EINVAL`: flags, of which there are none; `EOVERFLOW`: it is not that wide; `ERANGE`: it is
    /// in no policy.
    pub fn take_msr(&mut self, from: &MsrEntry) -> Result<(), Errno> {
        if from.flags != 0 {
            return Err(Errno::EINVAL);
        }
        match from.idx {
            PLATFORM_INFO => self.msrs.platform_info = u32::try_from(from.val).map_err(|_| Errno::EOVERFLOW)?,
            ARCH_CAPABILITIES => self.msrs.arch_capabilities = from.val,
            _ => return Err(Errno::ERANGE),
        }
        Ok(())
    }

    /// What becomes of a policy that a toolstack has changed, where `most` is what such a domain can be given.
    pub fn agreed(mut self, most: &Policy) -> Result<Policy, Culprit> {
        self.clear_out_of_range();
        if self.basic[0].a > most.basic[0].a {
            return Err(Culprit::Leaf(0, XEN_CPUID_NO_SUBLEAF));
        }
        if self.feat[0].a > most.feat[0].a {
            return Err(Culprit::Leaf(7, 0));
        }
        if self.extended[0].a > most.extended[0].a {
            return Err(Culprit::Leaf(EXTENDED_BASE, XEN_CPUID_NO_SUBLEAF));
        }
        if self.msrs.platform_info & !most.msrs.platform_info != 0 {
            return Err(Culprit::Msr(PLATFORM_INFO));
        }
        self.cut_to(most);
        Ok(self)
    }

    /// Leaves above the limits, which may have been lowered.
    fn clear_out_of_range(&mut self) {
        let basic = self.basic[0].a;
        let beyond = |table: &mut [Leaf], last: u32| {
            table.iter_mut().zip(0..).filter(|(_, at)| *at > last).for_each(|(leaf, _)| *leaf = Leaf::ZERO);
        };
        beyond(&mut self.basic, basic);
        if basic < 4 {
            self.cache = [Leaf::ZERO; CACHE];
        }
        if basic < 7 {
            self.feat = [Leaf::ZERO; FEAT];
        }
        let feat = self.feat[0].a;
        beyond(&mut self.feat, feat);
        let extended = self.extended[0].a;
        if extended >> 16 == 0x8000 {
            beyond(&mut self.extended, extended & 0xffff);
        } else {
            self.extended = [Leaf::ZERO; EXTENDED];
        }
    }

    /// No more than there is; what follows from the features is worked out anew.
    fn cut_to(&mut self, most: &Policy) {
        self.vendor = Vendor::of(self.basic[0]);
        let last = if self.vendor.is_amd_like() { EXTENDED - 1 } else { 8 };
        let last = u32::try_from(last).unwrap_or(0).min(self.extended[0].a & 0xffff);
        self.extended[0].a = EXTENDED_BASE | last;

        let mut set: FeatureSet = self.features().intersect(&most.features());
        if self.basic[0].a < 0xd {
            set.put(features::XSAVE, false);
        }
        set.make_consistent();
        for fact in [features::FDP_EXCP_ONLY, features::NO_FPU_SEL] {
            set.put(fact, most.features().has(fact));
        }
        self.put_features(&set);
        self.components = most.components;
        self.states = most.states & offered_states(&set);
        self.basic[1].b = self.basic[1].b & !CLFLUSH | most.basic[1].b & CLFLUSH;

        let least = if set.has(features::PAE) { 36 } else { 32 };
        let bits = (self.extended[8].a & 0xff).min(most.extended[8].a & 0xff).max(least);
        self.extended[8].a = self.extended[8].a & !0xff | bits;
        self.clear_structure();
    }
}

//! Which mode a guest is in: its privilege, its code segment, and the registers of paging.
//!
//! Unsafe: none here.

use super::EFER_SVME;
use super::vcpu::SvmVcpu;
use super::vmcb::clean;
use crate::container::state::Segment;

impl SvmVcpu {
    /// The privilege level.
    #[inline(always)]
    pub(crate) fn cpl(&self) -> u8 {
        self.vmcb.cpl
    }

    /// The code segment.
    #[inline(always)]
    pub(crate) fn code(&self) -> Segment {
        self.vmcb.cs
    }

    /// Its attributes.
    #[inline(always)]
    pub(crate) fn code_attributes(&self) -> u16 {
        self.vmcb.cs.attributes
    }

    /// CR4.
    #[inline(always)]
    pub(crate) fn cr4(&self) -> u64 {
        self.vmcb.cr4
    }

    /// CR0, CR3, CR4, EFER.
    #[inline(always)]
    pub(crate) fn paging(&self) -> [u64; 4] {
        [self.vmcb.cr0, self.vmcb.cr3, self.vmcb.cr4, self.vmcb.efer & !EFER_SVME]
    }

    /// Sets EFER.
    pub(crate) fn set_efer(&mut self, value: u64) {
        self.vmcb.efer = value | EFER_SVME;
        self.vmcb.clean &= !clean::CONTROL_REGISTERS;
    }

    /// The page attribute table.
    pub(crate) fn pat(&self) -> u64 {
        self.pat
    }

    /// Sets it.
    pub(crate) fn set_pat(&mut self, value: u64) {
        self.pat = value;
    }
}

//! Which mode a guest is in: its privilege, its code segment, and the registers of paging.
//!
//! Unsafe: none here.

use super::fields::{Field, Register};
use super::vcpu::VmxVcpu;
use super::vmcs::{read, write};
use super::{control_registers, state};
use crate::container::state::Segment;

impl VmxVcpu {
    /// The privilege level.
    #[inline(always)]
    pub(crate) fn cpl(&self) -> u8 {
        self.with(|| (read(Register::Ss.rights()) >> 5 & 3) as u8)
    }

    /// The code segment.
    #[inline(always)]
    pub(crate) fn code(&self) -> Segment {
        self.with(|| state::segment(Register::Cs))
    }

    /// Its attributes.
    #[inline(always)]
    pub(crate) fn code_attributes(&self) -> u16 {
        self.with(|| state::attributes(Register::Cs))
    }

    /// CR4, without bits that are the machine's.
    #[inline(always)]
    pub(crate) fn cr4(&self) -> u64 {
        self.with(control_registers::own_cr4)
    }

    /// CR0, CR3, CR4, EFER.
    #[inline(always)]
    pub(crate) fn paging(&self) -> [u64; 4] {
        let paging = self.with(super::paging_here);
        [paging.cr0, paging.cr3, paging.cr4, paging.efer]
    }

    /// Sets EFER.
    pub(crate) fn set_efer(&mut self, value: u64) {
        self.with(|| control_registers::put_efer(value));
    }

    /// The page attribute table.
    pub(crate) fn pat(&self) -> u64 {
        self.with(|| read(Field::GUEST_PAT))
    }

    /// Sets it.
    pub(crate) fn set_pat(&mut self, value: u64) {
        self.with(|| write(Field::GUEST_PAT, value));
    }
}

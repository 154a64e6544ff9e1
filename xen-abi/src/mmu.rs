//! Page tables of PV guests: `mmu_update`, `mmuext_op`, `update_va_mapping` (`xen.h`).

use crate::layout::{constants, structures};

constants! {
    /// Low two bits of [`MmuUpdate::ptr`]: write a page-table entry.
    pub const MMU_NORMAL_PT_UPDATE: u64 = 0;
    /// `ptr` names a machine frame; `val` is its new entry in the M2P table.
    pub const MMU_MACHPHYS_UPDATE: u64 = 1;
    /// Write an entry, keeping its accessed and dirty bits.
    pub const MMU_PT_UPDATE_PRESERVE_AD: u64 = 2;
    /// Write an entry that is never translated.
    pub const MMU_PT_UPDATE_NO_TRANSLATE: u64 = 3;

    /// [`MmuextOp::cmd`]: pin the frame `arg1` as a table of this level.
    pub const MMUEXT_PIN_L1_TABLE: u32 = 0;
    pub const MMUEXT_PIN_L2_TABLE: u32 = 1;
    pub const MMUEXT_PIN_L3_TABLE: u32 = 2;
    pub const MMUEXT_PIN_L4_TABLE: u32 = 3;
    pub const MMUEXT_UNPIN_TABLE: u32 = 4;
    /// `arg1`: frame of the new kernel root.
    pub const MMUEXT_NEW_BASEPTR: u32 = 5;
    pub const MMUEXT_TLB_FLUSH_LOCAL: u32 = 6;
    /// `arg1`: virtual address.
    pub const MMUEXT_INVLPG_LOCAL: u32 = 7;
    /// `arg2`: virtual address of a bitmap of vCPUs.
    pub const MMUEXT_TLB_FLUSH_MULTI: u32 = 8;
    /// `arg1`: virtual address; `arg2`: virtual address of a bitmap of vCPUs.
    pub const MMUEXT_INVLPG_MULTI: u32 = 9;
    pub const MMUEXT_TLB_FLUSH_ALL: u32 = 10;
    /// `arg1`: virtual address.
    pub const MMUEXT_INVLPG_ALL: u32 = 11;
    /// Write back and drop the caches.
    pub const MMUEXT_FLUSH_CACHE: u32 = 12;
    /// `arg1`: virtual address of the LDT; `arg2`: descriptors.
    pub const MMUEXT_SET_LDT: u32 = 13;
    /// `arg1`: frame of the new user root, or 0.
    pub const MMUEXT_NEW_USER_BASEPTR: u32 = 15;
    /// `arg1`: frame to fill with zeroes.
    pub const MMUEXT_CLEAR_PAGE: u32 = 16;
    /// `arg1`: destination frame; `arg2`: source frame.
    pub const MMUEXT_COPY_PAGE: u32 = 17;
    pub const MMUEXT_FLUSH_CACHE_GLOBAL: u32 = 18;
    pub const MMUEXT_MARK_SUPER: u32 = 19;
    pub const MMUEXT_UNMARK_SUPER: u32 = 20;

    /// `update_va_mapping` flags: nothing, one page, or all of the TLB ...
    pub const UVMF_NONE: u64 = 0;
    pub const UVMF_TLB_FLUSH: u64 = 1;
    pub const UVMF_INVLPG: u64 = 2;
    pub const UVMF_FLUSHTYPE_MASK: u64 = 3;
    /// ... on the vCPUs of the bitmap at this address (the flags' other bits),
    pub const UVMF_MULTI: u64 = 0;
    /// on this CPU when that address is 0,
    pub const UVMF_LOCAL: u64 = 0;
    /// or on all of the domain's CPUs.
    pub const UVMF_ALL: u64 = 1 << 2;
}

/// The bits of [`MmuUpdate::ptr`] that hold the command.
pub const MMU_COMMAND_MASK: u64 = 3;

structures! {
    /// One update of `mmu_update`.
    pub struct MmuUpdate = "struct mmu_update" {
        /// Machine address of an entry, with the command in its low two bits.
        pub ptr: u64,
        /// New contents.
        pub val: u64,
    }
    /// One operation of `mmuext_op`.
    pub struct MmuextOp = "struct mmuext_op" {
        /// `MMUEXT_*`.
        pub cmd: u32,
        pub _pad: u32,
        /// `mfn` or `linear_addr`.
        pub arg1: u64,
        /// `nr_ents` (low half), `vcpumask` or `src_mfn`.
        pub arg2: u64,
    }
}

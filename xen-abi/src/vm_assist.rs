//! `vm_assist` (`xen.h`): behaviours a guest switches on and off.

use crate::layout::constants;

constants! {
    pub const VMASST_CMD_ENABLE: u32 = 0;
    pub const VMASST_CMD_DISABLE: u32 = 1;
    /// 32-bit PV: emulate segments spanning 4 GiB.
    pub const VMASST_TYPE_4GB_SEGMENTS: u32 = 0;
    pub const VMASST_TYPE_4GB_SEGMENTS_NOTIFY: u32 = 1;
    /// Writes to page-table pages are trapped and emulated.
    pub const VMASST_TYPE_WRITABLE_PAGETABLES: u32 = 2;
    pub const VMASST_TYPE_PAE_EXTENDED_CR3: u32 = 3;
    /// The virtual IOPL is in the saved flags as on hardware.
    pub const VMASST_TYPE_ARCHITECTURAL_IOPL: u32 = 4;
    /// `XEN_RUNSTATE_UPDATE` marks a runstate record while it is written.
    pub const VMASST_TYPE_RUNSTATE_UPDATE_FLAG: u32 = 5;
    /// The M2P table is not visible from user mode's page tables.
    pub const VMASST_TYPE_M2P_STRICT: u32 = 32;
}

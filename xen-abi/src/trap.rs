//! Virtual traps of PV guests: `set_trap_table` (`arch-x86/xen.h`) and NMIs (`nmi.h`).

use crate::layout::{constants, structures};

constants! {
    pub const XENNMI_REGISTER_CALLBACK: u32 = 0;
    pub const XENNMI_UNREGISTER_CALLBACK: u32 = 1;
    /// Bits of `arch_shared_info.nmi_reason`.
    pub const XEN_NMIREASON_IO_ERROR: u64 = 1 << 0;
    pub const XEN_NMIREASON_PCI_SERR: u64 = 1 << 1;
    pub const XEN_NMIREASON_UNKNOWN: u64 = 1 << 2;
}

/// [`TrapInfo::flags`]: the lowest privilege level that may raise the vector by `int n`.
pub const TI_DPL_MASK: u8 = 3;
/// [`TrapInfo::flags`]: mask event upcalls on entry.
pub const TI_IF: u8 = 4;

structures! {
    /// One entry of the virtual IDT; a table ends with an entry whose address is 0.
    pub struct TrapInfo = "struct trap_info" {
        pub vector: u8,
        /// Bits [`TI_DPL_MASK`] and [`TI_IF`].
        pub flags: u8,
        pub cs: u16,
        pub _pad: u32,
        /// Virtual address of the handler.
        pub address: u64,
    }
    /// Argument of [`XENNMI_REGISTER_CALLBACK`].
    pub struct NmiCallback = "struct xennmi_callback" {
        pub handler_address: u64,
        pub pad: u64,
    }
}

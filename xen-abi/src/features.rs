//! Feature bits of `XENVER_get_features` (`features.h`): bit number within submap `n / 32`.

use crate::layout::constants;

constants! {
    /// PV: page tables need not be read-only.
    pub const XENFEAT_WRITABLE_PAGE_TABLES: u32 = 0;
    /// PV: descriptor tables need not be read-only.
    pub const XENFEAT_WRITABLE_DESCRIPTOR_TABLES: u32 = 1;
    /// The guest's frames are translated for it (HVM, PVH); never reported to PV.
    pub const XENFEAT_AUTO_TRANSLATED_PHYSMAP: u32 = 2;
    pub const XENFEAT_SUPERVISOR_MODE_KERNEL: u32 = 3;
    pub const XENFEAT_PAE_PGDIR_ABOVE_4GB: u32 = 4;
    /// `MMU_PT_UPDATE_PRESERVE_AD` works; Linux stops without it.
    pub const XENFEAT_MMU_PT_UPDATE_PRESERVE_AD: u32 = 5;
    pub const XENFEAT_HIGHMEM_ASSIST: u32 = 6;
    /// `GNTMAP_guest_avail_mask` bits are honoured; Linux stops without it.
    pub const XENFEAT_GNTTAB_MAP_AVAIL_BITS: u32 = 7;
    /// HVM: event upcalls by a vector of the guest's choice.
    pub const XENFEAT_HVM_CALLBACK_VECTOR: u32 = 8;
    /// HVM: pvclock may be used.
    pub const XENFEAT_HVM_SAFE_PVCLOCK: u32 = 9;
    pub const XENFEAT_HVM_PIRQS: u32 = 10;
    /// The caller is the initial domain.
    pub const XENFEAT_DOM0: u32 = 11;
    pub const XENFEAT_MEMORY_OP_VNODE_SUPPORTED: u32 = 13;
    pub const XENFEAT_ARM_SMCCC_SUPPORTED: u32 = 14;
    pub const XENFEAT_LINUX_RSDP_UNRESTRICTED: u32 = 15;
    pub const XENFEAT_NOT_DIRECT_MAPPED: u32 = 16;
    pub const XENFEAT_DIRECT_MAPPED: u32 = 17;
    pub const XENFEAT_NR_SUBMAPS: u32 = 1;
}

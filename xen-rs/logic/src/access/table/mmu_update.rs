//! `mmu_update`: the commands in the low bits of a request's address, and whose they are.

use xen_abi::mmu;

// The header has them as 64-bit numbers, being parts of an address.
#[allow(clippy::cast_possible_truncation, reason = "two bits")]
mod commands {
    use super::mmu;
    pub const MMU_NORMAL_PT_UPDATE: u32 = mmu::MMU_NORMAL_PT_UPDATE as u32;
    pub const MMU_MACHPHYS_UPDATE: u32 = mmu::MMU_MACHPHYS_UPDATE as u32;
    pub const MMU_PT_UPDATE_PRESERVE_AD: u32 = mmu::MMU_PT_UPDATE_PRESERVE_AD as u32;
    pub const MMU_PT_UPDATE_NO_TRANSLATE: u32 = mmu::MMU_PT_UPDATE_NO_TRANSLATE as u32;
}
use commands::*;

operations! {
    /// What a request of `mmu_update` does.
    MmuUpdateOp = "mmu_update" in "xen.h", others: Anyone ENOSYS;
    served {
        NormalPtUpdate = MMU_NORMAL_PT_UPDATE, TargetOrControl;
        MachphysUpdate = MMU_MACHPHYS_UPDATE, TargetOrControl;
        PtUpdatePreserveAd = MMU_PT_UPDATE_PRESERVE_AD, TargetOrControl;
        PtUpdateNoTranslate = MMU_PT_UPDATE_NO_TRANSLATE, TargetOrControl;
    }
    refused {}
}

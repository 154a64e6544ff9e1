//! `mmuext_op`: which operations there are, and whose they are.

use xen_abi::mmu::*;

operations! {
    /// An operation on page tables and TLBs.
    MmuextOp = "mmuext_op" in "xen.h", others: Anyone ENOSYS;
    served {
        PinL1 = MMUEXT_PIN_L1_TABLE, TargetOrControl;
        PinL2 = MMUEXT_PIN_L2_TABLE, TargetOrControl;
        PinL3 = MMUEXT_PIN_L3_TABLE, TargetOrControl;
        PinL4 = MMUEXT_PIN_L4_TABLE, TargetOrControl;
        Unpin = MMUEXT_UNPIN_TABLE, TargetOrControl;
        NewBaseptr = MMUEXT_NEW_BASEPTR, Anyone;
        TlbFlushLocal = MMUEXT_TLB_FLUSH_LOCAL, Anyone;
        InvlpgLocal = MMUEXT_INVLPG_LOCAL, Anyone;
        TlbFlushMulti = MMUEXT_TLB_FLUSH_MULTI, Anyone;
        InvlpgMulti = MMUEXT_INVLPG_MULTI, Anyone;
        TlbFlushAll = MMUEXT_TLB_FLUSH_ALL, Anyone;
        InvlpgAll = MMUEXT_INVLPG_ALL, Anyone;
        FlushCache = MMUEXT_FLUSH_CACHE, Anyone, "domains with device memory; else `EACCES`";
        SetLdt = MMUEXT_SET_LDT, Anyone;
        NewUserBaseptr = MMUEXT_NEW_USER_BASEPTR, Anyone;
        ClearPage = MMUEXT_CLEAR_PAGE, TargetOrControl;
        CopyPage = MMUEXT_COPY_PAGE, TargetOrControl;
        FlushCacheGlobal = MMUEXT_FLUSH_CACHE_GLOBAL, Anyone, "domains with device memory; else `EACCES`";
    }
    refused {
        MMUEXT_MARK_SUPER, TargetOrControl, EOPNOTSUPP, "as in Xen without its `allowsuperpage`";
        MMUEXT_UNMARK_SUPER, TargetOrControl, EOPNOTSUPP, "as in Xen without its `allowsuperpage`";
    }
}

//! `grant_table_op`: which operations there are, and whose they are.

use xen_abi::grant_table::*;

operations! {
    /// An operation on grants.
    GrantTableOp = "grant_table_op" in "grant_table.h", others: Anyone ENOSYS;
    served {
        Map = GNTTABOP_MAP_GRANT_REF, Offered;
        Unmap = GNTTABOP_UNMAP_GRANT_REF, Anyone;
        SetupTable = GNTTABOP_SETUP_TABLE, TargetOrControl;
        Copy = GNTTABOP_COPY, Offered;
        QuerySize = GNTTABOP_QUERY_SIZE, TargetOrControl;
        UnmapAndReplace = GNTTABOP_UNMAP_AND_REPLACE, Anyone;
        SetVersion = GNTTABOP_SET_VERSION, Anyone, "as far as the domain was created for";
        GetStatusFrames = GNTTABOP_GET_STATUS_FRAMES, TargetOrControl, "version 1 has none";
        GetVersion = GNTTABOP_GET_VERSION, TargetOrControl;
        Swap = GNTTABOP_SWAP_GRANT_REF, Anyone;
        Transfer = GNTTABOP_TRANSFER, Offered;
        CacheFlush = GNTTABOP_CACHE_FLUSH, Offered, "one's own pages, and those in use by grant; else `EPERM`, `EINVAL`";
    }
    refused {
        GNTTABOP_DUMP_TABLE, Anyone, ENOSYS, "Xen has it as a debug key only";
    }
}

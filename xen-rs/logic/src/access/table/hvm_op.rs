//! `hvm_op`: which operations there are, and whose they are.

use xen_abi::hvm::*;

operations! {
    /// An operation on PVH domains.
    HvmOp = "hvm_op" in "hvm/hvm_op.h", others: Anyone ENOSYS;
    served {
        SetParam = HVMOP_SET_PARAM, TargetOrControl;
        GetParam = HVMOP_GET_PARAM, TargetOrControl;
        GetTime = HVMOP_GET_TIME, Anyone;
        SetEvtchnUpcallVector = HVMOP_SET_EVTCHN_UPCALL_VECTOR, Anyone;
    }
    refused {
        HVMOP_FLUSH_TLBS, Anyone, ENOSYS, "the hardware looks after them";
        HVMOP_PAGETABLE_DYING, Anyone, ENOSYS, "no shadow page tables";
        HVMOP_XENTRACE, Anyone, ENOSYS, "no trace records of guests";
        HVMOP_SET_MEM_ACCESS, Anyone, ENOSYS, "removed from Xen";
        HVMOP_GET_MEM_ACCESS, Anyone, ENOSYS, "removed from Xen";
        HVMOP_GET_MEM_TYPE, Anyone, ENOSYS, "for device models";
        HVMOP_GUEST_REQUEST_VM_EVENT, Anyone, ENOSYS, "no VM events";
        HVMOP_ALTP2M, Anyone, ENOSYS, "one physical map for each domain";
    }
}

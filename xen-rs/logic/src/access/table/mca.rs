//! `mca`: which operations there are.

use xen_abi::mca::*;

operations! {
    /// An operation on machine checks.
    McaOp = "mca" in "arch-x86/xen-mca.h", others: Control EINVAL;
    served {
        Fetch = XEN_MC_FETCH, Control, "never anything: a machine check is the machine's end";
        PhysCpuInfo = XEN_MC_PHYSCPUINFO, Control;
    }
    refused {
        XEN_MC_NOTIFYDOMAIN, Control, EINVAL, "as in Xen";
        XEN_MC_MSRINJECT, Control, ENOSYS, "for testing Xen";
        XEN_MC_MCEINJECT, Control, ENOSYS, "for testing Xen";
        XEN_MC_INJECT_V2, Control, ENOSYS, "for testing Xen";
    }
}

//! `vm_assist`: the commands, and whose they are.

use xen_abi::vm_assist::*;

operations! {
    /// What to do with a switch of the caller.
    VmAssistCommand = "vm_assist" in "xen.h", others: Anyone ENOSYS;
    served {
        Enable = VMASST_CMD_ENABLE, Anyone;
        Disable = VMASST_CMD_DISABLE, Anyone;
    }
    refused {}
}

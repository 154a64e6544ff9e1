//! `callback_op`: which operations there are, and whose they are.

use xen_abi::callback::*;

operations! {
    /// An operation on where the caller is called back.
    CallbackOp = "callback_op" in "callback.h", others: Anyone ENOSYS;
    served {
        Register = CALLBACKOP_REGISTER, Anyone;
        Unregister = CALLBACKOP_UNREGISTER, Anyone;
    }
    refused {}
}

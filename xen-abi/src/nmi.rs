//! `nmi_op` (`nmi.h`): the handler of NMIs. [`callback_op`](crate::callback) can do the same.

use crate::layout::{constants, structures};

constants! {
    /// [`XennmiCallback`].
    pub const XENNMI_REGISTER_CALLBACK: u32 = 0;
    pub const XENNMI_UNREGISTER_CALLBACK: u32 = 1;
}

structures! {
    pub struct XennmiCallback = "struct xennmi_callback" {
        /// Virtual address.
        pub handler_address: u64,
        pub _unused: u64 => "pad",
    }
}

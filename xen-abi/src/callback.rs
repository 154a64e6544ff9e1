//! `callback_op` (`callback.h`): entry points of a PV guest.

use crate::layout::{constants, structures};

constants! {
    pub const CALLBACKTYPE_EVENT: u16 = 0;
    pub const CALLBACKTYPE_FAILSAFE: u16 = 1;
    pub const CALLBACKTYPE_SYSCALL: u16 = 2;
    pub const CALLBACKTYPE_SYSENTER_DEPRECATED: u16 = 3;
    pub const CALLBACKTYPE_NMI: u16 = 4;
    pub const CALLBACKTYPE_SYSENTER: u16 = 5;
    pub const CALLBACKTYPE_SYSCALL32: u16 = 7;
    /// Flag: mask event upcalls on entry.
    pub const CALLBACKF_MASK_EVENTS: u16 = 1 << 0;
    pub const CALLBACKOP_REGISTER: u32 = 0;
    pub const CALLBACKOP_UNREGISTER: u32 = 1;
}

structures! {
    /// Argument of [`CALLBACKOP_REGISTER`].
    pub struct CallbackRegister = "struct callback_register" {
        /// `CALLBACKTYPE_*`.
        pub type_: u16 => "type",
        /// `CALLBACKF_*`.
        pub flags: u16,
        pub _pad: u32,
        /// Virtual address.
        pub address: u64,
    }
    /// Argument of [`CALLBACKOP_UNREGISTER`].
    pub struct CallbackUnregister = "struct callback_unregister" {
        /// `CALLBACKTYPE_*`.
        pub type_: u16 => "type",
        pub _unused: u16,
    }
}

//! `multicall` (`xen.h`): several hypercalls in one.

use crate::layout::structures;

structures! {
    /// One call of a batch.
    pub struct MulticallEntry = "struct multicall_entry" {
        /// Hypercall number.
        pub op: u64,
        /// Out: its return value.
        pub result: u64,
        pub args: [u64; 6],
    }
}

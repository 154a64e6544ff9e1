//! The request/response ring all block and network devices use (`io/ring.h`).
//!
//! A ring page starts with [`SringHeader`]; a power of two of slots follows, each as large as the larger of request and
//! response. Indices run freely modulo 2^32; the slot is the index modulo the number of slots.

use core::mem::offset_of;

use crate::layout::structures;

structures! {
    /// Start of a ring page. Both sides write it: address it by the offsets below.
    pub struct SringHeader = "struct ring_header_sring" {
        /// Written by the front end.
        pub req_prod: u32,
        /// Written by the back end: notify when `req_prod` passes it.
        pub req_event: u32,
        /// Written by the back end.
        pub rsp_prod: u32,
        /// Written by the front end: notify when `rsp_prod` passes it.
        pub rsp_event: u32,
        /// Private to the device kind.
        pub pvt: [u8; 4],
        pub _pad: [u8; 44],
    }
}

/// Offset of `req_prod`.
pub const REQ_PROD: usize = offset_of!(SringHeader, req_prod);
/// Offset of `req_event`.
pub const REQ_EVENT: usize = offset_of!(SringHeader, req_event);
/// Offset of `rsp_prod`.
pub const RSP_PROD: usize = offset_of!(SringHeader, rsp_prod);
/// Offset of `rsp_event`.
pub const RSP_EVENT: usize = offset_of!(SringHeader, rsp_event);
/// Offset of the first slot.
pub const SLOTS: usize = size_of::<SringHeader>();

/// Slots of `slot` bytes in a ring of `bytes` bytes: the largest power of two that fits, 0 if none does.
pub const fn slots(bytes: usize, slot: usize) -> usize {
    match bytes.saturating_sub(SLOTS).checked_div(slot) {
        Some(n) if n > 0 => 1 << n.ilog2(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn slots_are_a_power_of_two() {
        assert_eq!(super::slots(4096, 112), 32);
        assert_eq!(super::slots(4096, 12), 256);
        assert_eq!(super::slots(64, 12), 0);
        assert_eq!(super::slots(4096, 0), 0);
    }
}

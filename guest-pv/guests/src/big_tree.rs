//! A tree of page tables that takes many slices to validate and to give up.

use guest_pv::mem::table::TABLE;

/// Its L2s: 512 entries each, more than a slice's worth many times.
pub const L2S: usize = 24;
const L1S: usize = 8;
/// Its pages: the root, the L3, the L2s and the L1s.
pub const PAGES: usize = 2 + L2S + L1S;

/// What a page of the tree holds at an index; `mfn` says which frame a page is.
#[must_use]
pub fn entry(page: usize, index: usize, mfn: impl Fn(usize) -> u64) -> u64 {
    match page {
        0 if index == 3 => mfn(1) << 12 | TABLE,
        1 if index < L2S => mfn(2 + index) << 12 | TABLE,
        2.. if page < 2 + L2S => mfn(2 + L2S + index % L1S) << 12 | TABLE,
        _ => 0,
    }
}

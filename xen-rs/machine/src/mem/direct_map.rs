//! The direct map: all RAM at [`DIRECT_MAP`](super::layout::DIRECT_MAP), never executable.

use super::layout::{DIRECT_MAP, DIRECT_MAP_SIZE, PAGE_SHIFT};
use xen_abi::ids::Mfn;

/// Where a physical address is in the direct map. Only an address: whether something is mapped there, and who may touch
/// it, is for the caller to know.
#[inline(always)]
#[must_use]
pub const fn va_of_phys(phys: u64) -> u64 {
    DIRECT_MAP + phys
}

/// Where a frame begins in the direct map.
#[inline(always)]
#[must_use]
pub const fn va_of(mfn: Mfn) -> u64 {
    DIRECT_MAP + (mfn.0 << PAGE_SHIFT)
}

/// The physical address behind an address of the direct map.
#[inline(always)]
#[must_use]
pub const fn phys_of_va(va: u64) -> Option<u64> {
    if va >= DIRECT_MAP && va - DIRECT_MAP < DIRECT_MAP_SIZE { Some(va - DIRECT_MAP) } else { None }
}

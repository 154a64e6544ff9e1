//! Floor 1: kernel images (ELF, bzImage), their Xen notes, and the start-of-day layout of a PV or PVH domain.
//! Used by the hypervisor (dom0) and by the toolstack (every other domain).
//!
//! The path of an image: file -> [`payload::Payload`] -> unpacked ELF -> [`kernel::Kernel`] (segments and notes)
//! -> [`layout::Plan`] (which pfn holds what) -> [`page_tables`] and [`start_of_day`] (what is written there).
//! For a PVH domain it is [`pvh::Kernel`] and [`pvh::Plan`] instead.
//! Everything here is a pure function of bytes; who writes the result into a domain's memory is the caller's affair.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod checksum;
pub mod error;
pub mod kernel;
pub mod layout;
pub mod notes;
pub mod page_tables;
pub mod payload;
pub mod pvh;
pub mod start_of_day;
mod unpack;

pub use error::{ImageError, LayoutError};
pub use kernel::{Kernel, Segment};
pub use layout::{Plan, Request, Role};
pub use payload::{Format, Payload};

/// log2 of a page's size.
pub const PAGE_SHIFT: u32 = 12;
/// Bytes of a page.
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;

/// Pages that hold `bytes`.
#[must_use]
pub const fn pages_for(bytes: u64) -> u64 {
    bytes.div_ceil(PAGE_SIZE)
}

//! The arithmetic of `HYPERVISOR_memory_op`: which extents a call is about, how far a round of it goes, and where the next
//! one begins.

mod extents;
mod trade;

pub use extents::{Direction, Extents, Step, split_command};
pub use trade::Trade;

/// Largest extent that a domain may ask for, as a power of two of pages: 2 MiB (Xen's CONFIG_DOMU_MAX_ORDER). Xen lets
/// its control domain have more unless `memop-max-order=` says so; here one extent is one bounded piece of work.
pub const LARGEST_ORDER: u32 = 9;

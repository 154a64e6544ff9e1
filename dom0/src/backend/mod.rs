//! Back ends of split devices: what guests see as their hardware.

pub mod blk;
mod complaints;
mod copies;
mod grants;
mod limit;
pub mod vbd;

/// Pages that are mapped for one device at a time, or nearly: those that are kept, and the rings.
pub const MAPPED: usize = grants::MOST + 64;

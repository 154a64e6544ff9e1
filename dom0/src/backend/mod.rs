//! Back ends of split devices: what guests see as their hardware.

pub mod blk;
mod grants;
pub mod vbd;

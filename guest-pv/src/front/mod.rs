//! Front ends of paravirtual devices: the guest's half of what a back end in another domain serves.

pub mod blk;
pub mod buffer;
pub mod device;

pub use buffer::Buffer;
pub use device::{Device, Error};

//! Device protocols in shared memory (`io/*.h`).

pub mod blkif;
pub mod console;
pub mod netif;
pub mod ring;

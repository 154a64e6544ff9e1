//! Device protocols in shared memory (`io/*.h`).

pub mod console;
pub mod ring;

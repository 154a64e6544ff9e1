//! What boot decides without touching hardware.

pub mod acpi;
mod area;
pub mod command_line;
pub mod loader;
pub mod memory_map;

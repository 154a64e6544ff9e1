//! What boot decides without touching hardware.

pub mod command_line;

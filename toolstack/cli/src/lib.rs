//! Floor 3: the host's end of the control protocol: a hub that shares the line to dom0 among programs, and what the
//! program `xrs` does with it.
#![forbid(unsafe_code)]

pub mod client;
pub mod hub;
pub mod line;
pub mod local;
pub mod terminal;

//! Floor 1: the control protocol, by which programs on the host drive dom0 over a serial line.
//!
//! Three layers, each of which knows nothing of those above it: [`frame`] finds the borders of packets in a stream of
//! bytes, [`link`] makes of a line that may lose or spoil bytes one that does not, and [`message`] says what is said.
//! No layer reads a clock or touches a device: dom0 and the host's programs lend both.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod frame;
pub mod link;
pub mod message;

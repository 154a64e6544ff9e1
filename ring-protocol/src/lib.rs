//! Floor 1: protocols over pages shared with another domain: byte rings (xenstore, console), rings of requests (block
//! devices), and the device states.
//!
//! The page itself is a trait ([`page::Page`]) that the runtime implements with volatile accesses, and tests with a
//! vector of atomics. Whoever is at the other end may write anything at any time. So every index we own is kept in a
//! private shadow and only ever written to the page, and every index of the peer is read once, checked, and then used.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod blk;
pub mod console;
pub mod page;
pub mod peer;
pub mod ring;
pub mod sring;
pub mod xenbus;
pub mod xenstore;

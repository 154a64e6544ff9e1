//! Floor 2: the toolstack's library: domain configurations, the domain builder, and the commands with xl's names.
//!
//! It touches the world only through traits that the program above implements: [`calls::XenCalls`] for the hypervisor,
//! and the services of [`host`] for xenstore, consoles, files and the terminal. So all of it runs in host tests too.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod build;
pub mod calls;
pub mod cmd;
pub mod config;
pub mod core_file;
pub mod cpus;
pub mod device;
pub mod domains;
pub mod host;
pub mod images;
pub mod json;
pub mod lifecycle;
pub mod store;

//! Floor 3: the control domain. One program: the shell and the toolstack, xenstore, guests' consoles, the files that it
//! was booted with.
//!
//! It runs as one loop without threads. Whoever waits (the shell for a key, a command for a guest) waits in
//! [`dom0::Dom0::pump`], which serves everybody else meanwhile.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]
#![cfg_attr(not(target_os = "none"), allow(dead_code))] // On the host only the tests run.

extern crate alloc;

#[macro_use]
mod xen_calls;
mod archive;
mod backend;
mod client;
mod disk;
mod dom0;
mod drivers;
mod files;
mod fuse;
mod host;
mod saved;
mod service;
mod shell;
mod terminal;

use guest_pv::{entry, mem, power, println};

/// A script for the shell, at the root of the archive.
const SCRIPT: &str = ".exec";

entry!(run);

fn run() {
    let mut dom0 = match dom0::Dom0::new(archive::Archive::new(mem::boot_module())) {
        Ok(dom0) => dom0,
        Err(errno) => {
            println!("dom0: cannot start its services: {errno}");
            power::crash()
        }
    };
    match dom0.files.get(SCRIPT) {
        Some(script) => {
            let status = shell::run_script(&mut dom0, script);
            println!("xen-rs: exec finished with status {status}");
        }
        None => shell::interact(&mut dom0),
    }
    power::off()
}

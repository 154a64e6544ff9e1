//! Floor 3: the hypervisor. Traps, hypercalls, the life of domains; all decisions are made one floor down in `logic`,
//! all that touches the CPU in `machine`.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![cfg_attr(not(target_os = "none"), allow(unused, reason = "on the host this is an empty program"))]
#![forbid(unsafe_code)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod console;
#[cfg(target_os = "none")]
mod cpu;
#[cfg(target_os = "none")]
mod cpu_loop;
#[cfg(target_os = "none")]
mod debug_keys;
#[cfg(target_os = "none")]
mod domain;
#[cfg(target_os = "none")]
mod event;
#[cfg(target_os = "none")]
mod grant;
#[cfg(target_os = "none")]
mod guest;
#[cfg(target_os = "none")]
mod hvm;
#[cfg(target_os = "none")]
mod hypercall;
#[cfg(target_os = "none")]
mod irq;
#[cfg(target_os = "none")]
mod memory;
#[cfg(target_os = "none")]
mod start;
#[cfg(target_os = "none")]
mod sync;
#[cfg(target_os = "none")]
mod time;
#[cfg(target_os = "none")]
mod topology;
#[cfg(target_os = "none")]
mod trace;
#[cfg(target_os = "none")]
mod trap;
#[cfg(target_os = "none")]
mod upcalls;
#[cfg(target_os = "none")]
mod vcpu;
#[cfg(target_os = "none")]
mod vcpu_info;
#[cfg(target_os = "none")]
mod watchdog;

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("xen-rs runs on the bare machine: `cargo xtask run` boots it");
}

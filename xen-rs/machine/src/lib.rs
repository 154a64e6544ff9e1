//! Floor 2: all `unsafe` of the hypervisor: CPU, paging, APIC.
//!
//! The binary above is `#![forbid(unsafe_code)]`. It gives this crate its upcalls with [`bind!`], and this crate calls
//! them on the one stack of each CPU, with interrupts off.
#![no_std]
#![allow(unsafe_code)] // this is the floor where it lives; every block says why it is sound
#![cfg_attr(not(target_os = "none"), allow(dead_code, unused_imports))]
// Registers are halved, addresses become pointers, and `usize` has 64 bits here.
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]

extern crate alloc;

pub mod arch;
pub mod boot_info;
pub mod command_line;
pub mod container;
pub mod mailbox;
pub mod mem;
pub mod upcall;

pub use logic::regs::GuestRegs;

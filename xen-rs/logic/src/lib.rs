//! Floor 1: the decisions of the hypervisor that need no register: page types, grants, events, scheduling, access.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(any(test, feature = "models"))]
extern crate std;

pub mod access;
mod atomic;
pub mod boot;
pub mod control;
pub mod cpuid;
pub mod emulate;
pub mod event;
pub mod exception_table;
pub mod frames;
pub mod grant;
pub mod guest;
pub mod hvm;
pub mod hypercall;
pub mod irq;
pub mod lock;
pub mod memory_op;
pub mod msr;
pub mod multicall;
pub mod num;
pub mod page;
pub mod regs;
pub mod sched;
pub mod speculation;
pub mod symbols;
pub mod time;
pub mod trace;
pub mod trap;
pub mod width;

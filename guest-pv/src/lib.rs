//! Floor 2: the runtime for paravirtualized guests. dom0 and all conformance guests stand on it. The same guests run in a
//! hardware container too: [`pvh`].
//!
//! This crate owns everything a PV kernel needs `unsafe` for: the entry point, the `syscall` instruction, page
//! tables, trap frames and pages shared with the hypervisor or other domains. What it offers to the outside is safe,
//! except for the raw hypercalls in [`call`], which conformance guests use to misbehave on purpose.
//!
//! The model is a cooperative event loop: event upcalls stay masked while a guest computes; handlers run from
//! [`events::poll`] and [`events::wait`] only. So nothing here is ever preempted. A guest starts on one vCPU; [`smp`]
//! brings up others, each with a loop of its own.
#![cfg_attr(target_os = "none", no_std)]
#![allow(unsafe_code)] // The runtime below every guest: see the text above.
#![cfg_attr(not(target_os = "none"), allow(dead_code))] // On the host nothing ever starts.
#![allow(clippy::cast_possible_truncation)] // x86-64 only: usize is 64 bits wide.

#[doc(hidden)]
pub extern crate alloc;

pub mod boot;
pub mod call;
pub mod console;
mod entry;
pub mod events;
pub mod fiber;
pub mod front;
pub mod grants;
mod heap;
pub mod mark;
pub mod mem;
mod panic;
pub mod power;
pub mod pvh;
pub mod smp;
pub mod tap;
pub mod time;
pub mod traps;
pub mod uart;
pub mod xenstore;

pub use boot::boot;
pub use pvh::{Mode, mode};

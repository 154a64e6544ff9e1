//! Floor 0: every number and structure of the Xen 4.17 public ABI that a guest or tool can see. No behaviour.
//!
//! One module per public header. Constants keep the header's name in upper case, structures its name in camel case without the
//! `xen_` prefix; guest handles (pointers) are `u64`. The authority is `/usr/include/xen`: `tests/layout.rs` compares everything
//! declared here with it.
#![no_std]
#![forbid(unsafe_code)]

#[doc(hidden)]
pub mod layout;

pub mod arch_x86;
pub mod callback;
pub mod compat;
pub mod console;
pub mod domctl;
pub mod elfnote;
pub mod errno;
pub mod event_channel;
pub mod features;
pub mod grant_table;
pub mod hvm;
pub mod hypercall;
pub mod ids;
pub mod io;
pub mod mca;
pub mod memory;
pub mod mmu;
pub mod multicall;
pub mod nmi;
pub mod physdev;
pub mod platform;
pub mod sched;
pub mod start;
pub mod sysctl;
pub mod trace;
pub mod trap;
pub mod vcpu;
pub mod version;
pub mod vm_assist;
pub mod xen_cpuid;
pub mod xs_wire;

pub use errno::Errno;

//! The privileged instructions that a PV kernel may use although it runs in ring 3: decoded from copied bytes, checked
//! against the guest's virtual privilege, and described for the binary to carry out.
//!
//! The set is Xen's: control and debug registers, `clts`, `wbinvd`, MSRs, `cpuid`, `rdtsc(p)`, `xsetbv`, port I/O, and
//! `cli`/`sti` under IOPL. Anything else that raised #GP is the guest's own fault and goes back to it.

pub mod arithmetic;
pub mod control;
pub mod decode;
pub mod encoding;
pub mod io;
pub mod memory;
pub mod pit;
pub mod privilege;
pub mod pt_write;

//! The program that a stock Linux guest runs to show that its kernel is sound on this hypervisor: processes, memory,
//! signals, threads, vector registers, timers and clocks, each a chapter of claims in TAP.
//!
//! `exerciser [CHAPTER..]`; without words the chapters are those of `exercise=CHAPTER,..` on the kernel's command line.
//! Nothing in it knows of Xen: on a machine without a hypervisor the same claims hold.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod chapters;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() -> std::process::ExitCode {
    chapters::run()
}

/// Elsewhere the workspace is built without it.
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() {}

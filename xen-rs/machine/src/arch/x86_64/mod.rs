//! The x86-64 processor and the parts of a PC that every one of them has.

#[cfg(target_os = "none")]
pub mod acpi;
#[cfg(target_os = "none")]
mod alternatives;
#[cfg(target_os = "none")]
pub mod boot;
#[cfg(target_os = "none")]
pub mod cache;
#[cfg(target_os = "none")]
pub mod cpu;
#[cfg(target_os = "none")]
pub mod descriptors;
#[cfg(target_os = "none")]
#[doc(hidden)]
pub mod dispatch;
#[cfg(target_os = "none")]
pub mod entry;
#[cfg(target_os = "none")]
pub mod fpu;
pub mod gdt;
#[cfg(target_os = "none")]
pub mod guest_port;
#[cfg(target_os = "none")]
pub mod guest_registers;
#[cfg(target_os = "none")]
pub mod idt;
#[cfg(target_os = "none")]
pub mod interrupts;
#[cfg(target_os = "none")]
pub mod ioapic;
#[cfg(target_os = "none")]
pub mod lapic;
#[cfg(target_os = "none")]
pub mod panic;
pub mod percpu;
pub mod pic;
pub mod port;
#[cfg(target_os = "none")]
pub mod power;
#[cfg(target_os = "none")]
pub mod segments;
pub mod serial;
#[cfg(target_os = "none")]
pub mod smp;
#[cfg(target_os = "none")]
pub mod tsc;

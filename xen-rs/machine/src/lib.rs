//! Floor 2: all `unsafe` of the hypervisor: CPU, paging, APIC.
#![no_std]
pub mod mailbox;

//! Domains in a hardware container: the rules that need no register.

pub mod apic;
pub mod compat;
pub mod delivery;
pub mod first_state;
pub mod length;
pub mod mmio;
pub mod msr;
pub mod p2m;
pub mod string;
pub mod walk;

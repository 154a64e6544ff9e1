//! Domains in a hardware container: the rules that need no register.

pub mod apic;
pub mod p2m;

//! Domains in a hardware container: the rules that need no register.

pub mod p2m;

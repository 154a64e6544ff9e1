//! A domain's devices: their nodes in xenstore, and waiting for both ends to agree.

pub mod disk;

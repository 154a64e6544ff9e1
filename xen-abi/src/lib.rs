//! Floor 0: every number and structure of the Xen 4.17 public ABI that a guest or tool can see. No behaviour.
#![no_std]
#![forbid(unsafe_code)]

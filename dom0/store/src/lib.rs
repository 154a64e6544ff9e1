//! Floor 1: the xenstore tree: nodes, permissions, transactions, watches.
#![no_std]
#![forbid(unsafe_code)]

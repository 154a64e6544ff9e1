//! Floor 1: split-driver protocols over shared pages: rings, xenbus, console, xenstore wire.
#![no_std]
#![forbid(unsafe_code)]

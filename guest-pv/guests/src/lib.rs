//! Conformance guests.
#![no_std]

//! What several conformance guests share. Each guest is one file under `src/bin`.
//!
//! The guests misuse the interface on purpose, so this package may use `unsafe`.
#![no_std]

//! Guests that do anything with page tables, against a recount of every reference.
#![no_main]
#![forbid(unsafe_code)]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| logic::page::tests::model::run_bytes(data));

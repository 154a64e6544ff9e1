//! The physical map of a domain in a container: anything mapped, taken out, split, against a list.
#![no_main]
#![forbid(unsafe_code)]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| logic::hvm::p2m::tests::model::run_bytes(data));

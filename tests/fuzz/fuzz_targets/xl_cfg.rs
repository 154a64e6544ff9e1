//! A domain's configuration file.
#![no_main]
#![forbid(unsafe_code)]

use libfuzzer_sys::fuzz_target;
use toolstack::config::DomainConfig;

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = str::from_utf8(data) {
        match DomainConfig::parse("fuzz.cfg", text, &[]) {
            Ok(parsed) => drop(format!("{parsed:?}")),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
});

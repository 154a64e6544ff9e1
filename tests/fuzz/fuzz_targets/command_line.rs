//! The hypervisor's command line.
#![no_main]
#![forbid(unsafe_code)]

use libfuzzer_sys::fuzz_target;
use logic::boot::command_line;

fuzz_target!(|data: &[u8]| {
    if let Ok(line) = str::from_utf8(data) {
        let mut complaints = 0_usize;
        command_line::parse(line, |complaint| complaints += complaint.to_string().len());
        assert!(command_line::without_file_name(line).len() <= line.len());
    }
});

//! Instructions of a guest that are to be emulated.
#![no_main]
#![forbid(unsafe_code)]

use libfuzzer_sys::fuzz_target;
use logic::emulate::{decode, pt_write};
use logic::regs::GuestRegs;

fuzz_target!(|data: &[u8]| {
    let code = &data[..data.len().min(15)];
    for size in [decode::CodeSize::Long, decode::CodeSize::Compat] {
        if let Ok(instruction) = decode::decode(code, size) {
            assert!(usize::from(instruction.length) <= code.len() && instruction.length > 0, "{instruction:?}");
        }
    }
    if let Some(length) = decode::is_forced_cpuid(code) {
        assert!(usize::from(length) <= code.len());
    }
    let regs = GuestRegs::default();
    if let Some(write) = pt_write::decode(code, &regs) {
        assert!(usize::from(write.length()) <= code.len() && write.length() > 0, "{write:?}");
    }
});

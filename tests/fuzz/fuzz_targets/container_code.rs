//! Instructions of a guest in a container that its exits ask about: how long they are, and which part of a string is moved at a
//! time. Those that access memory have a target of their own, `mmio`.
#![no_main]
#![forbid(unsafe_code)]

use fuzz::Bytes;
use libfuzzer_sys::fuzz_target;
use logic::hvm::length::{Instruction, MAX_LENGTH};
use logic::hvm::string::{self, Access, Width};
use logic::regs::{GuestRegs, rflags};

const INSTRUCTIONS: [Instruction; 7] = [
    Instruction::Cpuid,
    Instruction::Hlt,
    Instruction::Rdmsr,
    Instruction::Wrmsr,
    Instruction::Hypercall,
    Instruction::Xsetbv,
    Instruction::CacheFlush,
];

fuzz_target!(|data: &[u8]| {
    let code = &data[..data.len().min(MAX_LENGTH)];
    for long in [false, true] {
        for instruction in INSTRUCTIONS {
            if let Some(length) = instruction.length(code, long) {
                assert!(length >= instruction.usual_length() && length <= code.len(), "{instruction:?}: {length}");
                // What it looked at is all that counts.
                assert_eq!(instruction.length(&code[..length], long), Some(length));
                assert_eq!(instruction.length(&code[..length - 1], long), None);
            }
        }
    }
    strings(&mut Bytes::new(data));
});

/// However it is cut into steps, a string is moved to its end once, and no step leaves the segment.
fn strings(bytes: &mut Bytes<'_>) {
    let how = bytes.u8();
    let width = [Width::Word, Width::Double, Width::Long][usize::from(how % 3)];
    let mask = [0xffff, 0xffff_ffff, u64::MAX][usize::from(how % 3)];
    let size = 1 << (how >> 2 & 3).min(2);
    let access = Access { reads: how & 16 != 0, repeated: how & 32 != 0, bytes: size, width };
    let most = u64::from(bytes.u8() % 64) + 1;
    let down = how & 64 != 0;
    let (index, count) = (bytes.u64(), u64::from(bytes.u16() % 512));
    let flags = if down { rflags::DF } else { 0 };
    let mut regs = GuestRegs { rdi: index, rsi: index, rcx: count, rflags: flags, ..GuestRegs::default() };
    let all = if access.repeated { count } else { 1 };
    let size = u64::from(size);
    let mut moved = 0;
    loop {
        let step = string::step(&regs, access, most);
        assert!(step.elements <= most && moved + step.elements <= all, "{step:?}");
        assert!(step.over || step.elements > 0, "it stands still");
        let at = if down { index.wrapping_sub(moved * size) } else { index.wrapping_add(moved * size) } & mask;
        let lowest = if down { at.wrapping_sub(step.elements.saturating_sub(1) * size) & mask } else { at };
        assert_eq!(step.first, lowest, "{step:?}");
        string::advance(&mut regs, access, &step);
        moved += step.elements;
        if step.over {
            break;
        }
    }
    assert_eq!(moved, all);
    assert_eq!(regs.rcx & mask, if access.repeated { 0 } else { count & mask });
}

//! Instructions that access memory, as a guest in a container reaches registers by them: what decodes is no longer than an
//! instruction may be and than what was looked at, changes one register and the arithmetic flags at most, and writes no more than
//! its bytes; a string comes to its end one element at a time; and around the part of a register that is accessed nothing changes.
#![no_main]
#![forbid(unsafe_code)]

use fuzz::Bytes;
use libfuzzer_sys::fuzz_target;
use logic::emulate::encoding::{AddressSize, Undecoded, mask};
use logic::emulate::memory::{Instruction, Op, decode};
use logic::hvm::mmio::{self, Part};
use logic::regs::GuestRegs;

const ARITHMETIC: u64 = 0x8d5;

fuzz_target!(|data: &[u8]| {
    let mut bytes = Bytes::new(data);
    let mut regs = GuestRegs { rax: bytes.u64(), rcx: bytes.u64(), rsi: bytes.u64(), ..GuestRegs::default() };
    (regs.rdi, regs.rdx, regs.rflags) = (bytes.u64(), bytes.u64(), bytes.u64());
    let (old, offset) = (bytes.u64(), u32::from(bytes.u16() & 0xfff));
    let code: Vec<u8> = (0..18).map(|_| bytes.u8()).collect();
    for size in [AddressSize::Word, AddressSize::Double, AddressSize::Long] {
        if let Ok(instruction) = decode(&code, size, &regs) {
            let length = usize::from(instruction.length);
            assert!((1..=15).contains(&length), "{instruction:?}");
            assert!(size == AddressSize::Long || instruction.bytes < 8, "{instruction:?}");
            assert_eq!(decode(&code[..length], size, &regs), Ok(instruction));
            assert_eq!(decode(&code[..length - 1], size, &regs), Err(Undecoded::Truncated));
            effects(&instruction, old, &regs);
            string(&instruction, regs);
            parts(&instruction, offset, old as u32);
        }
    }
});

fn effects(instruction: &Instruction, old: u64, regs: &GuestRegs) {
    let effect = instruction.apply(old, regs);
    assert_eq!((effect.rflags ^ regs.rflags) & !ARITHMETIC, 0, "{instruction:?}");
    if let Some(new) = effect.memory {
        assert!(instruction.writes() && new & !mask(instruction.bytes) == 0, "{instruction:?}: {new:x}");
    }
    if !instruction.reads() {
        assert_eq!(effect, instruction.apply(!old, regs), "{instruction:?}");
    }
    if !instruction.writes() {
        assert_eq!(effect.memory, None, "{instruction:?}");
    }
    assert!(!matches!(instruction.op, Op::Load { .. }) || effect.register.is_some());
}

fn string(instruction: &Instruction, mut regs: GuestRegs) {
    let Some(elements) = instruction.elements else { return };
    regs.rcx &= 0xff;
    let (all, bytes) = (if elements.repeated { regs.rcx } else { 1 }, instruction.bytes);
    for _ in 0..all {
        assert!(mmio::next_element(&regs, &elements, bytes).is_some(), "it ends too soon");
        let over = mmio::advance(&mut regs, &elements, bytes);
        assert_eq!(over, !elements.repeated || regs.rcx == 0);
    }
    if elements.repeated {
        assert_eq!(mmio::next_element(&regs, &elements, bytes), None);
        assert!(mmio::advance(&mut regs, &elements, bytes));
    }
}

fn parts(instruction: &Instruction, offset: u32, old: u32) {
    let Some(part) = Part::new(offset, instruction.bytes) else { return };
    assert!(part.register() <= offset && offset + u32::from(instruction.bytes) <= part.register() + 4);
    let value = part.of(!old);
    assert_eq!(part.of(part.within(old, value)), value);
    assert_eq!(part.within(part.within(old, value), part.of(old)), old);
}

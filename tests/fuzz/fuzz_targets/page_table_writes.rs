//! Emulated writes to page tables, carried out on an entry: only the bytes that the instruction accesses change, a comparison
//! that fails changes none, and no flag but the arithmetic ones does.
#![no_main]
#![forbid(unsafe_code)]

use fuzz::Bytes;
use libfuzzer_sys::fuzz_target;
use logic::emulate::{pit::Pit, pt_write};
use logic::regs::GuestRegs;

const ARITHMETIC: u64 = 0x8d5;

fuzz_target!(|data: &[u8]| {
    let mut bytes = Bytes::new(data);
    let mut regs = GuestRegs { rax: bytes.u64(), rcx: bytes.u64(), rdx: bytes.u64(), ..GuestRegs::default() };
    regs.rflags = bytes.u64();
    let (entry, address) = (bytes.u64(), bytes.u64());
    let code: [u8; 15] = std::array::from_fn(|_| bytes.u8());
    if let Some(write) = pt_write::decode(&code, &regs)
        && write.is_aligned_at(address)
    {
        let effect = write.apply(entry, address, &regs);
        assert_eq!((effect.rflags ^ regs.rflags) & !ARITHMETIC, 0, "{write:?}");
        if let Some(whole) = write.whole_entry() {
            assert_eq!(effect.memory, Some(whole));
        }
        // Alignment shows the width: the largest power of two that no offset below it is aligned to.
        let width = [8u64, 4, 2, 1].into_iter().find(|width| !write.is_aligned_at(width >> 1)).unwrap_or(1);
        let mask = if width == 8 { u64::MAX } else { ((1 << (8 * width)) - 1) << (8 * (address & 7)) };
        if let Some(new) = effect.memory {
            assert_eq!((new ^ entry) & !mask, 0, "{write:?} of {width} at {address:#x}");
        }
    }
    let mut pit = Pit::new();
    let mut now = 0u64;
    while !bytes.is_empty() {
        let (port, value) = (0x40 + u16::from(bytes.u8() % 40), bytes.u8());
        now = now.saturating_add(u64::from(bytes.u16()));
        if value & 1 == 0 {
            pit.write(port, value, now);
        } else {
            let _ = pit.read(port, now);
        }
    }
});

//! What a guest hands in to be loaded: iret frames, descriptors, gates, debug registers.
#![no_main]
#![forbid(unsafe_code)]

use fuzz::Bytes;
use libfuzzer_sys::fuzz_target;
use logic::regs::GuestRegs;
use logic::trap::{
    debug::DebugRegisters,
    descriptor,
    gate::{Gate, TrapTable},
    iret, is_canonical, is_hypervisor_address,
};
use xen_abi::arch_x86::IretContext;
use zerocopy::FromBytes;

/// Interrupts on, I/O privilege none, virtual-8086 mode off: RFLAGS bits 9, 12, 13, 17.
const ALWAYS: (u64, u64) = (1 << 9 | 3 << 12 | 1 << 17, 1 << 9);

fuzz_target!(|data: &[u8]| {
    if let Ok((frame, _)) = IretContext::read_from_prefix(data) {
        let mut regs = GuestRegs::default();
        let back = iret::decode(frame.cs, frame.rflags);
        iret::load(&mut regs, &frame);
        assert_eq!((regs.cs & 3, regs.ss & 3), (3, 3), "it would run in ring 0");
        assert_eq!(regs.rflags & ALWAYS.0, ALWAYS.1);
        assert_eq!(back.to_user, frame.cs & 3 == 3);
    }
    let mut bytes = Bytes::new(data);
    let mut table = TrapTable::new();
    let mut debug = DebugRegisters::default();
    while !bytes.is_empty() {
        let raw = bytes.u64();
        if let Ok(checked) = descriptor::check(raw) {
            let (dpl, kind) = (checked >> 45 & 3, checked >> 40 & 15);
            match checked >> 44 & 1 {
                _ if checked & 1 << 47 == 0 => {} // any use of it faults
                1 => assert_eq!(dpl, 3, "{checked:#x} is a segment of ring 0"),
                // The other half of a gate, or a call gate that ring 3 cannot use without emulation.
                _ => assert!(kind == 0 || kind == 12 && dpl == 0, "{checked:#x} is a system segment"),
            }
        }
        let vector = bytes.u8();
        let gate = Gate { address: raw, ..table.gate(vector) };
        if table.set(vector, gate).is_ok() {
            assert!(is_canonical(table.gate(vector).address));
        }
        let (index, value) = (u64::from(bytes.u8()), bytes.u64());
        if debug.write(index, value, u64::MAX).is_ok() && index < 4 {
            let held = debug.read(index, u64::MAX).unwrap_or(0);
            assert!(!is_hypervisor_address(held), "a breakpoint in the hypervisor");
        }
    }
});

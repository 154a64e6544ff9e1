//! CPUID of a machine that says anything, and what guests are shown of it.
#![no_main]
#![forbid(unsafe_code)]

use fuzz::Bytes;
use libfuzzer_sys::fuzz_target;
use logic::cpuid::{
    Leaf,
    policy::{Live, Policy},
};
use std::cell::RefCell;

fuzz_target!(|data: &[u8]| {
    let bytes = RefCell::new(Bytes::new(data));
    let host = Policy::of_host(|_, _| {
        let mut bytes = bytes.borrow_mut();
        Leaf { a: bytes.u32(), b: bytes.u32(), c: bytes.u32(), d: bytes.u32() }
    });
    for hardware_domain in [false, true] {
        let policy = host.for_pv(hardware_domain);
        for leaf in (0..0x30).chain(0x8000_0000..0x8000_0022).chain([0x4000_0000, u32::MAX]) {
            for subleaf in [0, 1, 2, 3, 63, u32::MAX] {
                let live = Live { in_kernel: true, forced: subleaf & 1 == 0, osxsave: true, xcr0: 7 };
                let answer = policy.answer(leaf, subleaf, &live);
                if leaf == 1 {
                    assert_eq!(answer.c >> 5 & 1, 0, "VMX is shown to a PV guest");
                }
            }
        }
    }
});

//! CPUID of a machine that says anything, what guests are shown of it, and what a toolstack makes of that.
#![no_main]
#![forbid(unsafe_code)]

use fuzz::Bytes;
use libfuzzer_sys::fuzz_target;
use logic::cpuid::{
    Leaf,
    policy::{Live, MAX_LEAVES, Msrs, Policy},
};
use std::cell::RefCell;
use xen_abi::arch_x86::CpuidLeaf;

fuzz_target!(|data: &[u8]| {
    let bytes = RefCell::new(Bytes::new(data));
    let host = Policy::of_host(
        |_, _| {
            let mut bytes = bytes.borrow_mut();
            Leaf { a: bytes.u32(), b: bytes.u32(), c: bytes.u32(), d: bytes.u32() }
        },
        Msrs { platform_info: 1 << 31, arch_capabilities: u64::MAX },
    );
    let most = host.most_for_pv();
    let mut chosen = host.for_pv(false);
    for _ in 0..16 {
        let mut bytes = bytes.borrow_mut();
        let base = [0, 0x4000_0000, 0x8000_0000, 0xffff_0000][usize::from(bytes.u8() % 4)];
        let subleaf = if bytes.u8() & 1 == 0 { u32::MAX } else { bytes.u8().into() };
        let leaf = base + u32::from(bytes.u8() % 64);
        let _ = chosen.take_leaf(&CpuidLeaf {
            leaf,
            subleaf,
            a: bytes.u32(),
            b: bytes.u32(),
            c: bytes.u32(),
            d: bytes.u32(),
        });
    }
    if let Ok(agreed) = chosen.agreed(&most) {
        let (had, has) = (most.features(), agreed.features());
        assert_eq!(has.intersect(&had), has, "more than there is");
        assert_eq!(agreed.xcr0_offered() & !most.xcr0_offered(), 0);
        let mut count = 0;
        let told = agreed.each_leaf(|_| {
            count += 1;
            Ok(())
        });
        assert!(told.is_ok() && count <= MAX_LEAVES);
        assert_eq!(agreed.clone().agreed(&most).as_ref(), Ok(&agreed), "agreed once is agreed for good");
    }
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

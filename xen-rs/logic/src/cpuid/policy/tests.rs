//! What a policy made of a made-up CPU answers.

use super::*;

/// A made-up AMD CPU with everything.
fn host(leaf: u32, sub: u32) -> Leaf {
    let ones = Leaf { a: u32::MAX, b: u32::MAX, c: u32::MAX, d: u32::MAX };
    match (leaf, sub) {
        (0, _) => Leaf { a: 0x1f, b: 0x6874_7541, c: 0x444d_4163, d: 0x6974_6e65 },
        (7, 0) => Leaf { a: 1, ..ones },
        (0xd, 0) => Leaf { a: 0x2e7, b: 0, c: 2696, d: 0 },
        (0xd, 1) => Leaf { a: 0xf, ..Leaf::ZERO },
        (0xd, 2) => Leaf { a: 256, b: 576, c: 0, d: 0 },
        (0xd, 5) => Leaf { a: 64, b: 1088, c: 0, d: 0 },
        (0xd, 6) => Leaf { a: 512, b: 1152, c: 0, d: 0 },
        (0xd, 7) => Leaf { a: 1024, b: 1664, c: 0, d: 0 },
        (0xd, 9) => Leaf { a: 8, b: 2688, c: 0, d: 0 },
        (0xd, _) => Leaf::ZERO,
        (0x8000_0000, _) => Leaf { a: 0x8000_0021, ..Leaf::ZERO },
        _ => ones,
    }
}

const KERNEL: Live = Live { in_kernel: true, forced: true, osxsave: false, xcr0: 3 };

fn pv() -> Policy {
    Policy::of_host(host, Msrs::default()).for_pv(false)
}

#[test]
fn hidden_from_pv() {
    let one = pv().answer(1, 0, &KERNEL);
    let hidden_d = [1, 3, 12, 13, 17, 21, 29]; // VME PSE MTRR PGE PSE36 DS TM1
    assert!(hidden_d.iter().all(|bit| one.d >> bit & 1 == 0), "{:x}", one.d);
    let hidden_c = [2, 3, 5, 7, 8, 15, 17, 21, 24]; // .. MONITOR VMX EIST TM2 PDCM PCID X2APIC TSC_DEADLINE
    assert!(hidden_c.iter().all(|bit| one.c >> bit & 1 == 0), "{:x}", one.c);
    assert_eq!(one.c >> 31, 1, "the hypervisor bit");
    let seven = pv().answer(7, 0, &KERNEL);
    assert_eq!(seven.b & 1, 1, "FSGSBASE");
    let hidden_b = [1, 2, 7, 10, 12, 15, 20, 25]; // TSC_ADJUST SGX SMEP INVPCID PQM PQE SMAP PT
    assert!(hidden_b.iter().all(|bit| seven.b >> bit & 1 == 0), "{:x}", seven.b);
    assert_eq!(seven.c & (1 << 2 | 1 << 3 | 1 << 7 | 1 << 16), 0, "UMIP PKU CET_SS LA57");
    let extended = pv().answer(0x8000_0001, 0, &KERNEL);
    assert_eq!(extended.d >> 26 & 1, 0, "PAGE1GB");
    assert_eq!(extended.c & (1 << 2 | 1 << 4 | 1 << 10 | 1 << 22), 0, "SVM CR8_LEGACY IBS TOPOEXT");
    assert_eq!(pv().answer(0xd, 1, &KERNEL).a, 7, "XSAVES");
}

#[test]
fn osxsave_leaks_only_to_the_asking_kernel() {
    let bit = |live: Live| pv().answer(1, 0, &live).c >> 27 & 1;
    assert_eq!(bit(KERNEL), 1);
    assert_eq!(bit(Live { in_kernel: false, ..KERNEL }), 0);
    assert_eq!(bit(Live { forced: false, ..KERNEL }), 0);
    assert_eq!(bit(Live { forced: false, in_kernel: false, osxsave: true, xcr0: 3 }), 1);
}

#[test]
fn xsave_sizes_follow_xcr0() {
    assert_eq!(pv().answer(0xd, 0, &KERNEL), Leaf { a: 0xe7, b: 576, c: 2688, d: 0 });
    assert_eq!(pv().answer(0xd, 0, &Live { xcr0: 7, ..KERNEL }).b, 832);
    assert_eq!(pv().answer(0xd, 2, &KERNEL).a, 256);
    assert_eq!(pv().answer(0xd, 9, &KERNEL), Leaf::ZERO, "PKRU is not offered");
    assert_eq!(pv().answer(0xd, 63, &KERNEL), Leaf::ZERO);
}

#[test]
fn ranges() {
    assert_eq!(pv().answer(0, 0, &KERNEL).a, 0xd);
    assert_eq!(pv().answer(0xe, 0, &KERNEL), Leaf::ZERO);
    assert_eq!(pv().answer(0x8000_0022, 0, &KERNEL), Leaf::ZERO);
    assert_eq!(pv().answer(0x8000_0000, 0, &KERNEL).b, 0x6874_7541);
    assert_eq!(pv().answer(7, 2, &KERNEL), Leaf::ZERO);
    assert_eq!(pv().answer(0xffff_ffff, 0, &KERNEL), Leaf::ZERO);
    assert_eq!(pv().answer(4, u32::MAX, &KERNEL), Leaf::ZERO);
}

#[test]
fn the_hardware_domains_kernel_sees_more() {
    let dom0 = Policy::of_host(host, Msrs::default()).for_pv(true);
    assert_eq!(dom0.answer(1, 0, &KERNEL).d >> 12 & 1, 1, "MTRR");
    assert_eq!(dom0.answer(1, 0, &KERNEL).c >> 3 & 1, 0, "MONITOR");
    assert_eq!(dom0.answer(1, 0, &Live { forced: false, ..KERNEL }).c >> 3 & 1, 1);
    assert_eq!(dom0.answer(1, 0, &Live { in_kernel: false, ..KERNEL }).d >> 12 & 1, 0);
    assert_eq!(dom0.answer(0x8000_0007, 0, &KERNEL), Leaf { d: 1 << 8, ..Leaf::ZERO }, "ITSC");
}

#[test]
fn a_policy_that_is_set_as_it_is_stays() {
    let all = Policy::of_host(host, Msrs::default());
    let (usual, most) = (all.for_pv(false), all.most_for_pv());
    let mut leaves = std::vec::Vec::new();
    usual
        .each_leaf(|leaf| {
            leaves.push(leaf);
            Ok(())
        })
        .unwrap();
    let mut again = usual.clone();
    for leaf in &leaves {
        again.take_leaf(leaf).unwrap();
    }
    let mut told = std::vec::Vec::new();
    again
        .agreed(&most)
        .unwrap()
        .each_leaf(|leaf| {
            told.push(leaf);
            Ok(())
        })
        .unwrap();
    assert_eq!(told, leaves);
}

extern crate std;

#[test]
fn for_pvh_as_far_as_its_map_goes() {
    let pvh = Policy::of_host(host, Msrs::default()).for_pvh();
    assert_eq!(pvh.answer(0x8000_0008, 0, &KERNEL).a, 48 << 8 | 48);
    assert_eq!(pvh.answer(1, 0, &KERNEL).d >> 11 & 1, 1, "SYSENTER for its 32-bit code");
    assert_eq!(pv().answer(1, 0, &KERNEL).d >> 11 & 1, 0);
    let agreed = pvh.clone().agreed(&pvh).unwrap();
    assert_eq!(agreed.answer(0x8000_0008, 0, &KERNEL).a & 0xff, 48);
    let mut more = pvh.clone();
    more.extended[8].a |= 0xff;
    assert_eq!(more.agreed(&pvh).unwrap().answer(0x8000_0008, 0, &KERNEL).a & 0xff, 48);
}

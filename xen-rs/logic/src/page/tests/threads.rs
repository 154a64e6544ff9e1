//! Several CPUs at once on the same tables, with real threads: in the end every count is right.

use std::thread;

use super::*;

#[test]
fn four_cpus_pin_and_change_the_same_tables() {
    let machine = Machine::new(32);
    machine.give(1..24, A);
    // 1, 2: roots; 3, 4: L3; 5, 6: L2; 7..10: L1; the rest data.
    for (from, to) in [(1, 3), (1, 4), (2, 4), (3, 5), (3, 6), (4, 6), (5, 7), (5, 8), (6, 8), (6, 9)] {
        machine.poke(from, (to % 4) as u16, entry(to, RW).0);
    }
    for l1 in 7..10u64 {
        for data in 10..20u64 {
            machine.poke(l1, data as u16, entry(data, RW).0);
        }
    }
    thread::scope(|scope| {
        for cpu in 0..4u64 {
            let machine = &machine;
            scope.spawn(move || {
                let mut mmu = machine.mmu();
                let mut random = cpu.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
                for _ in 0..3000 {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    mmu.env.budget = if random & 1 == 0 { 600 } else { u32::MAX };
                    let pick = (random >> 8) % 9 + 1;
                    let kind = match pick {
                        1 | 2 => Kind::L4,
                        3 | 4 => Kind::L3,
                        5 | 6 => Kind::L2,
                        _ => Kind::L1,
                    };
                    match (random >> 20) % 4 {
                        0 => {
                            let _ = mmu.pin(Mfn(pick), kind, A);
                        }
                        1 => {
                            let _ = mmu.unpin(Mfn(pick), A);
                        }
                        2 => {
                            let data = (random >> 30) % 13 + 10;
                            let flags = if random >> 40 & 1 == 0 { RW } else { RO };
                            {
                                let _ = mmu.set(7 + pick % 3, (random >> 41) as u16 % 32, entry(data, flags), A, A);
                            }
                        }
                        _ => {
                            if let Some(f) = mmu.get_page(Mfn(20 + pick % 3), A) {
                                if mmu.get_writable(f) {
                                    mmu.put_type(f);
                                }
                                mmu.put_page(f);
                            }
                        }
                    }
                    mmu.whole();
                }
            });
        }
    });
    let mut mmu = machine.mmu();
    recount(&mmu, &[]);
    for mfn in 1..24 {
        let f = mmu.frames.ram(Mfn(mfn)).unwrap();
        while !mmu.relinquish(f, A) {
            mmu.whole();
        }
    }
    recount(&mmu, &[]);
    assert_eq!(mmu.env.freed.len(), 23);
}

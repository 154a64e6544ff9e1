//! Random guests against the recount: whatever they ask for, no page is writable and a table at once (nor does a TLB
//! say so), every count is what a recount finds, and in the end every page is free.

#[cfg(test)]
use proptest::prelude::*;

use super::*;

/// Slots that the guests use: the first ones, both sides of ours, the last.
const SLOTS: [u16; 6] = [0, 1, 2, 255, 272, 511];

#[derive(Clone, Debug)]
enum Step {
    /// The guest writes an entry to a page it can write to.
    Poke {
        page: u64,
        slot: usize,
        target: u64,
        flags: u64,
    },
    Pin {
        page: u64,
        kind: u32,
    },
    Unpin {
        page: u64,
    },
    Set {
        table: u64,
        slot: usize,
        target: u64,
        flags: u64,
        foreign: bool,
    },
    Load {
        page: u64,
    },
    Descriptors {
        page: u64,
    },
    Touch {
        table: u64,
        slot: usize,
    },
    GiveBack {
        page: u64,
    },
    Give {
        page: u64,
        other: bool,
    },
    Finish,
}

#[cfg(test)]
fn step() -> impl Strategy<Value = Step> {
    let page = 0..14u64;
    let slot = 0..SLOTS.len();
    let flags = prop_oneof![Just(0), Just(RO), Just(RO), Just(RW), Just(RW), Just(RO | bit::PSE)];
    prop_oneof![
        6 => (page.clone(), slot.clone(), page.clone(), flags.clone())
            .prop_map(|(page, slot, target, flags)| Step::Poke { page, slot, target, flags }),
        5 => (page.clone(), 0..4u32).prop_map(|(page, kind)| Step::Pin { page, kind }),
        2 => page.clone().prop_map(|page| Step::Unpin { page }),
        6 => (page.clone(), slot.clone(), page.clone(), flags, any::<bool>())
            .prop_map(|(table, slot, target, flags, foreign)| Step::Set { table, slot, target, flags, foreign }),
        1 => page.clone().prop_map(|page| Step::Load { page }),
        1 => page.clone().prop_map(|page| Step::Descriptors { page }),
        3 => (page.clone(), slot).prop_map(|(table, slot)| Step::Touch { table, slot }),
        1 => page.clone().prop_map(|page| Step::GiveBack { page }),
        1 => (page, any::<bool>()).prop_map(|(page, other)| Step::Give { page, other }),
        2 => Just(Step::Finish),
    ]
}

fn present(target: u64, flags: u64) -> Entry {
    if flags == 0 { Entry(0) } else { entry(target, flags) }
}

fn run(steps: Vec<(Step, u32)>) {
    let machine = Machine::new(16);
    machine.give(0..10, A);
    machine.give(10..14, B);
    let mut mmu = machine.mmu();
    let mut roots: Vec<u64> = vec![];
    for (step, budget) in steps {
        mmu.env.budget = budget;
        let owner_of = |mfn: u64| machine.info[mfn as usize].owner().unwrap_or(A);
        match step {
            Step::Poke { page, slot, target, flags } => {
                // Only through a page that is writable now.
                if let Some(f) = mmu.get_page(Mfn(page), owner_of(page)) {
                    if mmu.get_writable(f) {
                        machine.poke(page, SLOTS[slot], present(target, flags).0);
                        mmu.put_type(f);
                    }
                    mmu.put_page(f);
                }
            }
            Step::Pin { page, kind } => {
                let _ = mmu.pin(Mfn(page), pin_kind(kind).unwrap(), owner_of(page));
            }
            Step::Unpin { page } => {
                let _ = mmu.unpin(Mfn(page), owner_of(page));
            }
            Step::Set { table, slot, target, flags, foreign } => {
                let owner = owner_of(table);
                let pages = if foreign { owner_of(target) } else { owner };
                {
                    let _ = mmu.set(table, SLOTS[slot], present(target, flags), owner, pages);
                }
            }
            Step::Load { page } => {
                if let Some(at) = roots.iter().position(|&r| r == page) {
                    roots.remove(at);
                    let f = mmu.frames.ram(Mfn(page)).unwrap();
                    mmu.put_page_and_type(f);
                } else if let Some(f) = mmu.get_page(Mfn(page), owner_of(page)) {
                    match mmu.get_type(f, Kind::L4) {
                        Ok(()) => roots.push(page),
                        Err(_) => mmu.put_page(f),
                    }
                }
            }
            Step::Descriptors { page } => {
                if let Some(f) = mmu.get_page(Mfn(page), owner_of(page)) {
                    if mmu.get_type(f, Kind::SegDesc).is_ok() {
                        mmu.put_type(f);
                    }
                    mmu.put_page(f);
                }
            }
            Step::Touch { table, slot } => {
                // A CPU that runs in the table's domain uses a writable mapping.
                let e = Entry(machine.peek(table, SLOTS[slot]));
                if mmu.word(table).is_valid(Kind::L1) && e.is_present() && e.is_writable() {
                    let runs = owner_of(table).0;
                    for cpu in mmu.env.cpus.iter_mut().filter(|c| c.runs == runs) {
                        cpu.writable.insert(e.mfn().0);
                    }
                }
            }
            Step::GiveBack { page } => {
                if !roots.contains(&page) {
                    {
                        let _ = mmu.give_back(Mfn(page), owner_of(page));
                    }
                }
            }
            Step::Give { page, other } => {
                // What the allocator does with a free page: flush everyone who may still see it, then hand it out.
                if let Some(at) = mmu.env.freed.iter().position(|&f| f == page) {
                    mmu.env.freed.remove(at);
                    let info = &machine.info[page as usize];
                    mmu.env.flush(A, true, info.stamp());
                    info.assign(if other { B } else { A }, false);
                }
            }
            Step::Finish => {
                if let Some(next) = mmu.env.deferred.pop() {
                    let rest = mmu.finish(next);
                    mmu.env.deferred.extend(rest);
                }
            }
        }
        recount(&mmu, &roots);
    }
    // Everything comes back.
    mmu.whole();
    for root in roots {
        let f = mmu.frames.ram(Mfn(root)).unwrap();
        mmu.put_page_and_type(f);
    }
    for mfn in 0..14 {
        let f = mmu.frames.ram(Mfn(mfn)).unwrap();
        if f.info().references() > 0 {
            while !mmu.relinquish(f, f.info().owner().unwrap_or(A)) {
                mmu.whole();
            }
        }
    }
    recount(&mmu, &[]);
    mmu.env.freed.sort_unstable();
    assert_eq!(mmu.env.freed, (0..14).collect::<Vec<_>>());
}

/// The steps that a fuzzer's bytes stand for.
pub fn run_bytes(data: &[u8]) {
    let step = |bytes: &[u8; 6]| {
        let [what, page, slot, target, flags, budget] = *bytes;
        let (page, target) = (u64::from(page % 14), u64::from(target % 14));
        let slot = usize::from(slot) % SLOTS.len();
        let foreign = flags & 128 != 0;
        let flags = [0, RO, RW, RO | bit::PSE][usize::from(flags) % 4];
        let step = match what % 10 {
            0 => Step::Poke { page, slot, target, flags },
            1 => Step::Pin { page, kind: u32::from(what / 10 % 4) },
            2 => Step::Unpin { page },
            3 => Step::Set { table: page, slot, target, flags, foreign },
            4 => Step::Load { page },
            5 => Step::Descriptors { page },
            6 => Step::Touch { table: page, slot },
            7 => Step::GiveBack { page },
            8 => Step::Give { page, other: foreign },
            _ => Step::Finish,
        };
        (step, if budget == 0 { u32::MAX } else { u32::from(budget) * u32::from(budget) / 16 + 1 })
    };
    run(data.as_chunks::<6>().0.iter().take(200).map(step).collect());
}

#[cfg(test)]
proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn random_guests(steps in prop::collection::vec(
        (step(), prop_oneof![Just(u32::MAX), 1..2000u32, 1..10u32]), 1..80)) {
        run(steps);
    }
}

//! The rules one by one.

use xen_abi::Errno;

use super::*;

const REFUSED: Result<(), Fail> = Err(Fail::Refused(Errno::EINVAL));

/// Frames 10 L4, 11 L3, 12 L2, 13 L1; the L1 maps itself and the other tables read-only and 20.. writable.
fn small(machine: &Machine) {
    machine.give(10..40, A);
    machine.poke(10, 0, entry(11, RW).0);
    machine.poke(11, 0, entry(12, RW).0);
    machine.poke(12, 0, entry(13, RW).0);
    for i in 0..4 {
        machine.poke(13, i, entry(10 + u64::from(i), RO).0);
    }
    for i in 4..10 {
        machine.poke(13, i, entry(16 + u64::from(i), bit::RW).0);
    }
}

#[test]
fn pin_and_unpin_a_tree() {
    let machine = Machine::new(64);
    small(&machine);
    let mut mmu = machine.mmu();
    assert_eq!(mmu.pin(Mfn(10), Kind::L4, A), Ok(()));
    recount(&mmu, &[]);
    for (mfn, kind) in [(10, Kind::L4), (11, Kind::L3), (12, Kind::L2), (13, Kind::L1), (20, Kind::Writable)] {
        assert!(mmu.word(mfn).is_valid(kind), "{mfn}");
    }
    assert_eq!(machine.peek(13, 4), entry(20, bit::RW | bit::USER | bit::GUEST_KERNEL).0);
    assert_eq!(machine.peek(13, 0), entry(10, bit::USER | bit::GLOBAL).0);
    assert_eq!(machine.peek(10, 256), 0xabc);
    assert_eq!(mmu.pin(Mfn(10), Kind::L4, A), REFUSED, "pinned twice");
    recount(&mmu, &[]);
    assert_eq!(mmu.unpin(Mfn(10), B), Err(Errno::EINVAL));
    assert_eq!(mmu.unpin(Mfn(10), A), Ok(()));
    assert_eq!(mmu.unpin(Mfn(10), A), Err(Errno::EINVAL));
    recount(&mmu, &[]);
    for mfn in 10..40 {
        assert!(matches!(mmu.word(mfn).state(), State::Free(_)));
    }
}

#[test]
fn a_writable_page_is_no_table() {
    let machine = Machine::new(64);
    small(&machine);
    machine.poke(13, 20, entry(11, RW).0);
    let mut mmu = machine.mmu();
    assert_eq!(mmu.pin(Mfn(10), Kind::L4, A), Err(Fail::Refused(Errno::EBUSY)), "the L1 maps the L3 writable");
    recount(&mmu, &[]);
    machine.poke(13, 20, 0);
    assert_eq!(mmu.pin(Mfn(13), Kind::L1, A), Ok(()));
    assert_eq!(mmu.pin(Mfn(20), Kind::L1, A), REFUSED, "mapped writable");
    assert_eq!(mmu.set(13, 30, entry(13, RW), A, A), Err(Fail::Refused(Errno::EBUSY)));
    recount(&mmu, &[]);
}

#[test]
fn tables_show_themselves_for_reading_only() {
    let machine = Machine::new(64);
    small(&machine);
    machine.poke(10, 300, entry(10, RO).0);
    let mut mmu = machine.mmu();
    assert_eq!(mmu.pin(Mfn(10), Kind::L4, A), Ok(()));
    recount(&mmu, &[]);
    assert_eq!(mmu.set(10, 300, entry(10, RW), A, A), REFUSED.map(|()| Changed::Data), "not for writing");
    assert_eq!(mmu.set(10, 301, entry(10, RW), A, A), REFUSED.map(|()| Changed::Data), "nor anew");
    assert_eq!(mmu.set(10, 301, entry(10, RO), A, A), Ok(Changed::Data));
    assert_eq!(mmu.set(11, 7, entry(11, RO), A, A), Ok(Changed::Data), "an L3 too");
    recount(&mmu, &[]);
    assert_eq!(mmu.set(10, 300, Entry(0), A, A), Ok(Changed::OldTable));
    assert_eq!(mmu.unpin(Mfn(10), A), Ok(()));
    mmu.whole();
    recount(&mmu, &[]);
    assert!(matches!(mmu.word(10).state(), State::Free(_)) && matches!(mmu.word(11).state(), State::Free(_)));
    machine.poke(10, 300, entry(10, RW).0);
    assert_eq!(mmu.pin(Mfn(10), Kind::L4, A), REFUSED, "for writing");
    recount(&mmu, &[]);
}

#[test]
fn other_domains_pages() {
    let machine = Machine::new(64);
    small(&machine);
    machine.give(40..50, B);
    let mut mmu = machine.mmu();
    assert_eq!(mmu.pin(Mfn(10), Kind::L4, A), Ok(()));
    assert_eq!(mmu.set(13, 30, entry(40, RW), A, A), Err(Fail::Refused(Errno::EBUSY)));
    assert_eq!(mmu.set(13, 30, entry(40, RW), A, B), Ok(Changed::Data));
    recount(&mmu, &[]);
    assert!(mmu.word(40).was_foreign());
    // B may not make a table of it while A can write to it.
    assert_eq!(mmu.pin(Mfn(40), Kind::L1, B), REFUSED);
    mmu.env.cpus[0].writable.insert(40);
    assert_eq!(mmu.set(13, 30, Entry(0), A, A), Ok(Changed::Data));
    assert_eq!(mmu.pin(Mfn(40), Kind::L1, B), Ok(()));
    recount(&mmu, &[]);
    assert_eq!(mmu.env.flushes, 2, "A's CPU too");
}

#[test]
fn device_memory_needs_a_right() {
    let machine = Machine::new(64);
    small(&machine);
    let mut mmu = machine.mmu();
    assert_eq!(mmu.pin(Mfn(10), Kind::L4, A), Ok(()));
    assert_eq!(mmu.set(13, 30, entry(5, RW), A, A), Err(Fail::Refused(Errno::EPERM)));
    assert_eq!(mmu.set(13, 30, entry(0xfee00, RW), A, A), Err(Fail::Refused(Errno::EPERM)));
    assert_eq!(mmu.set(13, 30, Entry(bit::ADDRESS | bit::PRESENT), A, A), Err(Fail::Refused(Errno::EINVAL)));
    assert_eq!(mmu.set(13, 30, entry(20, RW | bit::PCD), A, A), Err(Fail::Refused(Errno::EINVAL)));
    mmu.env.io = true;
    assert_eq!(mmu.set(13, 30, entry(0xfee00, RW), A, DomId::IO), Ok(Changed::Data));
    assert_eq!(machine.peek(13, 30) & bit::CACHING, bit::UC);
    assert_eq!(mmu.set(13, 31, entry(20, RW | bit::PCD), A, A), Ok(Changed::Data));
    mmu.env.read_only_io = Some(Mfn(0xfee00));
    assert_eq!(machine.peek(13, 30) & bit::RW, bit::RW, "a mapping that is there stays");
    for (slot, mfn, stored) in [(32, 0xfee00, 0), (33, 0xfee01, bit::RW), (30, 0xfee00, 0)] {
        assert_eq!(mmu.set(13, slot, entry(mfn, RW), A, DomId::IO), Ok(Changed::Data));
        assert_eq!(machine.peek(13, slot) & bit::RW, stored);
    }
    recount(&mmu, &[]);
    assert_eq!(mmu.unpin(Mfn(10), A), Ok(()));
    recount(&mmu, &[]);
}

#[test]
fn upper_entries() {
    let machine = Machine::new(64);
    small(&machine);
    let mut mmu = machine.mmu();
    assert_eq!(mmu.pin(Mfn(10), Kind::L4, A), Ok(()));
    assert_eq!(mmu.set(12, 1, entry(30, RW), A, A), Ok(Changed::Data), "an empty page becomes an L1");
    assert!(mmu.word(30).is_valid(Kind::L1));
    assert_eq!(mmu.set(12, 2, entry(30, RW | bit::PSE), A, A), Err(Fail::Refused(Errno::EINVAL)));
    assert_eq!(mmu.set(12, 2, entry(20, RW), A, A), Err(Fail::Refused(Errno::EINVAL)));
    assert_eq!(mmu.set(10, 256, Entry(0), A, A), Err(Fail::Refused(Errno::EINVAL)));
    assert_eq!(mmu.set(12, 1, Entry(0), A, A), Ok(Changed::OldTable));
    assert!(matches!(mmu.word(30).state(), State::Free(_)));
    assert_eq!(mmu.set(10, 0, Entry(0), A, A), Ok(Changed::OldTable));
    recount(&mmu, &[]);
    assert!(matches!(mmu.word(13).state(), State::Free(_)));
}

#[test]
fn preserved_bits() {
    let machine = Machine::new(64);
    small(&machine);
    let mut mmu = machine.mmu();
    assert_eq!(mmu.pin(Mfn(10), Kind::L4, A), Ok(()));
    machine.poke(13, 4, machine.peek(13, 4) | bit::ACCESSED | bit::DIRTY);
    let f = mmu.frames.ram(Mfn(13)).unwrap();
    let owners = Owners { pages: A, caller: A };
    let keep = Replace::KeepAccessedDirty;
    let locked = mmu.lock_table(f, A).unwrap();
    assert_eq!(mmu.update(locked, Slot::new(4), entry(20, RO), keep, A, owners), Ok(Changed::Data));
    assert_eq!(machine.peek(13, 4), entry(20, RO | bit::ACCESSED | bit::DIRTY | bit::GLOBAL).0);
    let locked = mmu.lock_table(f, A).unwrap();
    let stale = Replace::IfStill(Entry(1));
    let update = mmu.update(locked, Slot::new(4), entry(21, RO), stale, A, owners);
    assert_eq!(update, Err(Fail::Refused(Errno::EBUSY)));
    recount(&mmu, &[]);
}

#[test]
fn slices() {
    let machine = Machine::new(64);
    small(&machine);
    let mut mmu = machine.mmu();
    let mut rounds = 0;
    loop {
        mmu.env.budget = 3;
        match mmu.pin(Mfn(10), Kind::L4, A) {
            Ok(()) => break,
            fail => assert_eq!(fail, Err(Fail::Again)),
        }
        recount(&mmu, &[]);
        rounds += 1;
    }
    assert!(rounds > 20, "{rounds}");
    mmu.env.budget = 3;
    assert_eq!(mmu.unpin(Mfn(10), A), Ok(()));
    let mut rounds = 0;
    while let Some(next) = mmu.env.deferred.pop() {
        mmu.env.budget = 3;
        let rest = mmu.finish(next);
        mmu.env.deferred.extend(rest);
        recount(&mmu, &[]);
        rounds += 1;
    }
    assert!(rounds > 20, "{rounds}");
    assert!(matches!(mmu.word(10).state(), State::Free(_)));
    assert!(matches!(mmu.word(13).state(), State::Free(_)));
}

/// The domain of [`small`] loses all its pages.
fn dies<'a>(mmu: &mut Mmu<'a, Fake<'a>>) {
    for mfn in 10..40 {
        let f = mmu.frames.ram(Mfn(mfn)).unwrap();
        while !mmu.relinquish(f, A) {}
        mmu.whole();
    }
    recount(mmu, &[]);
    assert_eq!(mmu.env.freed.len(), 30);
}

#[test]
fn a_half_validated_tree_can_be_given_up_or_gone_on_with() {
    for go_on in [true, false] {
        let machine = Machine::new(64);
        small(&machine);
        let mut mmu = machine.mmu();
        mmu.env.budget = 10;
        assert_eq!(mmu.pin(Mfn(10), Kind::L4, A), Err(Fail::Again));
        assert!(matches!(mmu.word(10).state(), State::Partial(_)));
        mmu.env.budget = u32::MAX;
        assert_eq!(mmu.pin(Mfn(10), Kind::L1, A), REFUSED, "as nothing else meanwhile");
        if go_on {
            // Somebody else needs a part of it as a whole.
            assert_eq!(mmu.pin(Mfn(12), Kind::L2, A), Ok(()));
            assert_eq!(mmu.pin(Mfn(10), Kind::L4, A), Ok(()));
            assert_eq!(mmu.unpin(Mfn(12), A), Ok(()));
            assert_eq!(mmu.unpin(Mfn(10), A), Ok(()));
        }
        dies(&mut mmu);
    }
}

#[test]
fn who_validates_wins_against_who_gives_up() {
    // As often as there are slices: one vCPU finishes what an unpin has left, another one pins the same tree, or a part of it.
    for (mfn, kind) in [(10, Kind::L4), (11, Kind::L3)] {
        let machine = Machine::new(64);
        small(&machine);
        let mut mmu = machine.mmu();
        assert_eq!(mmu.pin(Mfn(10), Kind::L4, A), Ok(()));
        mmu.env.budget = 3;
        assert_eq!(mmu.unpin(Mfn(10), A), Ok(()));
        assert!(matches!(mmu.word(10).state(), State::Partial(_)));
        let mut rounds = 0;
        loop {
            mmu.env.budget = 3;
            if let Some(next) = mmu.env.deferred.pop() {
                let rest = mmu.finish(next);
                mmu.env.deferred.extend(rest);
            }
            recount(&mmu, &[]);
            mmu.env.budget = 3;
            match mmu.pin(Mfn(mfn), kind, A) {
                Ok(()) => break,
                fail => assert_eq!(fail, Err(Fail::Again)),
            }
            recount(&mmu, &[]);
            rounds += 1;
            assert!(rounds < 300, "they undo each other's work");
        }
        mmu.whole();
        recount(&mmu, &[]);
        assert!(mmu.word(mfn).is_pinned());
        dies(&mut mmu);
    }
}

#[test]
fn descriptor_pages() {
    let machine = Machine::new(64);
    machine.give(10..20, A);
    machine.poke(10, 1, 0x00af_9a00_0000_ffff);
    machine.poke(11, 1, 0x0000_8900_0000_0067);
    let mut mmu = machine.mmu();
    let good = mmu.get_page(Mfn(10), A).unwrap();
    assert_eq!(mmu.get_type(good, Kind::SegDesc), Ok(()));
    assert_eq!(machine.peek(10, 1), 0x00af_fa00_0000_ffff);
    assert!(!mmu.get_writable(good));
    let bad = mmu.get_page(Mfn(11), A).unwrap();
    assert_eq!(mmu.get_type(bad, Kind::SegDesc), REFUSED);
    assert!(mmu.get_writable(bad));
    mmu.put_page_and_type(bad);
    mmu.put_page_and_type(good);
    recount(&mmu, &[]);
}

#[test]
fn pages_go_when_the_last_mapping_goes() {
    let machine = Machine::new(64);
    small(&machine);
    let mut mmu = machine.mmu();
    assert_eq!(mmu.pin(Mfn(10), Kind::L4, A), Ok(()));
    assert_eq!(mmu.give_back(Mfn(20), A), Ok(()));
    assert_eq!(mmu.env.freed, []);
    assert_eq!(mmu.set(13, 4, Entry(0), A, A), Ok(Changed::Data));
    assert_eq!(mmu.env.freed, [20]);
    assert_eq!(mmu.give_back(Mfn(20), A), Err(Errno::EINVAL));
    recount(&mmu, &[]);
}

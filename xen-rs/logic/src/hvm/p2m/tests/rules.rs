//! Single rules.

use super::*;
use crate::page::Kind;

const RAM: (Access, Use) = (Access::ALL, Use::Ram);

#[test]
fn a_page_is_found_until_it_is_taken_out() {
    for format in [Format::Ept, Format::Npt] {
        let machine = machine();
        let mut world = World::new(&machine, format);
        assert_eq!(world.enter(7, (64, Order::Page), RAM.0, RAM.1), Err(Refused::NeedsTables), "a root alone");
        world.feed();
        world.enter(7, (64, Order::Page), RAM.0, RAM.1).unwrap();
        assert_eq!(world.enter(7, (65, Order::Page), RAM.0, RAM.1), Err(Refused::Occupied));
        world.check();
        assert_eq!(world.map.end(), Gfn(8));
        assert_eq!(world.leave(6, Order::Page), Ok(None));
        assert_eq!(world.leave(7, Order::Page), Ok(Some(Order::Page)));
        assert_eq!(world.leave(7, Order::Page), Ok(None));
        world.check();
        world.end(1);
    }
}

#[test]
fn a_large_page_is_split_when_part_of_it_goes() {
    for format in [Format::Ept, Format::Npt] {
        let machine = machine();
        let mut world = World::new(&machine, format);
        world.feed();
        world.enter(512, (512, Order::Large), RAM.0, RAM.1).unwrap();
        assert_eq!(world.map.find(Gfn(700)).map(|found| (found.mfn, found.order)), Some((Mfn(700), Order::Large)));
        assert_eq!(world.leave(513, Order::Large), Ok(None), "in the middle");
        assert_eq!(world.leave(513, Order::Page), Ok(Some(Order::Page)));
        assert_eq!(world.map.find(Gfn(513)), None);
        assert_eq!(world.map.find(Gfn(1023)).map(|found| (found.mfn, found.order)), Some((Mfn(1023), Order::Page)));
        world.check();
        assert_eq!(world.leave(512, Order::Large), Ok(Some(Order::Page)), "it is small pages now");
        // Where tables are, small pages have to do.
        assert_eq!(world.enter(512, (1024, Order::Large), RAM.0, RAM.1), Err(Refused::Occupied));
        world.check();
        world.end(100);
    }
}

#[test]
fn splitting_without_tables_changes_nothing() {
    let machine = machine();
    let mut world = World::new(&machine, Format::Ept);
    world.feed();
    world.enter(0, (512, Order::Large), RAM.0, RAM.1).unwrap();
    // Two tables went into the way to it, one is left; then it is used up.
    world.enter(1 << 18, (64, Order::Page), RAM.0, RAM.1).unwrap_err();
    assert_eq!(world.leave(5, Order::Page), Err(Refused::NeedsTables));
    world.check();
    world.feed();
    assert_eq!(world.leave(5, Order::Page), Ok(Some(Order::Page)));
    world.end(7);
}

#[test]
fn only_what_is_the_owners_and_may_be_written() {
    let machine = machine();
    let mut mm = machine.mmu();
    let take = |mm: &mut _, mfn, order, owner| Page::take(mm, (Mfn(mfn), order), owner, RAM, A).map(|_| ());
    assert_eq!(take(&mut mm, 64, Order::Page, B), Err(xen_abi::Errno::EINVAL), "another's");
    assert_eq!(take(&mut mm, 200, Order::Page, A), Err(xen_abi::Errno::EINVAL), "no memory: device memory is refused");
    assert_eq!(take(&mut mm, 513, Order::Large, A), Err(xen_abi::Errno::EINVAL), "not aligned");
    assert_eq!(take(&mut mm, 0, Order::Huge, A), Err(xen_abi::Errno::EINVAL), "too much for one slice");
    mm.pin(Mfn(600), Kind::L1, A).unwrap();
    assert_eq!(take(&mut mm, 512, Order::Large, A), Err(xen_abi::Errno::EBUSY), "one of them is a page table");
    for mfn in 512..1024 {
        let want = if mfn == 600 { 2 } else { 1 };
        assert_eq!(machine.info[mfn].references(), want, "what was taken before is given back");
    }
    let page = Page::take(&mut mm, (Mfn(64), Order::Page), A, RAM, A).unwrap();
    assert!(mm.pin(Mfn(64), Kind::L1, A).is_err(), "a mapped page never becomes a table");
    page.give_up(&mut mm);
}

#[test]
fn misplaced() {
    let machine = machine();
    let mut world = World::new(&machine, Format::Npt);
    world.feed();
    assert_eq!(world.enter(END.0, (64, Order::Page), RAM.0, RAM.1), Err(Refused::Misplaced));
    assert_eq!(world.enter(u64::MAX, (64, Order::Page), RAM.0, RAM.1), Err(Refused::Misplaced));
    assert_eq!(world.enter(1, (512, Order::Large), RAM.0, RAM.1), Err(Refused::Misplaced));
    world.enter(END.0 - 1, (64, Order::Page), RAM.0, RAM.1).unwrap();
    world.check();
    world.end(3);
}

#[test]
fn the_right_size() {
    assert_eq!(Order::fitting(Gfn(512), 1024, 512, Order::Huge), Order::Large);
    assert_eq!(Order::fitting(Gfn(512), 1024, 511, Order::Huge), Order::Page);
    assert_eq!(Order::fitting(Gfn(513), 1025, 4096, Order::Huge), Order::Page);
    assert_eq!(Order::fitting(Gfn(1 << 18), 1 << 18, 1 << 18, Order::Huge), Order::Huge);
    assert_eq!(Order::fitting(Gfn(1 << 18), 1 << 18, 1 << 18, Order::Large), Order::Large);
}

/// 1 GiB has too many frames for the machine of the tests, and nothing makes such a page yet: the entries alone.
#[test]
fn a_huge_page_is_split_twice() {
    let machine = machine();
    let frames: Vec<_> = (0..1 << 19).map(|_| crate::page::PageInfo::hole()).collect();
    (0..1 << 19).for_each(|i: usize| frames[i].set_ram(false));
    let table = FrameTable::new(&frames);
    let mut world = World::new(&machine, Format::Ept);
    world.feed();
    let page = Page::huge(table.ram(Mfn(1 << 18)).unwrap());
    world.map.map(Gfn(1 << 18), page).map_err(|(refused, _)| refused).unwrap();
    world.feed();
    let stale = world.map.unmap(Gfn((1 << 18) + 1000), Order::Page, table).unwrap().unwrap();
    assert_eq!(stale.order(), Order::Page);
    for (gfn, want) in [(0, Order::Large), (511, Order::Large), (999, Order::Page), (1024, Order::Large)] {
        let found = world.map.find(Gfn((1 << 18) + gfn)).unwrap();
        assert_eq!((found.mfn, found.order), (Mfn((1 << 18) + gfn), want));
    }
    assert_eq!(world.map.find(Gfn((1 << 18) + 1000)), None);
}

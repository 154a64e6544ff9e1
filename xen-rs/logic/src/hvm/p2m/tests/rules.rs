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

/// Frames of a machine with two GiB: too many for the one of the tests, so what holds a huge page is looked at alone.
fn two_gib() -> Vec<crate::page::PageInfo> {
    let frames: Vec<_> = (0..1 << 19).map(|_| crate::page::PageInfo::hole()).collect();
    (0..1 << 19).for_each(|i: usize| frames[i].set_ram(false));
    frames
}

/// A map with 1 GiB in large pages from 1 GiB on; the last of them lies at `last`.
fn gib_of_large(world: &mut World<'_>, table: FrameTable<'_>, last: u64) {
    let huge = Order::Huge.frames();
    for i in 0..512 {
        world.feed();
        let mfn = if i == 511 { last } else { huge + i * 512 };
        let page = Page::bare(table.ram(Mfn(mfn)).unwrap(), Order::Large);
        world.map.map(Gfn(huge + i * 512), page).map_err(|(refused, _)| refused).unwrap();
    }
}

#[test]
fn large_pages_side_by_side_become_one_entry() {
    let huge = Order::Huge.frames();
    let frames = two_gib();
    let table = FrameTable::new(&frames);
    for format in [Format::Ept, Format::EptSmallCode, Format::Npt] {
        let machine = machine();
        let mut world = World::new(&machine, format);
        gib_of_large(&mut world, table, 2 * huge - 512);
        assert!(!world.map.join(Gfn(0)), "nothing is there");
        let tables = world.map.tables();
        assert!(world.map.join(Gfn(huge + 12345)));
        assert!(!world.map.join(Gfn(huge)), "it is one already");
        assert_eq!(world.map.tables(), tables, "the table stays until the end");
        let found = world.map.find(Gfn(huge + 54321)).unwrap();
        assert_eq!((found.mfn, found.order, found.access), (Mfn(huge + 54321), Order::Huge, Access::ALL));
        // Nothing of 1 GiB is ever taken out at once.
        world.feed();
        let stale = world.map.unmap(Gfn(huge), Order::Huge, table).unwrap().unwrap();
        assert_eq!(stale.order(), Order::Large);
        let found = world.map.find(Gfn(huge + 54321)).unwrap();
        assert_eq!((found.mfn, found.order, found.access), (Mfn(huge + 54321), Order::Large, Access::ALL));
    }
}

#[test]
fn what_is_not_side_by_side_stays() {
    let huge = Order::Huge.frames();
    let frames = two_gib();
    let table = FrameTable::new(&frames);
    let machine = machine();
    let mut world = World::new(&machine, Format::Npt);
    gib_of_large(&mut world, table, huge - 512);
    assert!(!world.map.join(Gfn(huge)));
    assert_eq!(world.map.find(Gfn(huge)).unwrap().order, Order::Large);
    world.feed();
    let _stale = world.map.unmap(Gfn(2 * huge - 512), Order::Large, table).unwrap().unwrap();
    assert!(!world.map.join(Gfn(huge)), "the last one is missing");
}

#[test]
fn a_gib_goes_in_parts() {
    let huge = Order::Huge.frames();
    let frames = two_gib();
    let table = FrameTable::new(&frames);
    let machine = machine();
    let mut world = World::new(&machine, Format::Ept);
    gib_of_large(&mut world, table, 2 * huge - 512);
    assert!(world.map.join(Gfn(huge)));
    let (mut taken, mut slices) = (Vec::new(), 0);
    let mut freed = world.free.clone();
    loop {
        let (mut left, before) = (768, taken.len());
        let mut page = |stale: Stale<'_>| {
            let page = stale.flushed(&Flushed::acknowledged());
            assert_eq!(page.order(), Order::Large);
            taken.push(page.frame().mfn().0);
        };
        if world.map.take_apart(table, &mut left, &mut page, &mut |block| freed.push(block.mfn().0)) {
            break;
        }
        assert!(taken.len() <= before + 2, "a slice takes two of them");
        slices += 1;
    }
    assert!((256..600).contains(&slices), "{slices}");
    assert_eq!(taken, (0..512).map(|i| huge + i * 512).collect::<Vec<_>>());
    freed.sort_unstable();
    assert_eq!(freed, (0..TABLES).collect::<Vec<_>>(), "with the table that one entry has replaced");
}

#[test]
fn code_is_in_small_pages_where_it_has_to_be() {
    for format in [Format::Ept, Format::EptSmallCode] {
        let machine = machine();
        let mut world = World::new(&machine, format);
        world.feed();
        world.enter(512, (512, Order::Large), RAM.0, RAM.1).unwrap();
        // The last table goes into the way to another place.
        world.enter(1 << 18, (64, Order::Page), RAM.0, RAM.1).unwrap_err();
        assert_eq!(world.map.split_down(Gfn(700)), Err(Refused::NeedsTables));
        world.check();
        world.feed();
        world.map.split_down(Gfn(700)).unwrap();
        let found = world.map.find(Gfn(701)).unwrap();
        assert_eq!((found.mfn, found.order, found.access), (Mfn(701), Order::Page, Access::ALL));
        world.map.split_down(Gfn(700)).unwrap();
        world.map.split_down(Gfn(5)).unwrap();
        world.map.split_down(END).unwrap();
        world.check();
        world.end(100);
    }
}

#[test]
fn a_huge_page_is_split_twice() {
    let machine = machine();
    let frames = two_gib();
    let table = FrameTable::new(&frames);
    let mut world = World::new(&machine, Format::Ept);
    world.feed();
    let page = Page::bare(table.ram(Mfn(1 << 18)).unwrap(), Order::Huge);
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

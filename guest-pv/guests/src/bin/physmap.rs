//! The physical map of a domain in a hardware container: what its memory map says, pages that come and go, and what can be
//! put into it besides memory. A PV domain has none.
#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_pv::alloc::vec::Vec;
use guest_pv::call::memory;
use guest_pv::mem::{DIRECT_MAP, balloon};
use guest_pv::tap::Tap;
use guest_pv::{Mode, boot, mode};
use guests::{address_of, call, load, me, op, page, store};
use xen_abi::Errno;
use xen_abi::hypercall::HYPERVISOR_MEMORY_OP;
use xen_abi::ids::DomId;
use xen_abi::memory::*;

guest_pv::test!(run);

const SELF: DomId = DomId::SELF;
const NOBODY: DomId = DomId(1234);
/// A guest frame where nothing is.
const EMPTY: u64 = 0x8_0000;

fn run(tap: &mut Tap) {
    if mode() == Mode::Pv {
        return tap.skip("a physical map", "a PV domain");
    }
    map(tap);
    numbers(tap);
    giving_and_taking(tap);
    populating(tap);
    other_spaces(tap);
    refused(tap);
}

/// What the guest frame holds, by the direct map.
fn read(gfn: u64) -> u64 {
    load(DIRECT_MAP + (gfn << 12))
}

fn write(gfn: u64, value: u64) {
    store(DIRECT_MAP + (gfn << 12), value);
}

fn map(tap: &mut Tap) {
    let map = memory::memory_map().unwrap_or_default();
    let ram = map.iter().filter(|entry| entry.type_ == e820::RAM);
    tap.ok(map.first().is_some_and(|entry| entry.addr == 0), "the memory map begins at 0");
    tap.ok(map.windows(2).all(|pair| pair[0].addr + pair[0].size <= pair[1].addr), "and is in order");
    tap.ok(ram.map(|entry| entry.size).sum::<u64>() >= 60 << 20, "the domain's memory is in it");
    let mut one = MemoryMap { nr_entries: 1, _pad: 0, buffer: address_of(&mut [0u8; 20]) };
    tap.is(op(HYPERVISOR_MEMORY_OP, XENMEM_MEMORY_MAP, &mut one), Ok(0), "where there is room for one entry");
    tap.is(one.nr_entries, 1, "it is one");
    // Xen sees first that there is no such call in a container, xen-rs that the domain has no right to it.
    let machine = memory::machine_memory_map().map(drop);
    tap.ok(matches!(machine, Err(Errno::ENOSYS | Errno::EPERM)), "there is no machine to be seen");
}

fn numbers(tap: &mut Tap) {
    let now = memory::current_reservation(SELF);
    tap.ok(now.is_ok_and(|pages| pages >= boot().nr_pages), "the domain has the pages that its map has");
    tap.is(memory::current_reservation(me()), now, "by its number too");
    tap.is(memory::current_reservation(NOBODY), Err(Errno::ESRCH), "a domain that does not exist");
    tap.is(memory::current_reservation(DomId(0)), Err(Errno::EPERM), "the control domain's is not to be known");
    let mut domain = MemoryDomain { domid: SELF };
    let top = op(HYPERVISOR_MEMORY_OP, XENMEM_MAXIMUM_GPFN, &mut domain);
    tap.ok(top.is_ok_and(|top| top >= boot().nr_pages - 1), "the highest guest frame");
}

fn giving_and_taking(tap: &mut Tap) {
    let before = memory::current_reservation(SELF).unwrap_or(0);
    let mut data = page();
    data.bytes_mut().fill(0x5a);
    tap.is(balloon::release(data), Ok(()), "a page is given back");
    tap.is(memory::current_reservation(SELF), Ok(before - 1), "and counts no more");
    let back = balloon::reclaim().expect("there was one");
    tap.is(memory::current_reservation(SELF), Ok(before), "it is asked for again");
    let frame = back.pfn().0;
    tap.is(memory::decrease_reservation(SELF, &[EMPTY], 0), Ok(0), "where nothing is, nothing is given back");
    tap.is(memory::decrease_reservation(SELF, &[frame, EMPTY, frame], 0), Ok(1), "up to the first that is not there");
    tap.is(read(frame), u64::MAX, "a frame without memory reads as ones");
    write(frame, 7);
    tap.is(read(frame), u64::MAX, "and keeps nothing");
    tap.is(memory::populate_physmap(SELF, &mut [frame], 0, 0), Ok(1), "memory for it");
    write(frame, 7);
    tap.is(read(frame), 7, "does");
    drop(back);
}

fn populating(tap: &mut Tap) {
    let before = memory::current_reservation(SELF).unwrap_or(0);
    let pages: Vec<_> = (0..20).map(|_| page()).collect();
    let frames: Vec<u64> = pages.iter().map(|page| page.pfn().0).collect();
    tap.is(memory::decrease_reservation(SELF, &frames, 0), Ok(20), "twenty pages are given back");
    let mut places: [u64; 20] = core::array::from_fn(|at| EMPTY + at as u64);
    tap.is(memory::populate_physmap(SELF, &mut places, 0, 0), Ok(20), "and taken where nothing was");
    tap.is(places, core::array::from_fn(|at| EMPTY + at as u64), "the numbers stay");
    (0..20).for_each(|at| write(EMPTY + at, at));
    tap.ok((0..20).all(|at| read(EMPTY + at) == at), "it is memory");
    tap.is(memory::decrease_reservation(SELF, &places, 0), Ok(20), "it is given back");
    tap.ok((0..20).all(|at| read(EMPTY + at) == u64::MAX), "and gone");
    let mut large = [EMPTY];
    tap.is(memory::populate_physmap(SELF, &mut large, 4, 0), Ok(1), "sixteen pages as one extent");
    (0..16).for_each(|at| write(EMPTY + at, at + 100));
    tap.ok((0..16).all(|at| read(EMPTY + at) == at + 100), "are memory");
    tap.is(memory::decrease_reservation(SELF, &[EMPTY + 3], 0), Ok(1), "one from its middle");
    tap.is((read(EMPTY + 2), read(EMPTY + 3), read(EMPTY + 4)), (102, u64::MAX, 104), "leaves the others");
    let rest: Vec<u64> = (0..16).filter(|&at| at != 3).map(|at| EMPTY + at).collect();
    tap.is(memory::decrease_reservation(SELF, &rest, 0), Ok(15), "which go one by one");
    let mut frames = frames;
    tap.is(memory::populate_physmap(SELF, &mut frames, 0, 0), Ok(20), "all is where it was");
    let spare = page();
    let taken = memory::decrease_reservation(SELF, &[spare.pfn().0], 0);
    let mut told = [u64::MAX];
    let mut increase =
        MemoryReservation { extent_start: address_of(&mut told), nr_extents: 1, domid: SELF, ..Default::default() };
    let given = op(HYPERVISOR_MEMORY_OP, XENMEM_INCREASE_RESERVATION, &mut increase);
    tap.is(
        (taken, given, told),
        (Ok(1), Ok(1), [u64::MAX]),
        "of memory at no number of its own it is not told the frames",
    );
    core::mem::forget(spare);
    tap.is(memory::current_reservation(SELF), Ok(before), "and as much");
}

fn remove(gfn: u64) -> Result<u64, Errno> {
    let mut argument = RemoveFromPhysmap { domid: SELF, gpfn: gfn, ..Default::default() };
    op(HYPERVISOR_MEMORY_OP, XENMEM_REMOVE_FROM_PHYSMAP, &mut argument)
}

fn other_spaces(tap: &mut Tap) {
    let add = |space, index, gfn| memory::add_to_physmap(SELF, space, index, gfn);
    tap.is(add(XENMAPSPACE_GRANT_TABLE, 0, EMPTY), Ok(()), "the grant table");
    write(EMPTY, 0x1_0001);
    tap.is(read(EMPTY), 0x1_0001, "is memory");
    tap.is(add(XENMAPSPACE_GRANT_TABLE, 0, EMPTY + 1), Ok(()), "it is put elsewhere");
    tap.is((read(EMPTY), read(EMPTY + 1)), (u64::MAX, 0x1_0001), "and is there alone");
    write(EMPTY + 1, 0);
    tap.is(add(XENMAPSPACE_GRANT_TABLE, 1000, EMPTY), Err(Errno::EINVAL), "no table is so long");
    tap.is(remove(EMPTY + 1), Ok(0), "it is taken out");
    tap.is(read(EMPTY + 1), u64::MAX, "and gone");
    tap.is(remove(EMPTY + 1), Err(Errno::ENOENT), "once");
    tap.is(add(XENMAPSPACE_SHARED_INFO, 1, EMPTY), Err(Errno::EINVAL), "there is one page of shared info");
    tap.is(add(77, 0, EMPTY), Err(Errno::EINVAL), "no such space");
    let mine = page();
    let frame = mine.pfn().0;
    let before = memory::current_reservation(SELF);
    write(frame, 0x77);
    tap.is(remove(frame), Ok(0), "memory is taken out of the map");
    tap.is(memory::current_reservation(SELF), before, "and is the domain's still");
    tap.is(read(frame), u64::MAX, "nothing is where it was");
    core::mem::forget(mine);
}

fn refused(tap: &mut Tap) {
    let foreign = memory::add_to_physmap(NOBODY, XENMAPSPACE_SHARED_INFO, 0, EMPTY);
    tap.is(foreign, Err(Errno::ESRCH), "into a domain that does not exist");
    let control = memory::add_to_physmap(DomId(0), XENMAPSPACE_SHARED_INFO, 0, EMPTY);
    // Xen sees first that it is a PV domain, which has no map; xen-rs looks at rights before it looks at anything.
    tap.ok(matches!(control, Err(Errno::EACCES | Errno::EPERM)), "into the control domain");
    for (name, command, want) in [
        ("populate_physmap", XENMEM_POPULATE_PHYSMAP, Ok(0)),
        ("decrease_reservation", XENMEM_DECREASE_RESERVATION, Ok(0)),
        ("increase_reservation", XENMEM_INCREASE_RESERVATION, Ok(0)),
        ("current_reservation", XENMEM_CURRENT_RESERVATION, Err(Errno::EFAULT)),
        ("memory_map", XENMEM_MEMORY_MAP, Err(Errno::EFAULT)),
        ("add_to_physmap", XENMEM_ADD_TO_PHYSMAP, Err(Errno::EFAULT)),
        ("add_to_physmap_batch", XENMEM_ADD_TO_PHYSMAP_BATCH, Err(Errno::EFAULT)),
        ("remove_from_physmap", XENMEM_REMOVE_FROM_PHYSMAP, Err(Errno::EFAULT)),
        ("exchange", XENMEM_EXCHANGE, Err(Errno::EFAULT)),
    ] {
        for bad in [0x1000, 0xffff_8300_0000_0000, 1 << 63 | 0x1000] {
            tap.is(call(HYPERVISOR_MEMORY_OP, [command.into(), bad]), want, name);
        }
    }
    tap.is(call(HYPERVISOR_MEMORY_OP, [63, 0]), Err(Errno::ENOSYS), "an unknown command");
}

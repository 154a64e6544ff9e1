//! `memory_op`: reservations, the balloon, memory maps, and what is refused.
#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_pv::call::memory;
use guest_pv::mem::{balloon, m2p};
use guest_pv::tap::Tap;
use guest_pv::{boot, traps};
use guests::{address_of, call, load, op, page, trap_of, update_va_mapping};
use xen_abi::Errno;
use xen_abi::hypercall::HYPERVISOR_MEMORY_OP;
use xen_abi::ids::{DomId, Mfn};
use xen_abi::memory::*;

guest_pv::test!(run);

const SELF: DomId = DomId::SELF;
const NOBODY: DomId = DomId(1234);

fn run(tap: &mut Tap) {
    numbers(tap);
    giving_back(tap);
    taking(tap);
    extents(tap);
    translation_tables(tap);
    maps(tap);
    errors(tap);
}

fn numbers(tap: &mut Tap) {
    tap.is(memory::current_reservation(SELF), Ok(boot().nr_pages), "the domain has the pages of start_info");
    tap.is(memory::current_reservation(DomId(0)), Ok(boot().nr_pages), "by its number too");
    tap.is(memory::current_reservation(NOBODY), Err(Errno::ESRCH), "not another domain");
    tap.ok(memory::maximum_reservation(SELF).is_ok_and(|max| max >= boot().nr_pages), "the limit is not lower");
    let top = memory::maximum_ram_page().unwrap_or(0);
    let highest = (0..boot().nr_pages).filter_map(|pfn| guest_pv::mem::p2m(xen_abi::ids::Pfn(pfn))).max();
    tap.ok(highest.is_some_and(|mfn| mfn.0 <= top), "no frame is above the highest");
}

fn giving_back(tap: &mut Tap) {
    let before = memory::current_reservation(SELF).unwrap_or(0);
    let data = page();
    let mfn = data.mfn();
    // A page that is mapped still is given back with its last mapping.
    tap.is(memory::decrease_reservation(SELF, &[mfn.0], 0), Ok(1), "a mapped page is given back");
    let current = memory::current_reservation(SELF).unwrap_or(0);
    tap.is(current, before, "it counts as long as it is mapped");
    tap.is(memory::decrease_reservation(SELF, &[mfn.0], 0), Ok(1), "giving it back twice is no error");
    tap.is(trap_of(|| _ = load(data.address())), None, "it is mapped still");
    tap.is(update_va_mapping(data.address(), 0, 2), Ok(()), "the mapping goes");
    tap.is(memory::current_reservation(SELF), Ok(before - 1), "and so does the page");
    tap.is(memory::decrease_reservation(SELF, &[1 << 40], 0), Ok(0), "a frame that does not exist");
    data.leak();
}

fn taking(tap: &mut Tap) {
    let before = memory::current_reservation(SELF).unwrap_or(0);
    balloon::release(page()).expect("a frame of ours");
    tap.is(memory::current_reservation(SELF), Ok(before - 1), "a page less");
    let mut frame = balloon::reclaim().expect("there was one");
    tap.is(memory::current_reservation(SELF), Ok(before), "a page more");
    tap.is(m2p(frame.mfn()), Some(frame.pfn()), "the M2P table knows it");
    frame.bytes_mut().fill(1);
    drop(frame);
}

fn extents(tap: &mut Tap) {
    // Sixteen pages, given back one by one and taken as one extent.
    let pages: [_; 16] = core::array::from_fn(|_| page());
    let mfns: [u64; 16] = core::array::from_fn(|index| pages[index].mfn().0);
    for page in &pages {
        update_va_mapping(page.address(), 0, 2).expect("it can be unmapped");
    }
    tap.is(memory::decrease_reservation(SELF, &mfns, 0), Ok(16), "sixteen pages are given back in one call");
    let before = memory::current_reservation(SELF).unwrap_or(0);
    let mut extent = [pages[0].pfn().0];
    tap.is(memory::populate_physmap(SELF, &mut extent, 4, 0), Ok(1), "sixteen pages are taken as one extent");
    tap.is(extent[0] % 16, 0, "it is aligned");
    tap.is(memory::current_reservation(SELF), Ok(before + 16), "and counts sixteen");
    let first = load(0xffff_8000_0000_0000 + extent[0] * 8);
    let last = load(0xffff_8000_0000_0000 + (extent[0] + 15) * 8);
    tap.is((first, last), (pages[0].pfn().0, pages[0].pfn().0 + 15), "the M2P table knows all of it");
    tap.is(memory::decrease_reservation(SELF, &extent, 4), Ok(1), "it is given back as one extent");
    tap.is(memory::current_reservation(SELF), Ok(before), "and counts no more");
    let mut two = [pages[0].pfn().0, pages[1].pfn().0];
    tap.is(memory::populate_physmap(SELF, &mut two, 0, 0), Ok(2), "two extents of one page");
    tap.ok(two[0] != two[1], "are two pages");
    tap.is(memory::populate_physmap(SELF, &mut [0], 25, 0), Ok(0), "an extent that is too large is not filled");
    let mut none: [u64; 0] = [];
    tap.is(memory::populate_physmap(SELF, &mut none, 0, 0), Ok(0), "no extents");
    pages.into_iter().for_each(|page| _ = page.leak());
}

fn translation_tables(tap: &mut Tap) {
    let mut mapping = MachphysMapping::default();
    tap.is(op(HYPERVISOR_MEMORY_OP, XENMEM_MACHPHYS_MAPPING, &mut mapping), Ok(0), "the place of the M2P table");
    tap.is((mapping.v_start, mapping.v_end), (0xffff_8000_0000_0000, 0xffff_8040_0000_0000), "is fixed");
    tap.ok(mapping.max_mfn > 0, "it has an end");
    // The frames of the table are for tools that map it once more: what matters here is that they can be asked for.
    let mut list = MachphysMfnList::default();
    tap.is(op(HYPERVISOR_MEMORY_OP, XENMEM_MACHPHYS_MFN_LIST, &mut list), Ok(0), "its frames can be asked for");
}

fn maps(tap: &mut Tap) {
    tap.is(memory::memory_map().map(drop), Err(Errno::ENOSYS), "the first domain has no map of its own");
    let map = memory::machine_memory_map().unwrap_or_default();
    tap.ok(map.iter().any(|entry| entry.type_ == e820::RAM), "the machine's map has memory");
    let sorted = map.windows(2).all(|pair| pair[0].addr + pair[0].size <= pair[1].addr);
    tap.ok(sorted, "and is in order");
    let mut one = MemoryMap { nr_entries: 1, _pad: 0, buffer: address_of(&mut [0u8; 20]) };
    let result = op(HYPERVISOR_MEMORY_OP, XENMEM_MACHINE_MEMORY_MAP, &mut one);
    tap.is(result, Err(Errno::EINVAL), "it needs room for all of it");
}

fn errors(tap: &mut Tap) {
    tap.is(call(HYPERVISOR_MEMORY_OP, [63, 0]), Err(Errno::ENOSYS), "an unknown command");
    for (name, command) in [
        ("populate_physmap", XENMEM_POPULATE_PHYSMAP),
        ("decrease_reservation", XENMEM_DECREASE_RESERVATION),
        ("current_reservation", XENMEM_CURRENT_RESERVATION),
        ("machine_memory_map", XENMEM_MACHINE_MEMORY_MAP),
        ("machphys_mapping", XENMEM_MACHPHYS_MAPPING),
        ("add_to_physmap", XENMEM_ADD_TO_PHYSMAP),
    ] {
        let want = if matches!(command, XENMEM_POPULATE_PHYSMAP | XENMEM_DECREASE_RESERVATION) {
            Ok(0)
        } else {
            Err(Errno::EFAULT)
        };
        tap.is(call(HYPERVISOR_MEMORY_OP, [command.into(), 0x1000]), want, name);
    }
    let mut bad = MemoryReservation { extent_start: 0x1000, nr_extents: 1, domid: SELF, ..Default::default() };
    tap.is(op(HYPERVISOR_MEMORY_OP, XENMEM_DECREASE_RESERVATION, &mut bad), Ok(0), "frames that are not mapped");
    let mut bad = MemoryReservation { domid: NOBODY, ..bad };
    let result = op(HYPERVISOR_MEMORY_OP, XENMEM_POPULATE_PHYSMAP, &mut bad);
    tap.is(result, Ok(0), "a domain that does not exist gets nothing");
    let added = memory::add_to_physmap(SELF, XENMAPSPACE_SHARED_INFO, 0, 0);
    tap.is(added, Err(Errno::EACCES), "a PV domain has no physmap to add to");
    tap.is(traps::peek(0x1000), None, "and nothing appeared at the bad address");
    tap.is(m2p(Mfn(1 << 40)), None, "there is no frame beyond the machine");
}

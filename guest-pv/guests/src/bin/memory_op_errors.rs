//! `memory_op`: every sub-operation with arguments that it refuses, and in which order it looks at them.
#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_pv::tap::Tap;
use guest_pv::traps;
use guests::child::Child;
use guests::{address_of, call, op, page};
use xen_abi::Errno;
use xen_abi::hypercall::HYPERVISOR_MEMORY_OP;
use xen_abi::ids::DomId;
use xen_abi::memory::*;

guest_pv::test!(run);

const SELF: DomId = DomId::SELF;
const NOBODY: DomId = DomId(1234);
const BY_NUMBER: DomId = DomId(0);
/// Not mapped; the hypervisor's; not canonical.
const BAD: [u64; 3] = [0x1000, 0xffff_8300_0000_0000, 1 << 63 | 0x1000];

fn run(tap: &mut Tap) {
    pointers(tap);
    continuations(tap);
    reservations(tap);
    totals(tap);
    translated(tap);
    claims(tap);
    resources(tap);
    maps(tap);
    vnuma_and_others(tap);
}

fn memory_op<T: zerocopy::FromBytes + zerocopy::IntoBytes>(command: u32, argument: &mut T) -> Result<u64, Errno> {
    op(HYPERVISOR_MEMORY_OP, command, argument)
}

/// What a command answers when its argument cannot be read.
fn pointers(tap: &mut Tap) {
    let fault = Err(Errno::EFAULT);
    for (name, command, want) in [
        ("increase_reservation", XENMEM_INCREASE_RESERVATION, Ok(0)),
        ("decrease_reservation", XENMEM_DECREASE_RESERVATION, Ok(0)),
        ("populate_physmap", XENMEM_POPULATE_PHYSMAP, Ok(0)),
        ("current_reservation", XENMEM_CURRENT_RESERVATION, fault),
        ("maximum_reservation", XENMEM_MAXIMUM_RESERVATION, fault),
        ("maximum_gpfn", XENMEM_MAXIMUM_GPFN, fault),
        ("machphys_mfn_list", XENMEM_MACHPHYS_MFN_LIST, fault),
        ("machphys_compat_mfn_list", XENMEM_MACHPHYS_COMPAT_MFN_LIST, Err(Errno::EOPNOTSUPP)),
        ("add_to_physmap", XENMEM_ADD_TO_PHYSMAP, fault),
        ("add_to_physmap_batch", XENMEM_ADD_TO_PHYSMAP_BATCH, fault),
        ("remove_from_physmap", XENMEM_REMOVE_FROM_PHYSMAP, fault),
        ("memory_map", XENMEM_MEMORY_MAP, fault),
        ("machine_memory_map", XENMEM_MACHINE_MEMORY_MAP, fault),
        ("exchange", XENMEM_EXCHANGE, fault),
        ("machphys_mapping", XENMEM_MACHPHYS_MAPPING, fault),
        ("set_memory_map", XENMEM_SET_MEMORY_MAP, fault),
        ("set_pod_target", XENMEM_SET_POD_TARGET, fault),
        ("get_pod_target", XENMEM_GET_POD_TARGET, fault),
        ("paging_op", XENMEM_PAGING_OP, Err(Errno::ENOSYS)),
        ("access_op", XENMEM_ACCESS_OP, fault),
        ("sharing_op", XENMEM_SHARING_OP, Err(Errno::ENOSYS)),
        ("claim_pages", XENMEM_CLAIM_PAGES, fault),
        ("get_vnumainfo", XENMEM_GET_VNUMAINFO, fault),
        ("reserved_device_memory_map", XENMEM_RESERVED_DEVICE_MEMORY_MAP, fault),
        ("acquire_resource", XENMEM_ACQUIRE_RESOURCE, fault),
    ] {
        for bad in BAD {
            tap.is(call(HYPERVISOR_MEMORY_OP, [command.into(), bad]), want, name);
        }
    }
    for unknown in [8, 29, 30, 63] {
        tap.is(call(HYPERVISOR_MEMORY_OP, [unknown, 0x1000]), Err(Errno::ENOSYS), "an unknown command");
    }
    tap.is(traps::peek(0x1000), None, "nothing appeared at the bad address");
}

/// The bits above the command say where a continued call goes on: most commands are never continued.
fn continuations(tap: &mut Tap) {
    let invalid = Err(Errno::EINVAL);
    let unknown = Err(Errno::ENOSYS);
    for (name, command, want) in [
        ("increase_reservation", XENMEM_INCREASE_RESERVATION, Ok(5)),
        ("decrease_reservation", XENMEM_DECREASE_RESERVATION, Ok(5)),
        ("populate_physmap", XENMEM_POPULATE_PHYSMAP, Ok(5)),
        ("maximum_ram_page", XENMEM_MAXIMUM_RAM_PAGE, invalid),
        ("current_reservation", XENMEM_CURRENT_RESERVATION, invalid),
        ("maximum_gpfn", XENMEM_MAXIMUM_GPFN, invalid),
        ("remove_from_physmap", XENMEM_REMOVE_FROM_PHYSMAP, invalid),
        ("exchange", XENMEM_EXCHANGE, invalid),
        ("claim_pages", XENMEM_CLAIM_PAGES, invalid),
        ("get_vnumainfo", XENMEM_GET_VNUMAINFO, invalid),
        ("reserved_device_memory_map", XENMEM_RESERVED_DEVICE_MEMORY_MAP, invalid),
        ("memory_map", XENMEM_MEMORY_MAP, unknown),
        ("machine_memory_map", XENMEM_MACHINE_MEMORY_MAP, unknown),
        ("machphys_mapping", XENMEM_MACHPHYS_MAPPING, unknown),
        ("machphys_mfn_list", XENMEM_MACHPHYS_MFN_LIST, unknown),
        ("set_memory_map", XENMEM_SET_MEMORY_MAP, unknown),
        ("get_sharing_freed_pages", XENMEM_GET_SHARING_FREED_PAGES, unknown),
        ("add_to_physmap", XENMEM_ADD_TO_PHYSMAP, Err(Errno::EFAULT)),
        ("acquire_resource", XENMEM_ACQUIRE_RESOURCE, Err(Errno::EFAULT)),
    ] {
        let continued = u64::from(command) | 5 << MEMOP_EXTENT_SHIFT;
        tap.is(call(HYPERVISOR_MEMORY_OP, [continued, 0x1000]), want, name);
    }
    for command in [XENMEM_ADD_TO_PHYSMAP, XENMEM_ADD_TO_PHYSMAP_BATCH] {
        let far = u64::from(command) | 0x10000 << MEMOP_EXTENT_SHIFT;
        tap.is(call(HYPERVISOR_MEMORY_OP, [far, 0x1000]), Err(Errno::EDOM), "more than such a call can have done");
    }
}

fn reservations(tap: &mut Tap) {
    let mut frames = [0u64; 4];
    let good = MemoryReservation {
        extent_start: address_of(&mut frames),
        nr_extents: 4,
        extent_order: 0,
        mem_flags: 0,
        domid: SELF,
        _pad: [0; 3],
    };
    for (name, command) in [
        ("increase", XENMEM_INCREASE_RESERVATION),
        ("decrease", XENMEM_DECREASE_RESERVATION),
        ("populate", XENMEM_POPULATE_PHYSMAP),
    ] {
        for (what, bad) in [
            ("more extents than a continuation can count", MemoryReservation { nr_extents: 1 << 26, ..good }),
            ("a domain that does not exist", MemoryReservation { domid: NOBODY, ..good }),
            ("a reserved number", MemoryReservation { domid: DomId::IO, ..good }),
            ("an extent that is too large", MemoryReservation { extent_order: 19, ..good }),
            ("an order beyond all", MemoryReservation { extent_order: u32::MAX, ..good }),
            ("a list of the hypervisor's", MemoryReservation { extent_start: BAD[1], ..good }),
            ("a list that is not canonical", MemoryReservation { extent_start: BAD[2], ..good }),
            ("an address width within a page", MemoryReservation { mem_flags: 12, ..good }),
        ] {
            let result = memory_op(command, &mut { bad });
            if !tap.ok(result == Ok(0), what) {
                tap.note(format_args!("{name}: {result:?}"));
            }
        }
    }
    frames.copy_from_slice(&[1 << 40, 0, 0, 0]);
    tap.is(memory_op(XENMEM_DECREASE_RESERVATION, &mut { good }), Ok(0), "a frame that does not exist");
    let mine = page();
    frames.copy_from_slice(&[mine.mfn().0, 1 << 40, 0, 0]);
    let before = totals_of(SELF);
    tap.is(memory_op(XENMEM_DECREASE_RESERVATION, &mut { good }), Ok(1), "one good frame, one bad");
    tap.is(guests::update_va_mapping(mine.address(), 0, 2), Ok(()), "its mapping goes");
    tap.is(totals_of(SELF), before - 1, "and so does the page");
    let mut pfn = [mine.pfn().0];
    let one = MemoryReservation { extent_start: address_of(&mut pfn), nr_extents: 1, ..good };
    tap.is(memory_op(XENMEM_POPULATE_PHYSMAP, &mut { one }), Ok(1), "another one for it");
    let mapped = guests::update_va_mapping(mine.address(), pfn[0] << 12 | 0x63, 2);
    tap.is(mapped, Ok(()), "can be mapped");
    mine.leak();
}

fn totals_of(domid: DomId) -> u64 {
    memory_op(XENMEM_CURRENT_RESERVATION, &mut MemoryDomain { domid }).unwrap_or(0)
}

fn totals(tap: &mut Tap) {
    for command in [XENMEM_CURRENT_RESERVATION, XENMEM_MAXIMUM_RESERVATION, XENMEM_MAXIMUM_GPFN] {
        for (what, domid, exists) in [
            ("itself", SELF, true),
            ("itself by number", BY_NUMBER, true),
            ("nobody", NOBODY, false),
            ("a reserved number", DomId::XEN, false),
        ] {
            let result = memory_op(command, &mut MemoryDomain { domid });
            let holds = if exists { result.is_ok() } else { result == Err(Errno::ESRCH) };
            if !tap.ok(holds, what) {
                tap.note(format_args!("{command}: {result:?}"));
            }
        }
    }
    let child = Child::new(100);
    tap.is(totals_of(child.id()), 0, "a new domain has no memory");
    let maximum = memory_op(XENMEM_MAXIMUM_RESERVATION, &mut MemoryDomain { domid: child.id() });
    tap.is(maximum, Ok(100), "and may have as much as was said");
    let mut frames = [7u64, 8, 9];
    let extents = MemoryReservation {
        extent_start: address_of(&mut frames),
        nr_extents: 3,
        domid: child.id(),
        ..Default::default()
    };
    tap.is(memory_op(XENMEM_POPULATE_PHYSMAP, &mut { extents }), Ok(3), "it gets three pages");
    tap.is(totals_of(child.id()), 3, "and has them");
    let highest = memory_op(XENMEM_MAXIMUM_GPFN, &mut MemoryDomain { domid: child.id() });
    tap.is(highest, Ok(0), "its highest frame is not known before it has a p2m list");
    tap.is(memory_op(XENMEM_DECREASE_RESERVATION, &mut { extents }), Ok(3), "they are taken back");
    tap.is(totals_of(child.id()), 0, "all of them");
    let many = MemoryReservation { extent_start: 0, nr_extents: 101, domid: child.id(), ..Default::default() };
    tap.is(memory_op(XENMEM_INCREASE_RESERVATION, &mut { many }), Ok(100), "it gets no more than it may have");
    tap.is(totals_of(child.id()), 100, "but so much");
}

fn translated(tap: &mut Tap) {
    for (what, space, want) in [
        ("shared info", XENMAPSPACE_SHARED_INFO, Err(Errno::EACCES)),
        ("a grant table page", XENMAPSPACE_GRANT_TABLE, Err(Errno::EACCES)),
        ("a page of its own", XENMAPSPACE_GMFN, Err(Errno::EACCES)),
        ("a range of pages, none", XENMAPSPACE_GMFN_RANGE, Err(Errno::EACCES)),
        ("a foreign page", XENMAPSPACE_GMFN_FOREIGN, Err(Errno::ENOSYS)),
        ("device memory", XENMAPSPACE_DEV_MMIO, Err(Errno::EACCES)),
        ("an unknown space", 77, Err(Errno::EACCES)),
    ] {
        let add = AddToPhysmap { domid: SELF, size: 0, space, idx: 0, gpfn: 0 };
        tap.is(memory_op(XENMEM_ADD_TO_PHYSMAP, &mut { add }), want, what);
    }
    let nobody = AddToPhysmap { domid: NOBODY, size: 0, space: 0, idx: 0, gpfn: 0 };
    tap.is(memory_op(XENMEM_ADD_TO_PHYSMAP, &mut { nobody }), Err(Errno::ESRCH), "for nobody");
    let range = AddToPhysmap { domid: SELF, size: 1, space: XENMAPSPACE_GMFN_RANGE, idx: 0, gpfn: 0 };
    tap.is(memory_op(XENMEM_ADD_TO_PHYSMAP, &mut { range }), Err(Errno::EACCES), "a range of one page");
    let (mut frames, mut errors) = ([0u64; 2], [77i32; 2]);
    let batch = AddToPhysmapBatch {
        domid: SELF,
        space: 0,
        size: 2,
        foreign_domid: DomId(0),
        idxs: address_of(&mut frames),
        gpfns: address_of(&mut frames),
        errs: address_of(&mut errors),
    };
    let add = |batch: AddToPhysmapBatch| memory_op(XENMEM_ADD_TO_PHYSMAP_BATCH, &mut { batch });
    tap.is(add(batch), Err(Errno::EACCES), "a batch of shared info pages");
    tap.is(errors, [77, 77], "says nothing of each");
    tap.is(add(AddToPhysmapBatch { space: 3, ..batch }), Err(Errno::EOPNOTSUPP), "a batch of ranges");
    tap.is(add(AddToPhysmapBatch { domid: NOBODY, ..batch }), Err(Errno::ESRCH), "a batch for nobody");
    tap.is(add(AddToPhysmapBatch { idxs: 0x1000, ..batch }), Err(Errno::EACCES), "indices that are not mapped");
    tap.is(add(AddToPhysmapBatch { size: 0, ..batch }), Err(Errno::EACCES), "an empty batch");
    let remove = RemoveFromPhysmap { domid: SELF, _pad: [0; 3], gpfn: 1 << 40 };
    tap.is(memory_op(XENMEM_REMOVE_FROM_PHYSMAP, &mut { remove }), Err(Errno::EACCES), "a frame that is not there");
    let remove = RemoveFromPhysmap { domid: NOBODY, ..remove };
    tap.is(memory_op(XENMEM_REMOVE_FROM_PHYSMAP, &mut { remove }), Err(Errno::ESRCH), "from nobody");
    let data = page();
    let remove = RemoveFromPhysmap { domid: SELF, gpfn: data.mfn().0, ..remove };
    tap.is(memory_op(XENMEM_REMOVE_FROM_PHYSMAP, &mut { remove }), Err(Errno::EACCES), "a page of its own");
    tap.is(traps::peek(data.address()), Some(0), "is where it was");
    for command in [XENMEM_SET_POD_TARGET, XENMEM_GET_POD_TARGET] {
        let pod = PodTarget { domid: SELF, ..Default::default() };
        tap.is(memory_op(command, &mut { pod }), Err(Errno::EINVAL), "a PV domain is not populated on demand");
        let pod = PodTarget { domid: NOBODY, ..Default::default() };
        tap.is(memory_op(command, &mut { pod }), Err(Errno::ESRCH), "nor is nobody");
    }
}

fn claims(tap: &mut Tap) {
    let child = Child::new(4096);
    let claim = MemoryReservation { nr_extents: 1000, domid: child.id(), ..Default::default() };
    let ask = |claim: MemoryReservation| memory_op(XENMEM_CLAIM_PAGES, &mut { claim });
    tap.is(ask(MemoryReservation { extent_start: 8, ..claim }), Err(Errno::EINVAL), "a claim has no list");
    tap.is(ask(MemoryReservation { extent_order: 1, ..claim }), Err(Errno::EINVAL), "no order");
    tap.is(ask(MemoryReservation { mem_flags: 32, ..claim }), Err(Errno::EINVAL), "no flags");
    tap.is(ask(MemoryReservation { domid: NOBODY, ..claim }), Err(Errno::EINVAL), "and a domain");
    tap.is(ask(MemoryReservation { domid: SELF, ..claim }), Err(Errno::EINVAL), "that is named by number");
    tap.is(ask(MemoryReservation { nr_extents: 1 << 40, ..claim }), Err(Errno::EINVAL), "more than it may have");
    tap.is(ask(claim), Ok(0), "a claim");
    tap.is(outstanding(child.id()), 1000, "is on record");
    tap.is(ask(claim), Err(Errno::EINVAL), "a second one is refused");
    let mut extents = MemoryReservation { extent_start: 0, nr_extents: 10, domid: child.id(), ..Default::default() };
    tap.is(memory_op(XENMEM_INCREASE_RESERVATION, &mut extents), Ok(10), "pages of the claim");
    tap.is(outstanding(child.id()), 990, "count against it");
    tap.is(ask(MemoryReservation { nr_extents: 0, ..claim }), Ok(0), "the rest is given up");
    tap.is(outstanding(child.id()), 0, "and gone");
    tap.is(ask(MemoryReservation { nr_extents: 0, ..claim }), Ok(0), "giving up nothing is no error");
    tap.is(ask(MemoryReservation { nr_extents: 10, ..claim }), Err(Errno::EINVAL), "it has so many already");
    tap.is(ask(MemoryReservation { nr_extents: 11, ..claim }), Ok(0), "one more than it has");
    tap.is(outstanding(child.id()), 1, "is a claim of one");
    tap.is(ask(MemoryReservation { domid: BY_NUMBER, nr_extents: 0, ..claim }), Ok(0), "the first domain has none");
    let free = guest_pv::call::sysctl::physinfo().map_or(0, |info| info.free_pages);
    let big = Child::new(1 << 30);
    let claim = MemoryReservation { domid: big.id(), nr_extents: free + 1, ..claim };
    tap.is(ask(claim), Err(Errno::ENOMEM), "more than there is");
    let before = guest_pv::call::sysctl::physinfo().map_or(0, |info| info.outstanding_pages);
    tap.is(ask(MemoryReservation { nr_extents: free / 2, ..claim }), Ok(0), "half of it");
    let after = guest_pv::call::sysctl::physinfo().map_or(0, |info| info.outstanding_pages);
    tap.is(after - before, free / 2, "shows in the machine's sum");
    let rest = free - free / 2;
    let third = Child::new(1 << 30);
    let claim = MemoryReservation { domid: third.id(), nr_extents: rest + 1, ..claim };
    tap.is(ask(claim), Err(Errno::ENOMEM), "what is claimed is not there for others");
    let mut extent = MemoryReservation { nr_extents: rest / 512 + 2, extent_order: 9, domid: third.id(), ..extents };
    let got = memory_op(XENMEM_INCREASE_RESERVATION, &mut extent).unwrap_or(u64::MAX);
    tap.ok(got <= rest / 512, "nor do they get it as memory");
    drop(big);
    let after = guest_pv::call::sysctl::physinfo().map_or(0, |info| info.outstanding_pages);
    tap.is(after, before, "a claim ends with its domain");
}

fn outstanding(domid: DomId) -> u64 {
    guest_pv::call::domctl::get_domain_info(domid).map_or(u64::MAX, |info| info.outstanding_pages)
}

fn resources(tap: &mut Tap) {
    let child = Child::new(16);
    let mut frames = [0u64; 40];
    let good = MemAcquireResource {
        domid: child.id(),
        type_: XENMEM_RESOURCE_GRANT_TABLE,
        id: XENMEM_RESOURCE_GRANT_TABLE_ID_SHARED,
        nr_frames: 2,
        pad: 0,
        frame: 0,
        frame_list: address_of(&mut frames),
    };
    let acquire = |mut wanted: MemAcquireResource| {
        memory_op(XENMEM_ACQUIRE_RESOURCE, &mut wanted).map(|value| (value, wanted.nr_frames))
    };
    let refused = |errno| Err::<(u64, u32), Errno>(errno);
    tap.is(acquire(MemAcquireResource { pad: 1, ..good }), refused(Errno::EINVAL), "padding that is not zero");
    tap.is(acquire(MemAcquireResource { frame: 1 << 32, ..good }), refused(Errno::EINVAL), "a frame number too large");
    let sum = MemAcquireResource { frame: 0xffff_ffff, ..good };
    tap.is(acquire(sum), refused(Errno::EINVAL), "a sum too large");
    tap.is(acquire(MemAcquireResource { domid: SELF, ..good }), refused(Errno::ESRCH), "not by DOMID_SELF");
    tap.is(acquire(MemAcquireResource { domid: BY_NUMBER, ..good }), refused(Errno::EPERM), "not of itself");
    tap.is(acquire(MemAcquireResource { domid: NOBODY, ..good }), refused(Errno::ESRCH), "not of nobody");
    tap.is(acquire(MemAcquireResource { type_: 0, ..good }), refused(Errno::EINVAL), "a PV domain has no I/O server");
    tap.is(acquire(MemAcquireResource { type_: 2, ..good }), refused(Errno::EINVAL), "no trace buffer");
    tap.is(acquire(MemAcquireResource { type_: 3, ..good }), refused(Errno::EOPNOTSUPP), "and nothing unknown");
    tap.is(acquire(MemAcquireResource { id: 7, ..good }), refused(Errno::EINVAL), "an unknown part");
    let size = MemAcquireResource { frame_list: 0, nr_frames: 0, ..good };
    tap.is(acquire(size), Ok((0, 8)), "the size of the grant table");
    let status = MemAcquireResource { id: XENMEM_RESOURCE_GRANT_TABLE_ID_STATUS, ..size };
    tap.is(acquire(status), Ok((0, 1)), "and of its status frames");
    tap.is(acquire(MemAcquireResource { nr_frames: 1, ..size }), refused(Errno::EINVAL), "frames but no list");
    tap.is(acquire(MemAcquireResource { nr_frames: 0, ..good }), refused(Errno::EINVAL), "a list but no frames");
    let status = MemAcquireResource { id: XENMEM_RESOURCE_GRANT_TABLE_ID_STATUS, nr_frames: 1, ..good };
    tap.is(acquire(status), refused(Errno::EINVAL), "version 1 has no status frames");
    tap.is(acquire(MemAcquireResource { frame_list: 0x1000, ..good }), refused(Errno::EFAULT), "a list not mapped");
    tap.is(acquire(MemAcquireResource { nr_frames: 1 << 26, ..good }), refused(Errno::EINVAL), "too many frames");
    tap.is(
        acquire(MemAcquireResource { nr_frames: 9, ..good }),
        refused(Errno::EINVAL),
        "more than the table may have",
    );
    tap.is(acquire(MemAcquireResource { nr_frames: 40, ..good }), refused(Errno::EINVAL), "in two rounds");
    tap.is(acquire(good).map(|(value, _)| value), Ok(0), "two frames");
    let window = guest_pv::mem::Mapping::foreign(child.id(), &frames[..2], guest_pv::mem::Access::ReadWrite);
    tap.ok(window.is_ok(), "can be mapped as frames of that domain");
    if let Ok(window) = window {
        window.store_u64(8, 0x77);
        let again = guest_pv::mem::Mapping::foreign(child.id(), &frames[..2], guest_pv::mem::Access::ReadOnly);
        tap.is(again.map(|again| again.load_u64(8)).ok(), Some(0x77), "as often as one likes");
    }
    let first = frames[0];
    tap.is(
        acquire(MemAcquireResource { frame: 7, nr_frames: 1, ..good }).map(|(value, _)| value),
        Ok(0),
        "the last one",
    );
    tap.ok(frames[0] != first && frames[0] != 0, "is another frame");
    tap.is(acquire(MemAcquireResource { frame: 8, nr_frames: 1, ..good }), refused(Errno::EINVAL), "the one after it");
    let own = guest_pv::mem::Mapping::own(&frames[..1], guest_pv::mem::Access::ReadOnly);
    tap.is(own.map(drop).map_err(|error| error.errno), Err(Errno::EBUSY), "they are not the mapper's own");
}

fn maps(tap: &mut Tap) {
    let child = Child::new(16);
    let mut entries = [0u8; 20];
    let map = MemoryMap { nr_entries: 1, _pad: 0, buffer: address_of(&mut entries) };
    let good = ForeignMemoryMap { domid: child.id(), _pad: [0; 3], map };
    let set = |map: ForeignMemoryMap| memory_op(XENMEM_SET_MEMORY_MAP, &mut { map });
    tap.is(set(ForeignMemoryMap { domid: NOBODY, ..good }), Err(Errno::ESRCH), "a map for nobody");
    let unmapped = MemoryMap { buffer: 0x1000, ..map };
    tap.is(set(ForeignMemoryMap { map: unmapped, ..good }), Err(Errno::EFAULT), "a map that is not mapped");
    let mut largest = guest_pv::alloc::vec![0u8; 20 * 1024];
    let largest = MemoryMap { nr_entries: 1024, buffer: address_of(largest.as_mut_slice()), ..map };
    tap.is(set(ForeignMemoryMap { map: largest, ..good }), Ok(0), "the longest map");
    let long = MemoryMap { nr_entries: 1025, ..largest };
    tap.is(set(ForeignMemoryMap { map: long, ..good }), Err(Errno::EINVAL), "a map that is too long");
    tap.is(set(good), Ok(0), "a map of one entry");
    tap.is(memory_op(XENMEM_MEMORY_MAP, &mut { map }), Err(Errno::ENOSYS), "the first domain has none");
    tap.is(set(ForeignMemoryMap { domid: SELF, ..good }), Ok(0), "unless it gives itself one");
    let mut size = MemoryMap { nr_entries: 99, _pad: 0, buffer: 0 };
    tap.is(memory_op(XENMEM_MEMORY_MAP, &mut size), Err(Errno::EFAULT), "the number of entries is not told alone");
    let mut one = MemoryMap { nr_entries: 99, ..map };
    tap.is(memory_op(XENMEM_MEMORY_MAP, &mut one), Ok(0), "it comes with the entries");
    tap.is(one.nr_entries, 1, "and is right");
    let mut none = MemoryMap { nr_entries: 0, ..map };
    tap.is(memory_op(XENMEM_MEMORY_MAP, &mut none), Ok(0), "no room is no error");
    tap.is(none.nr_entries, 0, "and nothing comes");
    let mut bad = MemoryMap { nr_entries: 4, _pad: 0, buffer: 0x1000 };
    tap.is(memory_op(XENMEM_MEMORY_MAP, &mut bad), Err(Errno::EFAULT), "room that is not mapped");
    let empty = MemoryMap { nr_entries: 0, ..map };
    tap.is(set(ForeignMemoryMap { domid: SELF, map: empty, ..good }), Ok(0), "an empty map");
    tap.is(memory_op(XENMEM_MEMORY_MAP, &mut { map }), Err(Errno::ENOSYS), "is none");

    let mut size = MemoryMap { nr_entries: 0, _pad: 0, buffer: 0 };
    tap.is(memory_op(XENMEM_MACHINE_MEMORY_MAP, &mut size), Ok(0), "the size of the machine's map");
    let entries = guest_pv::call::memory::machine_memory_map().unwrap_or_default();
    tap.is(size.nr_entries as usize, entries.len(), "is that of the map");
    let kind = |at: u64| entries.iter().find(|e| (e.addr..e.addr + e.size).contains(&at)).map(|e| e.type_);
    tap.is(kind(0xfec0_0000), Some(e820::RESERVED), "the interrupt controller's registers are reserved");
    tap.is(kind(0xfee0_0000), Some(e820::RESERVED), "those of the CPU's own");
    tap.is(kind(0xfeef_f000), Some(e820::RESERVED), "and where interrupt messages go");
    tap.is(kind(0xfed0_0000), None, "other devices' are not");
    let mut list = MachphysMfnList { max_extents: 1, extent_start: 0x1000, ..Default::default() };
    tap.is(memory_op(XENMEM_MACHPHYS_MFN_LIST, &mut list), Err(Errno::EFAULT), "a list of frames that is not mapped");
    let mut frames = [0u64; 8];
    let mut list = MachphysMfnList { max_extents: 8, extent_start: address_of(&mut frames), ..Default::default() };
    tap.is(memory_op(XENMEM_MACHPHYS_MFN_LIST, &mut list), Ok(0), "the frames of the M2P table");
    tap.is(list.nr_extents, 1, "one for each 2 MiB of it");
    let window = guest_pv::mem::Mapping::foreign(DomId::XEN, &frames[..1], guest_pv::mem::Access::ReadOnly);
    tap.is(window.as_ref().map(drop).map_err(|error| error.errno), Ok(()), "can be mapped for reading");
    let data = page();
    let part = [frames[0] + data.mfn().0 / 512];
    let window = guest_pv::mem::Mapping::foreign(DomId::XEN, &part, guest_pv::mem::Access::ReadOnly);
    let seen = window.map(|window| guests::load(window.address() + data.mfn().0 % 512 * 8)).ok();
    tap.is(seen, Some(data.pfn().0), "and say which of its frames a frame is");
    let window = guest_pv::mem::Mapping::foreign(DomId::XEN, &frames[..1], guest_pv::mem::Access::ReadWrite);
    tap.is(window.map(drop).map_err(|error| error.errno), Err(Errno::EBUSY), "but not for writing");
}

fn vnuma_and_others(tap: &mut Tap) {
    let ask = |topology: VnumaTopologyInfo| memory_op(XENMEM_GET_VNUMAINFO, &mut { topology });
    let topology = VnumaTopologyInfo { domid: SELF, ..Default::default() };
    tap.is(ask(topology), Err(Errno::EOPNOTSUPP), "there are no virtual nodes");
    tap.is(ask(VnumaTopologyInfo { pad: 1, ..topology }), Err(Errno::EINVAL), "padding that is not zero");
    tap.is(ask(VnumaTopologyInfo { domid: NOBODY, ..topology }), Err(Errno::ESRCH), "of nobody");
    let ask = |map: ReservedDeviceMemoryMap| memory_op(XENMEM_RESERVED_DEVICE_MEMORY_MAP, &mut { map });
    let map = ReservedDeviceMemoryMap { flags: XENMEM_RDM_ALL, nr_entries: 3, buffer: 0x1000, ..Default::default() };
    tap.is(ask(map), Ok(0), "no device has memory of its own");
    tap.is(ask(ReservedDeviceMemoryMap { flags: 2, ..map }), Err(Errno::EINVAL), "an unknown flag");
    tap.is(
        ask(ReservedDeviceMemoryMap { buffer: BAD[1], ..map }),
        Err(Errno::EFAULT),
        "room in the hypervisor's memory",
    );
    let mut list = MachphysMfnList { max_extents: 0, ..Default::default() };
    tap.is(
        memory_op(XENMEM_MACHPHYS_COMPAT_MFN_LIST, &mut list),
        Err(Errno::EOPNOTSUPP),
        "the M2P table of 32-bit guests",
    );
    tap.is(
        call(HYPERVISOR_MEMORY_OP, [XENMEM_GET_SHARING_FREED_PAGES.into(), 0]),
        Ok(0),
        "no page is saved by sharing",
    );
    tap.is(call(HYPERVISOR_MEMORY_OP, [XENMEM_GET_SHARING_SHARED_PAGES.into(), 0]), Ok(0), "nor shared");
    for (name, command, want) in [
        ("paging_op", XENMEM_PAGING_OP, Errno::ENOSYS),
        ("sharing_op", XENMEM_SHARING_OP, Errno::ENOSYS),
        ("access_op", XENMEM_ACCESS_OP, Errno::EPERM),
    ] {
        tap.is(memory_op(command, &mut [0u64; 16]), Err(want), name);
    }
}

//! Pointers that no hypercall may follow: memory, page tables and grants.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::mem::offset_of;
use guest_pv::call::memory::maximum_ram_page;
use guest_pv::grants;
use guest_pv::mem::{Access, Mapping};
use guest_pv::tap::Tap;
use guests::child::Child;
use guests::pointers::Place::*;
use guests::pointers::{Answer, Ground, P, Row, error, inout, input, value};
use guests::{address_of, call, op, page};
use xen_abi::Errno;
use xen_abi::grant_table::*;
use xen_abi::hypercall::*;
use xen_abi::ids::{DomId, GrantHandle, GrantRef};
use xen_abi::memory::*;
use xen_abi::mmu::*;

guest_pv::test!(run);

const SELF: DomId = DomId::SELF;
const NOBODY: DomId = DomId(1234);
const M: u32 = HYPERVISOR_MEMORY_OP;
const G: u32 = HYPERVISOR_GRANT_TABLE_OP;

fn run(tap: &mut Tap) {
    let mut ground = Ground::new();
    let before = reserved();
    memory(tap, &mut ground);
    tap.is(reserved(), before, "no page came, none went");
    lists(tap, &mut ground);
    tables(tap, &mut ground);
    updates(tap, &mut ground);
    operations(tap, &mut ground);
    batches(tap, &ground);
    version_2(tap, &mut ground);
}

fn of(command: u32) -> [u64; 2] {
    [command.into(), P]
}

fn reserved() -> u64 {
    op(M, XENMEM_CURRENT_RESERVATION, &mut MemoryDomain { domid: SELF }).unwrap_or(0)
}

fn memory(tap: &mut Tap, ground: &mut Ground) {
    let none = MemoryReservation { domid: SELF, ..Default::default() };
    let nobody = MemoryReservation { domid: NOBODY, ..Default::default() };
    let exchange = MemoryExchange { in_: none, out: MemoryReservation { extent_order: 1, ..none }, nr_exchanged: 0 };
    let domain = MemoryDomain { domid: SELF };
    let map = MemoryMap { nr_entries: 1, ..Default::default() };
    let topology = VnumaTopologyInfo { domid: SELF, ..Default::default() };
    let pod = PodTarget { domid: SELF, ..Default::default() };
    let add = AddToPhysmap { domid: NOBODY, ..Default::default() };
    let batch = AddToPhysmapBatch { domid: NOBODY, size: 1, ..Default::default() };
    let remove = RemoveFromPhysmap { domid: NOBODY, ..Default::default() };
    let foreign = ForeignMemoryMap { domid: NOBODY, ..Default::default() };
    let resource = MemAcquireResource { domid: NOBODY, ..Default::default() };
    let (gone, invalid) = (error(Errno::ESRCH), error(Errno::EINVAL));
    ground.check(
        tap,
        &[
            input("increase_reservation", M, of(XENMEM_INCREASE_RESERVATION), &none).always(value(0)),
            input("decrease_reservation", M, of(XENMEM_DECREASE_RESERVATION), &none).always(value(0)),
            input("populate_physmap", M, of(XENMEM_POPULATE_PHYSMAP), &none).but(ReadOnly, value(0)).always(value(0)),
            input("maximum_ram_page", M, of(XENMEM_MAXIMUM_RAM_PAGE), &none)
                .always(value(maximum_ram_page().unwrap_or(0))),
            input("current_reservation", M, of(XENMEM_CURRENT_RESERVATION), &domain).but(ReadOnly, value(reserved())),
            input("maximum_reservation", M, of(XENMEM_MAXIMUM_RESERVATION), &domain),
            input("maximum_gpfn", M, of(XENMEM_MAXIMUM_GPFN), &domain),
            inout("machphys_mfn_list", M, of(XENMEM_MACHPHYS_MFN_LIST), &MachphysMfnList::default()),
            input("machphys_compat_mfn_list", M, of(XENMEM_MACHPHYS_COMPAT_MFN_LIST), &MachphysMfnList::default())
                .always(error(Errno::EOPNOTSUPP)),
            inout("machphys_mapping", M, of(XENMEM_MACHPHYS_MAPPING), &MachphysMapping::default()),
            input("add_to_physmap", M, of(XENMEM_ADD_TO_PHYSMAP), &add).but(ReadOnly, gone),
            input("add_to_physmap_batch", M, of(XENMEM_ADD_TO_PHYSMAP_BATCH), &batch).but(ReadOnly, gone),
            input("remove_from_physmap", M, of(XENMEM_REMOVE_FROM_PHYSMAP), &remove).but(ReadOnly, gone),
            inout("memory_map", M, of(XENMEM_MEMORY_MAP), &map).but(ReadOnly, error(Errno::ENOSYS)),
            inout("machine_memory_map", M, of(XENMEM_MACHINE_MEMORY_MAP), &MemoryMap::default()),
            inout("exchange", M, of(XENMEM_EXCHANGE), &exchange).but(ReadOnly, value(0)),
            input("set_memory_map", M, of(XENMEM_SET_MEMORY_MAP), &foreign).but(ReadOnly, gone),
            inout("set_pod_target", M, of(XENMEM_SET_POD_TARGET), &pod).but(ReadOnly, invalid),
            inout("get_pod_target", M, of(XENMEM_GET_POD_TARGET), &pod).but(ReadOnly, invalid),
            input("get_sharing_freed_pages", M, of(XENMEM_GET_SHARING_FREED_PAGES), &0u32).always(value(0)),
            input("get_sharing_shared_pages", M, of(XENMEM_GET_SHARING_SHARED_PAGES), &0u32).always(value(0)),
            input("access_op", M, of(XENMEM_ACCESS_OP), &[0u64; 4]),
            input("claim_pages", M, of(XENMEM_CLAIM_PAGES), &nobody).but(ReadOnly, invalid),
            inout("get_vnumainfo", M, of(XENMEM_GET_VNUMAINFO), &topology).but(ReadOnly, error(Errno::EOPNOTSUPP)),
            inout(
                "reserved_device_memory_map",
                M,
                of(XENMEM_RESERVED_DEVICE_MEMORY_MAP),
                &ReservedDeviceMemoryMap::default(),
            ),
            inout("acquire_resource", M, of(XENMEM_ACQUIRE_RESOURCE), &resource).but(ReadOnly, gone),
            input("an unknown command", M, of(63), &0u32).always(error(Errno::ENOSYS)),
        ],
    );
}

/// Lists of frames and of ranges that an argument points to.
fn lists(tap: &mut Tap, ground: &mut Ground) {
    let child = Child::new(64);
    let mine = page();
    let one = MemoryReservation { nr_extents: 1, domid: child.id(), ..Default::default() };
    let start = offset_of!(MemoryReservation, extent_start);
    let exchange = MemoryExchange {
        in_: MemoryReservation { nr_extents: 1, domid: SELF, ..Default::default() },
        out: MemoryReservation { nr_extents: 1, domid: SELF, ..Default::default() },
        nr_exchanged: 0,
    };
    let (mut frame, mut other) = (1u64 << 40, 1u64 << 40);
    let into =
        MemoryExchange { in_: MemoryReservation { extent_start: address_of(&mut frame), ..exchange.in_ }, ..exchange };
    let outof =
        MemoryExchange { out: MemoryReservation { extent_start: address_of(&mut other), ..exchange.out }, ..exchange };
    let out = offset_of!(MemoryExchange, out);
    let frames = MachphysMfnList { max_extents: 1, ..Default::default() };
    let machine = MemoryMap { nr_entries: 1, ..Default::default() };
    let map = ForeignMemoryMap { domid: child.id(), map: machine, ..Default::default() };
    let resource = MemAcquireResource {
        domid: child.id(),
        type_: XENMEM_RESOURCE_GRANT_TABLE,
        nr_frames: 1,
        ..Default::default()
    };
    ground.check(
        tap,
        &[
            inout("increase's list", M, of(XENMEM_INCREASE_RESERVATION), &0u64)
                .inside(&one, start)
                .but(Null, value(1))
                .always(value(0)),
            input("decrease's list", M, of(XENMEM_DECREASE_RESERVATION), &mine.mfn().0)
                .inside(&MemoryReservation { domid: SELF, ..one }, start)
                .always(value(0)),
            inout("populate's list", M, of(XENMEM_POPULATE_PHYSMAP), &5u64).inside(&one, start).always(value(0)),
            input("exchange's frames", M, of(XENMEM_EXCHANGE), &frame).inside(&outof, start),
            inout("exchange's answer", M, of(XENMEM_EXCHANGE), &frame)
                .inside(&into, out + start)
                .but(Hypervisor, error(Errno::EFAULT))
                .but(NotCanonical, error(Errno::EFAULT))
                .always(error(Errno::EINVAL)),
            inout("machphys_mfn_list's frames", M, of(XENMEM_MACHPHYS_MFN_LIST), &frame)
                .inside(&frames, offset_of!(MachphysMfnList, extent_start)),
            inout("machine_memory_map's entries", M, of(XENMEM_MACHINE_MEMORY_MAP), &[0u8; 20])
                .inside(&machine, offset_of!(MemoryMap, buffer))
                .but(Null, value(0))
                .always(error(Errno::EINVAL)),
            input("set_memory_map's entries", M, of(XENMEM_SET_MEMORY_MAP), &[0u8; 20])
                .inside(&map, offset_of!(ForeignMemoryMap, map) + offset_of!(MemoryMap, buffer))
                .but(ReadOnly, value(0)),
            inout("acquire_resource's frames", M, of(XENMEM_ACQUIRE_RESOURCE), &frame)
                .inside(&resource, offset_of!(MemAcquireResource, frame_list))
                .but(Null, error(Errno::EINVAL)),
        ],
    );
    let pages = guest_pv::call::domctl::get_domain_info(child.id()).map(|info| info.tot_pages);
    tap.is(pages, Ok(9), "pages that could not be told are the domain's all the same");
}

fn tables(tap: &mut Tap, ground: &mut Ground) {
    let mine = page();
    let same = MmuUpdate { ptr: mine.mfn().0 << 12 | MMU_MACHPHYS_UPDATE, val: mine.pfn().0 };
    let mut good = same;
    let flush = MmuextOp { cmd: MMUEXT_TLB_FLUSH_LOCAL, ..Default::default() };
    let mut flush_good = flush;
    let multi = |cmd: u32| MmuextOp { cmd, arg1: mine.address(), ..Default::default() };
    let me = u64::from(SELF.0);
    let mask = offset_of!(MmuextOp, arg2);
    let empty = |row: Row| {
        row.but(Hypervisor, error(Errno::EFAULT))
            .but(NotCanonical, error(Errno::EFAULT))
            .but(ReadOnly, value(0))
            .always(value(0))
    };
    ground.check(
        tap,
        &[
            input("mmu_update", HYPERVISOR_MMU_UPDATE, [P, 1, 0, me], &same).but(ReadOnly, value(0)),
            empty(input("mmu_update of nothing", HYPERVISOR_MMU_UPDATE, [P, 0, 0, me], &same)),
            inout("mmu_update's count", HYPERVISOR_MMU_UPDATE, [address_of(&mut good), 1, P, me], &0u32)
                .always(value(0)),
            input("mmuext_op", HYPERVISOR_MMUEXT_OP, [P, 1, 0, me], &flush).but(ReadOnly, value(0)),
            empty(input("mmuext_op of nothing", HYPERVISOR_MMUEXT_OP, [P, 0, 0, me], &flush)),
            inout("mmuext_op's count", HYPERVISOR_MMUEXT_OP, [address_of(&mut flush_good), 1, P, me], &0u32)
                .always(value(0)),
            input("a flush's vCPUs", HYPERVISOR_MMUEXT_OP, [P, 1, 0, me], &1u64)
                .inside(&multi(MMUEXT_TLB_FLUSH_MULTI), mask)
                .but(ReadOnly, value(0))
                .always(error(Errno::EINVAL)),
            input("an invlpg's vCPUs", HYPERVISOR_MMUEXT_OP, [P, 1, 0, me], &1u64)
                .inside(&multi(MMUEXT_INVLPG_MULTI), mask)
                .but(ReadOnly, value(0))
                .always(error(Errno::EINVAL)),
            input("an LDT that is nowhere", HYPERVISOR_MMUEXT_OP, [P, 1, 0, me], &[0u64; 512])
                .inside(&MmuextOp { cmd: MMUEXT_SET_LDT, arg2: 1, ..Default::default() }, offset_of!(MmuextOp, arg1))
                // Where it is not mapped it faults when it is used.
                .but(Null, value(0))
                .without(Unmapped)
                .but(ReadOnly, value(0))
                .always(error(Errno::EINVAL)),
        ],
    );
    let none = MmuextOp { cmd: MMUEXT_SET_LDT, ..Default::default() };
    tap.is(call(HYPERVISOR_MMUEXT_OP, [address_of(&mut { none }), 1, 0, me]), Ok(0), "no LDT any more");
    let at = ground.edge() - 24;
    for (index, word) in [u64::from(MMUEXT_TLB_FLUSH_LOCAL), 0, 0].into_iter().enumerate() {
        guests::store(at + index as u64 * 8, word);
    }
    let mut done = 7u32;
    let count = address_of(&mut done);
    tap.is(call(HYPERVISOR_MMUEXT_OP, [at, 2, count, me]), Err(Errno::EFAULT), "a second operation that is not there");
    tap.is(done, 1, "one was done");
    let at = ground.edge() - 16;
    guests::store(at, same.ptr);
    guests::store(at + 8, same.val);
    tap.is(call(HYPERVISOR_MMU_UPDATE, [at, 2, count, me]), Err(Errno::EFAULT), "a second update that is not there");
    tap.is(done, 1, "one was done");
}

/// The vCPUs whose TLBs an `update_va_mapping` concerns: an address in its flags.
fn updates(tap: &mut Tap, ground: &mut Ground) {
    let mine = page();
    let window = Mapping::own(&[mine.mfn().0], Access::ReadWrite).expect("own memory can be mapped");
    let set = |pointer: u64| {
        let entry = mine.mfn().0 << 12 | guest_pv::mem::table::READ_WRITE;
        call(HYPERVISOR_UPDATE_VA_MAPPING, [window.address(), entry, pointer | UVMF_INVLPG | UVMF_MULTI])
    };
    let edge = ground.edge();
    for (pointer, what) in [
        (8, "low addresses"),
        (0xffff_8000_0000_0000, "the M2P table"),
        (0xffff_8300_0000_0000, "the direct map"),
        (1 << 47, "an address that is not canonical"),
        (edge, "nothing"),
    ] {
        tap.is(set(pointer), Err(Errno::EFAULT), what);
    }
    tap.is(guests::load(window.address()), 0, "the entry is set all the same");
    tap.is(set(edge - 8), Ok(0), "a set of vCPUs");
}

fn operations(tap: &mut Tap, ground: &mut Ground) {
    let op = |command: u32| [u64::from(command), P, 1];
    let nowhere = GrantRef(100_000);
    let map = GnttabMapGrantRef { flags: GNTMAP_HOST_MAP, ref_: nowhere, dom: DomId(0), ..Default::default() };
    let unmap = GnttabUnmapGrantRef { handle: GrantHandle(100_000), ..Default::default() };
    let replace = GnttabUnmapAndReplace { handle: GrantHandle(100_000), ..Default::default() };
    let setup = GnttabSetupTable { dom: SELF, nr_frames: 1, ..Default::default() };
    let status = GnttabGetStatusFrames { dom: SELF, nr_frames: 1, ..Default::default() };
    let swap = GnttabSwapGrantRef { ref_a: nowhere, ref_b: nowhere, ..Default::default() };
    let bad_address = Answer::Status(GNTST_BAD_VIRT_ADDR);
    let rows = [
        inout("map_grant_ref", G, op(GNTTABOP_MAP_GRANT_REF), &map),
        inout("unmap_grant_ref", G, op(GNTTABOP_UNMAP_GRANT_REF), &unmap),
        inout("unmap_and_replace", G, op(GNTTABOP_UNMAP_AND_REPLACE), &replace),
        inout("setup_table", G, op(GNTTABOP_SETUP_TABLE), &setup),
        inout("copy", G, op(GNTTABOP_COPY), &GnttabCopy { flags: 3, ..Default::default() }),
        inout("query_size", G, op(GNTTABOP_QUERY_SIZE), &GnttabQuerySize { dom: SELF, ..Default::default() }),
        inout("set_version", G, op(GNTTABOP_SET_VERSION), &GnttabSetVersion { version: 1 }),
        inout("get_status_frames", G, op(GNTTABOP_GET_STATUS_FRAMES), &status),
        inout("get_version", G, op(GNTTABOP_GET_VERSION), &GnttabGetVersion { dom: SELF, ..Default::default() }),
        inout("swap_grant_ref", G, op(GNTTABOP_SWAP_GRANT_REF), &swap),
        inout("setup_table's frames", G, op(GNTTABOP_SETUP_TABLE), &0u64)
            .inside(&setup, offset_of!(GnttabSetupTable, frame_list))
            .status(offset_of!(GnttabSetupTable, status))
            .but(Hypervisor, error(Errno::EFAULT))
            .but(NotCanonical, error(Errno::EFAULT))
            .always(bad_address),
    ];
    ground.check(tap, &rows);
    for command in [
        GNTTABOP_MAP_GRANT_REF,
        GNTTABOP_UNMAP_GRANT_REF,
        GNTTABOP_UNMAP_AND_REPLACE,
        GNTTABOP_COPY,
        GNTTABOP_SWAP_GRANT_REF,
    ] {
        let none = call(G, [command.into(), 0xffff_8300_0000_0000, 0]);
        tap.is(none, Err(Errno::EFAULT), "no operations, in the hypervisor");
        tap.is(call(G, [command.into(), 0x1000, 0]), Ok(0), "no operations, where nothing is mapped");
    }
}

/// The first of two operations is done, the second is not there.
fn batches(tap: &mut Tap, ground: &Ground) {
    let data = page();
    let reference = grants::grant(DomId(0), data.mfn(), Access::ReadWrite).expect("a free entry");
    let source = GnttabCopyPtr { u: reference.0.into(), domid: DomId(0), ..Default::default() };
    let target = page();
    let dest = GnttabCopyPtr { u: target.mfn().0, domid: SELF, ..Default::default() };
    let copy = GnttabCopy { source, dest, len: 8, flags: GNTCOPY_SOURCE_GREF, status: 77, _pad: 0 };
    guests::store(data.address(), 0x1234);
    let at = ground.edge() - size_of::<GnttabCopy>() as u64;
    for (index, bytes) in zerocopy::IntoBytes::as_bytes(&copy).chunks(8).enumerate() {
        let word = u64::from_le_bytes(bytes.try_into().unwrap_or_default());
        guests::store(at + index as u64 * 8, word);
    }
    tap.is(call(G, [GNTTABOP_COPY.into(), at, 2]), Err(Errno::EFAULT), "a second copy that is not there");
    tap.is(guests::load(target.address()), 0x1234, "the first one was made");
    tap.is(grants::revoke(reference), Ok(()), "nothing stays pinned");
}

/// Status frames are version 2's alone. Leaves the runtime without its grants.
fn version_2(tap: &mut Tap, ground: &mut Ground) {
    let mut two = GnttabSetVersion { version: 2 };
    tap.is(call(G, [GNTTABOP_SET_VERSION.into(), address_of(&mut two), 1]), Ok(0), "version 2");
    let status = GnttabGetStatusFrames { dom: SELF, nr_frames: 1, ..Default::default() };
    let fault = error(Errno::EFAULT);
    let rows = [
        inout("get_status_frames, version 2", G, [GNTTABOP_GET_STATUS_FRAMES.into(), P, 1], &status),
        inout("its frames", G, [GNTTABOP_GET_STATUS_FRAMES.into(), P, 1], &0u64)
            .inside(&status, offset_of!(GnttabGetStatusFrames, frame_list))
            .status(offset_of!(GnttabGetStatusFrames, status))
            .but(Hypervisor, fault)
            .but(NotCanonical, fault)
            .always(Answer::Status(GNTST_BAD_VIRT_ADDR)),
    ];
    ground.check(tap, &rows);
}

//! Grant tables, version 1: the table, mapping, copying, and what is refused.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::Ordering;
use guest_pv::grants;
use guest_pv::mem::table::{self, READ_WRITE};
use guest_pv::mem::{Access, Frame, Mapping, SharedBytes};
use guest_pv::tap::Tap;
use guests::{address_of, call, load, page, store, trap_of, update_va_mapping};
use xen_abi::Errno;
use xen_abi::grant_table::*;
use xen_abi::hypercall::HYPERVISOR_GRANT_TABLE_OP;
use xen_abi::ids::{DomId, GrantHandle, GrantRef};
use zerocopy::{FromBytes, IntoBytes};

guest_pv::test!(run);

const SELF: DomId = DomId::SELF;
const NOBODY: DomId = DomId(1234);

fn run(tap: &mut Tap) {
    tables(tap);
    mapping(tap);
    flags_while_mapped(tap);
    refused_maps(tap);
    refused_unmaps(tap);
    by_entry(tap);
    copying(tap);
    other_operations(tap);
}

/// One operation; its result, and the struct as the hypervisor left it.
fn one<T: FromBytes + IntoBytes>(command: u32, argument: T) -> (Result<u64, Errno>, T) {
    let mut argument = argument;
    let result = call(HYPERVISOR_GRANT_TABLE_OP, [command.into(), address_of(&mut argument), 1]);
    (result, argument)
}

fn map(host_addr: u64, ref_: GrantRef, flags: u32, dom: DomId) -> GnttabMapGrantRef {
    one(GNTTABOP_MAP_GRANT_REF, GnttabMapGrantRef { host_addr, flags, ref_, dom, ..Default::default() }).1
}

fn unmap(host_addr: u64, handle: GrantHandle) -> i16 {
    one(GNTTABOP_UNMAP_GRANT_REF, GnttabUnmapGrantRef { host_addr, handle, ..Default::default() }).1.status
}

/// An empty page of address space with an L1 table.
fn hole() -> (Mapping, u64) {
    let window = Mapping::own(&[page().mfn().0], Access::ReadOnly).expect("own memory can be mapped");
    let va = window.address();
    update_va_mapping(va, 0, 2).expect("it can be unmapped");
    (window, va)
}

fn entry(reference: GrantRef) -> (&'static SharedBytes, usize) {
    (grants::table_frame(0).expect("a table"), reference.0 as usize * 8)
}

fn tables(tap: &mut Tap) {
    let (result, size) = one(GNTTABOP_QUERY_SIZE, GnttabQuerySize { dom: SELF, ..Default::default() });
    tap.is((result, size.status), (Ok(0), GNTST_OKAY), "the size can be asked for");
    tap.is(size.max_nr_frames, 64, "64 frames are the limit");
    let (_, size) = one(GNTTABOP_QUERY_SIZE, GnttabQuerySize { dom: NOBODY, ..Default::default() });
    tap.is(size.status, GNTST_BAD_DOMAIN, "not of a domain that does not exist");
    let mut frames = [0u64; 2];
    let setup = |nr_frames, dom, frame_list| {
        one(GNTTABOP_SETUP_TABLE, GnttabSetupTable { dom, nr_frames, frame_list, ..Default::default() })
    };
    let (result, setup_one) = setup(1, SELF, address_of(&mut frames));
    tap.is((result, setup_one.status), (Ok(0), GNTST_OKAY), "one frame is set up");
    tap.ok(frames[0] != 0 && frames[1] == 0, "and named");
    let first = frames[0];
    setup(2, SELF, address_of(&mut frames)).0.expect("two frames are within the limit");
    tap.ok(frames[0] == first && frames[1] != 0, "a second one is added");
    tap.is(setup(65, SELF, address_of(&mut frames)).1.status, GNTST_GENERAL_ERROR, "not more than the limit");
    tap.is(
        setup(1, NOBODY, address_of(&mut frames)).1.status,
        GNTST_BAD_DOMAIN,
        "not for a domain that does not exist",
    );
    tap.is(setup(1, SELF, 0x1000).1.status, GNTST_BAD_VIRT_ADDR, "a list that is not mapped");
    let (_, version) = one(GNTTABOP_GET_VERSION, GnttabGetVersion { dom: SELF, ..Default::default() });
    tap.is(version.version, 1, "the table has version 1");
}

fn mapping(tap: &mut Tap) {
    let data = page();
    store(data.address(), 0x1234);
    let reference = grants::grant(DomId(0), data.mfn(), Access::ReadWrite).expect("a free entry");
    let (_window, va) = hole();
    let mapped = map(va, reference, GNTMAP_HOST_MAP, DomId(0));
    tap.is(mapped.status, GNTST_OKAY, "a grant is mapped");
    tap.is(mapped.dev_bus_addr, data.mfn().0 << 12, "and its machine address told");
    tap.is(load(va), 0x1234, "the page is there");
    store(va, 0x5678);
    tap.is(load(data.address()), 0x5678, "and can be written to");
    let second = map(va + 0x1000, reference, GNTMAP_HOST_MAP, DomId(0));
    tap.is(second.status, GNTST_OKAY, "twice");
    tap.ok(second.handle != mapped.handle, "with handles of their own");
    tap.is(unmap(va, mapped.handle), GNTST_OKAY, "it is unmapped");
    tap.is(trap_of(|| _ = load(va)), Some((14, 0)), "and gone");
    tap.is(load(va + 0x1000), 0x5678, "the other one is not");
    tap.is(unmap(va + 0x1000, second.handle), GNTST_OKAY, "but then it is");
    tap.is(unmap(va, mapped.handle), GNTST_BAD_HANDLE, "a handle is good for once");

    let read_only = map(va, reference, GNTMAP_HOST_MAP | GNTMAP_READONLY, DomId(0));
    tap.is(read_only.status, GNTST_OKAY, "a writable grant can be mapped read-only");
    tap.is(trap_of(|| store(va, 1)), Some((14, 3)), "and is");
    unmap(va, read_only.handle);
    grants::revoke(reference).expect("it is not mapped");

    let reference = grants::grant(DomId(0), data.mfn(), Access::ReadOnly).expect("a free entry");
    let refused = map(va, reference, GNTMAP_HOST_MAP, DomId(0));
    tap.is(refused.status, GNTST_GENERAL_ERROR, "a read-only grant cannot be mapped writable");
    let allowed = map(va, reference, GNTMAP_HOST_MAP | GNTMAP_READONLY, DomId(0));
    tap.is(allowed.status, GNTST_OKAY, "but read-only");
    unmap(va, allowed.handle);
    grants::revoke(reference).expect("it is not mapped");

    let own = grants::grant(DomId(0), data.mfn(), Access::ReadWrite).expect("a free entry");
    let by_self = map(va, own, GNTMAP_HOST_MAP, SELF);
    tap.is(by_self.status, GNTST_BAD_DOMAIN, "DOMID_SELF is no granting domain");
    grants::revoke(own).expect("it is not mapped");
}

fn flags_while_mapped(tap: &mut Tap) {
    let data = page();
    let reference = grants::grant(DomId(0), data.mfn(), Access::ReadWrite).expect("a free entry");
    let (bytes, at) = entry(reference);
    let flags = || bytes.u16_at(at).load(Ordering::SeqCst);
    let (_window, va) = hole();
    tap.is(flags(), GTF_PERMIT_ACCESS, "a fresh entry");
    let reading = map(va, reference, GNTMAP_HOST_MAP | GNTMAP_READONLY, DomId(0));
    tap.is(flags(), GTF_PERMIT_ACCESS | GTF_READING, "read-only mapped: reading");
    let writing = map(va + 0x1000, reference, GNTMAP_HOST_MAP, DomId(0));
    tap.is(flags(), GTF_PERMIT_ACCESS | GTF_READING | GTF_WRITING, "mapped writable too: writing");
    tap.is(grants::revoke(reference), Err(Errno::EBUSY), "it cannot be revoked");
    unmap(va + 0x1000, writing.handle);
    tap.is(flags(), GTF_PERMIT_ACCESS | GTF_READING, "unmapped: reading");
    unmap(va, reading.handle);
    tap.is(flags(), GTF_PERMIT_ACCESS, "unmapped: as before");
    tap.is(grants::revoke(reference), Ok(()), "it can be revoked");
    tap.is(map(va, reference, GNTMAP_HOST_MAP, DomId(0)).status, GNTST_GENERAL_ERROR, "and not be mapped any more");
}

fn refused_maps(tap: &mut Tap) {
    let data = page();
    let (_window, va) = hole();
    let good = grants::grant(DomId(0), data.mfn(), Access::ReadWrite).expect("a free entry");
    let foreign = grants::grant(NOBODY, data.mfn(), Access::ReadWrite).expect("a free entry");
    let beyond = grants::grant(DomId(0), xen_abi::ids::Mfn(0xffff_fff0), Access::ReadWrite).expect("a free entry");
    let root = grants::grant(DomId(0), table::root(), Access::ReadWrite).expect("a free entry");
    let host = GNTMAP_HOST_MAP;
    for (va, reference, flags, dom, want, what) in [
        (va, good, host, NOBODY, GNTST_BAD_DOMAIN, "a domain that does not exist"),
        (va, foreign, host, DomId(0), GNTST_GENERAL_ERROR, "a grant for somebody else"),
        (va, beyond, host, DomId(0), GNTST_BAD_PAGE, "a frame that does not exist"),
        (va, root, host, DomId(0), GNTST_GENERAL_ERROR, "a page table, writable"),
        (va, GrantRef(100_000), host, DomId(0), GNTST_BAD_GNTREF, "a reference beyond the table"),
        (va, good, 0, DomId(0), GNTST_BAD_GNTREF, "neither for the host nor for a device"),
        (0x7000_0000_0000, good, host, DomId(0), GNTST_GENERAL_ERROR, "an address without a table"),
        (0xffff_8300_0000_0000, good, host, DomId(0), GNTST_GENERAL_ERROR, "an address of the hypervisor"),
        (1 << 47, good, host, DomId(0), GNTST_GENERAL_ERROR, "an address that is not canonical"),
    ] {
        tap.is(map(va, reference, flags, dom).status, want, what);
    }
    let inside = map(va + 8, good, host, DomId(0));
    tap.is(inside.status, GNTST_OKAY, "an address inside of a page means the page");
    tap.is(unmap(va + 8, inside.handle), GNTST_OKAY, "when it is unmapped, too");
    let read_only = map(va, root, host | GNTMAP_READONLY, DomId(0));
    tap.is(read_only.status, GNTST_OKAY, "a page table, read-only");
    unmap(va, read_only.handle);
    tap.ok(trap_of(|| _ = load(va)).is_some(), "nothing is mapped after all that");
    for reference in [good, foreign, beyond, root] {
        grants::revoke(reference).expect("none is mapped");
    }
}

fn refused_unmaps(tap: &mut Tap) {
    let data = page();
    let (_window, va) = hole();
    let reference = grants::grant(DomId(0), data.mfn(), Access::ReadWrite).expect("a free entry");
    let mapped = map(va, reference, GNTMAP_HOST_MAP, DomId(0));
    tap.is(unmap(va, GrantHandle(100_000)), GNTST_BAD_HANDLE, "a handle that does not exist");
    tap.is(unmap(va, GrantHandle(u32::MAX)), GNTST_BAD_HANDLE, "a handle that cannot be");
    tap.is(unmap(va + 0x1000, mapped.handle), GNTST_GENERAL_ERROR, "an address where it is not");
    tap.ok(trap_of(|| _ = load(va)).is_none(), "it is mapped still");
    // The guest may replace the entry; the hypervisor then refuses to unmap what is not there.
    tap.is(unmap(va, mapped.handle), GNTST_OKAY, "it can be unmapped");
    grants::revoke(reference).expect("it is not mapped");
    let plain = update_va_mapping(va, data.mfn().0 << 12 | READ_WRITE, 2);
    tap.is(plain, Ok(()), "the address can be used for something else");
    update_va_mapping(va, 0, 2).expect("it can be unmapped");
}

fn by_entry(tap: &mut Tap) {
    let data = page();
    store(data.address(), 77);
    let (_window, va) = hole();
    let reference = grants::grant(DomId(0), data.mfn(), Access::ReadWrite).expect("a free entry");
    let slot = table::slot(va).expect("a window has tables");
    let mapped = map(slot, reference, GNTMAP_HOST_MAP | GNTMAP_CONTAINS_PTE, DomId(0));
    tap.is(mapped.status, GNTST_OKAY, "a grant is mapped by the address of its entry");
    tap.is(load(va), 77, "the page is there");
    tap.is(unmap(slot, mapped.handle), GNTST_OKAY, "it is unmapped so too");
    let refused = map(slot + 4, reference, GNTMAP_HOST_MAP | GNTMAP_CONTAINS_PTE, DomId(0));
    tap.is(refused.status, GNTST_GENERAL_ERROR, "half an entry is none");
    let refused = map(data.mfn().0 << 12, reference, GNTMAP_HOST_MAP | GNTMAP_CONTAINS_PTE, DomId(0));
    tap.is(refused.status, GNTST_GENERAL_ERROR, "nor is an entry of a page that is no table");
    let bits = map(va, reference, GNTMAP_HOST_MAP | 5 << GNTMAP_GUEST_AVAIL0, DomId(0));
    tap.is(bits.status, GNTST_OKAY, "with bits for the guest's own use");
    tap.is(table::lookup(va).map(|entry| entry >> 9 & 7), Some(5), "they are in the entry");
    unmap(va, bits.handle);
    grants::revoke(reference).expect("it is not mapped");
}

fn copying(tap: &mut Tap) {
    let (from, to) = (page(), page());
    (0..512).for_each(|index| store(from.address() + index * 8, index));
    let source = grants::grant(DomId(0), from.mfn(), Access::ReadOnly).expect("a free entry");
    let dest = grants::grant(DomId(0), to.mfn(), Access::ReadWrite).expect("a free entry");
    let by_ref =
        |reference: GrantRef, offset| GnttabCopyPtr { u: reference.0.into(), domid: DomId(0), offset, _pad: 0 };
    let by_frame = |frame: &Frame, offset| GnttabCopyPtr { u: frame.mfn().0, domid: SELF, offset, _pad: 0 };
    let both = GNTCOPY_SOURCE_GREF | GNTCOPY_DEST_GREF;
    let copy = |source, dest, len, flags| {
        one(GNTTABOP_COPY, GnttabCopy { source, dest, len, flags, ..Default::default() }).1.status
    };
    tap.is(copy(by_ref(source, 0), by_ref(dest, 0), 4096, both), GNTST_OKAY, "a page from grant to grant");
    tap.ok((0..512).all(|index| load(to.address() + index * 8) == index), "arrives");
    tap.is(copy(by_ref(source, 800), by_frame(&to, 16), 8, GNTCOPY_SOURCE_GREF), GNTST_OKAY, "8 bytes from a grant");
    tap.is(load(to.address() + 16), 100, "arrive");
    tap.is(copy(by_frame(&from, 808), by_ref(dest, 24), 8, GNTCOPY_DEST_GREF), GNTST_OKAY, "8 bytes to a grant");
    tap.is(load(to.address() + 24), 101, "arrive");
    tap.is(copy(by_frame(&from, 0), by_frame(&to, 0), 0, 0), GNTST_OKAY, "nothing at all");
    for (status, want, what) in [
        (copy(by_ref(dest, 0), by_ref(source, 0), 8, both), GNTST_GENERAL_ERROR, "into a read-only grant"),
        (copy(by_ref(source, 4090), by_ref(dest, 0), 8, both), GNTST_BAD_COPY_ARG, "across the end of the source"),
        (copy(by_ref(source, 0), by_ref(dest, 4090), 8, both), GNTST_BAD_COPY_ARG, "across the end of the destination"),
        (copy(by_ref(GrantRef(100_000), 0), by_ref(dest, 0), 8, both), GNTST_BAD_GNTREF, "from beyond the table"),
        (
            copy(by_frame(&from, 0), GnttabCopyPtr { u: 1 << 40, domid: SELF, offset: 0, _pad: 0 }, 8, 0),
            GNTST_BAD_PAGE,
            "to a frame that does not exist",
        ),
        (
            copy(by_frame(&from, 0), GnttabCopyPtr { u: table::root().0, domid: SELF, offset: 0, _pad: 0 }, 8, 0),
            GNTST_GENERAL_ERROR,
            "to a page table",
        ),
        (
            copy(GnttabCopyPtr { u: 0, domid: DomId(0), offset: 0, _pad: 0 }, by_frame(&to, 0), 8, 0),
            GNTST_PERMISSION_DENIED,
            "from a frame of a domain by number",
        ),
        (
            copy(GnttabCopyPtr { domid: NOBODY, ..by_ref(source, 0) }, by_ref(dest, 0), 8, both),
            GNTST_BAD_DOMAIN,
            "from a domain that does not exist",
        ),
    ] {
        tap.is(status, want, what);
    }
    tap.is((grants::revoke(source), grants::revoke(dest)), (Ok(()), Ok(())), "nothing stays pinned");
}

fn other_operations(tap: &mut Tap) {
    tap.is(call(HYPERVISOR_GRANT_TABLE_OP, [99, 0, 0]), Err(Errno::ENOSYS), "an unknown command");
    let missing = call(HYPERVISOR_GRANT_TABLE_OP, [GNTTABOP_MAP_GRANT_REF.into(), 0x1000, 1]);
    tap.is(missing, Err(Errno::EFAULT), "operations that are not mapped");
    let none = call(HYPERVISOR_GRANT_TABLE_OP, [GNTTABOP_MAP_GRANT_REF.into(), 0x1000, 0]);
    tap.is(none, Ok(0), "no operations");
    let outside = call(HYPERVISOR_GRANT_TABLE_OP, [GNTTABOP_UNMAP_GRANT_REF.into(), 0xffff_8300_0000_0000, 1]);
    tap.is(outside, Err(Errno::EFAULT), "operations in the hypervisor");
    let a = grants::grant(DomId(0), page().mfn(), Access::ReadOnly).expect("a free entry");
    let b = grants::grant(NOBODY, page().mfn(), Access::ReadWrite).expect("a free entry");
    let domain_of = |reference| {
        let (bytes, at) = entry(reference);
        bytes.u16_at(at + 2).load(Ordering::SeqCst)
    };
    let (_, swapped) = one(GNTTABOP_SWAP_GRANT_REF, GnttabSwapGrantRef { ref_a: a, ref_b: b, ..Default::default() });
    tap.is(swapped.status, GNTST_OKAY, "two entries are swapped");
    tap.is((domain_of(a), domain_of(b)), (1234, 0), "all of them");
    grants::revoke(a).expect("not mapped");
    grants::revoke(b).expect("not mapped");
}

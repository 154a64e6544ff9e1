//! Grant tables of version 2: the change between versions, status pages, parts of pages, grants passed on; what is refused
//! for being in use, and where tables end.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::Ordering::SeqCst;
use guest_pv::alloc::{vec, vec::Vec};
use guest_pv::mem::{Access, Frame, Mapping, SharedBytes};
use guest_pv::tap::Tap;
use guests::{address_of, call, load, page, store, update_va_mapping};
use xen_abi::Errno;
use xen_abi::grant_table::*;
use xen_abi::hypercall::HYPERVISOR_GRANT_TABLE_OP;
use xen_abi::ids::{DomId, GrantHandle, GrantRef};
use zerocopy::{FromBytes, IntoBytes};

guest_pv::test!(run);

const SELF: DomId = DomId::SELF;
const NOBODY: DomId = DomId(1234);
/// Words of status and words of both kinds of flags.
const BOTH: u16 = GTF_READING | GTF_WRITING;

fn run(tap: &mut Tap) {
    let shared = in_version_1(tap);
    tap.is(set_version(2), (Ok(0), 2), "version 2");
    tap.is(version(), 2, "is in force");
    let status = status_pages(tap);
    let table = Table { entries: shared, status };
    whole_pages(tap, &table);
    parts(tap, &table);
    passed_on(tap, &table);
    swapped(tap, &table);
    back(tap, table);
    ends(tap);
}

/// The first page of entries, and that of status.
struct Table {
    entries: &'static SharedBytes,
    status: &'static SharedBytes,
}

impl Table {
    /// Writes an entry: what is not flags or domain depends on the kind.
    fn set(&self, reference: u32, flags: u16, dom: DomId, middle: [u16; 2], last: u64) {
        let at = reference as usize * 16;
        self.entries.u16_at(at).store(0, SeqCst);
        self.entries.u16_at(at + 2).store(dom.0, SeqCst);
        self.entries.u16_at(at + 4).store(middle[0], SeqCst);
        self.entries.u16_at(at + 6).store(middle[1], SeqCst);
        self.entries.store_u64(at + 8, last);
        self.entries.u16_at(at).store(flags, SeqCst);
    }

    fn status(&self, reference: u32) -> u16 {
        self.status.u16_at(reference as usize * 2).load(SeqCst)
    }
}

fn one<T: FromBytes + IntoBytes>(command: u32, argument: T) -> (Result<u64, Errno>, T) {
    let mut argument = argument;
    let result = call(HYPERVISOR_GRANT_TABLE_OP, [command.into(), address_of(&mut argument), 1]);
    (result, argument)
}

fn set_version(version: u32) -> (Result<u64, Errno>, u32) {
    let (result, answer) = one(GNTTABOP_SET_VERSION, GnttabSetVersion { version });
    (result, answer.version)
}

fn version() -> u32 {
    one(GNTTABOP_GET_VERSION, GnttabGetVersion { dom: SELF, ..Default::default() }).1.version
}

fn setup(count: usize) -> (i16, Vec<u64>) {
    let mut frames = vec![0u64; count];
    let setup = GnttabSetupTable {
        dom: SELF,
        nr_frames: u32::try_from(count).unwrap_or(u32::MAX),
        frame_list: frames.as_mut_ptr() as u64,
        ..Default::default()
    };
    (one(GNTTABOP_SETUP_TABLE, setup).1.status, frames)
}

fn status_frames(count: usize) -> (i16, Vec<u64>) {
    let mut frames = vec![0u64; count];
    let get = GnttabGetStatusFrames {
        nr_frames: u32::try_from(count).unwrap_or(u32::MAX),
        dom: SELF,
        status: 0,
        frame_list: frames.as_mut_ptr() as u64,
    };
    (one(GNTTABOP_GET_STATUS_FRAMES, get).1.status, frames)
}

fn map(host_addr: u64, reference: u32, flags: u32) -> GnttabMapGrantRef {
    let dom = DomId(0);
    let ref_ = GrantRef(reference);
    let op = GnttabMapGrantRef { host_addr, flags: flags | GNTMAP_HOST_MAP, ref_, dom, ..Default::default() };
    one(GNTTABOP_MAP_GRANT_REF, op).1
}

fn unmap(host_addr: u64, handle: GrantHandle) -> i16 {
    one(GNTTABOP_UNMAP_GRANT_REF, GnttabUnmapGrantRef { host_addr, handle, ..Default::default() }).1.status
}

/// Copies out of a grant of `dom`.
fn copy_from(reference: u32, offset: u16, to: &Frame, len: u16) -> i16 {
    let source = GnttabCopyPtr { u: reference.into(), domid: DomId(0), offset, _pad: 0 };
    let dest = GnttabCopyPtr { u: to.mfn().0, domid: SELF, offset: 0, _pad: 0 };
    one(GNTTABOP_COPY, GnttabCopy { source, dest, len, flags: GNTCOPY_SOURCE_GREF, ..Default::default() }).1.status
}

/// Copies into a grant.
fn copy_to(from: &Frame, reference: u32, offset: u16, len: u16) -> i16 {
    let source = GnttabCopyPtr { u: from.mfn().0, domid: SELF, offset: 0, _pad: 0 };
    let dest = GnttabCopyPtr { u: reference.into(), domid: DomId(0), offset, _pad: 0 };
    one(GNTTABOP_COPY, GnttabCopy { source, dest, len, flags: GNTCOPY_DEST_GREF, ..Default::default() }).1.status
}

/// An empty page of address space with an L1 table.
fn hole() -> u64 {
    let window = Mapping::own(&[page().mfn().0], Access::ReadOnly).expect("own memory can be mapped");
    let va = window.leak().address();
    update_va_mapping(va, 0, 2).expect("it can be unmapped");
    va
}

fn in_version_1(tap: &mut Tap) -> &'static SharedBytes {
    tap.is(version(), 1, "a table begins with version 1");
    for wrong in [0, 3, u32::MAX] {
        tap.is(set_version(wrong), (Err(Errno::EINVAL), 1), "there is no such version");
    }
    tap.is(set_version(1), (Ok(0), 1), "version 1 it is already");
    tap.is(status_frames(1).0, GNTST_GENERAL_ERROR, "without pages of status");
    tap.is(status_frames(0).0, GNTST_OKAY, "none can be had");
    let (status, frames) = setup(1);
    tap.is(status, GNTST_OKAY, "its first page");
    let shared = Mapping::own(&frames, Access::ReadWrite).expect("a table can be mapped").leak();
    // A grant that is in use, and one for the tools.
    let (data, tools) = (page(), page());
    let entry = |at: usize, frame: &Frame| {
        shared.u16_at(at * 8 + 2).store(0, SeqCst);
        shared.u32_at(at * 8 + 4).store(u32::try_from(frame.mfn().0).expect("it is low enough"), SeqCst);
        shared.u16_at(at * 8).store(GTF_PERMIT_ACCESS, SeqCst);
    };
    entry(20, &data);
    entry(3, &tools);
    let (va, other) = (hole(), hole());
    let mapped = map(va, 20, GNTMAP_READONLY);
    tap.is(mapped.status, GNTST_OKAY, "while a grant is mapped");
    tap.is(set_version(2), (Err(Errno::EBUSY), 1), "the version stays");
    tap.is(unmap(va, mapped.handle), GNTST_OKAY, "it is unmapped");
    let reserved = map(other, 3, 0);
    tap.is(reserved.status, GNTST_OKAY, "but the first eight may be mapped");
    tap.is(set_version(2), (Ok(0), 2), "when the version changes");
    tap.is(shared.load_u64(3 * 16) & 0xffff, GTF_PERMIT_ACCESS.into(), "their entries are carried over");
    tap.is(shared.load_u64(3 * 16 + 8), tools.mfn().0, "with their frames");
    tap.is(shared.load_u64(20 * 8), 0, "the others are gone");
    tap.is(set_version(1), (Ok(0), 1), "and back");
    let flags = shared.u16_at(3 * 8).load(SeqCst);
    tap.is(flags, GTF_PERMIT_ACCESS | BOTH, "the status comes back with them");
    tap.is(unmap(other, reserved.handle), GNTST_OKAY, "and it can be unmapped still");
    tap.is(shared.u16_at(3 * 8).load(SeqCst), GTF_PERMIT_ACCESS, "which the guest sees");
    core::mem::forget((data, tools));
    shared
}

fn status_pages(tap: &mut Tap) -> &'static SharedBytes {
    let (status, frames) = status_frames(1);
    tap.is(status, GNTST_OKAY, "a page of status");
    tap.is(status_frames(2).0, GNTST_GENERAL_ERROR, "one is all that one page of entries needs");
    tap.is(setup(8).0, GNTST_OKAY, "eight pages of entries");
    tap.is(status_frames(2).0, GNTST_GENERAL_ERROR, "share it");
    tap.is(setup(9).0, GNTST_OKAY, "nine do not");
    let (again, more) = status_frames(2);
    tap.is((again, more[0]), (GNTST_OKAY, frames[0]), "the first stays where it was");
    Mapping::own(&frames, Access::ReadWrite).expect("status can be mapped").leak()
}

fn whole_pages(tap: &mut Tap, table: &Table) {
    let data = page();
    store(data.address(), 0x1122_3344);
    table.set(20, GTF_PERMIT_ACCESS, DomId(0), [0; 2], data.mfn().0);
    let (va, second) = (hole(), hole());
    let read = map(va, 20, GNTMAP_READONLY);
    tap.is((read.status, table.status(20)), (GNTST_OKAY, GTF_READING), "mapped for reading");
    tap.is(load(va), 0x1122_3344, "there it is");
    tap.is((table.status(19), table.status(21)), (0, 0), "the status of others is theirs");
    let write = map(second, 20, 0);
    tap.is((write.status, table.status(20)), (GNTST_OKAY, BOTH), "mapped for writing, too");
    table.set(20, 0, DomId(0), [0; 2], 0);
    tap.is(table.status(20), BOTH, "revoked, it is in use still");
    store(second, 0x5566);
    tap.is(load(data.address()), 0x5566, "and can be written to");
    let third = map(hole(), 20, GNTMAP_READONLY);
    tap.is(third.status, GNTST_OKAY, "even mapped once more by whom it was for");
    tap.is(set_version(1), (Err(Errno::EBUSY), 2), "the version stays");
    tap.is(unmap(second, write.handle), GNTST_OKAY, "unmapped");
    tap.is(table.status(20), GTF_READING, "it is not written to any more");
    tap.is(unmap(third.host_addr, third.handle), GNTST_OKAY, "unmapped");
    tap.is(unmap(va, read.handle), GNTST_OKAY, "and once more");
    tap.is(table.status(20), 0, "it is free");
    tap.is(unmap(va, read.handle), GNTST_BAD_HANDLE, "the handle is, too");
    tap.is(map(va, 20, 0).status, GNTST_GENERAL_ERROR, "what was revoked is not granted");
    table.set(20, GTF_PERMIT_ACCESS | GTF_READONLY, DomId(0), [0; 2], data.mfn().0);
    tap.is(map(va, 20, 0).status, GNTST_GENERAL_ERROR, "a read-only grant is not mapped for writing");
    tap.is(copy_to(&data, 20, 0, 8), GNTST_GENERAL_ERROR, "nor written to by a copy");
    table.set(20, GTF_PERMIT_ACCESS, NOBODY, [0; 2], data.mfn().0);
    tap.is(map(va, 20, 0).status, GNTST_GENERAL_ERROR, "somebody else's");
    table.set(20, GTF_ACCEPT_TRANSFER, DomId(0), [0; 2], data.mfn().0);
    tap.is(map(va, 20, 0).status, GNTST_GENERAL_ERROR, "another kind");
    table.set(20, GTF_PERMIT_ACCESS, DomId(0), [0; 2], 1 << 40);
    tap.is(map(va, 20, 0).status, GNTST_BAD_PAGE, "a frame that does not exist");
    tap.is(table.status(20), 0, "none of these leaves a trace");
    tap.is(map(va, 9 * 256, 0).status, GNTST_BAD_GNTREF, "beyond the table");
    tap.is(map(va, 9 * 256 - 1, 0).status, GNTST_GENERAL_ERROR, "but not yet");
    core::mem::forget(data);
}

fn parts(tap: &mut Tap, table: &Table) {
    let (data, to) = (page(), page());
    (0..512).for_each(|index| store(data.address() + index * 8, index));
    table.set(20, GTF_PERMIT_ACCESS | GTF_SUB_PAGE, DomId(0), [64, 32], data.mfn().0);
    tap.is(map(hole(), 20, GNTMAP_READONLY).status, GNTST_GENERAL_ERROR, "a part of a page is not mapped");
    tap.is(copy_from(20, 64, &to, 32), GNTST_OKAY, "but copied");
    tap.is((load(to.address()), load(to.address() + 24), load(to.address() + 32)), (8, 11, 0), "to the last byte");
    tap.is(copy_from(20, 63, &to, 8), GNTST_GENERAL_ERROR, "not from before it");
    tap.is(copy_from(20, 89, &to, 8), GNTST_GENERAL_ERROR, "nor beyond it");
    tap.is(copy_from(20, 4090, &to, 8), GNTST_BAD_COPY_ARG, "nor beyond the page");
    tap.is(copy_from(20, 96, &to, 0), GNTST_OKAY, "nothing from its end");
    store(to.address(), 77);
    tap.is(copy_to(&to, 20, 72, 8), GNTST_OKAY, "written to");
    tap.is(load(data.address() + 72), 77, "it arrives");
    tap.is(copy_to(&to, 20, 56, 16), GNTST_GENERAL_ERROR, "not from before it");
    table.set(20, GTF_PERMIT_ACCESS | GTF_SUB_PAGE, DomId(0), [4000, 500], data.mfn().0);
    tap.is(copy_from(20, 4088, &to, 8), GNTST_OKAY, "a part that is too long counts to the page's end");
    tap.is(table.status(20), 0, "nothing stays in use");
    core::mem::forget(data);
}

fn passed_on(tap: &mut Tap, table: &Table) {
    let (data, to) = (page(), page());
    store(data.address(), 4711);
    table.set(30, GTF_PERMIT_ACCESS, DomId(0), [0; 2], data.mfn().0);
    table.set(20, GTF_TRANSITIVE, DomId(0), [0, 0], 30);
    tap.is(copy_from(20, 0, &to, 8), GNTST_GENERAL_ERROR, "a domain does not pass on its own grants");
    table.set(20, GTF_TRANSITIVE, DomId(0), [NOBODY.0, 0], 30);
    tap.is(copy_from(20, 0, &to, 8), GNTST_GENERAL_ERROR, "nor those of nobody");
    table.set(20, GTF_TRANSITIVE, NOBODY, [0, 0], 30);
    tap.is(copy_from(20, 0, &to, 8), GNTST_GENERAL_ERROR, "nor to anybody");
    tap.is((table.status(20), table.status(30)), (0, 0), "nothing stays in use");
    core::mem::forget(data);
}

fn swapped(tap: &mut Tap, table: &Table) {
    let data = page();
    table.set(20, GTF_PERMIT_ACCESS, DomId(0), [0; 2], data.mfn().0);
    table.set(21, GTF_PERMIT_ACCESS | GTF_READONLY, NOBODY, [5, 6], 7);
    let swap = |ref_a, ref_b| {
        let (ref_a, ref_b) = (GrantRef(ref_a), GrantRef(ref_b));
        one(GNTTABOP_SWAP_GRANT_REF, GnttabSwapGrantRef { ref_a, ref_b, ..Default::default() }).1.status
    };
    let words = |at: u32| [table.entries.load_u64(at as usize * 16), table.entries.load_u64(at as usize * 16 + 8)];
    let before = (words(20), words(21));
    tap.is(swap(20, 21), GNTST_OKAY, "two entries are swapped");
    tap.is((words(21), words(20)), before, "all of them");
    tap.is(swap(20, 9 * 256), GNTST_BAD_GNTREF, "not with what is beyond the table");
    let va = hole();
    let mapped = map(va, 21, 0);
    tap.is((mapped.status, swap(21, 20)), (GNTST_OKAY, GNTST_EAGAIN), "nor while one is in use");
    tap.is(swap(21, 21), GNTST_OKAY, "which does not matter with itself");
    tap.is(unmap(va, mapped.handle), GNTST_OKAY, "unmapped");
    core::mem::forget(data);
}

fn back(tap: &mut Tap, table: Table) {
    tap.is(set_version(1), (Err(Errno::EBUSY), 2), "while a page of status is mapped the version stays");
    update_va_mapping(table.status.address(), 0, 2).expect("it can be unmapped");
    table.set(2, GTF_PERMIT_ACCESS, DomId(0), [0; 2], 1 << 32);
    tap.is(set_version(1), (Err(Errno::ERANGE), 2), "so it does for a frame that version 1 cannot name");
    table.set(2, GTF_TRANSITIVE, DomId(0), [5, 0], 1);
    tap.is(set_version(1), (Err(Errno::ERANGE), 2), "or for what it cannot do");
    table.set(2, GTF_INVALID, DomId(0), [0; 2], 0);
    tap.is(set_version(1), (Ok(0), 1), "back in version 1");
    tap.is(status_frames(1).0, GNTST_GENERAL_ERROR, "without status");
    tap.is(table.entries.load_u64(20 * 16), 0, "and without old entries");
}

fn ends(tap: &mut Tap) {
    let (_, size) = one(GNTTABOP_QUERY_SIZE, GnttabQuerySize { dom: SELF, ..Default::default() });
    tap.is((size.status, size.nr_frames, size.max_nr_frames), (GNTST_OKAY, 9, 64), "pages there are, and may be");
    tap.is(setup(64).0, GNTST_OKAY, "all of them");
    tap.is(setup(65).0, GNTST_GENERAL_ERROR, "and no more");
    tap.is(map(hole(), 64 * 512, 0).status, GNTST_BAD_GNTREF, "the first entry that cannot be");
    tap.is(map(hole(), 64 * 512 - 1, 0).status, GNTST_GENERAL_ERROR, "the last that can");
    tap.is(set_version(2), (Ok(0), 2), "a full table in version 2");
    tap.is((status_frames(8).0, status_frames(9).0), (GNTST_OKAY, GNTST_GENERAL_ERROR), "has eight pages of status");
    tap.is(set_version(1), (Ok(0), 1), "and back");
}

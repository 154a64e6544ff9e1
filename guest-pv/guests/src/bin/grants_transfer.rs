//! `GNTTABOP_transfer`, by which a page becomes another domain's, and `GNTTABOP_cache_flush`.
#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_pv::call::memory;
use guest_pv::mem::table::{self, READ_ONLY, READ_WRITE};
use guest_pv::mem::{Access, Frame, Mapping, SharedBytes};
use guest_pv::tap::Tap;
use guests::grant_entries::{flags_of, frame_of, set, transfer};
use guests::{address_of, call, load, page, store, update_va_mapping};
use xen_abi::Errno;
use xen_abi::grant_table::*;
use xen_abi::hypercall::HYPERVISOR_GRANT_TABLE_OP;
use xen_abi::ids::{DomId, GrantRef};
use zerocopy::{FromBytes, IntoBytes};

guest_pv::test!(run);

const SELF: DomId = DomId::SELF;
const OWN: DomId = DomId(0);
const NOBODY: DomId = DomId(1234);
const M2P: u64 = 0xffff_8000_0000_0000;
/// What a page that is given away is for: any number.
const PFN: u32 = 0x1234;

fn run(tap: &mut Tap) {
    let mut frames = [0u64];
    let setup = GnttabSetupTable { dom: SELF, nr_frames: 1, frame_list: address_of(&mut frames), ..Default::default() };
    tap.is(one(GNTTABOP_SETUP_TABLE, setup).1.status, GNTST_OKAY, "a table");
    let table = Mapping::own(&frames, Access::ReadWrite).expect("it can be mapped").leak();
    not_given(tap, table);
    lost(tap, table);
    given(tap, table);
    several(tap, table);
    pointers(tap);
    flushed(tap);
    version_2(tap, table);
}

/// One operation; its result, and the struct as the hypervisor left it.
fn one<T: FromBytes + IntoBytes>(command: u32, argument: T) -> (Result<u64, Errno>, T) {
    let mut argument = argument;
    let result = call(HYPERVISOR_GRANT_TABLE_OP, [command.into(), address_of(&mut argument), 1]);
    (result, argument)
}

fn total() -> u64 {
    memory::current_reservation(SELF).unwrap_or(0)
}

/// A page that is mapped nowhere, and its frame.
fn unmapped() -> (Frame, u64) {
    let page = page();
    let mfn = page.mfn().0;
    update_va_mapping(page.address(), 0, 2).expect("it can be unmapped");
    (page, mfn)
}

/// Maps a frame in a page's place, whose memory is not used any more.
fn put_back(page: Frame, mfn: u64) -> Result<u64, Errno> {
    let address = page.address();
    let mapped = update_va_mapping(address, mfn << 12 | READ_WRITE, 2);
    page.leak();
    mapped.map(|()| address)
}

fn not_given(tap: &mut Tap, table: &SharedBytes) {
    set(table, 20, GTF_ACCEPT_TRANSFER, OWN, PFN);
    let before = total();
    let mapped = page();
    let refused = (Ok(0), GNTST_BAD_PAGE);
    tap.is(transfer(mapped.mfn().0, OWN, 20), refused, "a page that is mapped is not given away");
    let (again, mfn) = unmapped();
    update_va_mapping(again.address(), mfn << 12 | READ_ONLY, 2).expect("it can be mapped");
    tap.is(transfer(mfn, OWN, 20), refused, "nor one that is mapped for reading");
    tap.is(transfer(table::root().0, OWN, 20), refused, "nor a page table");
    tap.is(transfer(1 << 40, OWN, 20), refused, "nor a frame that does not exist");
    tap.is(transfer(u64::MAX, OWN, 20), refused, "nor none");
    tap.is(transfer(mapped.mfn().0, NOBODY, 20), refused, "whoever it is for");
    tap.is(total(), before, "all pages are still there");
    tap.is(flags_of(table, 20), GTF_ACCEPT_TRANSFER, "and the entry waits");
    again.leak();
}

/// A page is taken away before anybody looks for whom.
fn lost(tap: &mut Tap, table: &SharedBytes) {
    set(table, 21, GTF_PERMIT_ACCESS, OWN, PFN);
    set(table, 22, GTF_ACCEPT_TRANSFER, NOBODY, PFN);
    set(table, 23, GTF_ACCEPT_TRANSFER | GTF_TRANSFER_COMMITTED, OWN, PFN);
    for (dom, reference, status, what) in [
        (NOBODY, 20, GNTST_BAD_DOMAIN, "to a domain that does not exist"),
        (SELF, 20, GNTST_BAD_DOMAIN, "DOMID_SELF is no such domain"),
        (OWN, 21, GNTST_GENERAL_ERROR, "an entry that does not accept"),
        (OWN, 22, GNTST_GENERAL_ERROR, "or not from us"),
        (OWN, 23, GNTST_GENERAL_ERROR, "or has done so already"),
        (OWN, 24, GNTST_GENERAL_ERROR, "or says nothing"),
        (OWN, 100_000, GNTST_GENERAL_ERROR, "or is beyond the table"),
    ] {
        let before = total();
        let (page, mfn) = unmapped();
        tap.is(transfer(mfn, dom, reference), (Ok(0), status), what);
        tap.is(total(), before - 1, "the page is gone");
        tap.is(put_back(page, mfn).map(drop), Err(Errno::EBUSY), "and nobody's, or somebody else's");
    }
    let after = [21, 22, 23].map(|reference| flags_of(table, reference));
    let as_before = [GTF_PERMIT_ACCESS, GTF_ACCEPT_TRANSFER, GTF_ACCEPT_TRANSFER | GTF_TRANSFER_COMMITTED];
    tap.is(after, as_before, "no entry has changed");
}

fn given(tap: &mut Tap, table: &SharedBytes) {
    let before = total();
    let (page, mfn) = {
        let page = page();
        let mfn = page.mfn().0;
        store(page.address() + 64, 0x5a5a);
        update_va_mapping(page.address(), 0, 2).expect("it can be unmapped");
        (page, mfn)
    };
    tap.is(transfer(mfn, OWN, 20), (Ok(0), GNTST_OKAY), "a page is given to ourselves");
    tap.is(total(), before, "so there are as many as before");
    let done = GTF_ACCEPT_TRANSFER | GTF_TRANSFER_COMMITTED | GTF_TRANSFER_COMPLETED;
    tap.is(flags_of(table, 20), done, "the entry says so");
    tap.is(frame_of(table, 20), mfn, "and which frame");
    tap.is(load(M2P + mfn * 8), PFN.into(), "which is what the entry named");
    let mapped = put_back(page, mfn);
    tap.ok(mapped.is_ok_and(|address| load(address + 64) == 0x5a5a), "what was in it is still");
    let (other, another) = unmapped();
    tap.is(transfer(another, OWN, 20), (Ok(0), GNTST_GENERAL_ERROR), "an entry is good for one page");
    other.leak();
}

fn several(tap: &mut Tap, table: &SharedBytes) {
    set(table, 30, GTF_ACCEPT_TRANSFER, OWN, PFN);
    set(table, 31, GTF_ACCEPT_TRANSFER, OWN, PFN + 1);
    let ((first, one), (second, two)) = (unmapped(), unmapped());
    let op = |mfn, reference| GnttabTransfer { mfn, domid: OWN, ref_: GrantRef(reference), ..Default::default() };
    let mut ops = [op(one, 30), op(1 << 40, 30), op(two, 31)];
    let result = call(HYPERVISOR_GRANT_TABLE_OP, [GNTTABOP_TRANSFER.into(), address_of(&mut ops), 3]);
    let states = ops.map(|op| op.status);
    tap.is((result, states), (Ok(0), [GNTST_OKAY, GNTST_BAD_PAGE, GNTST_OKAY]), "several in one call");
    tap.is((put_back(first, one).is_ok(), put_back(second, two).is_ok()), (true, true), "both arrive");
}

fn pointers(tap: &mut Tap) {
    for command in [GNTTABOP_TRANSFER, GNTTABOP_CACHE_FLUSH] {
        let at = |va: u64, count: u64| call(HYPERVISOR_GRANT_TABLE_OP, [command.into(), va, count]);
        tap.is(at(0x1000, 1), Err(Errno::EFAULT), "operations that are not mapped");
        tap.is(at(0xffff_8300_0000_0000, 1), Err(Errno::EFAULT), "operations in the hypervisor");
        tap.is(at(0x1000, 0), Ok(0), "no operations");
        tap.is(at(0x1000, 1 << 31), Err(Errno::EINVAL), "too many");
    }
    let continued = call(HYPERVISOR_GRANT_TABLE_OP, [u64::from(GNTTABOP_TRANSFER) | 1 << 12, 0x1000, 1]);
    tap.is(continued, Err(Errno::EINVAL), "a transfer is no continuation");
}

fn flushed(tap: &mut Tap) {
    let data = page();
    let own = data.mfn().0 << 12;
    let flush = |a: u64, offset: u16, length: u16, op: u32| {
        one(GNTTABOP_CACHE_FLUSH, GnttabCacheFlush { a, offset, length, op }).0
    };
    let both = GNTTAB_CACHE_CLEAN | GNTTAB_CACHE_INVAL;
    tap.is(flush(own, 0, 4096, GNTTAB_CACHE_CLEAN), Ok(0), "a page is written back");
    tap.is(flush(own, 64, 128, both), Ok(0), "and dropped from caches, in part");
    tap.is(flush(own, 0, 4096, GNTTAB_CACHE_INVAL), Err(Errno::EOPNOTSUPP), "but not without being written back");
    tap.is(flush(own, 4095, 1, both), Ok(0), "its last byte");
    tap.is(flush(own, 4096, 1, both), Err(Errno::EINVAL), "not what is behind");
    tap.is(flush(own, 4095, 2, both), Err(Errno::EINVAL), "nor across the end");
    tap.is(flush(own, 0, 4097, both), Err(Errno::EINVAL), "nor more than a page");
    tap.is(flush(own, 0, 4096, 4), Err(Errno::EINVAL), "an unknown way");
    tap.is(flush(own, 0, 4096, GNTTAB_CACHE_SOURCE_GREF | both), Err(Errno::EINVAL), "by grant");
    tap.is(flush(1 << 50, 0, 0, both), Ok(0), "no bytes of anything");
    tap.is(flush(1 << 50, 0, 4096, 0), Ok(0), "in no way");
    tap.is(flush(1 << 50, 0, 4096, both), Err(Errno::EINVAL), "a frame that does not exist");
    let (page, mfn) = unmapped();
    tap.is(transfer(mfn, NOBODY, 20).1, GNTST_BAD_DOMAIN, "a frame is made nobody's");
    tap.is(flush(mfn << 12, 0, 64, both), Err(Errno::EPERM), "and not flushed");
    page.leak();
    let continued = |a: u64, length: u16| {
        let mut op = GnttabCacheFlush { a, offset: 0, length, op: both };
        let command = u64::from(GNTTABOP_CACHE_FLUSH) | 1 << 12;
        call(HYPERVISOR_GRANT_TABLE_OP, [command, address_of(&mut op), 1])
    };
    tap.is(continued(own, 0), Err(Errno::EILSEQ), "nothing is never continued");
    tap.is(continued(own, 4096), Ok(0), "one's own page needs no search");
}

fn version_2(tap: &mut Tap, table: &SharedBytes) {
    let (result, set) = one(GNTTABOP_SET_VERSION, GnttabSetVersion { version: 2 });
    tap.is((result, set.version), (Ok(0), 2), "version 2");
    let header = |flags: u16| u64::from(flags) | u64::from(OWN.0) << 16;
    table.store_u64(40 * 16 + 8, PFN.into());
    table.store_u64(40 * 16, header(GTF_ACCEPT_TRANSFER));
    let (page, mfn) = unmapped();
    tap.is(transfer(mfn, OWN, 40), (Ok(0), GNTST_OKAY), "a page is given");
    let done = GTF_ACCEPT_TRANSFER | GTF_TRANSFER_COMMITTED | GTF_TRANSFER_COMPLETED;
    tap.is(table.load_u64(40 * 16), header(done), "the entry says so");
    tap.is(table.load_u64(40 * 16 + 8), mfn, "and which frame");
    tap.is(load(M2P + mfn * 8), PFN.into(), "which is what the entry named");
    tap.ok(put_back(page, mfn).is_ok(), "it can be mapped");
    let (page, mfn) = unmapped();
    tap.is(transfer(mfn, OWN, 40), (Ok(0), GNTST_GENERAL_ERROR), "once");
    page.leak();
}

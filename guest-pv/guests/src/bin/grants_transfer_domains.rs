//! `GNTTABOP_transfer` between two domains: from the control domain to one without privileges, and back.
#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_pv::call::{domctl, memory};
use guest_pv::mem::table::READ_WRITE;
use guest_pv::mem::{Access, Mapping, SharedBytes};
use guest_pv::tap::Tap;
use guests::domain::{ARGUMENTS, End, Tiny};
use guests::grant_entries::{flags_of, frame_of, set, transfer};
use guests::{address_of, call, load, page, store, update_va_mapping};
use xen_abi::Errno;
use xen_abi::grant_table::*;
use xen_abi::hypercall::HYPERVISOR_GRANT_TABLE_OP;
use xen_abi::ids::{DomId, GrantRef};
use xen_abi::memory::{XENMEM_RESOURCE_GRANT_TABLE, XENMEM_RESOURCE_GRANT_TABLE_ID_SHARED};
use zerocopy::IntoBytes;

guest_pv::test!(run);

const OWN: DomId = DomId(0);
const NOBODY: DomId = DomId(1234);
const M2P: u64 = 0xffff_8000_0000_0000;
/// What a page that is given away is for: any number.
const PFN: u32 = 0x1234;
const MARK: u64 = 0x5a5a_1234;
const DONE: u16 = GTF_ACCEPT_TRANSFER | GTF_TRANSFER_COMMITTED | GTF_TRANSFER_COMPLETED;

fn run(tap: &mut Tap) {
    let tiny = Tiny::caller();
    let kind = (XENMEM_RESOURCE_GRANT_TABLE, XENMEM_RESOURCE_GRANT_TABLE_ID_SHARED);
    let theirs = Mapping::resource(tiny.id, kind, 1, Access::ReadWrite).expect("its table can be mapped");
    to_another(tap, &tiny, &theirs);
    not_taken(tap, &tiny, &theirs);
    to_us(tap, &tiny);
}

fn total() -> u64 {
    memory::current_reservation(DomId::SELF).unwrap_or(0)
}

fn total_of(id: DomId) -> u64 {
    domctl::get_domain_info(id).map_or(0, |info| info.tot_pages)
}

/// A page of ours with a mark in it that is mapped nowhere any more: where it was, and its frame.
fn unmapped() -> (u64, u64) {
    let page = page();
    let (address, mfn) = (page.address(), page.mfn().0);
    store(address + 64, MARK);
    update_va_mapping(address, 0, 2).expect("it can be unmapped");
    page.leak();
    (address, mfn)
}

fn to_another(tap: &mut Tap, tiny: &Tiny, theirs: &SharedBytes) {
    set(theirs, 20, GTF_ACCEPT_TRANSFER, OWN, PFN);
    let (ours, others) = (total(), total_of(tiny.id));
    let (address, mfn) = unmapped();
    tap.is(transfer(mfn, tiny.id, 20), (Ok(0), GNTST_OKAY), "a page is given to another domain");
    tap.is((total() + 1, total_of(tiny.id)), (ours, others + 1), "we have one less, it has one more");
    tap.is((flags_of(theirs, 20), frame_of(theirs, 20)), (DONE, mfn), "its entry says so, and which frame");
    tap.is(load(M2P + mfn * 8), PFN.into(), "which has the number that the entry named");
    tap.is(update_va_mapping(address, mfn << 12 | READ_WRITE, 2), Err(Errno::EBUSY), "it is not ours any more");
    let shown = Mapping::foreign(tiny.id, &[mfn], Access::ReadWrite).map(|page| page.load_u64(64));
    tap.is(shown.map_err(|_| ()), Ok(MARK), "and with what was in it the other one's");
    tap.is(transfer(mfn, tiny.id, 20).1, GNTST_BAD_PAGE, "which we cannot give away");
}

/// A page is taken away before anybody looks who takes it.
fn not_taken(tap: &mut Tap, tiny: &Tiny, theirs: &SharedBytes) {
    set(theirs, 21, GTF_ACCEPT_TRANSFER, NOBODY, PFN);
    set(theirs, 22, GTF_PERMIT_ACCESS, OWN, PFN);
    set(theirs, 23, GTF_ACCEPT_TRANSFER, OWN, PFN);
    let others = total_of(tiny.id);
    let mut refused = |reference: u32, what| {
        let ours = total();
        let (_, mfn) = unmapped();
        tap.is(transfer(mfn, tiny.id, reference), (Ok(0), GNTST_GENERAL_ERROR), what);
        tap.is((total() + 1, total_of(tiny.id)), (ours, others), "the page is lost");
    };
    refused(20, "an entry is good for one page");
    refused(21, "an entry that waits for another domain's");
    refused(22, "an entry that grants");
    refused(100_000, "an entry beyond the table");
    domctl::max_mem(tiny.id, others * 4).expect("any limit can be set");
    refused(23, "a domain that has all that it may have");
    domctl::max_mem(tiny.id, 4096).expect("any limit can be set");
    tap.is(flags_of(theirs, 23), GTF_ACCEPT_TRANSFER, "its entry waits still");
    let (_, mfn) = unmapped();
    tap.is(transfer(mfn, tiny.id, 23), (Ok(0), GNTST_OKAY), "and is good for another page");
}

/// The other domain needs no privilege to give us one.
fn to_us(tap: &mut Tap, tiny: &Tiny) {
    let mut frames = [0u64];
    let setup = &mut GnttabSetupTable {
        dom: DomId::SELF,
        nr_frames: 1,
        frame_list: address_of(&mut frames),
        ..Default::default()
    };
    let set_up = call(HYPERVISOR_GRANT_TABLE_OP, [GNTTABOP_SETUP_TABLE.into(), address_of(setup), 1]);
    tap.is((set_up, setup.status), (Ok(0), GNTST_OKAY), "a table of ours");
    let table = Mapping::own(&frames, Access::ReadWrite).expect("it can be mapped").leak();
    set(table, 25, GTF_ACCEPT_TRANSFER, tiny.id, PFN);
    let mut mfns = [0x77];
    tap.is(memory::populate_physmap(tiny.id, &mut mfns, 0, 0), Ok(1), "the domain gets a page more");
    Mapping::foreign(tiny.id, &mfns, Access::ReadWrite).expect("it can be mapped").store_u64(64, MARK + 1);
    let (ours, others) = (total(), total_of(tiny.id));
    let wanted = GnttabTransfer { mfn: mfns[0], domid: OWN, ref_: GrantRef(25), ..Default::default() };
    let mut calls = [[HYPERVISOR_GRANT_TABLE_OP.into(), GNTTABOP_TRANSFER.into(), ARGUMENTS, 1, 0, 0, 0]];
    tap.is(tiny.make(&mut calls, wanted.as_bytes()), End::Shutdown(0), "it gives the page to us");
    let [_, _, status] = tiny.arguments();
    tap.is((calls[0][6], status & 0xffff), (0, 0), "and is told that it did");
    tap.is((total(), total_of(tiny.id) + 1), (ours + 1, others), "we have one more, it has one less");
    tap.is((flags_of(table, 25), frame_of(table, 25)), (DONE, mfns[0]), "our entry says so, and which frame");
    let place = page();
    let mapped = update_va_mapping(place.address(), mfns[0] << 12 | READ_WRITE, 2);
    let found = mapped.map(|()| load(place.address() + 64));
    place.leak();
    tap.is(found, Ok(MARK + 1), "it is ours, with what was in it");
}

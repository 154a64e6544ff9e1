//! `mmuext_op`: each of its operations, what it refuses, and for whom.
#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_pv::call::memory;
use guest_pv::mem::{Access, Mapping};
use guest_pv::tap::Tap;
use guests::child::Child;
use guests::{address_of, call, load, make_read_only, make_writable, page, read, table_page};
use xen_abi::Errno;
use xen_abi::hypercall::HYPERVISOR_MMUEXT_OP;
use xen_abi::ids::DomId;
use xen_abi::mmu::*;

guest_pv::test!(run);

const SELF: u64 = 0x7ff0;
const INVALID: Result<u64, Errno> = Err(Errno::EINVAL);

fn run(tap: &mut Tap) {
    unknown(tap);
    pages(tap);
    flushes(tap);
    descriptor_tables(tap);
    batches(tap);
    domains(tap);
    foreign_pages(tap);
}

fn for_domain(domain: u64, cmd: u32, arg1: u64, arg2: u64) -> Result<u64, Errno> {
    let mut op = MmuextOp { cmd, _pad: 0, arg1, arg2 };
    call(HYPERVISOR_MMUEXT_OP, [address_of(&mut op), 1, 0, domain])
}

fn ext(cmd: u32, arg1: u64, arg2: u64) -> Result<u64, Errno> {
    for_domain(SELF, cmd, arg1, arg2)
}

fn unknown(tap: &mut Tap) {
    for cmd in [14, 21, 22, 1000, u32::MAX] {
        tap.is(ext(cmd, 0, 0), Err(Errno::ENOSYS), "an unknown operation");
    }
    let data = page();
    for cmd in [MMUEXT_MARK_SUPER, MMUEXT_UNMARK_SUPER] {
        tap.is(ext(cmd, data.mfn().0, 0), Err(Errno::EOPNOTSUPP), "there are no large pages to be marked");
    }
}

fn pages(tap: &mut Tap) {
    let mut data = page();
    data.bytes_mut().fill(0x5a);
    let other = page();
    tap.is(ext(MMUEXT_COPY_PAGE, other.mfn().0, data.mfn().0), Ok(0), "a page is copied");
    tap.is(load(other.address() + 4088), 0x5a5a_5a5a_5a5a_5a5a, "to its end");
    tap.is(ext(MMUEXT_CLEAR_PAGE, other.mfn().0, 0), Ok(0), "a page is cleared");
    tap.is((load(other.address()), load(other.address() + 4088)), (0, 0), "all of it");
    tap.is(ext(MMUEXT_COPY_PAGE, data.mfn().0, data.mfn().0), Ok(0), "a page is copied to itself");
    let table = table_page(&[(3, data.mfn().0 << 12 | 1)]);
    ext(MMUEXT_PIN_L1_TABLE, table.mfn().0, 0).expect("an ordinary entry");
    tap.is(ext(MMUEXT_CLEAR_PAGE, table.mfn().0, 0), INVALID, "a page table is not cleared");
    tap.is(ext(MMUEXT_COPY_PAGE, table.mfn().0, data.mfn().0), INVALID, "nor written over");
    tap.is(ext(MMUEXT_COPY_PAGE, other.mfn().0, table.mfn().0), Ok(0), "but it can be copied");
    tap.is(load(other.address() + 24), read(&table, 3), "entry by entry");
    ext(MMUEXT_UNPIN_TABLE, table.mfn().0, 0).expect("pinned above");
    make_writable(&table).expect("an ordinary page");
    make_read_only(&other);
    tap.is(ext(MMUEXT_CLEAR_PAGE, other.mfn().0, 0), Ok(0), "a page that is mapped read-only is cleared as well");
    make_writable(&other).expect("an ordinary page");
    let nowhere = 1 << 40;
    tap.is(ext(MMUEXT_CLEAR_PAGE, nowhere, 0), INVALID, "a frame that does not exist is not cleared");
    tap.is(ext(MMUEXT_COPY_PAGE, nowhere, data.mfn().0), INVALID, "nor copied to");
    tap.is(ext(MMUEXT_COPY_PAGE, data.mfn().0, nowhere), INVALID, "nor copied");
}

fn flushes(tap: &mut Tap) {
    let data = page();
    for (what, cmd, arg1, arg2, want) in [
        ("the TLB", MMUEXT_TLB_FLUSH_LOCAL, 0, 0, Ok(0)),
        ("an address", MMUEXT_INVLPG_LOCAL, data.address(), 0, Ok(0)),
        ("an address where nothing is", MMUEXT_INVLPG_LOCAL, 0x1000, 0, Ok(0)),
        ("an address of the hypervisor", MMUEXT_INVLPG_LOCAL, 0xffff_8300_0000_0000, 0, Ok(0)),
        ("an address that is not canonical", MMUEXT_INVLPG_LOCAL, 1 << 63, 0, Ok(0)),
        ("all TLBs", MMUEXT_TLB_FLUSH_ALL, 0, 0, Ok(0)),
        ("an address everywhere", MMUEXT_INVLPG_ALL, data.address(), 0, Ok(0)),
        ("an address of the hypervisor everywhere", MMUEXT_INVLPG_ALL, 0xffff_8300_0000_0000, 0, Ok(0)),
        ("the TLBs of a mask that is not mapped", MMUEXT_TLB_FLUSH_MULTI, 0, 0x1000, INVALID),
        ("the TLBs of a mask of the hypervisor", MMUEXT_TLB_FLUSH_MULTI, 0, 0xffff_8300_0000_0000, INVALID),
        ("an address, mask not mapped", MMUEXT_INVLPG_MULTI, data.address(), 0x1000, INVALID),
        ("the caches", MMUEXT_FLUSH_CACHE, 0, 0, Ok(0)),
        ("all caches", MMUEXT_FLUSH_CACHE_GLOBAL, 0, 0, Ok(0)),
    ] {
        tap.is(ext(cmd, arg1, arg2), want, what);
    }
    for mut mask in [0u64, 1, u64::MAX] {
        let mask = address_of(&mut mask);
        tap.is(ext(MMUEXT_TLB_FLUSH_MULTI, 0, mask), Ok(0), "the TLBs of some vCPUs, which may not exist");
        tap.is(ext(MMUEXT_INVLPG_MULTI, data.address(), mask), Ok(0), "an address in them");
    }
}

fn descriptor_tables(tap: &mut Tap) {
    let data = page();
    for (what, base, entries, want) in [
        ("none", 0, 0, Ok(0)),
        ("none, wherever", 0x1234, 0, Ok(0)),
        ("not at the start of a page", data.address() + 8, 1, INVALID),
        ("more than there can be", data.address(), 8193, INVALID),
        ("as many as there can be", data.address(), 8192, Ok(0)),
        ("the hypervisor's", 0xffff_8300_0000_0000, 1, INVALID),
        ("none again", 0, 0, Ok(0)),
    ] {
        tap.is(ext(MMUEXT_SET_LDT, base, entries), want, what);
    }
}

fn batches(tap: &mut Tap) {
    let data = page();
    let flush = MmuextOp { cmd: MMUEXT_TLB_FLUSH_LOCAL, ..Default::default() };
    let bad = MmuextOp { cmd: MMUEXT_CLEAR_PAGE, arg1: 1 << 40, ..Default::default() };
    let mut done = 77u32;
    let run = |ops: &mut [MmuextOp], count: u64, done: &mut u32| {
        call(HYPERVISOR_MMUEXT_OP, [address_of(ops), count, address_of(done), SELF])
    };
    tap.is(run(&mut [flush, flush, flush], 3, &mut done), Ok(0), "three operations");
    tap.is(done, 3, "are counted");
    tap.is(run(&mut [flush, flush, bad, flush], 4, &mut done), INVALID, "a bad one among them");
    tap.is(done, 2, "ends the list");
    tap.is(run(&mut [flush], 0, &mut done), Ok(0), "none");
    tap.is(done, 0, "are counted as none");
    let many = MmuextOp { cmd: MMUEXT_CLEAR_PAGE, arg1: data.mfn().0, ..Default::default() };
    let mut many = guest_pv::alloc::vec![many; 300];
    tap.is(run(&mut many, 300, &mut done), Ok(0), "more than are done in one go");
    tap.is(done, 300, "are all counted");
    tap.is(call(HYPERVISOR_MMUEXT_OP, [0x1000, 1, 0, SELF]), Err(Errno::EFAULT), "a list that is not mapped");
    let hypervisor = call(HYPERVISOR_MMUEXT_OP, [0xffff_8300_0000_0000, 1, 0, SELF]);
    tap.is(hypervisor, Err(Errno::EFAULT), "a list in the hypervisor's memory");
    tap.is(call(HYPERVISOR_MMUEXT_OP, [0, 0, 0, SELF]), Ok(0), "no list, no operations");
}

fn domains(tap: &mut Tap) {
    let child = Child::new(16);
    let id = u64::from(child.id().0);
    for (what, domain, want) in [
        ("ourselves by number", 0, Err(Errno::ESRCH)),
        ("a domain that does not exist", 1234, Err(Errno::ESRCH)),
        ("another domain's TLB", id, Err(Errno::EPERM)),
    ] {
        tap.is(for_domain(domain, MMUEXT_TLB_FLUSH_LOCAL, 0, 0), want, what);
    }
    for (what, cmd) in [
        ("its root", MMUEXT_NEW_BASEPTR),
        ("its user root", MMUEXT_NEW_USER_BASEPTR),
        ("its LDT", MMUEXT_SET_LDT),
        ("its address", MMUEXT_INVLPG_LOCAL),
        ("its addresses", MMUEXT_INVLPG_ALL),
        ("its TLBs", MMUEXT_TLB_FLUSH_ALL),
        ("its caches", MMUEXT_FLUSH_CACHE),
    ] {
        tap.is(for_domain(id, cmd, 0, 0), Err(Errno::EPERM), what);
    }
}

/// A builder pins and clears pages of the domain that it builds.
fn foreign_pages(tap: &mut Tap) {
    let child = Child::new(16);
    let id = u64::from(child.id().0);
    let mut frames = [0u64, 1, 2];
    tap.is(memory::populate_physmap(child.id(), &mut frames, 0, 0), Ok(3), "another domain gets pages");
    let [data, table, third] = frames;
    {
        let window = Mapping::foreign(child.id(), &frames, Access::ReadWrite).expect("they can be mapped");
        window.store_u64(0, 0x77);
        window.zero(4096, 8192);
        window.store_u64(4096 + 8, data << 12 | 3);
        tap.is(for_domain(id, MMUEXT_COPY_PAGE, third, data), Ok(0), "its page is copied");
        tap.is(window.load_u64(8192), 0x77, "to another one of its own");
        tap.is(for_domain(id, MMUEXT_CLEAR_PAGE, third, 0), Ok(0), "its page is cleared");
        tap.is(window.load_u64(8192), 0, "and empty");
        tap.is(for_domain(id, MMUEXT_PIN_L1_TABLE, table, 0), INVALID, "what we can write to is no table");
    }
    tap.is(for_domain(id, MMUEXT_PIN_L1_TABLE, table, 0), Ok(0), "its page becomes a table");
    tap.is(ext(MMUEXT_PIN_L1_TABLE, third, 0), INVALID, "but none of ours");
    tap.is(for_domain(id, MMUEXT_CLEAR_PAGE, table, 0), INVALID, "it is not cleared then");
    let mapped = Mapping::foreign(child.id(), &[table], Access::ReadWrite).map(drop).map_err(|error| error.errno);
    tap.is(mapped, Err(Errno::EBUSY), "nor mapped for writing");
    let mapped = Mapping::foreign(child.id(), &[table], Access::ReadOnly).map(drop).map_err(|error| error.errno);
    tap.is(mapped, Ok(()), "but for reading");
    tap.is(for_domain(id, MMUEXT_UNPIN_TABLE, table, 0), Ok(0), "it is unpinned");
    tap.is(for_domain(id, MMUEXT_UNPIN_TABLE, table, 0), INVALID, "once");
    let mapped = Mapping::foreign(child.id(), &[table], Access::ReadWrite).map(drop).map_err(|error| error.errno);
    tap.is(mapped, Ok(()), "and can be mapped for writing again");
    let mixed = Mapping::foreign(child.id(), &[data, 1 << 40, third], Access::ReadWrite);
    let mixed = mixed.map(drop).map_err(|error| (error.index, error.errno));
    tap.is(mixed, Err((1, Errno::EPERM)), "a bad frame in a batch is named");
    let of_nobody = Mapping::foreign(DomId(1234), &[data], Access::ReadOnly).map(drop).map_err(|error| error.errno);
    tap.is(of_nobody, Err(Errno::ESRCH), "nothing of nobody");
    let ours = page();
    let not_its = Mapping::foreign(child.id(), &[ours.mfn().0], Access::ReadOnly).map(drop);
    tap.is(not_its.map_err(|error| error.errno), Err(Errno::EBUSY), "nor of a domain what is not its own");
}

//! `update_va_mapping` and its sister for other domains.
#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_pv::mem::table::{self, READ_ONLY, READ_WRITE};
use guest_pv::mem::{Access, Mapping};
use guest_pv::tap::Tap;
use guests::{call, load, make_writable, page, store, trap_of, update_va_mapping};
use xen_abi::Errno;
use xen_abi::hypercall::HYPERVISOR_UPDATE_VA_MAPPING_OTHERDOMAIN;
use xen_abi::mmu::{UVMF_ALL, UVMF_INVLPG, UVMF_NONE, UVMF_TLB_FLUSH};

guest_pv::test!(run);

fn run(tap: &mut Tap) {
    let (first, second) = (page(), page());
    store(first.address(), 1);
    store(second.address(), 2);
    // A window has an L1 table; what it mapped first does not matter.
    let window = Mapping::own(&[first.mfn().0], Access::ReadWrite).expect("own memory can be mapped");
    let va = window.address();
    let maps = |page: &guest_pv::mem::Frame, flags: u64| page.mfn().0 << 12 | flags;

    tap.is(load(va), 1, "the first page is there");
    for (flags, what) in [
        (UVMF_INVLPG, "one page is flushed here"),
        (UVMF_INVLPG | UVMF_ALL, "one page is flushed everywhere"),
        (UVMF_TLB_FLUSH, "all is flushed here"),
        (UVMF_TLB_FLUSH | UVMF_ALL, "all is flushed everywhere"),
    ] {
        tap.is(update_va_mapping(va, maps(&second, READ_WRITE), flags), Ok(()), what);
        tap.is(load(va), 2, "the other page is there");
        tap.is(update_va_mapping(va, maps(&first, READ_WRITE), flags), Ok(()), "and back");
        tap.is(load(va), 1, "as before");
    }
    tap.is(update_va_mapping(va, maps(&first, READ_WRITE), UVMF_NONE), Ok(()), "nothing is flushed");
    // Instead of a flag, the rest of the word can be the address of a mask of vCPUs.
    let mask = [1u64];
    let pointer = mask.as_ptr() as u64;
    tap.is(update_va_mapping(va, maps(&second, READ_WRITE), pointer | UVMF_INVLPG), Ok(()), "a mask of vCPUs");
    tap.is(load(va), 2, "is obeyed");
    let bad = update_va_mapping(va, maps(&first, READ_WRITE), 0x1000 | UVMF_INVLPG);
    tap.is(bad, Err(Errno::EFAULT), "a mask that is not mapped");
    tap.is(update_va_mapping(va, maps(&first, READ_WRITE), UVMF_INVLPG), Ok(()), "the entry can be set again");

    tap.is(update_va_mapping(va, maps(&first, READ_ONLY), UVMF_INVLPG), Ok(()), "read-only");
    tap.is(trap_of(|| store(va, 3)), Some((14, 3)), "writes fault");
    tap.is(update_va_mapping(va, 0, UVMF_INVLPG), Ok(()), "nothing");
    tap.is(trap_of(|| _ = load(va)), Some((14, 0)), "reads fault");
    tap.is(update_va_mapping(va + 123, maps(&first, READ_WRITE), UVMF_INVLPG), Ok(()), "the offset is ignored");
    tap.is(load(va), 1, "and the page is there");

    tap.is(update_va_mapping(0x7000_0000_0000, maps(&first, READ_ONLY), 0), Err(Errno::EINVAL), "no table");
    tap.is(update_va_mapping(1 << 47, maps(&first, READ_ONLY), 0), Err(Errno::EINVAL), "not canonical");
    tap.is(update_va_mapping(0xffff_8000_0000_0000, maps(&first, READ_ONLY), 0), Err(Errno::EINVAL), "the M2P table");
    tap.is(update_va_mapping(0xffff_8300_0000_0000, maps(&first, READ_ONLY), 0), Err(Errno::EINVAL), "the hypervisor");
    tap.is(update_va_mapping(va, 1 << 51 | READ_ONLY, UVMF_INVLPG), Err(Errno::EPERM), "no such frame");
    tap.is(load(va), 1, "a refused entry changes nothing");
    let root = table::root().0 << 12;
    tap.is(update_va_mapping(va, root | READ_WRITE, UVMF_INVLPG), Err(Errno::EBUSY), "a page table, writable");
    tap.is(update_va_mapping(va, root | READ_ONLY, UVMF_INVLPG), Ok(()), "a page table, read-only");
    tap.ok(load(va + 272 * 8) & 1 == 1, "shows its entries");

    let other =
        |entry: u64, domain: u64| call(HYPERVISOR_UPDATE_VA_MAPPING_OTHERDOMAIN, [va, entry, UVMF_INVLPG, domain]);
    tap.is(other(maps(&second, READ_WRITE), 0), Err(Errno::ESRCH), "ourselves by number");
    tap.is(other(maps(&second, READ_WRITE), 0x7ff0), Ok(0), "ourselves as DOMID_SELF");
    tap.is(load(va), 2, "and the page is there");
    tap.is(other(maps(&second, READ_WRITE), 1234), Err(Errno::ESRCH), "a domain that does not exist");
    tap.is(other(maps(&first, READ_WRITE), 0x7ff2), Err(Errno::EBUSY), "our page is not the hypervisor's");
    tap.is(other(0xb_8000 | READ_WRITE, 0x7ff1), Ok(0), "device memory");
    tap.is(update_va_mapping(va, maps(&first, READ_WRITE), UVMF_INVLPG), Ok(()), "the first page again");
    tap.is(make_writable(&first), Ok(()), "which is ordinary still");
    tap.is(load(va), 1, "and has its contents");
}

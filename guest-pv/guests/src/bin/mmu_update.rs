//! `mmu_update`: its four commands, batches, and what it refuses.
#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_pv::mem::table::{ACCESSED, DIRTY, PRESENT, READ_ONLY, READ_WRITE, WRITE};
use guest_pv::mem::{Frame, m2p};
use guest_pv::tap::Tap;
use guests::{address_of, call, entry_of, load, make_writable, mmu_update, mmuext, page, read, table_page};
use xen_abi::Errno;
use xen_abi::hypercall::HYPERVISOR_MMU_UPDATE;
use xen_abi::ids::DomId;
use xen_abi::mmu::{
    MMU_MACHPHYS_UPDATE, MMU_NORMAL_PT_UPDATE, MMU_PT_UPDATE_NO_TRANSLATE, MMU_PT_UPDATE_PRESERVE_AD,
    MMUEXT_PIN_L1_TABLE, MMUEXT_UNPIN_TABLE, MmuUpdate,
};

guest_pv::test!(run);

const SELF: u64 = 0x7ff0;

fn run(tap: &mut Tap) {
    let data = page();
    let table = table_page(&[]);
    mmuext(MMUEXT_PIN_L1_TABLE, table.mfn()).expect("an empty table");
    commands(tap, &table, &data);
    translation(tap, &data);
    batches(tap, &table, &data);
    refusals(tap, &table, &data);
    domains(tap, &table, &data);
    mmuext(MMUEXT_UNPIN_TABLE, table.mfn()).expect("pinned above");
    make_writable(&table).expect("an ordinary page");
}

fn at(page: &Frame, flags: u64) -> u64 {
    page.mfn().0 << 12 | flags
}

fn commands(tap: &mut Tap, table: &Frame, data: &Frame) {
    let slot = entry_of(table, 9);
    let seen = |index| read(table, index) & 0xfff;
    tap.is(mmu_update(slot | MMU_NORMAL_PT_UPDATE, at(data, READ_WRITE)), Ok(()), "a normal update");
    tap.is(seen(9), READ_WRITE | 4, "arrives, with the user bit");
    tap.is(mmu_update(slot | MMU_PT_UPDATE_PRESERVE_AD, at(data, PRESENT)), Ok(()), "an update that keeps A and D");
    tap.is(seen(9), PRESENT | ACCESSED | DIRTY | 4, "keeps them");
    tap.is(mmu_update(slot | MMU_NORMAL_PT_UPDATE, at(data, PRESENT)), Ok(()), "a normal update");
    tap.is(seen(9), PRESENT | 4, "does not");
    tap.is(mmu_update(slot | MMU_PT_UPDATE_NO_TRANSLATE, at(data, PRESENT | WRITE)), Ok(()), "an untranslated update");
    tap.is(seen(9), PRESENT | WRITE | 4, "is a normal one in a PV guest");
    tap.is(mmu_update(slot, 0), Ok(()), "an entry is cleared");
    tap.is(read(table, 9), 0, "and empty");
    // The commands share the lowest three bits with nothing else.
    tap.is(mmu_update(slot | 4, at(data, READ_ONLY)), Err(Errno::ENOSYS), "a command beyond the four");
}

fn translation(tap: &mut Tap, data: &Frame) {
    let (mfn, pfn) = (data.mfn(), data.pfn());
    tap.is(load(0xffff_8000_0000_0000 + mfn.0 * 8), pfn.0, "the M2P table has the frame");
    tap.is(mmu_update(mfn.0 << 12 | MMU_MACHPHYS_UPDATE, 0x12345), Ok(()), "it can be changed");
    tap.is(load(0xffff_8000_0000_0000 + mfn.0 * 8), 0x12345, "and shows it");
    tap.is(mmu_update(mfn.0 << 12 | 0xff8 | MMU_MACHPHYS_UPDATE, pfn.0), Ok(()), "the offset in the page is ignored");
    tap.is(m2p(mfn), Some(pfn), "and is as before");
    tap.is(mmu_update(1 << 52 | MMU_MACHPHYS_UPDATE, 1), Err(Errno::EINVAL), "there is no such frame");
}

fn batches(tap: &mut Tap, table: &Frame, data: &Frame) {
    let mut done = 77u32;
    let mut requests: [MmuUpdate; 5] =
        core::array::from_fn(|index| MmuUpdate { ptr: entry_of(table, index as u64), val: at(data, READ_ONLY) });
    let update = |requests: &mut [MmuUpdate], count: u64, done: &mut u32| {
        call(HYPERVISOR_MMU_UPDATE, [address_of(requests), count, address_of(done), SELF])
    };
    tap.is(update(&mut requests, 5, &mut done), Ok(0), "a batch");
    tap.is(done, 5, "is counted");
    tap.ok((0..5).all(|index| read(table, index) & 1 == 1), "and done");
    requests.iter_mut().for_each(|request| request.val = 0);
    requests[3].val = 1 << 50 | PRESENT;
    tap.is(update(&mut requests, 5, &mut done), Err(Errno::EPERM), "a batch with a bad request");
    tap.is(done, 3, "ends there");
    tap.ok((0..3).all(|index| read(table, index) == 0), "with the first ones done");
    tap.ok((3..5).all(|index| read(table, index) & 1 == 1), "and the others not");
    done = 77;
    tap.is(update(&mut requests, 0, &mut done), Ok(0), "an empty batch");
    tap.is(done, 0, "counts nothing");
    tap.is(call(HYPERVISOR_MMU_UPDATE, [0, 0, 0, SELF]), Ok(0), "nowhere, too");
    tap.is(call(HYPERVISOR_MMU_UPDATE, [0x1000, 1, 0, SELF]), Err(Errno::EFAULT), "a batch that is not mapped");
    tap.is(call(HYPERVISOR_MMU_UPDATE, [1 << 63 | 0x1000, 1, 0, SELF]), Err(Errno::EFAULT), "nor canonical");
    let hole = call(HYPERVISOR_MMU_UPDATE, [address_of(&mut requests), 3, 0x1000, SELF]);
    tap.is(hole, Ok(0), "a count that cannot be written is not written");
    for index in 0..5 {
        mmu_update(entry_of(table, index), 0).expect("entries can be cleared");
    }
}

fn refusals(tap: &mut Tap, table: &Frame, data: &Frame) {
    tap.is(mmu_update(entry_of(data, 5), 0x1234), Ok(()), "an ordinary page is written to");
    tap.is(read(data, 5), 0x1234, "with whatever is asked for");
    tap.is(mmu_update(1 << 52, 0), Err(Errno::EINVAL), "nor a frame that does not exist");
    tap.is(mmu_update(entry_of(table, 0), 1 << 51 | READ_ONLY), Err(Errno::EPERM), "a frame beyond the machine");
    let marked = mmu_update(entry_of(table, 0), 1 << 52 | at(data, READ_ONLY));
    tap.is(marked, Ok(()), "the bit that marks kernel entries may be set");
    // Frame 0 is the machine's, and not given to guests.
    tap.ok(mmu_update(entry_of(table, 0), READ_WRITE).is_ok(), "the control domain may map the first megabyte");
    mmu_update(entry_of(table, 0), 0).expect("entries can be cleared");
}

fn domains(tap: &mut Tap, table: &Frame, data: &Frame) {
    let update = |domain: u64, value: u64| {
        let mut request = MmuUpdate { ptr: entry_of(table, 0), val: value };
        call(HYPERVISOR_MMU_UPDATE, [address_of(&mut request), 1, 0, domain])
    };
    tap.is(update(DomId(0).0.into(), at(data, READ_ONLY)), Err(Errno::ESRCH), "ourselves by number");
    tap.is(update(1234, at(data, READ_ONLY)), Err(Errno::ESRCH), "a domain that does not exist");
    tap.is(update(0x7ff5, at(data, READ_ONLY)), Err(Errno::ESRCH), "a reserved number");
    tap.is(update(DomId::IO.0.into(), at(data, READ_ONLY)), Err(Errno::EBUSY), "our memory is not device memory");
    tap.is(update(DomId::XEN.0.into(), at(data, READ_ONLY)), Err(Errno::EBUSY), "nor the hypervisor's");
    tap.is(update(DomId::IO.0.into(), 0xfee0_0000 | READ_ONLY), Err(Errno::EPERM), "the APIC is not for guests");
    tap.is(update(DomId::IO.0.into(), 0xb_8000 | READ_WRITE), Ok(0), "the VGA memory is for the control domain");
    // The table's owner is in the upper half, plus one.
    tap.is(update(1 << 16 | SELF, 0), Ok(0), "a table of domain 0");
    tap.is(update(1235 << 16 | SELF, 0), Err(Errno::ESRCH), "a table of a domain that does not exist");
    tap.is(read(table, 0) & 1, 0, "the entry is empty in the end");
}

//! Page types: what may become a page table, what a page table may hold, and how it becomes an ordinary page again.
#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_pv::mem::Frame;
use guest_pv::mem::table::{self, READ_ONLY, READ_WRITE, TABLE};
use guest_pv::tap::Tap;
use guests::{entry_of, make_read_only, make_writable, mmu_update, mmuext, page, read, table_page, trap_of};
use xen_abi::Errno;
use xen_abi::ids::Mfn;
use xen_abi::mmu::{
    MMUEXT_PIN_L1_TABLE, MMUEXT_PIN_L2_TABLE, MMUEXT_PIN_L3_TABLE, MMUEXT_PIN_L4_TABLE, MMUEXT_UNPIN_TABLE,
};

guest_pv::test!(run);

const PINS: [(&str, u32); 4] = [
    ("L1", MMUEXT_PIN_L1_TABLE),
    ("L2", MMUEXT_PIN_L2_TABLE),
    ("L3", MMUEXT_PIN_L3_TABLE),
    ("L4", MMUEXT_PIN_L4_TABLE),
];

fn run(tap: &mut Tap) {
    pins(tap);
    one_type_at_a_time(tap);
    writable_mappings(tap);
    chains(tap);
    contents(tap);
    roots(tap);
}

fn at(page: &Frame, flags: u64) -> u64 {
    page.mfn().0 << 12 | flags
}

fn pins(tap: &mut Tap) {
    for (name, pin) in PINS {
        let table = page();
        tap.is(mmuext(pin, table.mfn()), Err(Errno::EINVAL), name);
        make_read_only(&table);
        tap.is(mmuext(pin, table.mfn()), Ok(()), "an empty read-only page can be pinned");
        tap.is(mmuext(pin, table.mfn()), Err(Errno::EINVAL), "not twice");
        tap.is(make_writable(&table), Err(Errno::EBUSY), "it cannot be mapped writable");
        tap.is(mmuext(MMUEXT_UNPIN_TABLE, table.mfn()), Ok(()), "it can be unpinned");
        tap.is(mmuext(MMUEXT_UNPIN_TABLE, table.mfn()), Err(Errno::EINVAL), "not twice");
        tap.is(make_writable(&table), Ok(()), "it can be mapped writable again");
    }
    tap.is(mmuext(MMUEXT_PIN_L1_TABLE, Mfn(1 << 40)), Err(Errno::EINVAL), "a frame that does not exist");
    tap.is(mmuext(MMUEXT_UNPIN_TABLE, Mfn(1 << 40)), Err(Errno::EINVAL), "nor can it be unpinned");
}

fn one_type_at_a_time(tap: &mut Tap) {
    for (name, pin) in PINS {
        let table = table_page(&[]);
        mmuext(pin, table.mfn()).expect("an empty page can be any table");
        for (other, wrong) in PINS.iter().filter(|&&(other, _)| other != name) {
            if !tap.ok(mmuext(*wrong, table.mfn()) == Err(Errno::EINVAL), name) {
                tap.note(format_args!("pinned as {name}, was accepted as {other}"));
            }
        }
        mmuext(MMUEXT_UNPIN_TABLE, table.mfn()).expect("pinned above");
        make_writable(&table).expect("not a table any more");
    }
    // The type lingers after the unpin, but does not stand in the way of another one.
    let table = table_page(&[]);
    for (name, pin) in PINS {
        tap.is(mmuext(pin, table.mfn()), Ok(()), name);
        tap.is(mmuext(MMUEXT_UNPIN_TABLE, table.mfn()), Ok(()), "and away");
    }
    make_writable(&table).expect("not a table any more");
}

fn writable_mappings(tap: &mut Tap) {
    let data = page();
    let table = table_page(&[(0, at(&data, READ_WRITE)), (1, at(&data, READ_ONLY))]);
    tap.is(mmuext(MMUEXT_PIN_L1_TABLE, table.mfn()), Ok(()), "a table with a writable and a read-only entry");
    make_read_only(&data);
    tap.is(mmuext(MMUEXT_PIN_L1_TABLE, data.mfn()), Err(Errno::EINVAL), "what a table maps writable is no table");
    tap.is(mmu_update(entry_of(&table, 0), at(&data, READ_ONLY)), Ok(()), "the entry can be made read-only");
    tap.is(mmuext(MMUEXT_PIN_L1_TABLE, data.mfn()), Ok(()), "then it can be one");
    tap.is(mmu_update(entry_of(&table, 0), at(&data, READ_WRITE)), Err(Errno::EBUSY), "and the entry stays read-only");
    tap.is(mmu_update(entry_of(&table, 0), at(&table, READ_WRITE)), Err(Errno::EBUSY), "no table maps itself writable");
    tap.is(mmu_update(entry_of(&table, 0), at(&table, READ_ONLY)), Ok(()), "but read-only it may");
    for (table, what) in [(&data, "both"), (&table, "can be unpinned")] {
        tap.is(mmuext(MMUEXT_UNPIN_TABLE, table.mfn()), Ok(()), what);
    }
    tap.is((make_writable(&data), make_writable(&table)), (Ok(()), Ok(())), "and are ordinary pages again");

    let itself = page();
    make_read_only(&itself);
    // A page that maps itself writable, written before it is a table.
    make_writable(&itself).expect("an ordinary page");
    let mut itself = itself;
    let entry = at(&itself, READ_WRITE);
    itself.bytes_mut()[..8].copy_from_slice(&entry.to_le_bytes());
    make_read_only(&itself);
    tap.is(
        mmuext(MMUEXT_PIN_L1_TABLE, itself.mfn()),
        Err(Errno::EBUSY),
        "a table that maps itself writable is refused",
    );
    tap.is(make_writable(&itself), Ok(()), "and is an ordinary page still");
}

fn chains(tap: &mut Tap) {
    let data = page();
    let l1 = table_page(&[(3, at(&data, READ_WRITE))]);
    let l2 = table_page(&[(5, at(&l1, TABLE))]);
    let l3 = table_page(&[(7, at(&l2, TABLE))]);
    tap.is(mmuext(MMUEXT_PIN_L3_TABLE, l3.mfn()), Ok(()), "a table brings its lower tables along");
    tap.is(make_writable(&l1), Err(Errno::EBUSY), "they are tables now");
    tap.is(mmuext(MMUEXT_PIN_L2_TABLE, l1.mfn()), Err(Errno::EINVAL), "of their level");
    tap.is(mmuext(MMUEXT_PIN_L1_TABLE, l1.mfn()), Ok(()), "and can be pinned in addition");
    tap.is(mmuext(MMUEXT_UNPIN_TABLE, l3.mfn()), Ok(()), "the top is unpinned");
    tap.is(make_writable(&l2), Ok(()), "the middle is free");
    tap.is(make_writable(&l1), Err(Errno::EBUSY), "the pinned one is not");
    tap.is(mmuext(MMUEXT_UNPIN_TABLE, l1.mfn()), Ok(()), "until it is unpinned");
    tap.is(make_writable(&l1), Ok(()), "too");
    make_writable(&l3).expect("the top is free as well");

    let writable = page();
    let l2 = table_page(&[(0, at(&writable, TABLE))]);
    tap.is(mmuext(MMUEXT_PIN_L2_TABLE, l2.mfn()), Err(Errno::EINVAL), "a lower table must not be mapped writable");
    make_writable(&l2).expect("not a table");
    // A failure in the middle takes everything back.
    let good = table_page(&[]);
    let l2 = table_page(&[(0, at(&good, TABLE)), (1, at(&writable, TABLE))]);
    tap.is(mmuext(MMUEXT_PIN_L2_TABLE, l2.mfn()), Err(Errno::EINVAL), "one bad entry is enough");
    tap.is((make_writable(&good), make_writable(&l2)), (Ok(()), Ok(())), "and nothing of the good part stays");

    let l2 = table_page(&[]);
    mmuext(MMUEXT_PIN_L2_TABLE, l2.mfn()).expect("an empty table");
    let same = table_page(&[(0, at(&l2, TABLE))]);
    tap.is(
        mmuext(MMUEXT_PIN_L2_TABLE, same.mfn()),
        Err(Errno::EINVAL),
        "an L2 does not point to an L2 with write access",
    );
    mmuext(MMUEXT_UNPIN_TABLE, l2.mfn()).expect("pinned above");
    make_writable(&same).expect("not a table");
    make_writable(&l2).expect("not a table");
}

fn contents(tap: &mut Tap) {
    let data = page();
    let l1 = table_page(&[]);
    mmuext(MMUEXT_PIN_L1_TABLE, l1.mfn()).expect("an empty table");
    let slot = entry_of(&l1, 0);
    for (entry, want, what) in [
        (at(&data, READ_WRITE), Ok(()), "L1: an ordinary page"),
        (0, Ok(()), "L1: empty"),
        (at(&data, READ_WRITE) & !1, Ok(()), "L1: not present, with an address"),
        (0xffff_ffff_ffff_fffe, Ok(()), "L1: not present, all other bits set"),
        (1 << 51 | READ_ONLY, Err(Errno::EPERM), "L1: a frame beyond the machine"),
        (at(&data, READ_WRITE) | 1 << 9, Ok(()), "L1: an available bit"),
        (at(&data, READ_WRITE) | 1 << 8, Ok(()), "L1: global"),
        (at(&data, READ_WRITE) | 3 << 3, Ok(()), "L1: uncached"),
        (at(&data, READ_WRITE), Ok(()), "L1: cached again"),
        (at(&data, READ_ONLY) | 4, Ok(()), "L1: for user mode"),
    ] {
        tap.is(mmu_update(slot, entry), want, what);
    }
    mmu_update(slot, at(&data, READ_WRITE)).expect("an ordinary page");
    tap.is(read(&l1, 0) & 0x0010_0000_0000_0107, 0x0010_0000_0000_0007, "a kernel entry is marked and not global");
    mmu_update(slot, at(&data, READ_WRITE) | 4).expect("an ordinary page");
    tap.is(read(&l1, 0) & 0x0010_0000_0000_0107, 0x107, "a user entry is global");
    mmu_update(slot, 0).expect("empty");
    mmuext(MMUEXT_UNPIN_TABLE, l1.mfn()).expect("pinned above");

    let l2 = table_page(&[]);
    mmuext(MMUEXT_PIN_L2_TABLE, l2.mfn()).expect("an empty table");
    let slot = entry_of(&l2, 0);
    for (entry, want, what) in [
        (at(&l1, TABLE), Ok(()), "L2: an L1"),
        (at(&l1, TABLE) | 1 << 7, Err(Errno::EINVAL), "L2: a large page"),
        (at(&l1, TABLE) | 1 << 8, Err(Errno::EINVAL), "L2: global"),
        (at(&data, TABLE), Err(Errno::EINVAL), "L2: a page that is mapped writable"),
        (1 << 51 | TABLE, Err(Errno::EINVAL), "L2: a frame beyond the machine"),
        (at(&l1, TABLE) | 1 << 9, Ok(()), "L2: an available bit"),
        (at(&l1, TABLE) & !4, Ok(()), "L2: without the user bit"),
    ] {
        tap.is(mmu_update(slot, entry), want, what);
    }
    tap.is(read(&l2, 0) & 7, 7, "the user bit is added");
    mmuext(MMUEXT_UNPIN_TABLE, l2.mfn()).expect("pinned above");
    make_writable(&l2).expect("not a table");
    make_writable(&l1).expect("not a table");
}

fn roots(tap: &mut Tap) {
    let l4 = table_page(&[]);
    mmuext(MMUEXT_PIN_L4_TABLE, l4.mfn()).expect("an empty table");
    let l3 = table_page(&[]);
    tap.is(mmu_update(entry_of(&l4, 0), at(&l3, TABLE)), Ok(()), "L4: an L3 in a slot of the guest");
    for slot in [256, 257, 271] {
        let what = "L4: nothing in a slot of the hypervisor";
        tap.is(mmu_update(entry_of(&l4, slot), at(&l3, TABLE)), Err(Errno::EINVAL), what);
    }
    tap.is(mmu_update(entry_of(&l4, 272), at(&l3, TABLE)), Ok(()), "L4: the slot after those");
    tap.is(mmu_update(entry_of(&l4, 255), at(&l3, TABLE)), Ok(()), "L4: the slot before those");
    let own = mmu_update(entry_of(&l4, 1), at(&l4, TABLE));
    tap.is(own, Err(Errno::EINVAL), "L4: not itself with write access");
    mmuext(MMUEXT_UNPIN_TABLE, l4.mfn()).expect("pinned above");
    tap.is((make_writable(&l3), make_writable(&l4)), (Ok(()), Ok(())), "all of it is free again");

    let root = table::root();
    tap.is(mmuext(MMUEXT_UNPIN_TABLE, root), Ok(()), "the root in use can be unpinned");
    tap.is(mmuext(MMUEXT_PIN_L4_TABLE, root), Ok(()), "and pinned again");
    tap.is(mmuext(MMUEXT_PIN_L3_TABLE, root), Err(Errno::EINVAL), "it is nothing else");
    let direct = guest_pv::mem::address(guest_pv::mem::m2p(root).expect("our own"));
    let writable = guests::update_va_mapping(direct, root.0 << 12 | READ_WRITE, 2);
    tap.is(writable, Err(Errno::EBUSY), "the root in use cannot be mapped writable");
    tap.is(trap_of(|| guests::store(direct, 0)).map(|(vector, _)| vector), Some(14), "nor written to");
}

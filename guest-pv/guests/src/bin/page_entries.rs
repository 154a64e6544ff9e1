//! What entries of page tables may be, level by level: which bits, which tables below, and what becomes of a tree with one
//! bad entry.
#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_pv::mem::Frame;
use guest_pv::mem::table::{self, READ_ONLY, READ_WRITE, TABLE, USER, WRITE};
use guest_pv::tap::Tap;
use guests::{
    call, entry_of, make_read_only, make_writable, mmu_update, mmuext, page, read, table_page, update_va_mapping,
};
use xen_abi::Errno;
use xen_abi::hypercall::HYPERVISOR_SET_GDT;
use xen_abi::mmu::{
    MMUEXT_NEW_USER_BASEPTR, MMUEXT_PIN_L1_TABLE, MMUEXT_PIN_L2_TABLE, MMUEXT_PIN_L3_TABLE, MMUEXT_PIN_L4_TABLE,
    MMUEXT_UNPIN_TABLE,
};

guest_pv::test!(run);

const PINS: [u32; 4] = [MMUEXT_PIN_L1_TABLE, MMUEXT_PIN_L2_TABLE, MMUEXT_PIN_L3_TABLE, MMUEXT_PIN_L4_TABLE];
const NAMES: [&str; 4] = ["L1", "L2", "L3", "L4"];
const NX: u64 = 1 << 63;
const INVALID: Result<(), Errno> = Err(Errno::EINVAL);

fn run(tap: &mut Tap) {
    bits(tap);
    levels(tap);
    linear(tap);
    counts(tap);
    deep(tap);
    hypervisor_slots(tap);
    descriptors(tap);
    own_tables(tap);
}

fn at(page: &Frame, flags: u64) -> u64 {
    page.mfn().0 << 12 | flags
}

/// An empty table of a level (1 to 4), pinned.
fn pinned(level: usize) -> Frame {
    let table = table_page(&[]);
    mmuext(PINS[level - 1], table.mfn()).expect("an empty page can be any table");
    table
}

fn unpin(table: Frame) -> bool {
    mmuext(MMUEXT_UNPIN_TABLE, table.mfn()).is_ok() && make_writable(&table).is_ok()
}

fn claim(tap: &mut Tap, level: usize, got: Result<(), Errno>, want: Result<(), Errno>, what: &str) {
    if !tap.ok(got == want, what) {
        tap.note(format_args!("{}: got {got:?}, expected {want:?}", NAMES[level - 1]));
    }
}

fn bits(tap: &mut Tap) {
    for level in 1..=4 {
        let table = pinned(level);
        let below = if level == 1 { page() } else { pinned(level - 1) };
        let good = if level == 1 { at(&below, READ_WRITE) } else { at(&below, TABLE) };
        let leaf = if level == 1 { Ok(()) } else { INVALID };
        let slot = entry_of(&table, 7);
        for (entry, want, what) in [
            (good, Ok(()), "an ordinary entry"),
            (good | NX, Ok(()), "that forbids execution"),
            (good & !USER, Ok(()), "without the user bit"),
            (good | 1 << 3, leaf, "written through"),
            (good | 1 << 4, leaf, "not cached"),
            (good | 1 << 7, leaf, "bit 7: a page attribute in an L1, a large page above"),
            (good | 1 << 8, leaf, "global"),
            (good | 7 << 9, Ok(()), "the low bits for software"),
            (good | 0x7ff << 52, Ok(()), "the high bits for software"),
            (0, Ok(()), "nothing"),
            (!1, Ok(()), "everything but present"),
            (good & !1, Ok(()), "an entry that is not present"),
            (0, Ok(()), "nothing again"),
        ] {
            claim(tap, level, mmu_update(slot, entry), want, what);
        }
        // The same bits in a table that is to be validated.
        if level > 1 {
            for (bit, what) in [(3, "written through"), (4, "not cached"), (7, "a large page"), (8, "global")] {
                let bad = table_page(&[(9, good | 1 << bit)]);
                claim(tap, level, mmuext(PINS[level - 1], bad.mfn()), INVALID, what);
                make_writable(&bad).expect("it did not become a table");
            }
        }
        tap.ok(unpin(table), "the table is free again");
        if level > 1 {
            tap.ok(unpin(below), "and so is the one below");
        }
    }
}

/// Each level in each level.
fn levels(tap: &mut Tap) {
    let tables: [Frame; 4] = core::array::from_fn(|index| pinned(index + 1));
    let data = page();
    for level in 2..=4 {
        for below in 1..=4 {
            let (table, entry) = (&tables[level - 1], at(&tables[below - 1], TABLE));
            let want = if below + 1 == level { Ok(()) } else { INVALID };
            claim(tap, level, mmu_update(entry_of(table, 1), entry), want, NAMES[below - 1]);
        }
        let entry = at(&data, TABLE);
        claim(tap, level, mmu_update(entry_of(&tables[level - 1], 2), entry), INVALID, "a page that is written to");
        let nowhere = mmu_update(entry_of(&tables[level - 1], 2), 1 << 45 | TABLE);
        claim(tap, level, nowhere, INVALID, "a frame that does not exist");
    }
    for below in 1..=4 {
        let (slot, table) = (entry_of(&tables[0], 1), &tables[below - 1]);
        claim(tap, 1, mmu_update(slot, at(table, READ_WRITE)), Err(Errno::EBUSY), "L1: a table for writing");
        claim(tap, 1, mmu_update(slot, at(table, READ_ONLY)), Ok(()), "L1: a table for reading");
    }
    mmu_update(entry_of(&tables[0], 1), 0).expect("entries can be cleared");
    let mut tables = tables;
    tables.reverse();
    for table in tables {
        tap.ok(unpin(table), "all are free again");
    }
}

/// Tables that refer to tables of their own level: with write access never.
fn linear(tap: &mut Tap) {
    for level in 2..=4 {
        let (table, other) = (pinned(level), pinned(level));
        let slot = entry_of(&table, 3);
        claim(tap, level, mmu_update(slot, at(&table, TABLE)), INVALID, "itself, for writing");
        claim(tap, level, mmu_update(slot, at(&other, TABLE)), INVALID, "its like, for writing");
        claim(tap, level, mmu_update(slot, at(&table, TABLE & !WRITE)), Ok(()), "itself, for reading");
        let like = mmu_update(slot, at(&other, TABLE & !WRITE));
        tap.note(format_args!("value its_like_for_reading_{}={like:?}", NAMES[level - 1]));
        claim(tap, level, mmu_update(slot, at(&table, TABLE)), INVALID, "itself, for writing after all");
        claim(tap, level, mmu_update(slot, 0), Ok(()), "and away");
        tap.ok(unpin(table) && unpin(other), "both are free again");
    }
}

/// A page is what it is as long as there is one reference to it as that.
fn counts(tap: &mut Tap) {
    let data = page();
    let l1 = table_page(&[(0, at(&data, READ_WRITE)), (1, at(&data, READ_WRITE)), (2, at(&data, READ_ONLY))]);
    mmuext(MMUEXT_PIN_L1_TABLE, l1.mfn()).expect("ordinary entries");
    make_read_only(&data);
    let pin = || mmuext(MMUEXT_PIN_L1_TABLE, data.mfn());
    tap.is(pin(), INVALID, "two writable mappings");
    mmu_update(entry_of(&l1, 0), 0).expect("entries can be cleared");
    tap.is(pin(), INVALID, "one writable mapping");
    mmu_update(entry_of(&l1, 1), at(&data, READ_ONLY)).expect("it may become read-only");
    tap.is(pin(), Ok(()), "read-only mappings are no obstacle");
    tap.is(mmu_update(entry_of(&l1, 1), at(&data, READ_WRITE)), Err(Errno::EBUSY), "but cannot become writable");
    // In use twice, pinned once.
    let l2 = table_page(&[(0, at(&data, TABLE)), (1, at(&data, TABLE))]);
    tap.is(mmuext(MMUEXT_PIN_L2_TABLE, l2.mfn()), Ok(()), "a table may be in use twice in one");
    tap.is(mmuext(MMUEXT_UNPIN_TABLE, data.mfn()), Ok(()), "the pin goes");
    tap.is(mmu_update(entry_of(&l2, 0), 0), Ok(()), "one use goes");
    tap.is(make_writable(&data), Err(Errno::EBUSY), "it is a table still");
    tap.is(mmu_update(entry_of(&l2, 1), 0), Ok(()), "the other goes");
    tap.is(make_writable(&data), Ok(()), "it is a table no more");
    tap.ok(unpin(l2) && unpin(l1), "all are free again");
}

/// Trees with one bad entry: nothing of them stays.
fn deep(tap: &mut Tap) {
    let data = page();
    for (what, leaf, want) in [
        ("a leaf that maps a table for writing", None, Err(Errno::EBUSY)),
        ("a leaf beyond the machine", Some(1 << 45 | READ_ONLY), Err(Errno::EPERM)),
        ("a leaf of the hypervisor", Some(0x8000_0000_0000 | READ_ONLY), Err(Errno::EPERM)),
        ("a leaf of the interrupt controller", Some(0xfee0_0000 | READ_ONLY), Err(Errno::EPERM)),
    ] {
        let good = table_page(&[(0, at(&data, READ_WRITE))]);
        let bad = table_page(&[(0, at(&data, READ_WRITE)), (511, leaf.unwrap_or(at(&good, READ_WRITE)))]);
        let l2 = table_page(&[(0, at(&good, TABLE)), (300, at(&bad, TABLE))]);
        let l3 = table_page(&[(5, at(&l2, TABLE))]);
        let l4 = table_page(&[(6, at(&l3, TABLE)), (500, at(&l3, TABLE))]);
        tap.is(mmuext(MMUEXT_PIN_L4_TABLE, l4.mfn()), want, what);
        let free = [l4, l3, l2, bad, good].iter().all(|table| make_writable(table).is_ok());
        tap.ok(free, "leaves nothing behind");
    }
    // A root that shows itself, walked: the entry of the root is what is seen as a page of its own.
    let root = table::root();
    let own = table::entry_address(root, 300);
    tap.is(mmu_update(own, root.0 << 12 | TABLE & !WRITE), Ok(()), "the root in use shows itself");
    let page_of_root = 300 << 39 | 300 << 30 | 300 << 21 | 300 << 12 | 0xffff << 48;
    tap.is(guests::load(page_of_root + 300 * 8) >> 12 & 0xf_ffff_ffff, root.0, "and can be read there");
    let write = guests::trap_of(|| guests::store(page_of_root + 300 * 8, 0)).map(|(vector, _)| vector);
    tap.is(write, Some(14), "but not written to");
    tap.is(mmu_update(own, 0), Ok(()), "and it is hidden again");
    mmuext(xen_abi::mmu::MMUEXT_TLB_FLUSH_LOCAL, xen_abi::ids::Mfn(0)).expect("the own TLB can be flushed");
    // A good one, shared between two roots.
    let l1 = table_page(&[(0, at(&data, READ_WRITE))]);
    let l2 = table_page(&[(0, at(&l1, TABLE))]);
    let l3 = table_page(&[(0, at(&l2, TABLE)), (1, at(&l2, TABLE))]);
    let (a, b) = (table_page(&[(1, at(&l3, TABLE))]), table_page(&[(2, at(&l3, TABLE)), (3, at(&l3, TABLE))]));
    tap.is(mmuext(MMUEXT_PIN_L4_TABLE, a.mfn()), Ok(()), "a tree");
    tap.is(mmuext(MMUEXT_PIN_L4_TABLE, b.mfn()), Ok(()), "another root of it");
    tap.is(mmuext(MMUEXT_NEW_USER_BASEPTR, b.mfn()), Ok(()), "that becomes the user root");
    tap.is(mmuext(MMUEXT_UNPIN_TABLE, a.mfn()), Ok(()), "the first root goes");
    tap.is(mmuext(MMUEXT_UNPIN_TABLE, b.mfn()), Ok(()), "the second is unpinned");
    tap.is(make_writable(&l1), Err(Errno::EBUSY), "but in use");
    let zero = xen_abi::ids::Mfn(0);
    tap.is(mmuext(MMUEXT_NEW_USER_BASEPTR, zero), Ok(()), "until there is no user root");
    let free = [a, b, l3, l2, l1].iter().all(|table| make_writable(table).is_ok());
    tap.ok(free, "then all is free");
    let l3 = pinned(3);
    tap.is(mmuext(MMUEXT_NEW_USER_BASEPTR, l3.mfn()), INVALID, "an L3 is no root");
    tap.is(mmuext(xen_abi::mmu::MMUEXT_NEW_BASEPTR, l3.mfn()), INVALID, "nor one for the kernel");
    tap.is(mmuext(xen_abi::mmu::MMUEXT_NEW_BASEPTR, data.mfn()), INVALID, "nor is a page that is written to");
    tap.is(mmuext(MMUEXT_NEW_USER_BASEPTR, xen_abi::ids::Mfn(1 << 40)), INVALID, "nor what does not exist");
    tap.ok(unpin(l3), "it is free again");
}

fn hypervisor_slots(tap: &mut Tap) {
    let garbage = table_page(&[(256, u64::MAX), (260, 0x1234_5000 | TABLE), (271, 1)]);
    tap.is(mmuext(MMUEXT_PIN_L4_TABLE, garbage.mfn()), Ok(()), "what a new root has in the hypervisor's slots");
    tap.ok(read(&garbage, 256) != u64::MAX && read(&garbage, 260) != (0x1234_5000 | TABLE), "is overwritten");
    for slot in [256, 260, 271] {
        tap.is(mmu_update(entry_of(&garbage, slot), 0), INVALID, "nothing can be written there, not even nothing");
    }
    tap.ok(unpin(garbage), "the root is free again");
}

fn descriptors(tap: &mut Tap) {
    let mut gdt = page();
    // A flat data segment of ring 3, as the guest has it in its own table.
    gdt.bytes_mut()[8..16].copy_from_slice(&0x00cf_f300_0000_ffff_u64.to_le_bytes());
    let mut frames = [gdt.mfn().0];
    let mut set = |count: u64| call(HYPERVISOR_SET_GDT, [guests::address_of(&mut frames), count]).map(drop);
    tap.is(set(512), Err(Errno::EINVAL), "a page that is written to holds no descriptors");
    make_read_only(&gdt);
    tap.is(set(512), Ok(()), "a read-only one does");
    tap.is(make_writable(&gdt), Err(Errno::EBUSY), "it cannot be written to then");
    for (pin, name) in PINS.iter().zip(NAMES) {
        tap.is(mmuext(*pin, gdt.mfn()), INVALID, name);
    }
    tap.is(set(0), Ok(()), "no descriptors");
    tap.is(make_writable(&gdt), Ok(()), "and it is free again");
}

/// The tables that the guest runs on.
fn own_tables(tap: &mut Tap) {
    let data = page();
    let va = data.address();
    for (level, name) in (1..=4).zip(NAMES) {
        let Some(table) = table::table_for(va, level) else {
            tap.ok(false, name);
            continue;
        };
        let Some(pfn) = guest_pv::mem::m2p(table) else {
            tap.ok(false, name);
            continue;
        };
        let mapped = update_va_mapping(guest_pv::mem::address(pfn), table.0 << 12 | READ_WRITE, 2);
        tap.is(mapped, Err(Errno::EBUSY), name);
        let slot = table::entry_address(table, table::index(va, level));
        let was = table::read_entry(table, table::index(va, level));
        tap.is(mmu_update(slot, was), Ok(()), "the entry that is there can be written again");
    }
}

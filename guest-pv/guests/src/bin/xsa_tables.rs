//! What advisories have tried with page tables: superpages, changes of flags alone, tables that map themselves, entries in the
//! hypervisor's part, frames given away while they are tables, validation that fails late, and frames of nobody. The classes
//! are in docs/XSA-CLASSES.md.
#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_pv::alloc::vec::Vec;
use guest_pv::call::memory;
use guest_pv::mem::Frame;
use guest_pv::mem::table::{self, ACCESSED, DIRTY, PRESENT, READ_ONLY, READ_WRITE, TABLE, USER, WRITE};
use guest_pv::tap::Tap;
use guests::{
    address_of, call, entry_of, load, make_read_only, make_writable, mmu_update, mmuext, op, page, read, store,
    table_page, update_va_mapping,
};
use xen_abi::Errno;
use xen_abi::hypercall::{HYPERVISOR_MEMORY_OP, HYPERVISOR_MMUEXT_OP};
use xen_abi::ids::{DomId, Mfn};
use xen_abi::memory::{MemoryExchange, MemoryReservation, XENMEM_EXCHANGE};
use xen_abi::mmu::*;

guest_pv::test!(run);

/// Superpage in L2 and L3, PAT in L1.
const PSE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
const PWT: u64 = 1 << 3;
const PCD: u64 = 1 << 4;
const NX: u64 = 1 << 63;

fn run(tap: &mut Tap) {
    superpages(tap);
    flags_alone(tap);
    itself(tap);
    slots(tap);
    late_failures(tap);
    given_away(tap);
    nobody(tap);
    caches(tap);
    wild_arguments(tap);
    roots(tap);
}

fn at(page: &Frame, flags: u64) -> u64 {
    page.mfn().0 << 12 | flags
}

/// Tables from L4 to L1, pinned, with a data page.
struct Tower {
    l4: Frame,
    l3: Frame,
    l2: Frame,
    l1: Frame,
    data: Frame,
}

impl Tower {
    fn new() -> Self {
        let data = page();
        let l1 = table_page(&[(0, at(&data, READ_WRITE))]);
        let l2 = table_page(&[(0, at(&l1, TABLE))]);
        let l3 = table_page(&[(0, at(&l2, TABLE))]);
        let l4 = table_page(&[(0, at(&l3, TABLE))]);
        mmuext(MMUEXT_PIN_L4_TABLE, l4.mfn()).expect("a proper tower");
        Self { l4, l3, l2, l1, data }
    }

    /// Takes it down. Whether all of its pages are ordinary again.
    fn end(self) -> bool {
        let unpinned = mmuext(MMUEXT_UNPIN_TABLE, self.l4.mfn());
        unpinned.is_ok() && [&self.l4, &self.l3, &self.l2, &self.l1].iter().all(|table| make_writable(table).is_ok())
    }
}

fn superpages(tap: &mut Tap) {
    let tower = Tower::new();
    let (l2, l3, l4) = (entry_of(&tower.l2, 0), entry_of(&tower.l3, 0), entry_of(&tower.l4, 0));
    for (slot, table, name) in [(l2, &tower.l1, "L2"), (l3, &tower.l2, "L3"), (l4, &tower.l3, "L4")] {
        for command in [MMU_NORMAL_PT_UPDATE, MMU_PT_UPDATE_PRESERVE_AD] {
            tap.is(mmu_update(slot | command, at(table, TABLE | PSE)), Err(Errno::EINVAL), name);
        }
        tap.is(mmu_update(slot + 8, at(table, TABLE | PSE)), Err(Errno::EINVAL), "nor in an empty entry");
        tap.is(mmu_update(slot + 8, 0x20_0000 | TABLE | PSE), Err(Errno::EINVAL), "nor for any memory");
    }
    let bad = table_page(&[(3, 0x20_0000 | TABLE | PSE)]);
    for pin in [MMUEXT_PIN_L2_TABLE, MMUEXT_PIN_L3_TABLE, MMUEXT_PIN_L4_TABLE] {
        tap.is(mmuext(pin, bad.mfn()), Err(Errno::EINVAL), "a table with a superpage is no table");
    }
    tap.is(mmuext(MMUEXT_PIN_L1_TABLE, bad.mfn()).is_ok(), false, "nor is that frame for this guest's L1");
    make_writable(&bad).expect("an ordinary page");
    tap.ok(tower.end(), "all pages are ordinary again");
}

fn flags_alone(tap: &mut Tap) {
    let tower = Tower::new();
    let l1 = entry_of(&tower.l1, 0);
    let ro = at(&tower.l2, READ_ONLY);
    tap.is(mmu_update(l1, ro), Ok(()), "a table may be mapped read-only");
    for command in [MMU_NORMAL_PT_UPDATE, MMU_PT_UPDATE_PRESERVE_AD, MMU_PT_UPDATE_NO_TRANSLATE] {
        tap.is(mmu_update(l1 | command, ro | WRITE), Err(Errno::EBUSY), "but not writable by its flags alone");
    }
    for flags in [WRITE | USER, WRITE | DIRTY, WRITE | NX, WRITE | GLOBAL, WRITE | PCD, WRITE | 7 << 9] {
        tap.is(mmu_update(l1, ro | flags), Err(Errno::EBUSY), "nor with other flags");
    }
    tap.is(mmu_update(l1, at(&tower.data, READ_ONLY)), Ok(()), "another page read-only");
    tap.is(mmu_update(l1, at(&tower.data, READ_WRITE)), Ok(()), "may become writable");
    tap.is(mmuext(MMUEXT_PIN_L1_TABLE, tower.data.mfn()), Err(Errno::EINVAL), "which is noticed: it is no table now");
    // Access and dirty bits and what software may use do not matter to what an entry is.
    let l2 = entry_of(&tower.l2, 0);
    for flags in [PRESENT | WRITE | USER, PRESENT | USER | ACCESSED, TABLE | 7 << 9] {
        tap.is(mmu_update(l2, at(&tower.l1, flags)), Ok(()), "an upper entry changes its flags");
    }
    tap.is(mmu_update(l2, at(&tower.l1, TABLE | PWT)), Err(Errno::EINVAL), "but no memory type is chosen there");
    tap.is(mmu_update(l2, at(&tower.l1, TABLE & !PRESENT)), Ok(()), "an entry loses its table");
    tap.is(make_writable(&tower.l1), Ok(()), "which is ordinary then");
    tap.is(mmu_update(l2, at(&tower.l1, TABLE)), Err(Errno::EINVAL), "and cannot come back while it is writable");
    make_read_only(&tower.l1);
    tap.is(mmu_update(l2, at(&tower.l1, TABLE)), Ok(()), "but read-only it can");
    tap.ok(tower.end(), "all pages are ordinary again");
}

fn itself(tap: &mut Tap) {
    let tower = Tower::new();
    for (table, name) in [(&tower.l4, "L4"), (&tower.l3, "L3"), (&tower.l2, "L2")] {
        tap.is(mmu_update(entry_of(table, 7), at(table, TABLE)), Err(Errno::EINVAL), name);
        tap.is(read(table, 7), 0, "with write access it does not map itself");
    }
    let linear = mmu_update(entry_of(&tower.l4, 7), at(&tower.l4, PRESENT | USER | ACCESSED));
    // Xen has an option for this, `pv-linear-pt`; xen-rs has no such tables.
    tap.ok(matches!(linear, Ok(()) | Err(Errno::EINVAL)), "read-only an L4 may map itself, or not");
    let more = mmu_update(entry_of(&tower.l4, 7), at(&tower.l4, TABLE));
    tap.is(more, Err(Errno::EINVAL), "which its flags alone cannot make writable");
    let preserve = mmu_update(entry_of(&tower.l4, 7) | MMU_PT_UPDATE_PRESERVE_AD, at(&tower.l4, TABLE));
    tap.is(preserve, Err(Errno::EINVAL), "nor by the other command");
    tap.is(mmu_update(entry_of(&tower.l4, 7), 0), Ok(()), "it is taken away");
    // Across levels.
    for (above, below, name) in [
        (&tower.l4, &tower.l2, "an L2 in an L4"),
        (&tower.l4, &tower.l1, "an L1 in an L4"),
        (&tower.l3, &tower.l1, "an L1 in an L3"),
        (&tower.l2, &tower.l3, "an L3 in an L2"),
        (&tower.l2, &tower.l4, "an L4 in an L2"),
        (&tower.l3, &tower.l4, "an L4 in an L3"),
    ] {
        tap.is(mmu_update(entry_of(above, 9), at(below, TABLE)), Err(Errno::EINVAL), name);
        tap.is(mmu_update(entry_of(above, 9), at(below, PRESENT | USER)), Err(Errno::EINVAL), "nor read-only");
    }
    tap.ok(tower.end(), "all pages are ordinary again");
}

fn slots(tap: &mut Tap) {
    let tower = Tower::new();
    for root in [tower.l4.mfn(), table::root()] {
        let mut refused = 0;
        for slot in 256..272u64 {
            let address = table::entry_address(root, slot);
            for value in [at(&tower.l3, TABLE), at(&tower.l3, PRESENT | USER), 0, PRESENT] {
                refused += u64::from(mmu_update(address, value).is_err());
            }
        }
        tap.is(refused, 64, "the hypervisor's sixteen entries of a root are not the guest's, not even to clear");
    }
    tap.is(load(0xffff_8000_0000_0000 + table::root().0 * 8) < 1 << 40, true, "the M2P table is there after that");
    // The tables below those entries are not the guest's, if it finds out about them.
    let walk = |address: u64| {
        let entry = table::entry_address(Mfn(address >> 12), 0);
        mmu_update(entry, 0)
    };
    tap.ok(walk(table::root().0 << 12 | 0xfff).is_ok() || walk(0).is_err(), "frame 0 has no entries");
    for va in [0xffff_8000_0000_0000u64, 0xffff_82d0_4020_0000, 0xffff_8300_0000_0000, 1 << 47] {
        let written = update_va_mapping(va, at(&tower.data, READ_WRITE), 0);
        tap.ok(written.is_err(), "update_va_mapping does not reach the hypervisor's addresses");
    }
    tap.ok(tower.end(), "all pages are ordinary again");
}

fn late_failures(tap: &mut Tap) {
    // 512 tables of which the last one is bad: all before it have to be given up again.
    let mut lower: Vec<Frame> = Vec::new();
    let mut upper = page();
    for index in 0..511usize {
        let l1 = table_page(&[]);
        upper.bytes_mut()[index * 8..index * 8 + 8].copy_from_slice(&at(&l1, TABLE).to_le_bytes());
        lower.push(l1);
    }
    let bad = table_page(&[(511, 1 << 51 | READ_ONLY)]);
    upper.bytes_mut()[4088..].copy_from_slice(&at(&bad, TABLE).to_le_bytes());
    make_read_only(&upper);
    let l3 = table_page(&[(0, at(&upper, TABLE)), (511, at(&upper, TABLE))]);
    let l4 = table_page(&[(0, at(&l3, TABLE))]);
    for round in ["a tower whose last entry is bad", "again"] {
        tap.is(mmuext(MMUEXT_PIN_L4_TABLE, l4.mfn()), Err(Errno::EPERM), round);
    }
    tap.ok(lower.iter().all(|table| make_writable(table).is_ok()), "none of its 511 good tables is one any more");
    lower.iter().for_each(make_read_only);
    tap.is(make_writable(&upper), Ok(()), "nor its upper one");
    upper.bytes_mut()[4088..].fill(0);
    make_read_only(&upper);
    tap.is(mmuext(MMUEXT_PIN_L4_TABLE, l4.mfn()), Ok(()), "without the bad one it is a tower");
    tap.is(mmu_update(entry_of(&upper, 511), at(&bad, TABLE)), Err(Errno::EPERM), "which does not take the bad one");
    tap.ok(lower.iter().all(|table| make_writable(table) == Err(Errno::EBUSY)), "whose tables are not writable");
    tap.is(mmuext(MMUEXT_UNPIN_TABLE, l4.mfn()), Ok(()), "it is unpinned");
    for table in lower.iter().chain([&upper, &l3, &l4, &bad]) {
        make_writable(table).expect("an ordinary page");
    }
    tap.ok(true, "and all pages are ordinary");
}

fn exchange(frames: &mut [u64], out: u64) -> (Result<u64, Errno>, u64) {
    let reservation = |extent_start, nr_extents| MemoryReservation {
        extent_start,
        nr_extents,
        extent_order: 0,
        mem_flags: 0,
        domid: DomId::SELF,
        _pad: [0; 3],
    };
    let count = frames.len() as u64;
    let mut argument =
        MemoryExchange { in_: reservation(address_of(frames), count), out: reservation(out, count), nr_exchanged: 0 };
    let result = op(HYPERVISOR_MEMORY_OP, XENMEM_EXCHANGE, &mut argument);
    (result, argument.nr_exchanged)
}

fn given_away(tap: &mut Tap) {
    let tower = Tower::new();
    for (frame, name) in [
        (tower.l4.mfn().0, "a pinned root cannot be given back"),
        (table::root().0, "nor the root in use"),
        (1 << 40, "nor a frame that does not exist"),
    ] {
        let given = memory::decrease_reservation(DomId::SELF, &[frame], 0);
        if frame == 1 << 40 {
            tap.is(given, Ok(0), name);
        } else {
            // The frame leaves the domain's list with its last use, not before.
            tap.ok(matches!(given, Ok(0 | 1)), name);
        }
    }
    tap.is(load(tower.data.address()), 0, "memory works after that");
    // Exchange: the new frames' numbers go to a pointer, which must not lie in the hypervisor (XSA-212), and frames in use stay.
    let (spare, mut numbers) = (page(), page());
    for out in [0xffff_8300_0000_0000, 0xffff_82d0_4040_0000, 1 << 47, 0xffff_8000_0000_0000] {
        let (result, done) = exchange(&mut [spare.mfn().0], out);
        tap.ok(result.is_err() && done == 0, "exchange does not write to the hypervisor");
    }
    tap.is(load(spare.address()), 0, "the frame is still there");
    let out = numbers.address();
    numbers.bytes_mut()[..8].copy_from_slice(&spare.pfn().0.to_le_bytes());
    let (result, done) = exchange(&mut [tower.l1.mfn().0], out);
    tap.ok(result.is_err() && done == 0, "a table is not exchanged");
    let (result, done) = exchange(&mut [spare.mfn().0], out);
    tap.ok(result.is_err() && done == 0, "nor is a page that is mapped");
    tap.is(load(spare.address()), 0, "which is still there");
    let (result, _) = exchange(&mut [1 << 40], out);
    tap.ok(result.is_err(), "nor is a frame that does not exist");
    // What was given back is not the guest's to use again.
    core::mem::forget(tower);
}

fn nobody(tap: &mut Tap) {
    let table = table_page(&[]);
    mmuext(MMUEXT_PIN_L1_TABLE, table.mfn()).expect("an empty table");
    let slot = entry_of(&table, 0);
    // Frames of the hypervisor: the one behind the M2P table, and its image.
    let end = memory::maximum_ram_page().unwrap_or(1 << 18);
    let mut mapped = 0u64;
    let mut owned = 0u64;
    for mfn in (0..end).step_by(17) {
        let pfn = load(0xffff_8000_0000_0000 + mfn * 8);
        let ours = guest_pv::mem::p2m(xen_abi::ids::Pfn(pfn)) == Some(Mfn(mfn));
        if mmu_update(slot, mfn << 12 | READ_ONLY | USER).is_ok() {
            mapped += 1;
            owned += u64::from(ours || mfn < 0x100);
        }
    }
    tap.ok(mapped > 0 && mapped == owned, "of all frames the guest maps its own, and the first megabyte");
    tap.note(format_args!("{mapped} of {}", end / 17));
    for mfn in [end, end + 1, 0xf_ffff, 0xfee00, 0xfec00, 1 << 36, (1 << 40) - 1] {
        let written = mmu_update(slot, mfn << 12 | READ_WRITE);
        tap.ok(written.is_err() || mfn < 0x10_0000, "no frame beyond memory");
    }
    // An entry that is not present names whatever it likes: it must not be followed (L1TF).
    tap.is(mmu_update(slot, 0), Ok(()), "an empty entry");
    mmuext(MMUEXT_UNPIN_TABLE, table.mfn()).expect("it was pinned");
    make_writable(&table).expect("an ordinary page");
}

fn caches(tap: &mut Tap) {
    // A page mapped with another memory type, then made a table: its contents must be those of memory.
    let data = page();
    let window = table_page(&[]);
    mmuext(MMUEXT_PIN_L1_TABLE, window.mfn()).expect("an empty table");
    for (flags, name) in [(PCD | PWT, "uncached"), (PCD, "uncached minus"), (PWT, "write-through"), (PSE, "PAT")] {
        let mapped = mmu_update(entry_of(&window, 0), at(&data, READ_ONLY | flags));
        tap.is(mapped, Ok(()), name);
        tap.is(mmu_update(entry_of(&window, 0), 0), Ok(()), "and away");
        make_read_only(&data);
        tap.is(mmuext(MMUEXT_PIN_L1_TABLE, data.mfn()), Ok(()), "it can be a table");
        tap.is(mmuext(MMUEXT_UNPIN_TABLE, data.mfn()), Ok(()), "and no more");
        make_writable(&data).expect("an ordinary page");
    }
    mmuext(MMUEXT_UNPIN_TABLE, window.mfn()).expect("it was pinned");
    make_writable(&window).expect("an ordinary page");
}

fn wild_arguments(tap: &mut Tap) {
    let ext = |cmd: u32, arg1: u64, arg2: u64| {
        let mut op = MmuextOp { cmd, _pad: 0, arg1, arg2 };
        call(HYPERVISOR_MMUEXT_OP, [address_of(&mut op), 1, 0, DomId::SELF.0.into()])
    };
    for va in [1 << 47, 1 << 63, 0xffff_7fff_ffff_f000, 0xffff_8300_0000_0000, u64::MAX] {
        tap.is(ext(MMUEXT_INVLPG_LOCAL, va, 0), Ok(0), "invlpg of any address does no harm");
        tap.is(ext(MMUEXT_INVLPG_ALL, va, 0), Ok(0), "nor on all vCPUs");
    }
    let mask = u64::MAX;
    let mut bits = mask;
    tap.is(ext(MMUEXT_INVLPG_MULTI, 1 << 47, address_of(&mut bits)), Ok(0), "nor on vCPUs that do not exist");
    tap.is(ext(MMUEXT_TLB_FLUSH_MULTI, 0, address_of(&mut bits)), Ok(0), "nor a flush on them");
    tap.is(ext(MMUEXT_TLB_FLUSH_MULTI, 0, 0xffff_8300_0000_0000), Err(Errno::EINVAL), "a mask in the hypervisor");
    for cmd in [20, 21, 99, u32::MAX] {
        let unknown = ext(cmd, 0, 0);
        tap.ok(unknown.is_err(), "a command that does not exist");
    }
    for cmd in [MMUEXT_CLEAR_PAGE, MMUEXT_COPY_PAGE] {
        tap.ok(ext(cmd, table::root().0, table::root().0).is_err(), "the root is not overwritten");
        tap.ok(ext(cmd, 1 << 40, 1 << 40).is_err(), "nor is what does not exist");
    }
    let root = table::root().0;
    tap.is(ext(MMUEXT_SET_LDT, 0xffff_8300_0000_0000, 8192), Err(Errno::EINVAL), "no LDT in the hypervisor");
    tap.is(ext(MMUEXT_SET_LDT, 1 << 47, 1), Err(Errno::EINVAL), "nor where addresses are not canonical");
    tap.is(ext(MMUEXT_NEW_BASEPTR, root, 0), Ok(0), "the root again");
    let pages = [page(), page()];
    store(pages[0].address(), 7);
    tap.is(ext(MMUEXT_COPY_PAGE, pages[1].mfn().0, pages[0].mfn().0), Ok(0), "own pages are copied");
    tap.is(load(pages[1].address()), 7, "with their contents");
}

fn roots(tap: &mut Tap) {
    // A root that is given up while it is in use stays one; one that was never whole cannot be used.
    let tower = Tower::new();
    for (frame, name) in [
        (tower.l3.mfn(), "an L3 is no root"),
        (tower.data.mfn(), "nor is data"),
        (Mfn(1 << 40), "nor what does not exist"),
    ] {
        tap.is(mmuext(MMUEXT_NEW_USER_BASEPTR, frame), Err(Errno::EINVAL), name);
        tap.is(mmuext(MMUEXT_NEW_BASEPTR, frame), Err(Errno::EINVAL), "in the kernel");
    }
    tap.is(mmuext(MMUEXT_NEW_USER_BASEPTR, tower.l4.mfn()), Ok(()), "a user's root");
    tap.is(mmuext(MMUEXT_UNPIN_TABLE, tower.l4.mfn()), Ok(()), "is unpinned");
    tap.is(make_writable(&tower.l1), Err(Errno::EBUSY), "and is a root still");
    tap.is(mmuext(MMUEXT_NEW_USER_BASEPTR, tower.l4.mfn()), Ok(()), "which can be set again");
    tap.is(mmuext(MMUEXT_PIN_L4_TABLE, tower.l4.mfn()), Ok(()), "and pinned again");
    tap.is(mmuext(MMUEXT_NEW_USER_BASEPTR, Mfn(0)), Ok(()), "no root for user mode");
    tap.ok(tower.end(), "all pages are ordinary again");
}

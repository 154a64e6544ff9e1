//! `XENMEM_exchange`: frames traded for others.
#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_pv::alloc::vec::Vec;
use guest_pv::call::memory;
use guest_pv::mem::Frame;
use guest_pv::mem::contiguous::Run;
use guest_pv::mem::table::{READ_ONLY, READ_WRITE};
use guest_pv::tap::Tap;
use guests::child::Child;
use guests::{address_of, load, mmuext, op, page, update_va_mapping};
use xen_abi::Errno;
use xen_abi::hypercall::HYPERVISOR_MEMORY_OP;
use xen_abi::ids::{DomId, Mfn};
use xen_abi::memory::{MemoryExchange, MemoryReservation, XENMEM_EXCHANGE};
use xen_abi::mmu::{MMUEXT_PIN_L1_TABLE, MMUEXT_UNPIN_TABLE};

guest_pv::test!(run);

const SELF: DomId = DomId::SELF;
const M2P: u64 = 0xffff_8000_0000_0000;

fn run(tap: &mut Tap) {
    one_for_one(tap);
    contiguous(tap);
    large(tap);
    many(tap);
    refused(tap);
    in_use(tap);
    partly(tap);
    lists(tap);
    for_others(tap);
    for_devices(tap);
}

fn side(frames: &mut [u64], order: u32) -> MemoryReservation {
    MemoryReservation {
        extent_start: address_of(frames),
        nr_extents: frames.len() as u64,
        extent_order: order,
        domid: SELF,
        ..Default::default()
    }
}

/// The result and how many extents were given.
fn trade(given: MemoryReservation, taken: MemoryReservation) -> (Result<u64, Errno>, u64) {
    let mut exchange = MemoryExchange { in_: given, out: taken, nr_exchanged: 0 };
    let result = op(HYPERVISOR_MEMORY_OP, XENMEM_EXCHANGE, &mut exchange);
    (result, exchange.nr_exchanged)
}

/// Pages that are mapped nowhere, and their frames.
fn unmapped<const N: usize>() -> ([Frame; N], [u64; N]) {
    let pages: [Frame; N] = core::array::from_fn(|_| page());
    let mfns = core::array::from_fn(|index| pages[index].mfn().0);
    for page in &pages {
        update_va_mapping(page.address(), 0, 2).expect("it can be unmapped");
    }
    (pages, mfns)
}

/// The pages are mapped again, now with these frames; they are not used any more.
fn put_back(pages: impl IntoIterator<Item = Frame>, frames: impl IntoIterator<Item = u64>) -> bool {
    let mut good = true;
    for (page, mfn) in pages.into_iter().zip(frames) {
        good &= update_va_mapping(page.address(), mfn << 12 | READ_WRITE, 2).is_ok();
        page.leak();
    }
    good
}

fn total() -> u64 {
    memory::current_reservation(SELF).unwrap_or(0)
}

fn one_for_one(tap: &mut Tap) {
    let before = total();
    let (pages, mut old) = unmapped::<3>();
    let mut new: [u64; 3] = core::array::from_fn(|index| pages[index].pfn().0);
    tap.is(trade(side(&mut old, 0), side(&mut new, 0)), (Ok(0), 3), "three pages for three others");
    tap.is(total(), before, "the domain has as many as before");
    let named = pages.iter().zip(new).all(|(page, mfn)| load(M2P + mfn * 8) == page.pfn().0);
    tap.ok(named, "the M2P table knows the new ones");
    // A frame that was given may come back for the next one that is given, but not for itself.
    let (mut given, mut taken) = ([new[0]], [pages[0].pfn().0]);
    tap.is(trade(side(&mut given, 0), side(&mut taken, 0)), (Ok(0), 1), "one page for another");
    tap.ok(given != taken, "it is another");
    let mapped = update_va_mapping(pages[0].address(), given[0] << 12 | READ_ONLY, 2);
    tap.is(mapped, Err(Errno::EBUSY), "the old one belongs to nobody");
    new[0] = taken[0];
    tap.ok(put_back(pages, new), "the new ones can be mapped");
}

fn contiguous(tap: &mut Tap) {
    let (pages, mut old) = unmapped::<16>();
    let first = pages[0].pfn().0;
    let mut new = [first];
    tap.is(trade(side(&mut old, 0), side(&mut new, 4)), (Ok(0), 16), "sixteen pages for sixteen in a row");
    tap.is(new[0] % 16, 0, "they are aligned");
    let named = (0..16).all(|index| load(M2P + (new[0] + index) * 8) == first + index);
    tap.ok(named, "the M2P table knows all of them");
    let mut apart: [u64; 16] = core::array::from_fn(|index| pages[index].pfn().0);
    let mut row = new;
    tap.is(trade(side(&mut row, 4), side(&mut apart, 0)), (Ok(0), 1), "and back");
    tap.ok(put_back(pages, apart), "all can be mapped");
    // Both sides in extents, of different sizes.
    let (pages, mut old) = unmapped::<16>();
    let mut rows = [pages[0].pfn().0, pages[8].pfn().0];
    tap.is(trade(side(&mut old, 0), side(&mut rows, 3)), (Ok(0), 16), "sixteen pages for two rows of eight");
    let mut quarters: [u64; 4] = core::array::from_fn(|index| pages[index * 4].pfn().0);
    tap.is(trade(side(&mut rows, 3), side(&mut quarters, 2)), (Ok(0), 2), "two rows of eight for four of four");
    let mut low = [pages[0].pfn().0];
    let taken = MemoryReservation { mem_flags: 32, ..side(&mut low, 4) };
    tap.is(trade(side(&mut quarters, 2), taken), (Ok(0), 4), "four rows for one that 32 bits can address");
    tap.ok(low[0] + 16 <= 1 << 20, "it can be addressed");
    let frames: [u64; 16] = core::array::from_fn(|index| low[0] + index as u64);
    tap.ok(put_back(pages, frames), "each of its pages can be mapped");
}

fn large(tap: &mut Tap) {
    let (pages, mut old) = unmapped::<512>();
    let mut new = [pages[0].pfn().0];
    tap.is(trade(side(&mut old, 0), side(&mut new, 9)), (Ok(0), 512), "512 pages for 2 MiB in a row");
    tap.is(new[0] % 512, 0, "they are aligned");
    tap.ok(put_back(pages, (0..512).map(|index| new[0] + index)), "and can be mapped");
}

fn many(tap: &mut Tap) {
    // More than is done in one go.
    let (pages, mut old) = unmapped::<700>();
    let mut new: Vec<u64> = pages.iter().map(|page| page.pfn().0).collect();
    tap.is(trade(side(&mut old, 0), side(&mut new, 0)), (Ok(0), 700), "700 pages, one by one");
    let named = pages.iter().zip(&new).all(|(page, mfn)| load(M2P + mfn * 8) == page.pfn().0);
    tap.ok(named, "each has its place");
    tap.ok(put_back(pages, new), "and can be mapped");
}

fn refused(tap: &mut Tap) {
    let (pages, mut old) = unmapped::<4>();
    let mut new: [u64; 4] = core::array::from_fn(|index| pages[index].pfn().0);
    let (given, taken) = (side(&mut old, 0), side(&mut new, 0));
    let hypervisor = 0xffff_8300_0000_0000;
    for (what, given, taken, want) in [
        ("extents given that are too large", MemoryReservation { extent_order: 19, ..given }, taken, Errno::EPERM),
        ("extents taken that are too large", given, MemoryReservation { extent_order: 40, ..taken }, Errno::EPERM),
        ("more given than taken", given, MemoryReservation { nr_extents: 3, ..taken }, Errno::EINVAL),
        ("other sizes", given, MemoryReservation { extent_order: 1, ..taken }, Errno::EINVAL),
        ("two domains", given, MemoryReservation { domid: DomId(0), ..taken }, Errno::EINVAL),
        (
            "a domain that does not exist",
            MemoryReservation { domid: DomId(1234), ..given },
            MemoryReservation { domid: DomId(1234), ..taken },
            Errno::ESRCH,
        ),
        ("a list of the hypervisor's", MemoryReservation { extent_start: hypervisor, ..given }, taken, Errno::EFAULT),
        ("a list to be written there", given, MemoryReservation { extent_start: hypervisor, ..taken }, Errno::EFAULT),
        ("a list that is not mapped", MemoryReservation { extent_start: 0x1000, ..given }, taken, Errno::EFAULT),
        ("no such memory", given, MemoryReservation { mem_flags: 13, ..taken }, Errno::ENOMEM),
        (
            "sizes that overflow",
            MemoryReservation { nr_extents: 1 << 60, extent_order: 4, ..given },
            MemoryReservation { nr_extents: 1 << 60, extent_order: 4, ..taken },
            Errno::EINVAL,
        ),
    ] {
        tap.is(trade(given, taken), (Err(want), 0), what);
    }
    let mut ahead = MemoryExchange { in_: given, out: taken, nr_exchanged: 5 };
    let result = op(HYPERVISOR_MEMORY_OP, XENMEM_EXCHANGE, &mut ahead);
    tap.is((result, ahead.nr_exchanged), (Err(Errno::EINVAL), 5), "more done than there is");
    let mut behind = MemoryExchange { in_: given, out: taken, nr_exchanged: 4 };
    let result = op(HYPERVISOR_MEMORY_OP, XENMEM_EXCHANGE, &mut behind);
    tap.is((result, behind.nr_exchanged), (Ok(0), 4), "all of it done before");
    let empty = MemoryReservation { nr_extents: 0, ..given };
    tap.is(trade(empty, MemoryReservation { nr_extents: 0, ..taken }), (Ok(0), 0), "nothing for nothing");
    tap.is(total(), memory::current_reservation(DomId(0)).unwrap_or(0), "no page is lost");
    tap.ok(put_back(pages, old), "all are where they were");
}

fn in_use(tap: &mut Tap) {
    let (pages, mut old) = unmapped::<2>();
    let mut new: [u64; 2] = core::array::from_fn(|index| pages[index].pfn().0);
    let [first, second] = old;
    let invalid = (Err(Errno::EINVAL), 0);
    update_va_mapping(pages[0].address(), first << 12 | READ_ONLY, 2).expect("a page of ours");
    tap.is(trade(side(&mut old[..1], 0), side(&mut new[..1], 0)), invalid, "a page that is mapped stays");
    tap.is(mmuext(MMUEXT_PIN_L1_TABLE, Mfn(first)), Ok(()), "it becomes a page table");
    update_va_mapping(pages[0].address(), 0, 2).expect("it can be unmapped");
    tap.is(trade(side(&mut old[..1], 0), side(&mut new[..1], 0)), invalid, "a page table stays");
    mmuext(MMUEXT_UNPIN_TABLE, Mfn(first)).expect("pinned above");
    let (mut twice, mut two) = ([second, second], new);
    tap.is(trade(side(&mut twice, 0), side(&mut two, 0)).0, Err(Errno::EINVAL), "a page is not given twice");
    let (mut row, mut one) = ([first, second], [new[0]]);
    row[1] = 1 << 40;
    let result = trade(side(&mut row, 0), side(&mut one, 1));
    tap.is(result, invalid, "nor together with a frame that does not exist");
    tap.is(one, [new[0]], "nothing is told then");
    let shared = guest_pv::boot().shared_info >> 12;
    tap.is(trade(side(&mut [shared], 0), side(&mut new[..1], 0)), invalid, "the shared info page stays");
    let mut both = [first];
    let result = trade(side(&mut both, 0), side(&mut new[..1], 0));
    tap.is(result, (Ok(0), 1), "what is free at last can be given");
    // The second page was given once, before it was given twice.
    let rest = if two[0] == pages[1].pfn().0 { second } else { two[0] };
    tap.ok(put_back(pages, [new[0], rest]), "and the pages mapped");
}

fn partly(tap: &mut Tap) {
    let (pages, mut old) = unmapped::<6>();
    let mut new: [u64; 3] = core::array::from_fn(|index| pages[index * 2].pfn().0);
    let kept = old[5];
    old[5] = 1 << 40;
    let result = trade(side(&mut old, 0), side(&mut new, 1));
    tap.is(result, (Err(Errno::EINVAL), 4), "a bad frame in the third chunk: two chunks are done");
    tap.is(new[2], pages[4].pfn().0, "the third is as it was");
    let frames = [new[0], new[0] + 1, new[1], new[1] + 1, old[4], kept];
    tap.ok(put_back(pages, frames), "all can be mapped");
}

fn lists(tap: &mut Tap) {
    let before = total();
    let (pages, mut old) = unmapped::<1>();
    let nowhere = MemoryReservation { extent_start: 0x1000, nr_extents: 1, domid: SELF, ..Default::default() };
    let result = trade(side(&mut old, 0), nowhere);
    tap.is(result, (Err(Errno::EFAULT), 0), "a list of new frames that is not mapped");
    tap.is(total(), before, "the domain has a page for the one it gave, and does not know which");
    let mapped = update_va_mapping(pages[0].address(), old[0] << 12 | READ_WRITE, 2);
    tap.is(mapped, Err(Errno::EBUSY), "the old one is gone");
    pages.into_iter().for_each(|page| _ = page.leak());
}

fn for_others(tap: &mut Tap) {
    let child = Child::new(64);
    let mut frames: [u64; 8] = core::array::from_fn(|index| index as u64);
    tap.is(memory::populate_physmap(child.id(), &mut frames, 0, 0), Ok(8), "another domain gets eight pages");
    let of_child = |side: MemoryReservation| MemoryReservation { domid: child.id(), ..side };
    let mut row = [0];
    let result = trade(of_child(side(&mut frames, 0)), of_child(side(&mut row, 3)));
    tap.is(result, (Ok(0), 8), "the control domain trades them");
    tap.is(memory::current_reservation(child.id()), Ok(8), "it has as many as before");
    let window = guest_pv::mem::Mapping::foreign(child.id(), &[row[0] + 7], guest_pv::mem::Access::ReadWrite);
    tap.ok(window.is_ok(), "the new ones are its own");
}

/// What the control domain's drivers do for memory that devices see in one piece.
fn for_devices(tap: &mut Tap) {
    let before = total();
    let mut run = Run::zeroed(3).expect("memory");
    tap.ok(run.scatter().is_ok(), "eight pages are traded one by one");
    let address = run.address();
    tap.ok(!in_one_piece(&run), "they lie apart");
    drop(run);
    let run = Run::zeroed(3).expect("memory");
    tap.is(run.address(), address, "the same pages are taken again, for a device");
    tap.ok(in_one_piece(&run), "they are in one piece in the machine");
    let words = (address..address + run.len() as u64).step_by(8);
    tap.ok(words.into_iter().all(|at| load(at) == 0), "they are full of zeros");
    tap.is(total(), before, "the domain has as many as before");
}

/// The M2P table, which nobody but the hypervisor writes, names neighbours.
fn in_one_piece(run: &Run) -> bool {
    let first = load(M2P + run.mfn().0 * 8);
    (0..run.len() as u64 / 4096).all(|page| load(M2P + (run.mfn().0 + page) * 8) == first + page)
}

//! Trees of page tables that take many slices to validate and to give up, on several vCPUs: whoever finds one half done goes
//! on with it, in either direction, and so does the end of their domain.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use guest_pv::call::{domctl, memory, sysctl};
use guest_pv::mem::table::TABLE;
use guest_pv::mem::{Access, Frame, Mapping};
use guest_pv::smp::{self, Barrier};
use guest_pv::tap::Tap;
use guests::child::Child;
use guests::smp::{COUNT, Random, on_all};
use guests::{address_of, call, entry_of, make_read_only, make_writable, mmu_update, mmuext, page};
use spin::Once;
use xen_abi::Errno;
use xen_abi::hypercall::HYPERVISOR_MMUEXT_OP;
use xen_abi::ids::{Mfn, VcpuId};
use xen_abi::mmu::*;

guest_pv::test!(run);

/// The root, the L3, the L2s and the L1s: 24 x 512 entries of L2s, more than a slice's worth many times.
const L2S: usize = 24;
const L1S: usize = 8;
const PAGES: usize = 2 + L2S + L1S;
/// Rounds of each vCPU.
const ROUNDS: usize = 60;

static TREE: Once<[Frame; PAGES]> = Once::new();
static START: Barrier = Barrier::new(COUNT);
static PINNED: AtomicU64 = AtomicU64::new(0);
static UNPINNED: AtomicU64 = AtomicU64::new(0);
static CHANGED: AtomicU64 = AtomicU64::new(0);
static STRANGE: AtomicU64 = AtomicU64::new(0);
/// The domain whose tree is pinned and destroyed: its number, its root, and whether that goes on.
static VICTIM: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];
static GOES_ON: AtomicBool = AtomicBool::new(true);

fn run(tap: &mut Tap) {
    fight(tap);
    for round in 0..8 {
        destroyed_meanwhile(tap, round);
    }
}

/// What a page of the tree holds at an index; `mfn` says which frame a page is.
fn entry(page: usize, index: usize, mfn: impl Fn(usize) -> u64) -> u64 {
    match page {
        0 if index == 3 => mfn(1) << 12 | TABLE,
        1 if index < L2S => mfn(2 + index) << 12 | TABLE,
        2.. if page < 2 + L2S => mfn(2 + L2S + index % L1S) << 12 | TABLE,
        _ => 0,
    }
}

fn fight(tap: &mut Tap) {
    let mut pages: [Frame; PAGES] = core::array::from_fn(|_| page());
    let mfns: [u64; PAGES] = core::array::from_fn(|index| pages[index].mfn().0);
    for (number, page) in pages.iter_mut().enumerate() {
        for (index, word) in page.bytes_mut().chunks_exact_mut(8).enumerate() {
            word.copy_from_slice(&entry(number, index, |page| mfns[page]).to_le_bytes());
        }
        make_read_only(page);
    }
    tap.is(mmuext(MMUEXT_PIN_L4_TABLE, pages[0].mfn()), Ok(()), "a large tree is pinned");
    tap.is(make_writable(&pages[PAGES - 1]), Err(Errno::EBUSY), "to its last leaf");
    tap.is(mmuext(MMUEXT_UNPIN_TABLE, pages[0].mfn()), Ok(()), "and unpinned");
    tap.is(make_writable(&pages[PAGES - 1]), Ok(()), "to its last leaf");
    make_read_only(&pages[PAGES - 1]);
    TREE.call_once(|| pages);
    on_all(rounds);
    let counts = [&PINNED, &UNPINNED, &CHANGED].map(|count| count.load(SeqCst));
    tap.ok(counts.iter().all(|&count| count > 0), "four vCPUs pin, unpin and change it");
    tap.is(STRANGE.load(SeqCst), 0, "and get no answer that cannot be");
    let tree = TREE.get().expect("set up above");
    for page in tree {
        let _ = mmuext(MMUEXT_UNPIN_TABLE, page.mfn());
    }
    let free = tree.iter().filter(|page| make_writable(page).is_ok()).count();
    tap.is(free, PAGES, "in the end every page is an ordinary one");
}

fn rounds() {
    let tree = TREE.get().expect("set up before");
    let mut random = Random::new(smp::index() as u64 + 7);
    START.wait();
    for _ in 0..ROUNDS {
        let (what, count) = match random.below(8) {
            0 | 1 => (mmuext(MMUEXT_PIN_L4_TABLE, tree[0].mfn()), &PINNED),
            2 | 3 => (mmuext(MMUEXT_UNPIN_TABLE, tree[0].mfn()), &UNPINNED),
            4 => (mmuext(MMUEXT_PIN_L3_TABLE, tree[1].mfn()), &PINNED),
            5 => (mmuext(MMUEXT_UNPIN_TABLE, tree[1].mfn()), &UNPINNED),
            6 => {
                // An ordinary page may be written to like this as well, with the same words.
                let (l2, index) = (2 + random.below(L2S), random.below(512));
                let value = entry(l2, index, |page| tree[page].mfn().0);
                (mmu_update(entry_of(&tree[l2], index as u64), value), &CHANGED)
            }
            _ => {
                // While it is no L2, its entries are as good for an L1: then those below are written to.
                let pinned = mmuext(MMUEXT_PIN_L1_TABLE, tree[2].mfn());
                (pinned.and_then(|()| mmuext(MMUEXT_UNPIN_TABLE, tree[2].mfn())), &CHANGED)
            }
        };
        match what {
            Ok(()) => _ = count.fetch_add(1, SeqCst),
            // Pinned already, or not; in use as something else.
            Err(Errno::EINVAL | Errno::EBUSY) => {}
            Err(_) => _ = STRANGE.fetch_add(1, SeqCst),
        }
    }
}

/// Another domain's tree is pinned and unpinned by one vCPU while another one destroys the domain.
fn destroyed_meanwhile(tap: &mut Tap, round: u64) {
    let free = || sysctl::physinfo().map_or(0, |info| info.free_pages);
    let before = free();
    let child = Child::new(PAGES as u64 + 8);
    let mut frames: [u64; PAGES] = core::array::from_fn(|index| index as u64);
    let got = memory::populate_physmap(child.id(), &mut frames, 0, 0);
    if got != Ok(PAGES) {
        tap.is(got, Ok(PAGES), "another domain gets pages");
        return;
    }
    {
        let window = Mapping::foreign(child.id(), &frames, Access::ReadWrite).expect("its pages can be mapped");
        for page in 0..PAGES {
            for index in 0..512 {
                window.store_u64(page * 4096 + index * 8, entry(page, index, |page| frames[page]));
            }
        }
    }
    VICTIM[0].store(child.id().0.into(), SeqCst);
    VICTIM[1].store(frames[0], SeqCst);
    GOES_ON.store(true, SeqCst);
    smp::start(VcpuId(1), pin_and_unpin).expect("there is a second vCPU");
    // Let it come to another stage each time.
    for _ in 0..round * 40 {
        let _ = guest_pv::call::mmu::flush_tlb();
    }
    while let Err(Errno::EAGAIN | Errno::ERESTART) = domctl::destroy_domain(child.id()) {}
    GOES_ON.store(false, SeqCst);
    smp::join(VcpuId(1)).expect("it was started");
    // A domain of which a page is left is found still, as one that is dying.
    let found = || memory::current_reservation(child.id());
    let gone = (0..2000).any(|_| found() == Err(Errno::ESRCH) || guest_pv::call::mmu::flush_tlb().is_err());
    tap.ok(gone, "a domain destroyed while its tree is pinned gives back each page");
    // Xen's own records of a domain go later.
    tap.ok(free() + PAGES as u64 > before, "and they are free");
}

fn pin_and_unpin() {
    let domain = VICTIM[0].load(SeqCst);
    let root = Mfn(VICTIM[1].load(SeqCst));
    while GOES_ON.load(SeqCst) {
        for cmd in [MMUEXT_PIN_L4_TABLE, MMUEXT_UNPIN_TABLE] {
            let mut op = MmuextOp { cmd, arg1: root.0, ..Default::default() };
            let _ = call(HYPERVISOR_MMUEXT_OP, [address_of(&mut op), 1, 0, domain]);
        }
    }
}

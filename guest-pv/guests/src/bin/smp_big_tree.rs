//! Trees of page tables that take many slices to validate and to give up, on several vCPUs: whoever finds one half done goes
//! on with it, in either direction.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
use guest_pv::mem::Frame;
use guest_pv::smp::{self, Barrier};
use guest_pv::tap::Tap;
use guests::big_tree::{L2S, PAGES, entry};
use guests::smp::{COUNT, Random, on_all};
use guests::{entry_of, make_read_only, make_writable, mmu_update, mmuext, page};
use spin::Once;
use xen_abi::Errno;
use xen_abi::mmu::*;

guest_pv::test!(run);

/// Rounds of each vCPU.
const ROUNDS: usize = 60;

static TREE: Once<[Frame; PAGES]> = Once::new();
static START: Barrier = Barrier::new(COUNT);
static PINNED: AtomicU64 = AtomicU64::new(0);
static UNPINNED: AtomicU64 = AtomicU64::new(0);
static CHANGED: AtomicU64 = AtomicU64::new(0);
static STRANGE: AtomicU64 = AtomicU64::new(0);

fn run(tap: &mut Tap) {
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

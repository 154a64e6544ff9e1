//! Several vCPUs and one page table: after a mapping has changed and the flush has returned, nobody goes on with the
//! old mapping.
//!
//! One vCPU takes a window through versions: another page, read-only, nothing. It announces each version before and
//! after the change. The others read and write through the window all the time; what they see must be one of the
//! versions between the last one done before the access and the last one begun after it.
#![allow(
    clippy::cast_possible_truncation,
    reason = "what is counted in 64-bit words here are four vCPUs and their pages"
)]
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use guest_pv::mem::table::{self, READ_ONLY, READ_WRITE};
use guest_pv::mem::{Access, Frame, Mapping};
use guest_pv::smp::{self, Barrier};
use guest_pv::tap::Tap;
use guest_pv::{time, traps};
use guests::smp::{COUNT, Random, VCPUS, Watch, on_all};
use guests::{address_of, call, load, mmu_update, page, store, trap_of, update_va_mapping};
use spin::Once;
use xen_abi::Errno;
use xen_abi::hypercall::HYPERVISOR_MMUEXT_OP;
use xen_abi::ids::DomId;
use xen_abi::mmu::{
    MMUEXT_INVLPG_ALL, MMUEXT_INVLPG_MULTI, MMUEXT_TLB_FLUSH_ALL, MMUEXT_TLB_FLUSH_MULTI, MmuextOp, UVMF_ALL,
    UVMF_INVLPG, UVMF_TLB_FLUSH,
};

guest_pv::test!(run);

/// Pages that take turns in the window.
const PAGES: u64 = 12;
/// Versions per way of flushing, and how long they may take (ns) on a slow machine.
const VERSIONS: u64 = 120;
const PATIENCE: u64 = 1_000_000_000;

/// The ways to change an entry and flush it everywhere.
const WAYS: [&str; 8] = [
    "update_va_mapping, one page on all vCPUs",
    "update_va_mapping, everything on all vCPUs",
    "update_va_mapping, one page on a mask of vCPUs",
    "update_va_mapping, everything on a mask of vCPUs",
    "mmu_update, then one page on all vCPUs",
    "mmu_update, then everything on all vCPUs",
    "mmu_update, then one page on a mask of vCPUs",
    "mmu_update, then everything on a mask of vCPUs",
];

struct Stage {
    pages: [Frame; PAGES as usize],
    window: Mapping,
    /// One window for each vCPU.
    own: [Mapping; VCPUS],
}

static STAGE: Once<Stage> = Once::new();
static WAY: AtomicUsize = AtomicUsize::new(0);
static BEGUN: AtomicU64 = AtomicU64::new(0);
static DONE: AtomicU64 = AtomicU64::new(0);
static OVER: AtomicBool = AtomicBool::new(false);
static ACCESSES: [AtomicU64; VCPUS] = [const { AtomicU64::new(0) }; VCPUS];
static START: Barrier = Barrier::new(COUNT);
static WATCH: Watch = Watch::new();

fn stage() -> &'static Stage {
    STAGE.get().expect("set up first of all")
}

fn run(tap: &mut Tap) {
    let pages: [Frame; PAGES as usize] = core::array::from_fn(|_| page());
    for (page, number) in pages.iter().zip(0..) {
        store(page.address(), number);
    }
    let map = || Mapping::own(&[pages[0].mfn().0], Access::ReadWrite).expect("own memory can be mapped");
    let (window, own) = (map(), core::array::from_fn(|_| map()));
    STAGE.call_once(|| Stage { pages, window, own });
    for (way, name) in WAYS.iter().enumerate() {
        WAY.store(way, SeqCst);
        on_all(versions);
        WATCH.verdict(tap, name);
    }
    on_all(all_at_once);
    WATCH.verdict(tap, "all vCPUs change mappings and flush each other at the same time");
}

/// What the window is in a version: the page, and whether it is writable.
fn plan(version: u64) -> Option<(u64, bool)> {
    let page = version / 4 % PAGES;
    match version % 4 {
        0 | 1 => Some((page, true)),
        2 => Some((page, false)),
        _ => None,
    }
    .map(|(page, writable)| if version % 4 == 1 { ((page + PAGES / 2) % PAGES, writable) } else { (page, writable) })
}

fn entry(version: u64) -> u64 {
    plan(version).map_or(0, |(page, writable)| {
        stage().pages[page as usize].mfn().0 << 12 | if writable { READ_WRITE } else { READ_ONLY }
    })
}

/// Changes the entry of `va`, and flushes.
fn change(way: usize, va: u64, entry: u64) -> Result<(), Errno> {
    // The mask is wider than there are vCPUs.
    let mut mask = [0xffu64];
    let pointer = address_of(&mut mask);
    if way < 4 {
        let flags =
            [UVMF_INVLPG | UVMF_ALL, UVMF_TLB_FLUSH | UVMF_ALL, pointer | UVMF_INVLPG, pointer | UVMF_TLB_FLUSH];
        return update_va_mapping(va, entry, flags[way]);
    }
    mmu_update(table::slot(va).expect("the window has its tables"), entry)?;
    let cmd = [MMUEXT_INVLPG_ALL, MMUEXT_TLB_FLUSH_ALL, MMUEXT_INVLPG_MULTI, MMUEXT_TLB_FLUSH_MULTI][way - 4];
    let mut op = MmuextOp { cmd, _pad: 0, arg1: va, arg2: pointer };
    call(HYPERVISOR_MMUEXT_OP, [address_of(&mut op), 1, 0, DomId::SELF.0.into()]).map(drop)
}

fn versions() {
    let me = smp::index();
    START.wait();
    if me == WAY.load(SeqCst) % VCPUS {
        lead();
        OVER.store(true, SeqCst);
    } else {
        follow();
    }
    START.wait();
    OVER.store(false, SeqCst);
    START.wait();
}

/// The word of a page that a vCPU writes to.
fn word(vcpu: usize) -> u64 {
    8 * (1 + vcpu as u64)
}

fn lead() {
    let (stage, way) = (stage(), WAY.load(SeqCst));
    let end = time::now() + PATIENCE;
    // What was in the writers' words when the page had become read-only or gone.
    let mut sealed = [None; PAGES as usize];
    let words = |page: u64| -> [u64; VCPUS] {
        core::array::from_fn(|vcpu| load(stage.pages[page as usize].address() + word(vcpu)))
    };
    let unseal = |sealed: &mut [Option<[u64; VCPUS]>], page: u64| {
        if let Some(before) = sealed[page as usize].take() {
            WATCH.check(before == words(page), format_args!("page {page} was written to while it was not mapped"));
        }
    };
    let first = DONE.load(SeqCst);
    for version in first + 1..=first + VERSIONS {
        // Everybody has used the present version, so it is in the TLBs.
        let seen: [u64; VCPUS] = core::array::from_fn(|vcpu| ACCESSES[vcpu].load(SeqCst));
        for (vcpu, seen) in seen.into_iter().enumerate().filter(|&(vcpu, _)| vcpu != smp::index()) {
            while ACCESSES[vcpu].load(SeqCst) < seen + 2 {
                smp::relax();
            }
        }
        if let Some((page, true)) = plan(version) {
            unseal(&mut sealed, page);
        }
        BEGUN.store(version, SeqCst);
        let changed = change(way, stage.window.address(), entry(version));
        DONE.store(version, SeqCst);
        WATCH.check(changed.is_ok(), format_args!("version {version}: {changed:?}"));
        if let Some((page, true)) = plan(version - 1)
            && plan(version) != Some((page, true))
        {
            sealed[page as usize] = Some(words(page));
        }
        if time::now() > end {
            break;
        }
    }
    (0..PAGES).for_each(|page| unseal(&mut sealed, page));
}

fn follow() {
    let (me, va) = (smp::index(), stage().window.address());
    let mut random = Random::new(me as u64);
    let mut value = 0;
    while !OVER.load(SeqCst) {
        value += 1;
        let from = DONE.load(SeqCst);
        if random.below(2) == 0 {
            let seen = traps::peek(va);
            let to = BEGUN.load(SeqCst);
            let fits = (from..=to).any(|version| plan(version).map(|(page, _)| page) == seen);
            WATCH.check(fits, format_args!("in versions {from} to {to} read {seen:?}"));
        } else {
            let written = trap_of(|| store(va + word(me), value)).is_none();
            let to = BEGUN.load(SeqCst);
            let fits = (from..=to).any(|version| plan(version).is_some_and(|(_, writable)| writable) == written);
            WATCH.check(fits, format_args!("in versions {from} to {to} written: {written}"));
        }
        ACCESSES[me].fetch_add(1, SeqCst);
        if random.below(64) == 0 {
            smp::relax();
        }
    }
}

fn all_at_once() {
    let me = smp::index();
    let (stage, va) = (stage(), stage().own[me].address());
    let mut random = Random::new(me as u64 + 100);
    let end = time::now() + PATIENCE;
    START.wait();
    for _ in 0..VERSIONS {
        let page = random.below(PAGES as usize);
        let changed = change(random.below(WAYS.len()), va, stage.pages[page].mfn().0 << 12 | READ_ONLY);
        WATCH.check(changed.is_ok(), format_args!("{changed:?}"));
        let seen = traps::peek(va);
        WATCH.check(seen == Some(page as u64), format_args!("mapped page {page}, read {seen:?}"));
        // The others' windows are there too, whatever they show.
        for other in &stage.own {
            WATCH.check(traps::peek(other.address()).is_some(), format_args!("another window is gone"));
        }
        if time::now() > end {
            break;
        }
    }
}

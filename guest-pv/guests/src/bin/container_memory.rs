//! The memory of a domain in a hardware container, as the domain that builds it works on it: ranges that end in the middle of a
//! large page while there is no memory for tables, extents over others, pages that come while it dies. When it is gone, every
//! page is back.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering::SeqCst};
use guest_pv::alloc::vec::Vec;
use guest_pv::call::{domctl, memory, sysctl};
use guest_pv::smp::Barrier;
use guest_pv::tap::Tap;
use guest_pv::{Mode, events, mode, smp as vcpus, time};
use guests::container::{Boxed, CODE};
use guests::smp::{COUNT, Random, on_all};
use xen_abi::Errno;
use xen_abi::ids::DomId;
use xen_abi::memory::XENMAPSPACE_GMFN;

guest_pv::test!(run);

const LARGE: u64 = 512;
/// Large pages, each with small ones before it.
const PARTS: u64 = 8;
/// Guest frame numbers of the first, which nothing else has.
const FIRST: u64 = 0x800;
/// How many small pages there are before each.
const SMALL: u64 = 31;
const ROUNDS: usize = 24;
/// Rounds after which everything that is kept for good has been made.
const WARM: usize = 4;

fn run(tap: &mut Tap) {
    if mode() == Mode::Pvh || Boxed::new(&[]).is_none() {
        return tap.skip("the memory of domains in containers", "a domain that makes none, or there are none");
    }
    let before = free();
    without_tables(tap);
    tap.ok(is_back(before), "every page of it is back");
    over_others(tap);
    tap.ok(is_back(before), "every page is back again");
    dying(tap);
}

fn free() -> u64 {
    sysctl::physinfo().map_or(0, |info| info.free_pages)
}

/// Whether as much memory is free within five seconds.
fn is_back(before: u64) -> bool {
    (0..5000).any(|_| {
        time::sleep(1_000_000);
        free() >= before
    })
}

/// A domain with room for 64 MiB.
fn roomy() -> Option<Boxed> {
    let boxed = Boxed::new(&[])?;
    domctl::max_mem(boxed.id, 64 << 10).ok()?;
    Some(boxed)
}

/// How many extents of one order there are now.
fn fill(id: DomId, first: u64, count: u64, order: u32) -> u64 {
    let mut list: Vec<u64> = (0..count).map(|at| first + (at << order)).collect();
    memory::populate_physmap(id, &mut list, order, 0).unwrap_or(0) as u64
}

fn without_tables(tap: &mut Tap) {
    let Some(boxed) = roomy() else { return };
    let large = |part: u64| FIRST + part * 2 * LARGE;
    let filled = (0..PARTS)
        .all(|part| fill(boxed.id, large(part) - SMALL, SMALL, 0) == SMALL && fill(boxed.id, large(part), 1, 9) == 1);
    tap.ok(filled, "a domain gets large pages and small ones before them");
    let mut pool = 2 << 20;
    while pool > 4096 && domctl::set_paging_mempool_size(boxed.id, pool - 4096).is_ok() {
        pool -= 4096;
    }
    tap.note(format_args!("its tables have {pool} bytes"));
    let given: Vec<_> =
        (0..PARTS).map(|part| memory::decrease_reservation(boxed.id, &[large(part) - SMALL], 9)).collect();
    tap.note(format_args!("taken: {given:?}"));
    tap.ok(given.contains(&Ok(0)), "some large pages cannot be split");
    let left = domctl::get_domain_info(boxed.id).map_or(0, |info| info.tot_pages);
    tap.ok(left >= LARGE, "so they are there");
}

fn over_others(tap: &mut Tap) {
    let Some(boxed) = roomy() else { return };
    let id = boxed.id;
    tap.is(fill(id, FIRST, 1, 9), 1, "a large page");
    tap.is(fill(id, FIRST, 1, 9), 1, "another one in its place");
    tap.is(memory::decrease_reservation(id, &[FIRST], 9), Ok(1), "which is given back whole");
    tap.is(memory::decrease_reservation(id, &[FIRST], 0), Ok(0), "so nothing is there");
    tap.is(fill(id, FIRST + LARGE, LARGE, 0), LARGE, "small pages");
    tap.is(fill(id, FIRST + LARGE, 1, 9), 1, "a large one in their place");
    tap.is(memory::decrease_reservation(id, &[FIRST + LARGE], 9), Ok(1), "which is given back");
    let moved = memory::add_to_physmap(id, XENMAPSPACE_GMFN, CODE >> 12, FIRST);
    tap.is(moved, Ok(()), "a page is put elsewhere");
    tap.is(memory::decrease_reservation(id, &[FIRST], 0), Ok(1), "and is there");
}

static CHILD: AtomicU16 = AtomicU16::new(0);
static RACE: AtomicBool = AtomicBool::new(false);
static BARRIER: Barrier = Barrier::new(COUNT);
static SEEDS: AtomicU64 = AtomicU64::new(1);
static COME: AtomicU64 = AtomicU64::new(0);
static FREE: [AtomicU64; ROUNDS] = [const { AtomicU64::new(0) }; ROUNDS];

/// Three vCPUs give it memory while the fourth destroys it.
fn dying(tap: &mut Tap) {
    events::set_upcall_mask(true);
    on_all(live);
    tap.note(format_args!("extents that came: {}", COME.load(SeqCst)));
    tap.ok(COME.load(SeqCst) > 0, "a domain is given memory by three vCPUs while it is destroyed");
    let free = FREE.each_ref().map(|free| free.load(SeqCst));
    tap.is(free[ROUNDS - 1], free[WARM], "no page is lost by that");
}

fn live() {
    events::set_upcall_mask(true);
    let mut random = Random::new(SEEDS.fetch_add(1, SeqCst));
    for free_now in &FREE {
        if vcpus::index() != 0 {
            BARRIER.wait();
            while RACE.load(SeqCst) {
                work(&mut random);
            }
            BARRIER.wait();
            continue;
        }
        let boxed = roomy().expect("there was one before");
        let id = boxed.id;
        assert_eq!(fill(id, FIRST, 3000, 0), 3000, "there is memory");
        CHILD.store(id.0, SeqCst);
        RACE.store(true, SeqCst);
        BARRIER.wait();
        wait(1_000_000 * random.below(3) as u64);
        drop(boxed);
        wait(1_000_000);
        RACE.store(false, SeqCst);
        BARRIER.wait();
        let until = time::now() + 5_000_000_000;
        while domctl::destroy_domain(id) != Err(Errno::ESRCH) {
            assert!(time::now() < until, "it ends");
        }
        free_now.store(free(), SeqCst);
    }
}

/// Without sleep: events are off.
fn wait(nanos: u64) {
    let until = time::now() + nanos;
    while time::now() < until {
        vcpus::relax();
    }
}

/// Pages at numbers that have none, or have some.
fn work(random: &mut Random) {
    let id = DomId(CHILD.load(SeqCst));
    let at = FIRST + random.below(0x2000) as u64;
    let came = match random.below(4) {
        0 => fill(id, at & !(LARGE - 1), 1, 9),
        1 => memory::decrease_reservation(id, &[at], 0).unwrap_or(0) as u64,
        2 => u64::from(memory::add_to_physmap(id, XENMAPSPACE_GMFN, at, at << 8).is_ok()),
        _ => fill(id, at << 6, 4, 0),
    };
    COME.fetch_add(came, SeqCst);
}

//! CPUs and domains that change pools all the time while others run: nobody is forgotten. And pools with the scheduler null:
//! each vCPU has a CPU for itself, or waits until there is one.
//!
//! Not for Xen: Debian's 4.17 has no null, and stops with a page fault of its own when a CPU that is in use leaves and enters
//! a pool often enough.
#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_pv::call::domctl;
use guest_pv::tap::Tap;
use guest_pv::time;
use guests::domain::Tiny;
use guests::pools::*;
use xen_abi::Errno;
use xen_abi::domctl::{XEN_SCHEDULER_CREDIT, XEN_SCHEDULER_CREDIT2, XEN_SCHEDULER_NULL};

guest_pv::test!(run);

fn run(tap: &mut Tap) {
    moves(tap, XEN_SCHEDULER_CREDIT2, "credit2");
    moves(tap, XEN_SCHEDULER_CREDIT, "credit");
    null(tap);
    tap.is((info(0).map(|pool| pool.cpus), free()), (Ok(0b1111), 0), "all CPUs are where they were");
}

fn number(hog: &Tiny) -> u32 {
    hog.id.0.into()
}

fn moves(tap: &mut Tap, sched: u32, name: &str) {
    let hogs: [Tiny; 6] = core::array::from_fn(|_| hog());
    hogs.iter().for_each(start);
    let pool = create(ANY, sched).unwrap_or(0);
    let mut done = remove(0, 2).is_ok() && add(pool, 2).is_ok();
    done &= hogs[..3].iter().all(|hog| migrate(number(hog), pool).is_ok());
    tap.ok(done, &guest_pv::alloc::format!("three of six domains go to a pool with {name}"));
    for _ in 0..100 {
        done &= remove(0, 3).is_ok() && add(pool, 3).is_ok();
        time::sleep(MILLISECOND);
        done &= remove(pool, 3).is_ok() && add(0, 3).is_ok();
    }
    tap.ok(done, "a CPU goes from pool to pool and back, a hundred times");
    tap.ok(hogs.iter().all(goes_on), "and nobody is forgotten");
    for round in 0..100 {
        let hog = number(&hogs[round % 6]);
        done &= migrate(hog, 0).is_ok() && migrate(hog, pool).is_ok();
    }
    tap.ok(done, "domains go from pool to pool and back, a hundred times");
    tap.ok(hogs.iter().all(goes_on), "and go on");
    for round in 0..100 {
        done &= remove(0, 1).is_ok() && tie(&hogs[round % 6], 0b0100).is_ok() && add(0, 1).is_ok();
        done &= tie(&hogs[round % 6], 0xff).is_ok();
    }
    tap.ok(done, "they are tied and freed while a CPU is away, a hundred times");
    tap.ok(hogs.iter().all(goes_on), "and go on");
    drop(hogs);
    tap.ok(comes_true(|| info(pool).is_ok_and(|pool| pool.domains == 0)), "all are gone");
    tap.is((remove(pool, 2), destroy(pool), add(0, 2)), (Ok(()), Ok(()), Ok(())), "and so is the pool");
}

/// Whether a domain gets no time, once it has had time to leave its CPU.
fn waits(hog: &Tiny) -> bool {
    comes_true(|| rests(hog))
}

fn null(tap: &mut Tap) {
    let pool = create(ANY, XEN_SCHEDULER_NULL);
    tap.ok(pool.is_ok(), "a pool with null");
    let pool = pool.unwrap_or(0);
    tap.is(info(pool).map(|pool| pool.sched), Ok(XEN_SCHEDULER_NULL), "that is its scheduler");
    for cpu in [2, 3] {
        tap.is((remove(0, cpu), add(pool, cpu)), (Ok(()), Ok(())), "it gets a CPU");
    }
    let hogs: [Tiny; 3] = core::array::from_fn(|_| hog());
    for hog in &hogs {
        start(hog);
        tap.is(migrate(number(hog), pool), Ok(()), "and a domain");
        time::sleep(5 * MILLISECOND);
    }
    let [first, second, third] = &hogs;
    tap.ok(goes_on(first) && goes_on(second), "the first two run");
    tap.ok(waits(third), "the third one waits");
    tap.ok(cpu_of(first) != cpu_of(second), "each on its own CPU");
    let used = |hog: &Tiny| domctl::get_domain_info(hog.id).map_or(0, |info| info.cpu_time);
    let (before, began) = (used(first) + used(second), time::now());
    time::sleep(300 * MILLISECOND);
    let share = (used(first) + used(second) - before) * 100 / (time::now() - began).max(1);
    tap.ok(share > 150, "both all the time");
    tap.note(format_args!("{share} % of a CPU"));
    tap.is(domctl::pause_domain(first.id), Ok(()), "who is paused");
    tap.ok(waits(third), "keeps its CPU");
    tap.is(domctl::unpause_domain(first.id), Ok(()), "for afterwards");
    tap.ok(goes_on(first), "when it runs again");
    tap.is(migrate(number(first), 0), Ok(()), "who leaves");
    tap.ok(goes_on(third), "lets the one that waits run");
    tap.ok(goes_on(first), "and runs elsewhere");
    tap.is(migrate(number(first), pool), Ok(()), "it comes back");
    tap.ok(waits(first), "and waits now");
    while let Err(Errno::EAGAIN | Errno::ERESTART) = domctl::destroy_domain(second.id) {}
    tap.ok(goes_on(first) && goes_on(third), "until another one is destroyed");
    tap.is(remove(pool, 3), Ok(()), "a CPU goes");
    tap.ok(comes_true(|| rests(first) != rests(third)), "one of the two has none");
    tap.is(add(pool, 3), Ok(()), "it comes back");
    tap.ok(goes_on(first) && goes_on(third), "both have one");
    let cpu = cpu_of(first);
    tap.is(tie(first, 1 << (5 - cpu)), Ok(()), "one is tied to the other's CPU");
    tap.ok(waits(first) && goes_on(third), "which stays the other's");
    tap.is(tie(first, 0xff), Ok(()), "it is freed");
    tap.ok(goes_on(first) && goes_on(third), "both run");
    drop(hogs);
    tap.ok(comes_true(|| info(pool).is_ok_and(|pool| pool.domains == 0)), "all are gone");
    for cpu in [2, 3] {
        tap.is((remove(pool, cpu), add(0, cpu)), (Ok(()), Ok(())), "a CPU goes back");
    }
    tap.is(destroy(pool), Ok(()), "the pool goes");
}

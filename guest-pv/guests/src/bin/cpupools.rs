//! Pools of CPUs: made, filled, emptied; domains that move between them and go on running; each with a scheduler of its own.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(unsafe_code)] // Structures of hypercalls.

use guest_pv::call::{domctl, sysctl};
use guest_pv::tap::Tap;
use guest_pv::time;
use guests::domain::Tiny;
use guests::pools::*;
use xen_abi::Errno;
use xen_abi::domctl::SchedulerOp as SchedulerOpOfDomain;
use xen_abi::domctl::*;
use xen_abi::ids::DomId;
use xen_abi::sysctl::SchedulerOp;
use xen_abi::sysctl::*;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

guest_pv::test!(run);

/// There is no pool of that number.
const NO_POOL: u32 = 77;

fn run(tap: &mut Tap) {
    tap.is(
        info(0),
        Ok(Pool { id: 0, sched: XEN_SCHEDULER_CREDIT2, domains: 1, cpus: 0b1111 }),
        "at first there is one pool with all CPUs and the control domain",
    );
    tap.is(info(1), Err(Errno::ENOENT), "and no other one");
    tap.is(free(), 0, "and no CPU outside");
    tap.is(operation(0, 0, |_| {}), Err(Errno::ENOSYS), "there is no operation 0");
    tap.is(operation(8, 0, |_| {}), Err(Errno::ENOSYS), "nor 8");

    tap.is(create(ANY, XEN_SCHEDULER_CREDIT2), Ok(1), "a second pool has the next number");
    tap.is(create(1, XEN_SCHEDULER_CREDIT2), Err(Errno::EEXIST), "which is taken then");
    tap.is(create(5, 99), Err(Errno::ENOENT), "there is no scheduler 99");
    tap.is(info(5), Err(Errno::ENOENT), "so there is no pool 5");
    tap.is(create(9, XEN_SCHEDULER_CREDIT), Ok(9), "a third one with a number of its own");
    tap.is(info(2).map(|pool| (pool.id, pool.sched)), Ok((9, XEN_SCHEDULER_CREDIT)), "is told as the next after 2");
    tap.is(destroy(9), Ok(()), "it goes");
    tap.is(destroy(9), Err(Errno::ENOENT), "once");
    tap.is(destroy(0), Err(Errno::EBUSY), "the first one stays: it is in use");

    cpus(tap);
    domains(tap);
    credit(tap);
    tap.is(destroy(1), Ok(()), "the second pool goes");
    // Xen counts a domain for a moment after it was destroyed.
    tap.ok(
        comes_true(|| info(0).is_ok_and(|pool| (pool.domains, pool.cpus) == (1, 0b1111))),
        "and the first has what it had at the beginning",
    );
}

fn cpus(tap: &mut Tap) {
    tap.is(add(1, ANY), Err(Errno::ENODEV), "no CPU is free");
    tap.is(add(1, 2), Err(Errno::ENODEV), "not that one either");
    tap.is(add(1, 4000), Err(Errno::EINVAL), "there is no CPU 4000");
    tap.is(add(NO_POOL, ANY), Err(Errno::ENOENT), "nor a pool 77");
    tap.is(remove(0, 0), Err(Errno::EINVAL), "CPU 0 does not leave the first pool");
    tap.is(remove(0, 4000), Err(Errno::EINVAL), "nor does one that there is not");
    tap.is(remove(1, 2), Err(Errno::EADDRNOTAVAIL), "nor does a CPU leave a pool that it is not in");
    tap.is(remove(1, ANY), Err(Errno::EINVAL), "an empty pool has none to leave");
    tap.is(remove(NO_POOL, 1), Err(Errno::ENOENT), "nor has no pool");
    tap.is(remove(0, ANY), Ok(()), "any CPU of the first pool");
    tap.is(free(), 0b1000, "is the highest");
    tap.is(info(0).map(|pool| pool.cpus), Ok(0b0111), "which the pool has no longer");
    tap.is(remove(0, 3), Err(Errno::EADDRNOTAVAIL), "and cannot lose again");
    let config = |cpupool_id| CreateDomain {
        max_vcpus: 1,
        max_evtchn_port: 1023,
        max_grant_frames: 4,
        max_maptrack_frames: 4,
        grant_opts: 1,
        cpupool_id,
        ..Default::default()
    };
    tap.is(domctl::create_domain(DomId(0), &config(1)).err(), Some(Errno::ENODEV), "no domain in a pool without CPUs");
    tap.is(domctl::create_domain(DomId(0), &config(NO_POOL)).err(), Some(Errno::ESRCH), "nor in no pool");
    tap.is(migrate(0, 1), Err(Errno::EPERM), "the caller itself does not move");
    tap.is(migrate(999, 1), Err(Errno::ESRCH), "nor does a domain that there is not");
    tap.is(add(1, ANY), Ok(()), "the free CPU goes to the second pool");
    tap.is(info(1).map(|pool| pool.cpus), Ok(0b1000), "which has it then");
    tap.is(destroy(1), Err(Errno::EBUSY), "and stays while it has");
    let inside = domctl::create_domain(DomId(0), &config(1));
    let id = inside.unwrap_or(DomId(0));
    tap.is(domctl::get_domain_info(id).map(|info| info.cpupool), Ok(1), "a domain is created in it");
    tap.is(info(1).map(|pool| pool.domains), Ok(1), "and counted");
    tap.is(remove(1, 3), Err(Errno::EBUSY), "its last CPU stays while a domain is there");
    while let Err(Errno::EAGAIN | Errno::ERESTART) = domctl::destroy_domain(id) {}
    tap.ok(comes_true(|| info(1).is_ok_and(|pool| pool.domains == 0)), "destroyed, it is counted no longer");
}

fn domains(tap: &mut Tap) {
    let hogs: [Tiny; 3] = core::array::from_fn(|_| hog());
    hogs.iter().for_each(start);
    tap.ok(hogs.iter().all(goes_on), "three domains run in the first pool");
    let [first, second, third] = &hogs;
    let id = |hog: &Tiny| u32::from(hog.id.0);
    tap.is(migrate(id(first), NO_POOL), Err(Errno::ENOENT), "one cannot go to a pool that there is not");
    tap.is(create(2, XEN_SCHEDULER_CREDIT2), Ok(2), "nor to");
    tap.is(migrate(id(first), 2), Err(Errno::ENOENT), "one without a CPU");
    tap.is(destroy(2), Ok(()), "which goes");
    tap.is(migrate(id(first), 0), Ok(()), "to its own it can: nothing happens");

    domctl::set_credit2(first.id, SchedCredit2 { weight: 700, cap: 40 }).expect("parameters");
    tap.is(tie(first, 0b0010), Ok(()), "one is tied to CPU 1");
    tap.is(migrate(id(first), 1), Ok(()), "and moves to the second pool");
    tap.is(pool_of(first), 1, "where it is");
    tap.is(affinity(first), 0b1111, "tied to nothing");
    let parameters = domctl::credit2(first.id).map(|info| (info.weight, info.cap));
    tap.is(parameters, Ok((256, 0)), "with weight and cap of a new domain");
    tap.ok(goes_on(first), "it goes on running");
    tap.ok(comes_true(|| cpu_of(first) == 3), "on the CPU of that pool");
    tap.is(tie(first, 0b0001), Err(Errno::EINVAL), "it cannot be tied to a CPU of another pool");
    tap.is(info(0).map(|pool| pool.domains), Ok(3), "three are left");
    tap.is(info(1).map(|pool| pool.domains), Ok(1), "one is there");
    tap.is(destroy(1), Err(Errno::EBUSY), "a pool with a domain stays");
    tap.is(migrate(id(second), 1), Ok(()), "another one follows");
    tap.ok(goes_on(first) && goes_on(second), "they share the CPU");

    tap.is(remove(0, 2), Ok(()), "a second CPU");
    tap.is(add(1, 2), Ok(()), "follows, too");
    tap.is(tie(second, 0b1000), Ok(()), "one of the two is tied to the other CPU");
    tap.is(tie(first, 0b0100), Ok(()), "and the other one to this");
    tap.ok(comes_true(|| cpu_of(first) == 2 && cpu_of(second) == 3), "where it runs");
    tap.is(remove(1, 3), Ok(()), "that CPU goes");
    tap.is(affinity(second), 0b1111, "so who was tied to it is free");
    tap.is(affinity(first), 0b0100, "who was not is as before");
    tap.ok(goes_on(first) && goes_on(second) && goes_on(third), "all go on");
    tap.is((cpu_of(first), cpu_of(second)), (2, 2), "on the CPU that is left");

    tap.is(add(0, 3), Ok(()), "the other one goes back");
    drop(hogs);
    tap.ok(comes_true(|| info(1).is_ok_and(|pool| pool.domains == 0)), "all are gone");
    tap.is(remove(1, 2), Ok(()), "now the last CPU can leave");
    tap.is((add(0, 2), free()), (Ok(()), 0), "and all are where they were");
}

fn settings(id: u32, sched: u32, cmd: u32, wanted: [u32; 3]) -> Result<[u32; 3], Errno> {
    let mut arg = SchedulerOp { cpupool_id: id, sched_id: sched, cmd, ..SchedulerOp::new_zeroed() };
    wanted.write_to_prefix(arg.u.as_mut_bytes()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: no pointers.
    unsafe { sysctl::payload(XEN_SYSCTL_SCHEDULER_OP, &mut arg) }?;
    <[u32; 3]>::read_from_prefix(arg.u.as_bytes()).map(|(is, _)| is).map_err(|_| Errno::EINVAL)
}

/// A pool with the scheduler credit.
fn credit(tap: &mut Tap) {
    const CREDIT: u32 = XEN_SCHEDULER_CREDIT;
    const PUT: u32 = XEN_SYSCTL_SCHEDOP_PUTINFO;
    const GET: u32 = XEN_SYSCTL_SCHEDOP_GETINFO;
    tap.is(create(4, CREDIT), Ok(4), "a pool with credit");
    tap.is(settings(4, CREDIT, GET, [0; 3]), Ok([30, 1000, 0]), "its slice, rate limit and delay");
    tap.is(settings(4, XEN_SCHEDULER_CREDIT2, GET, [0; 3]), Err(Errno::EINVAL), "credit2 is another scheduler");
    tap.is(settings(NO_POOL, CREDIT, GET, [0; 3]), Err(Errno::ESRCH), "in no pool there is none");
    tap.is(settings(4, CREDIT, 7, [30, 1000, 0]), Err(Errno::EINVAL), "an operation that there is not");
    for (wanted, why) in [
        ([0, 0, 0], "no slice"),
        ([1001, 1000, 0], "a slice above a second"),
        ([30, 50, 0], "a rate limit below 100 us"),
        ([30, 500_001, 0], "a rate limit above half a second"),
        ([1, 1001, 0], "a rate limit longer than the slice"),
    ] {
        tap.is(settings(4, CREDIT, PUT, wanted), Err(Errno::EINVAL), why);
    }
    tap.is(settings(4, CREDIT, PUT, [5, 0, 0]).map(drop), Ok(()), "a slice of 5 ms, no rate limit");
    tap.is(settings(4, CREDIT, GET, [0; 3]), Ok([5, 0, 0]), "is in force");
    tap.is((remove(0, 3), add(4, 3)), (Ok(()), Ok(())), "it gets a CPU");
    let hog = hog();
    start(&hog);
    let id = u32::from(hog.id.0);
    tap.is(migrate(id, 4), Ok(()), "and a domain");
    tap.ok(goes_on(&hog), "which runs");
    let op = |sched_id: u32, cmd: u32, weight: u16, cap: u16| {
        let mut arg = SchedulerOpOfDomain { sched_id, cmd, ..SchedulerOpOfDomain::new_zeroed() };
        let _ = SchedCredit { weight, cap }.write_to_prefix(arg.u.as_mut_bytes());
        // SAFETY: no pointers that anybody follows.
        unsafe { domctl::payload(XEN_DOMCTL_SCHEDULER_OP, hog.id, &mut arg) }?;
        let (is, _) = SchedCredit::read_from_prefix(arg.u.as_bytes()).map_err(|_| Errno::EINVAL)?;
        Ok((is.weight, is.cap))
    };
    let (put, get) = (XEN_DOMCTL_SCHEDOP_PUTINFO, XEN_DOMCTL_SCHEDOP_GETINFO);
    tap.is(op(CREDIT, get, 0, 0), Ok((256, 0)), "its weight and cap");
    tap.is(op(XEN_SCHEDULER_CREDIT2, get, 0, 0), Err(Errno::EINVAL), "credit2's are not asked for");
    tap.is(op(CREDIT, put, 512, u16::MAX).map(drop), Ok(()), "another weight");
    tap.is(op(CREDIT, get, 0, 0), Ok((512, 0)), "and the cap as it was");
    tap.is(op(CREDIT, put, 0, 50).map(drop), Ok(()), "a cap");
    tap.is(op(CREDIT, get, 0, 0), Ok((512, 50)), "and the weight as it was");
    let used = || domctl::get_domain_info(hog.id).map_or(0, |info| info.cpu_time);
    // When a busy machine lets one CPU of the emulated one wait, a second says nothing.
    let half = || {
        let (before, began) = (used(), time::now());
        time::sleep(1000 * MILLISECOND);
        let percent = (used() - before) * 100 / (time::now() - began).max(1);
        (35..=65).contains(&percent)
    };
    tap.ok((0..20).any(|_| half()), "it runs half the time");
    tap.is(migrate(id, 0), Ok(()), "it moves back");
    tap.ok(goes_on(&hog), "and goes on");
    tap.is((remove(4, 3), destroy(4), add(0, 3)), (Ok(()), Ok(()), Ok(())), "the pool goes");
}

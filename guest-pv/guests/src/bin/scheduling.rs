//! credit2 and credit: eight domains that always want to run share two CPUs by weight, keep to their caps, and do not keep
//! somebody waiting who runs little. This guest is the control domain, and the somebody.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(unsafe_code)] // The domains' programs are instructions.

use guest_pv::alloc::vec::Vec;
use guest_pv::call::{domctl, sysctl};
use guest_pv::tap::Tap;
use guest_pv::{alloc, time};
use guests::code;
use guests::domain::Tiny;
use xen_abi::Errno;
use xen_abi::domctl::{SchedulerOp, XEN_DOMCTL_SCHEDOP_GETVCPUINFO, XEN_DOMCTL_SCHEDULER_OP};
use xen_abi::domctl::{XEN_SCHEDULER_CREDIT, XEN_SCHEDULER_CREDIT2};
use xen_abi::ids::{DomId, VcpuId};
use xen_abi::sysctl::{XEN_SYSCTL_SCHEDOP_GETINFO, XEN_SYSCTL_SCHEDOP_PUTINFO};
use zerocopy::FromZeros;

guest_pv::test!(run);

const SECOND: u64 = 1_000_000_000;
const MILLISECOND: u64 = 1_000_000;
/// Of a CPU, in percent of what is wanted.
const TOLERANCE: u64 = 2;

fn run(tap: &mut Tap) {
    let hogs: Vec<Tiny> = (0..8).map(|_| Tiny::new(code!("2:", "pause", "jmp 2b"))).collect();
    let scheduler = sysctl::sched_id().expect("a scheduler");
    match scheduler {
        XEN_SCHEDULER_CREDIT => credit_parameters(tap, &hogs[0]),
        _ => parameters(tap, &hogs[0]),
    }
    for hog in &hogs {
        domctl::set_vcpu_context(hog.id, VcpuId(0), &hog.context()).expect("a state");
        domctl::unpause_domain(hog.id).expect("it runs");
    }
    if scheduler == XEN_SCHEDULER_CREDIT {
        // Whoever has a CPU keeps it for a slice: the usual 30 ms are two percent of a share in these seconds.
        weights_to(tap, &hogs, [256; 8], 30 * MILLISECOND);
        let shorter = [5, 1000, 0];
        let set = sysctl::schedule(0, XEN_SCHEDULER_CREDIT, XEN_SYSCTL_SCHEDOP_PUTINFO, shorter);
        tap.is(set, Ok(shorter), "a slice of 5 ms");
    }
    weights(tap, &hogs, [256; 8]);
    weights(tap, &hogs, [512, 256, 256, 128, 128, 256, 384, 128]);
    sleeper(tap);
    caps(tap, &hogs);
    together(tap, &hogs);
}

fn set(hog: &Tiny, weight: u16, cap: u16) {
    let scheduler = sysctl::sched_id().expect("a scheduler");
    domctl::set_share(hog.id, scheduler, weight, cap).expect("the parameters are taken");
}

fn credit_parameters(tap: &mut Tap, hog: &Tiny) {
    let read = || domctl::share(hog.id, XEN_SCHEDULER_CREDIT);
    tap.is(read(), Ok((256, 0)), "a new domain's weight and cap");
    set(hog, 700, 30);
    tap.is(read(), Ok((700, 30)), "both are set");
    set(hog, 256, 0);
    tap.is(read(), Ok((256, 0)), "cap 0 takes the cap away");
    tap.is(domctl::credit2(hog.id).err(), Some(Errno::EINVAL), "another scheduler's parameters");
    let schedule = sysctl::schedule(0, XEN_SCHEDULER_CREDIT, XEN_SYSCTL_SCHEDOP_GETINFO, [0; 3]);
    tap.is(schedule, Ok([30, 1000, 0]), "the slice in ms, the rate limit in us, the migration delay");
}

fn parameters(tap: &mut Tap, hog: &Tiny) {
    let read = || domctl::credit2(hog.id).map(|info| (info.weight, info.cap));
    tap.is(read(), Ok((256, 0)), "a new domain's weight and cap");
    set(hog, 700, 30);
    tap.is(read(), Ok((700, 30)), "both are set");
    set(hog, 0, 0);
    tap.is(read(), Ok((700, 0)), "weight 0 leaves the weight, cap 0 takes the cap away");
    set(hog, 256, 0);
    let op = |sched_id: u32, cmd: u32| {
        let mut arg = SchedulerOp { sched_id, cmd, ..SchedulerOp::new_zeroed() };
        // SAFETY: no pointers that anybody follows.
        unsafe { domctl::payload(XEN_DOMCTL_SCHEDULER_OP, hog.id, &mut arg) }.map(drop)
    };
    tap.is(op(XEN_SCHEDULER_CREDIT, 1), Err(Errno::EINVAL), "another scheduler's parameters");
    tap.is(op(XEN_SCHEDULER_CREDIT2, XEN_DOMCTL_SCHEDOP_GETVCPUINFO), Err(Errno::EINVAL), "a vCPU has none of its own");
    tap.is(op(XEN_SCHEDULER_CREDIT2, 9), Err(Errno::EINVAL), "an operation that there is not");
    tap.is(domctl::credit2(DomId(999)).err(), Some(Errno::ESRCH), "a domain that there is not");
    let limit = sysctl::credit2_rate_limit();
    tap.is(limit, Ok(1000), "the rate limit");
    tap.is(sysctl::set_credit2_rate_limit(5), Err(Errno::EINVAL), "one that is too short");
    tap.is(sysctl::set_credit2_rate_limit(600_000), Err(Errno::EINVAL), "one that is too long");
    tap.is(sysctl::set_credit2_rate_limit(500), Ok(()), "another one");
    tap.is(sysctl::credit2_rate_limit(), Ok(500), "is in force");
    tap.is(sysctl::set_credit2_rate_limit(1000), Ok(()), "and the first one again");
}

/// The time that each ran meanwhile, and the time that passed.
fn measure(hogs: &[Tiny], span: u64) -> (Vec<u64>, u64) {
    // What was set before has to come into force.
    time::sleep(100 * MILLISECOND);
    let used = || -> Vec<u64> {
        hogs.iter().map(|hog| domctl::get_domain_info(hog.id).map_or(0, |info| info.cpu_time)).collect()
    };
    let (before, began) = (used(), time::now());
    time::sleep(span);
    let (after, ended) = (used(), time::now());
    (after.iter().zip(&before).map(|(after, before)| after - before).collect(), ended - began)
}

fn is_within(got: u64, want: u64) -> bool {
    got.abs_diff(want) * 100 <= want * TOLERANCE
}

fn weights(tap: &mut Tap, hogs: &[Tiny], weights: [u16; 8]) {
    weights_to(tap, hogs, weights, 0);
}

/// Within the tolerance and so many nanoseconds.
fn weights_to(tap: &mut Tap, hogs: &[Tiny], weights: [u16; 8], grain: u64) {
    for (hog, weight) in hogs.iter().zip(weights) {
        set(hog, weight, 0);
    }
    let (ran, _) = measure(hogs, 6 * SECOND);
    let (all, sum) = (ran.iter().sum::<u64>(), weights.iter().map(|weight| u64::from(*weight)).sum::<u64>());
    for (ran, weight) in ran.iter().zip(weights) {
        let want = all * u64::from(weight) / sum;
        let share = ran * 1000 / want.max(1);
        let fair = ran.abs_diff(want) <= want * TOLERANCE / 100 + grain;
        tap.ok(fair, &alloc::format!("weight {weight}: {share} per mille of its share"));
    }
}

/// How late a sleeper wakes up beside them.
fn sleeper(tap: &mut Tap) {
    let mut late: Vec<u64> = (0..300)
        .map(|_| {
            let due = time::now() + 3 * MILLISECOND;
            time::sleep(3 * MILLISECOND);
            time::now() - due
        })
        .collect();
    late.sort_unstable();
    let at = |percent: usize| late[late.len() * percent / 100 - 1] / 1000;
    tap.ok(at(90) < 3000, &alloc::format!("a sleeper wakes up in time: {} us late at most, 9 times of 10", at(90)));
    tap.note(format_args!("half: {} us, most: {} us", at(50), at(100)));
}

fn caps(tap: &mut Tap, hogs: &[Tiny]) {
    // Less than one CPU in all.
    let caps = [3, 5, 8, 12, 6, 10, 20, 15];
    for (hog, cap) in hogs.iter().zip(caps) {
        set(hog, 256, cap);
    }
    let (ran, passed) = measure(hogs, 6 * SECOND);
    for (ran, cap) in ran.iter().zip(caps) {
        let want = passed * u64::from(cap) / 100;
        let share = ran * 1000 / want.max(1);
        tap.ok(is_within(*ran, want), &alloc::format!("cap {cap}: {share} per mille of it"));
    }
}

/// What capped ones leave over goes to the others, by weight.
fn together(tap: &mut Tap, hogs: &[Tiny]) {
    let cpus = sysctl::physinfo().map_or(1, |info| info.nr_cpus);
    // Less than the share of one of eight.
    let cap = if cpus > 1 { 12 } else { 6 };
    for (n, hog) in hogs.iter().enumerate() {
        match n {
            0..4 => set(hog, 256, cap),
            n => set(hog, if n < 6 { 512 } else { 256 }, 0),
        }
    }
    let (ran, passed) = measure(hogs, 6 * SECOND);
    let rest: u64 = ran[4..].iter().sum();
    tap.ok(
        ran[..4].iter().all(|ran| is_within(*ran, passed * u64::from(cap) / 100)),
        "caps hold beside others without",
    );
    tap.ok(rest > passed * u64::from(cpus) / 2, "who may takes what they leave");
    let by_weight = [3, 3, 6, 6].iter().zip(&ran[4..]).all(|(part, ran)| is_within(*ran, rest / part));
    tap.ok(by_weight, &alloc::format!("by weight: {:?} of {rest}", &ran[4..]));
}

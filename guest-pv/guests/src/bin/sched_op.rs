//! `sched_op`: yield, block, poll, and what is refused. Shutting down is what every guest does last.
#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_pv::call::{domctl, sched};
use guest_pv::tap::Tap;
use guest_pv::{Mode, boot, events, mode, time};
use guests::{Cliff, address_of, call, op, store};
use xen_abi::Errno;
use xen_abi::domctl::*;
use xen_abi::hypercall::HYPERVISOR_SCHED_OP;
use xen_abi::ids::{DomId, Port};
use xen_abi::sched::*;

guest_pv::test!(run);

const MS: u64 = 1_000_000;
/// The half of a register that an `int` has not.
const HIGH: u64 = 0xffff_ffff << 32;

fn run(tap: &mut Tap) {
    tap.is(call(HYPERVISOR_SCHED_OP, [SCHEDOP_YIELD.into(), 0]), Ok(0), "yield");
    tap.is(call(HYPERVISOR_SCHED_OP, [SCHEDOP_YIELD.into(), 0x1000]), Ok(0), "yield has no argument");
    tap.is(call(HYPERVISOR_SCHED_OP, [HIGH | u64::from(SCHEDOP_YIELD), 0]), Ok(0), "a command is an int");

    let port = events::bind_ipi().expect("a free port");
    events::notify(port).expect("bound");
    if mode() == Mode::Pv {
        // A container blocks until an interrupt, and they are off here.
        tap.is(sched::block(), Ok(()), "block with an event pending returns");
    }
    tap.ok(!events::shared().is_empty() && events::is_pending(port), "the event is pending still");
    events::set_upcall_mask(true);
    events::clear(port);
    while events::poll().is_some() {}
    let start = time::now();
    events::wait(Some(start + 10 * MS));
    tap.ok(time::has_come(start + 10 * MS), "block sleeps until the timer");

    let other = events::bind_ipi().expect("a free port");
    events::mask(port);
    events::mask(other);
    events::notify(other).expect("bound");
    tap.is(sched::poll(&[port, other], 0), Ok(()), "poll returns when one of its ports is pending");
    tap.is(sched::poll(&[other, Port(1 << 20)], 0), Ok(()), "what is behind it is not looked at");
    tap.is(sched::poll(&[Port(1 << 20), other], 0), Err(Errno::EINVAL), "what is before it is");
    if mode() == Mode::Pv {
        let cliff = Cliff::new();
        store(cliff.edge() - 8, u64::from(other.0) << 32);
        let mut beyond = SchedPoll { ports: cliff.edge() - 4, nr_ports: 2, _pad: 0, timeout: 0 };
        tap.is(op(HYPERVISOR_SCHED_OP, SCHEDOP_POLL, &mut beyond), Ok(0), "and not even read");
    }
    events::clear(other);
    tap.is(sched::poll(&[port], time::now() + 5 * MS), Ok(()), "or at its deadline");
    tap.is(sched::poll(&[Port(1 << 20)], 1), Err(Errno::EINVAL), "a port that cannot be");
    let mut many = SchedPoll { ports: 0, nr_ports: 129, _pad: 0, timeout: 1 };
    tap.is(op(HYPERVISOR_SCHED_OP, SCHEDOP_POLL, &mut many), Err(Errno::EINVAL), "more than 128 ports");
    let mut missing = SchedPoll { ports: 0x1000, nr_ports: 1, _pad: 0, timeout: 1 };
    tap.is(op(HYPERVISOR_SCHED_OP, SCHEDOP_POLL, &mut missing), Err(Errno::EFAULT), "ports that are not mapped");
    tap.is(
        call(HYPERVISOR_SCHED_OP, [SCHEDOP_POLL.into(), 0x1000]),
        Err(Errno::EFAULT),
        "an argument that is not mapped",
    );

    tap.is(call(HYPERVISOR_SCHED_OP, [99, 0]), Err(Errno::ENOSYS), "an unknown command");
    tap.is(
        call(HYPERVISOR_SCHED_OP, [SCHEDOP_SHUTDOWN.into(), 0x1000]),
        Err(Errno::EFAULT),
        "shutdown without a reason",
    );
    tap.is(sched::remote_shutdown(DomId(1234), 0), Err(Errno::ESRCH), "shutting down a domain that does not exist");

    let watchdog = |id: u32, timeout: u32| {
        let mut argument = SchedWatchdog { id, timeout };
        call(HYPERVISOR_SCHED_OP, [SCHEDOP_WATCHDOG.into(), address_of(&mut argument)])
    };
    tap.is(watchdog(0, 100), Ok(1), "a watchdog");
    tap.is(watchdog(0, 100), Ok(2), "and another");
    // Xen 4.17 returns this error in 32 bits.
    let third = watchdog(0, 100).unwrap_or_else(Errno::as_ret);
    tap.is(third & 0xffff_ffff, Errno::ENOSPC.as_ret() & 0xffff_ffff, "but not a third");
    tap.is(watchdog(1, 200), Ok(0), "one is set anew");
    tap.is((watchdog(1, 0), watchdog(2, 0)), (Ok(0), Ok(0)), "both are stopped");
    tap.is(watchdog(1, 0), Err(Errno::EINVAL), "but not twice");
    tap.is(watchdog(9, 100), Err(Errno::EINVAL), "a watchdog that does not exist");

    let pin = |pcpu: i32| {
        let mut argument = SchedPinOverride { pcpu };
        call(HYPERVISOR_SCHED_OP, [SCHEDOP_PIN_OVERRIDE.into(), address_of(&mut argument)])
    };
    if !boot().is_initial_domain() {
        tap.is((pin(0), pin(-1)), (Err(Errno::EPERM), Err(Errno::EPERM)), "pinning is for the control domain");
        return;
    }
    tap.is(pin(-1), Err(Errno::EINVAL), "a vCPU that is not tied to a CPU cannot be let go");
    tap.is(pin(0), Ok(0), "it is tied to one");
    tap.is(pin(0), Err(Errno::EBUSY), "once");
    tap.is(pin(1 << 20), Err(Errno::EINVAL), "to one that there is");
    tap.is((pin(-1), pin(-1)), (Ok(0), Err(Errno::EINVAL)), "it is let go, once");
    events::close(port).expect("a port of ours");
    events::close(other).expect("a port of ours");
    reasons(tap);
}

/// Why another domain has stopped, as `XEN_DOMCTL_getdomaininfo` tells it. There are 8 bits for it, so no reason is none.
fn reasons(tap: &mut Tap) {
    let config = CreateDomain {
        max_vcpus: 1,
        max_evtchn_port: 8,
        max_grant_frames: 1,
        max_maptrack_frames: 1,
        grant_opts: 1,
        ..Default::default()
    };
    for (reason, told) in [(SHUTDOWN_REBOOT, SHUTDOWN_REBOOT), (0x1ff, 0xff), (0x100, 0), (u32::MAX, 0xff)] {
        let domain = domctl::create_domain(DomId(0), &config).expect("a domain can be created");
        domctl::max_vcpus(domain, 1).expect("it was created for one");
        let stopped = sched::remote_shutdown(domain, reason);
        let flags = domctl::get_domain_info(domain).expect("it is there").flags;
        let code = flags >> XEN_DOMINF_SHUTDOWNSHIFT & XEN_DOMINF_SHUTDOWNMASK;
        let told_so = (Ok(()), true, told);
        tap.is((stopped, flags & XEN_DOMINF_SHUTDOWN != 0, code), told_so, "a domain is stopped, and its reason told");
        while domctl::destroy_domain(domain).is_err() {}
    }
}

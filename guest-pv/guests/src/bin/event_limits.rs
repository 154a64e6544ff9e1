//! Event channels at their limits: what each way to bind says when there is no port, which ports may move to which vCPU,
//! VIRQs of vCPUs and of the domain, and what a reset leaves.
#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_pv::alloc::vec::Vec;
use guest_pv::call::{domctl, event_channel as ec};
use guest_pv::events::fifo::{Fifo, Page};
use guest_pv::tap::Tap;
use guest_pv::{boot, events};
use guests::{call, op};
use xen_abi::Errno;
use xen_abi::domctl::CreateDomain;
use xen_abi::event_channel::{
    EVTCHNOP_BIND_PIRQ, EVTCHNSTAT_CLOSED, EVTCHNSTAT_IPI, EVTCHNSTAT_UNBOUND, EVTCHNSTAT_VIRQ, EvtchnBindPirq,
};
use xen_abi::hypercall::{
    HYPERVISOR_EVENT_CHANNEL_OP, VIRQ_CON_RING, VIRQ_CONSOLE, VIRQ_DEBUG, VIRQ_DOM_EXC, VIRQ_TIMER, VIRQ_XENPMU,
};
use xen_abi::ids::{DomId, Port, VcpuId};

guest_pv::test!(run);

const V0: VcpuId = VcpuId(0);
const V1: VcpuId = VcpuId(1);
/// VIRQs that the ABI knows (`NR_VIRQS`).
const VIRQS: u32 = 24;

fn run(tap: &mut Tap) {
    virqs(tap);
    moving(tap);
    exhaustion(tap, "2-level");
    if boot().is_initial_domain() {
        other_domain(tap);
    }
    reset(tap);
    let mut fifo = Fifo::new();
    tap.is(fifo.init_control(&Page::new(), 0, V0), Ok(17), "the FIFO layout");
    fifo.expand(Page::new()).expect("there is room");
    virqs(tap);
    moving(tap);
    tap.is(ec::reset(DomId::SELF), Ok(()), "reset once more");
}

fn status_of(port: Port) -> (u32, u32, u32) {
    let status = ec::status(DomId::SELF, port).unwrap_or_default();
    (status.status, status.u, status.vcpu.0)
}

fn virqs(tap: &mut Tap) {
    let both = [V0, V1].map(|vcpu| ec::bind_virq(VIRQ_DEBUG, vcpu).expect("it is not bound"));
    tap.ok(both[0] != both[1], "a VIRQ of vCPUs is bound on each");
    tap.is(both.map(|port| status_of(port).2), [0, 1], "and told to each");
    tap.is(ec::bind_virq(VIRQ_DEBUG, V1), Err(Errno::EEXIST), "once");
    tap.is(ec::bind_vcpu(both[1], V0), Err(Errno::EINVAL), "it does not move");
    tap.is(ec::bind_vcpu(both[1], V1), Err(Errno::EINVAL), "not even to where it is");
    tap.is(ec::bind_virq(VIRQ_XENPMU, V1).map(|port| ec::close(port).is_ok()), Ok(true), "so is the PMU's");
    for virq in [VIRQ_CONSOLE, VIRQ_DOM_EXC, VIRQ_CON_RING] {
        tap.is(ec::bind_virq(virq, V1), Err(Errno::EINVAL), "a VIRQ of the domain is bound on vCPU 0");
    }
    let global = ec::bind_virq(VIRQ_CON_RING, V0).expect("it is not bound");
    tap.is(status_of(global), (EVTCHNSTAT_VIRQ, VIRQ_CON_RING, 0), "there");
    tap.is(ec::bind_virq(VIRQ_CON_RING, V0), Err(Errno::EEXIST), "once");
    tap.is(ec::bind_vcpu(global, V1), Ok(()), "and moves");
    tap.is(status_of(global), (EVTCHNSTAT_VIRQ, VIRQ_CON_RING, 1), "to another vCPU");
    tap.is(ec::bind_virq(VIRQ_CON_RING, V0), Err(Errno::EEXIST), "being bound all the same");
    tap.is(ec::close(global), Ok(()), "until it is closed");
    tap.is(status_of(global).0, EVTCHNSTAT_CLOSED, "for good");
    tap.is(ec::bind_virq(VIRQ_CON_RING, V0), Ok(global), "then it is bound again");
    tap.is(status_of(global).2, 0, "on vCPU 0");
    for virq in [VIRQS, VIRQS + 1, 1 << 16, 1 << 31, u32::MAX] {
        tap.is(ec::bind_virq(virq, V0), Err(Errno::EINVAL), "a VIRQ that does not exist");
    }
    tap.is(ec::bind_virq(VIRQ_DEBUG, VcpuId(2)), Err(Errno::ENOENT), "a vCPU that does not exist");
    tap.is(ec::bind_virq(VIRQ_TIMER, VcpuId(u32::MAX)), Err(Errno::ENOENT), "nor that one");
    tap.is(ec::bind_virq(VIRQ_CONSOLE, VcpuId(2)), Err(Errno::EINVAL), "for a VIRQ of the domain that is vCPU 0");
    for port in [both[0], both[1], global] {
        ec::close(port).expect("a port of ours");
    }
}

fn moving(tap: &mut Tap) {
    let unbound = ec::alloc_unbound(DomId::SELF, DomId(77)).expect("a free port");
    tap.is(ec::bind_vcpu(unbound, V1), Ok(()), "an unbound port moves");
    tap.is(status_of(unbound), (EVTCHNSTAT_UNBOUND, 77, 1), "before anybody binds to it");
    tap.is(ec::bind_vcpu(unbound, VcpuId(2)), Err(Errno::ENOENT), "to a vCPU that exists");
    let open = ec::alloc_unbound(DomId::SELF, DomId::SELF).expect("a free port");
    tap.is(ec::bind_vcpu(open, V1), Ok(()), "an offer");
    let bound = ec::bind_interdomain(DomId::SELF, open).expect("it is open");
    tap.is((status_of(open).2, status_of(bound).2), (1, 0), "keeps its vCPU when it is taken");
    tap.is(ec::bind_vcpu(bound, V1), Ok(()), "a connected port moves");
    tap.is(status_of(bound).2, 1, "and is there");
    tap.is(ec::close(bound), Ok(()), "it is closed");
    tap.is(status_of(bound), (EVTCHNSTAT_CLOSED, 0, 0), "which forgets the vCPU");
    tap.is(status_of(open).2, 1, "but not the other end's");
    let ipi = ec::bind_ipi(V1).expect("a free port");
    tap.is(status_of(ipi), (EVTCHNSTAT_IPI, 0, 1), "an IPI has its vCPU");
    tap.is(ec::bind_vcpu(ipi, V1), Err(Errno::EINVAL), "and does not move");
    tap.is(ec::bind_ipi(VcpuId(2)), Err(Errno::ENOENT), "if it exists");
    tap.is(ec::bind_vcpu(Port(0), V0), Err(Errno::EINVAL), "port 0 does not move");
    tap.is(ec::bind_vcpu(Port(61), V0), Err(Errno::EINVAL), "nor does a free port");
    tap.is(ec::bind_vcpu(Port(1 << 20), V0), Err(Errno::EINVAL), "nor one that cannot be");
    tap.is(ec::bind_vcpu(Port(1 << 20), VcpuId(2)), Err(Errno::ENOENT), "the vCPU is looked at first");
    for port in [unbound, open, ipi] {
        ec::close(port).expect("a port of ours");
    }
}

fn exhaustion(tap: &mut Tap, layout: &str) {
    let offer = ec::alloc_unbound(DomId::SELF, DomId::SELF).expect("a free port");
    let mut ports = Vec::new();
    let end = loop {
        match ec::bind_ipi(V0) {
            Ok(port) => ports.push(port),
            Err(errno) => break errno,
        }
    };
    tap.note(format_args!("{layout}: {} ports", ports.len()));
    tap.is(end, Errno::ENOSPC, "no port for an IPI");
    tap.is(ec::alloc_unbound(DomId::SELF, DomId::SELF), Err(Errno::ENOSPC), "nor for an offer");
    tap.is(ec::bind_interdomain(DomId::SELF, offer), Err(Errno::ENOSPC), "nor for a connection");
    tap.is(ec::bind_interdomain(DomId::SELF, Port(0)), Err(Errno::ENOSPC), "whatever it is to");
    tap.is(ec::bind_interdomain(DomId(1234), offer), Err(Errno::ESRCH), "but a domain that does not exist comes first");
    tap.is(status_of(offer).0, EVTCHNSTAT_UNBOUND, "which stays open");
    tap.is(ec::bind_virq(VIRQ_DEBUG, V1), Err(Errno::ENOSPC), "nor for a VIRQ");
    tap.is(ec::bind_virq(VIRQ_TIMER, V0), Err(Errno::EEXIST), "if it is not bound");
    tap.is(ec::bind_virq(99, V0), Err(Errno::EINVAL), "if it exists");
    tap.is(ec::bind_ipi(VcpuId(2)), Err(Errno::ENOENT), "if the vCPU exists");
    let last = ports.pop().expect("there are some");
    ec::close(last).expect("a port of ours");
    tap.is(ec::bind_virq(VIRQ_DEBUG, V1), Ok(last), "one port is enough");
    ec::close(last).expect("a port of ours");
    ports.into_iter().chain([offer]).for_each(|port| ec::close(port).expect("a port of ours"));
    let mut pirq = EvtchnBindPirq { pirq: 1 << 30, ..Default::default() };
    tap.is(op(HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_BIND_PIRQ, &mut pirq), Err(Errno::EINVAL), "no such interrupt");
}

fn create(max_evtchn_port: u32) -> Result<DomId, Errno> {
    let config = CreateDomain {
        max_vcpus: 1,
        max_evtchn_port,
        max_grant_frames: 1,
        max_maptrack_frames: 1,
        grant_opts: 1,
        ..Default::default()
    };
    domctl::create_domain(DomId(0), &config)
}

fn destroy(domain: DomId) {
    while domctl::destroy_domain(domain).is_err() {}
}

/// What `max_evtchn_port` of `XEN_DOMCTL_createdomain` allows.
fn other_domain(tap: &mut Tap) {
    for (highest, count) in [(0, 0), (1, 1), (10, 10), (64, 64)] {
        let domain = create(highest).expect("a domain can be created");
        let mut ports = 0;
        let end = loop {
            match ec::alloc_unbound(domain, DomId::SELF) {
                Ok(_) => ports += 1,
                Err(errno) => break errno,
            }
        };
        tap.is((ports, end), (count, Errno::ENOSPC), "a domain has the ports that it was created with");
        if highest == 10 {
            let port = ec::bind_interdomain(domain, Port(3)).expect("it is for us");
            tap.is(ec::status(domain, Port(3)).map(|status| status.interdomain_port), Ok(port), "they can be bound");
            tap.is(ec::reset(domain), Ok(()), "a paused domain can be reset by another");
            tap.is(status_of(port).0, EVTCHNSTAT_UNBOUND, "what was connected is open");
            tap.is(ec::alloc_unbound(domain, DomId::SELF), Ok(Port(1)), "and its ports are free");
            domctl::max_vcpus(domain, 1).expect("it may have one");
            domctl::unpause_domain(domain).expect("it was paused");
            tap.is(ec::reset(domain), Err(Errno::EINVAL), "one that is not paused cannot");
            ec::close(port).expect("a port of ours");
        }
        destroy(domain);
    }
    let domain = create(u32::MAX).expect("a domain can be created");
    tap.is(ec::alloc_unbound(domain, DomId::SELF), Ok(Port(1)), "a domain without limit");
    destroy(domain);
    tap.is(ec::reset(DomId(1234)), Err(Errno::ESRCH), "a domain that does not exist");
}

/// Leaves the runtime without its timer.
fn reset(tap: &mut Tap) {
    let ipi = ec::bind_ipi(V1).expect("a free port");
    let virq = ec::bind_virq(VIRQ_DEBUG, V1).expect("a free port");
    let open = ec::alloc_unbound(DomId::SELF, DomId::SELF).expect("a free port");
    let bound = ec::bind_interdomain(DomId::SELF, open).expect("it is open");
    ec::send(bound).expect("bound");
    tap.is(ec::reset(DomId::SELF), Ok(()), "the domain resets itself");
    for port in [ipi, virq, open, bound] {
        tap.is(status_of(port), (EVTCHNSTAT_CLOSED, 0, 0), "a port is closed");
    }
    tap.ok(!events::is_pending(open) && !events::is_pending(bound), "none is pending");
    tap.is(ec::bind_virq(VIRQ_DEBUG, V1), Ok(Port(1)), "a VIRQ can be bound again, on the first port");
    tap.is(call(HYPERVISOR_EVENT_CHANNEL_OP, [10, 0x1000]), Err(Errno::EFAULT), "a reset of nothing");
    ec::close(Port(1)).expect("a port of ours");
}

//! Event channels with the 2-level layout: every way to bind, pending and mask bits, upcalls, limits and errors.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(unsafe_code)] // Interrupts are let in.

use core::sync::atomic::{AtomicU32, Ordering};
use guest_pv::alloc::vec::Vec;
use guest_pv::call::{event_channel as ec, sched};
use guest_pv::tap::Tap;
use guest_pv::{Mode, events, mode, traps};
use guests::{call, me, op};
use xen_abi::Errno;
use xen_abi::arch_x86::{shared_info, vcpu_info};
use xen_abi::event_channel::{
    EVTCHNOP_BIND_INTERDOMAIN, EVTCHNOP_SEND, EVTCHNSTAT_CLOSED, EVTCHNSTAT_INTERDOMAIN, EVTCHNSTAT_IPI,
    EVTCHNSTAT_UNBOUND, EVTCHNSTAT_VIRQ, EvtchnStatus,
};
use xen_abi::hypercall::{HYPERVISOR_EVENT_CHANNEL_OP, VIRQ_DEBUG, VIRQ_TIMER};
use xen_abi::ids::{DomId, Port, VcpuId};

guest_pv::test!(run);

const NOBODY: DomId = DomId(1234);

fn run(tap: &mut Tap) {
    unbound(tap);
    interdomain(tap);
    virqs(tap);
    ipis(tap);
    bits(tap);
    upcalls(tap);
    errors(tap);
    limits(tap);
}

fn status(port: Port) -> EvtchnStatus {
    ec::status(DomId::SELF, port).unwrap_or_default()
}

fn unbound(tap: &mut Tap) {
    let port = ec::alloc_unbound(DomId::SELF, DomId::SELF).expect("a free port");
    tap.ok(port.0 != 0, "port 0 is never given out");
    tap.is(status(port).status, EVTCHNSTAT_UNBOUND, "a new port is unbound");
    tap.is(status(port).u & 0xffff, me().0.into(), "to this domain: DOMID_SELF is resolved");
    tap.is(ec::send(port), Ok(()), "sending to nobody is fine");
    tap.is(ec::close(port), Ok(()), "it can be closed");
    tap.is(status(port).status, EVTCHNSTAT_CLOSED, "and is closed");
    tap.is(ec::close(port), Err(Errno::EINVAL), "but once");
    tap.is(ec::alloc_unbound(DomId::SELF, DomId::SELF), Ok(port), "the lowest free port is given out");
    tap.is(ec::close(port), Ok(()), "and given back");
    tap.is(ec::alloc_unbound(NOBODY, DomId::SELF), Err(Errno::ESRCH), "a domain that does not exist");
    let strange = ec::alloc_unbound(DomId::SELF, NOBODY);
    tap.ok(strange.is_ok(), "for a domain that does not exist yet");
    strange.map(ec::close).ok();
}

fn interdomain(tap: &mut Tap) {
    let left = ec::alloc_unbound(DomId::SELF, DomId::SELF).expect("a free port");
    let right = ec::bind_interdomain(DomId::SELF, left).expect("an open port");
    tap.is(status(left).status, EVTCHNSTAT_INTERDOMAIN, "both ends are bound");
    tap.is(status(left).interdomain_port, right, "to each other");
    tap.is(status(right).interdomain_port, left, "and back");
    tap.is((events::is_pending(left), events::is_pending(right)), (false, true), "the binding end is pending at once");
    events::clear(right);
    tap.is(ec::bind_interdomain(DomId::SELF, left), Err(Errno::EINVAL), "a bound port is taken");
    tap.is(ec::send(left), Ok(()), "an event from the left");
    tap.is((events::is_pending(left), events::is_pending(right)), (false, true), "arrives on the right");
    events::clear(right);
    tap.is(ec::send(right), Ok(()), "an event from the right");
    tap.is((events::is_pending(left), events::is_pending(right)), (true, false), "arrives on the left");
    events::clear(left);
    tap.is(ec::close(right), Ok(()), "the right end is closed");
    tap.is(status(left).status, EVTCHNSTAT_UNBOUND, "the left one is open again");
    tap.is(ec::close(left), Ok(()), "and closed too");
    let other = ec::alloc_unbound(DomId::SELF, NOBODY).expect("a free port");
    tap.is(ec::bind_interdomain(DomId::SELF, other), Err(Errno::EINVAL), "a port for somebody else");
    tap.is(ec::bind_interdomain(NOBODY, other), Err(Errno::ESRCH), "a domain that does not exist");
    tap.is(ec::bind_interdomain(DomId::SELF, Port(4095)), Err(Errno::EINVAL), "a port that is not open");
    tap.is(ec::bind_interdomain(DomId::SELF, Port(1 << 20)), Err(Errno::EINVAL), "a port that cannot be");
    ec::close(other).expect("a port of ours");
}

fn virqs(tap: &mut Tap) {
    let port = ec::bind_virq(VIRQ_DEBUG, VcpuId(0)).expect("free");
    tap.is((status(port).status, status(port).u), (EVTCHNSTAT_VIRQ, VIRQ_DEBUG), "a virtual interrupt is bound");
    tap.is(ec::bind_virq(VIRQ_DEBUG, VcpuId(0)), Err(Errno::EEXIST), "but once");
    tap.is(ec::bind_virq(VIRQ_TIMER, VcpuId(0)), Err(Errno::EEXIST), "the timer is the runtime's");
    tap.is(ec::bind_virq(24, VcpuId(0)), Err(Errno::EINVAL), "an interrupt that does not exist");
    tap.is(ec::bind_virq(VIRQ_DEBUG, VcpuId(1000)), Err(Errno::ENOENT), "a vCPU that does not exist");
    tap.is(ec::send(port), Err(Errno::EINVAL), "nobody sends a virtual interrupt");
    tap.is(ec::bind_vcpu(port, VcpuId(0)), Err(Errno::EINVAL), "it stays on its vCPU");
    tap.is(ec::close(port), Ok(()), "it can be closed");
    tap.is(ec::bind_virq(VIRQ_DEBUG, VcpuId(0)), Ok(port), "and bound again");
    ec::close(port).expect("a port of ours");
}

fn ipis(tap: &mut Tap) {
    let port = ec::bind_ipi(VcpuId(0)).expect("a free port");
    tap.is(status(port).status, EVTCHNSTAT_IPI, "an IPI port");
    tap.is(ec::send(port), Ok(()), "can be sent");
    tap.ok(events::is_pending(port), "and is pending here");
    tap.is(ec::bind_vcpu(port, VcpuId(0)), Err(Errno::EINVAL), "it stays on its vCPU");
    tap.is(ec::bind_ipi(VcpuId(1000)), Err(Errno::ENOENT), "a vCPU that does not exist");
    tap.is(ec::close(port), Ok(()), "it can be closed");
    tap.ok(!events::is_pending(port), "which clears its pending bit");
}

/// The raw state: upcall pending, and the selector bit of the port's word.
fn announced(port: Port) -> (bool, bool) {
    let shared = events::shared();
    let vcpu = shared_info::VCPU_INFO;
    let selector = shared.load_u64(vcpu + vcpu_info::EVTCHN_PENDING_SEL);
    let pending = shared.u8_at(vcpu + vcpu_info::EVTCHN_UPCALL_PENDING).load(Ordering::SeqCst);
    (pending != 0, selector >> (port.0 / 64) & 1 != 0)
}

fn bits(tap: &mut Tap) {
    let port = ec::bind_ipi(VcpuId(0)).expect("a free port");
    while events::poll().is_some() {}
    events::mask(port);
    ec::send(port).expect("bound");
    tap.is(
        (events::is_pending(port), announced(port)),
        (true, (false, false)),
        "a masked port is pending, not announced",
    );
    ec::unmask(port).expect("bound");
    tap.is((events::is_masked(port), announced(port)), (false, (true, true)), "unmasking announces it");
    tap.is(events::poll(), Some(port), "and it comes");
    ec::unmask(port).expect("bound");
    tap.is(announced(port), (false, false), "unmasking a port that is not pending announces nothing");
    ec::send(port).expect("bound");
    tap.is(announced(port), (true, true), "an open port is announced at once");
    let shared = events::shared();
    shared.u8_at(vcpu_info::EVTCHN_UPCALL_PENDING).store(0, Ordering::SeqCst);
    shared.store_u64(vcpu_info::EVTCHN_PENDING_SEL, 0);
    ec::send(port).expect("bound");
    tap.is(announced(port), (false, false), "a pending port is not announced twice");
    events::clear(port);
    tap.is(ec::unmask(Port(1 << 20)), Err(Errno::EINVAL), "a port that cannot be is not unmasked");
    ec::close(port).expect("a port of ours");
}

static UPCALLS: AtomicU32 = AtomicU32::new(0);

fn upcall(frame: &mut traps::Frame) {
    UPCALLS.fetch_add(1, Ordering::SeqCst);
    // Without this the upcall would come again on return.
    while events::poll().is_some() {}
    let _ = frame;
}

/// In a container an upcall is an interrupt, and the mask that of all interrupts.
fn upcalls_as_interrupts(tap: &mut Tap) {
    let port = ec::bind_ipi(VcpuId(0)).expect("a free port");
    while events::poll().is_some() {}
    events::unmask(port);
    traps::set_handler(traps::EVENT, Some(upcall));
    let count = || UPCALLS.swap(0, Ordering::SeqCst);
    ec::send(port).expect("bound");
    let _ = call(17, [0, 0]);
    tap.is(count(), 0, "no upcall while interrupts are off");
    let_in();
    tap.is(count(), 1, "it comes as soon as they are on");
    let_in();
    tap.is(count(), 0, "once");
    events::set_upcall_mask(true);
    ec::send(port).expect("bound");
    let_in();
    tap.is(count(), 1, "the mask of vcpu_info does not keep it back");
    ec::send(port).expect("bound");
    ec::send(port).expect("bound");
    let_in();
    tap.is(count(), 1, "two events before it are one upcall");
    traps::set_handler(traps::EVENT, None);
    ec::close(port).expect("a port of ours");
}

fn let_in() {
    // SAFETY: what may come has a handler.
    unsafe { core::arch::asm!("sti", "nop", "nop", "cli") };
}

fn upcalls(tap: &mut Tap) {
    if mode() == Mode::Pvh {
        return upcalls_as_interrupts(tap);
    }
    let port = ec::bind_ipi(VcpuId(0)).expect("a free port");
    events::unmask(port);
    traps::set_handler(traps::EVENT, Some(upcall));
    let count = || UPCALLS.swap(0, Ordering::SeqCst);
    let vcpu_mask = || events::shared().u8_at(vcpu_info::EVTCHN_UPCALL_MASK).load(Ordering::SeqCst);
    ec::send(port).expect("bound");
    tap.is(count(), 0, "no upcall with the mask set");
    events::set_upcall_mask(false);
    tap.is(count(), 0, "clearing the mask alone does nothing");
    let _ = call(17, [0, 0]);
    tap.is(count(), 1, "any hypercall delivers what is pending");
    tap.is(vcpu_mask(), 0, "the mask is open again after the upcall");
    ec::send(port).expect("bound");
    tap.is(count(), 1, "with the mask open, the event is there when the call returns");
    events::set_upcall_mask(true);
    ec::send(port).expect("bound");
    sched::block().expect("always");
    tap.is((count(), vcpu_mask()), (1, 0), "blocking opens the mask and delivers");
    events::set_upcall_mask(true);
    traps::set_handler(traps::EVENT, None);
    ec::close(port).expect("a port of ours");
}

fn errors(tap: &mut Tap) {
    let event_channel_op = HYPERVISOR_EVENT_CHANNEL_OP;
    tap.is(call(event_channel_op, [99, 0]), Err(Errno::ENOSYS), "an unknown command");
    tap.is(
        call(event_channel_op, [EVTCHNOP_SEND.into(), 0x1000]),
        Err(Errno::EFAULT),
        "an argument that is not mapped",
    );
    let outside = call(event_channel_op, [EVTCHNOP_BIND_INTERDOMAIN.into(), 0xffff_8300_0000_0000]);
    tap.is(outside, Err(Errno::EFAULT), "an argument in the hypervisor");
    tap.is(ec::send(Port(0)), Err(Errno::EINVAL), "port 0 cannot be sent");
    tap.is(ec::close(Port(0)), Err(Errno::EINVAL), "nor closed");
    tap.is(ec::send(Port(4095)), Err(Errno::EINVAL), "nor can a port that is not there");
    tap.is(ec::send(Port(u32::MAX)), Err(Errno::EINVAL), "nor one that cannot be");
    tap.is(ec::status(NOBODY, Port(1)).map(drop), Err(Errno::ESRCH), "the status in a domain that does not exist");
    tap.is(ec::status(DomId::SELF, Port(1 << 20)).map(drop), Err(Errno::EINVAL), "the status of a port that cannot be");
    let port = ec::alloc_unbound(DomId::SELF, DomId::SELF).expect("a free port");
    tap.is(ec::bind_vcpu(port, VcpuId(0)), Ok(()), "an unbound port can choose its vCPU");
    tap.is(ec::bind_vcpu(port, VcpuId(1000)), Err(Errno::ENOENT), "among those that exist");
    ec::close(port).expect("a port of ours");
    tap.is(op(event_channel_op, 13, &mut [1u32, 3]), Err(Errno::ENOSYS), "no priorities with this layout");
}

fn limits(tap: &mut Tap) {
    let mut ports = Vec::new();
    let end = loop {
        match ec::alloc_unbound(DomId::SELF, DomId::SELF) {
            Ok(port) => ports.push(port),
            Err(errno) => break errno,
        }
    };
    tap.is(end, Errno::ENOSPC, "the ports run out");
    tap.is(ports.iter().map(|port| port.0).max(), Some(4095), "at 4096");
    let last = *ports.last().expect("there were some");
    let peer = ports[0];
    ec::close(peer).expect("a port of ours");
    let bound = ec::bind_interdomain(DomId::SELF, last).expect("a freed port");
    tap.is(bound, peer, "a freed port is used again");
    while events::poll().is_some() {}
    events::unmask(last);
    ec::send(bound).expect("bound");
    tap.is(events::poll(), Some(last), "the highest port works");
    ec::close(bound).expect("a port of ours");
    for &port in &ports[1..] {
        ec::close(port).expect("a port of ours");
    }
    tap.is(ec::alloc_unbound(DomId::SELF, DomId::SELF), Ok(ports[0]), "and all can be given back");
    ec::close(ports[0]).expect("a port of ours");
}

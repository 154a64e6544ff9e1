//! Event channels with the FIFO layout: how a domain comes to it, order and priorities, masks, vCPUs, and the way back.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::Ordering::SeqCst;
use guest_pv::alloc::vec::Vec;
use guest_pv::call::{event_channel as ec, sched};
use guest_pv::events::fifo::{Fifo, LINKED, MASKED, PENDING, Page, Taken};
use guest_pv::tap::Tap;
use guest_pv::{Mode, boot, mode};
use guests::{call, page};
use xen_abi::Errno;
use xen_abi::event_channel::{EVTCHNOP_EXPAND_ARRAY, EVTCHNOP_INIT_CONTROL};
use xen_abi::hypercall::{HYPERVISOR_EVENT_CHANNEL_OP, VIRQ_DEBUG};
use xen_abi::ids::{DomId, Mfn, Port, VcpuId};

guest_pv::test!(run);

const V0: VcpuId = VcpuId(0);
const V1: VcpuId = VcpuId(1);
/// The priority of a port for which none was set.
const USUAL: usize = 7;

fn run(tap: &mut Tap) {
    let early = before(tap);
    let mut fifo = Fifo::new();
    controls(tap, &mut fifo);
    words(tap, &mut fifo, &early);
    order(tap, &mut fifo);
    priorities(tap, &mut fifo);
    masks(tap, &mut fifo);
    vcpus(tap, &mut fifo);
    closing(tap, &mut fifo);
    polling(tap, &mut fifo);
    many(tap, &mut fifo);
    back(tap);
}

/// In the 2-level layout. Gives ports that are pending when it ends.
fn before(tap: &mut Tap) -> [Port; 2] {
    let spare = page();
    tap.is(ec::expand_array(spare.mfn()), Err(Errno::EOPNOTSUPP), "no array without a control block");
    tap.is(ec::set_priority(Port(1), 0), Err(Errno::ENOSYS), "and no priorities");
    let first = ec::bind_ipi(V0).expect("a free port");
    let second = ec::alloc_unbound(DomId::SELF, DomId::SELF).expect("a free port");
    let pair = ec::bind_interdomain(DomId::SELF, second).expect("a free port");
    ec::send(first).expect("bound");
    [first, pair]
}

fn controls(tap: &mut Tap, fifo: &mut Fifo) {
    let op = |command: u32, at: u64| call(HYPERVISOR_EVENT_CHANNEL_OP, [command.into(), at]);
    tap.is(op(EVTCHNOP_INIT_CONTROL, 0x1000), Err(Errno::EFAULT), "init_control of nothing");
    tap.is(op(EVTCHNOP_EXPAND_ARRAY, 0x1000), Err(Errno::EFAULT), "expand_array of nothing");
    let control = Page::new();
    let try_at = |mfn: Mfn, offset, vcpu| ec::init_control(mfn, offset, vcpu);
    tap.is(try_at(control.mfn, 0, VcpuId(1000)), Err(Errno::ENOENT), "a control block for no vCPU");
    tap.is(try_at(control.mfn, 0, VcpuId(u32::MAX)), Err(Errno::ENOENT), "nor for that");
    tap.is(try_at(control.mfn, 4, V0), Err(Errno::EINVAL), "a control block is aligned to 8 bytes");
    tap.is(try_at(control.mfn, 4032, V0), Err(Errno::EINVAL), "and does not leave its page");
    tap.is(try_at(control.mfn, u32::MAX, V0), Err(Errno::EINVAL), "however far");
    tap.is(try_at(Mfn(u64::MAX), 0, V0), Err(Errno::EINVAL), "its page exists");
    tap.is(try_at(Mfn(0xf_ffff), 0, V0), Err(Errno::EINVAL), "and is memory");
    // A container's page tables are pages like others.
    let table = (mode() == Mode::Pv).then(|| {
        let table = guests::table_page(&[]);
        guests::mmuext(xen_abi::mmu::MMUEXT_PIN_L1_TABLE, table.mfn()).expect("an empty table");
        tap.is(try_at(table.mfn(), 0, V0), Err(Errno::EINVAL), "and is no page table");
        table
    });
    tap.is(ec::expand_array(control.mfn), Err(Errno::EOPNOTSUPP), "after all that the layout is the old one");
    tap.is(fifo.init_control(&control, 4024, V0), Ok(17), "at the end of a page it fits, and links have 17 bits");
    tap.is(fifo.init_control(&control, 0, V0), Err(Errno::EINVAL), "a vCPU has one control block");
    tap.is(ec::expand_array(Mfn(u64::MAX)), Err(Errno::EINVAL), "no words where nothing is");
    if let Some(table) = table {
        tap.is(ec::expand_array(table.mfn()), Err(Errno::EINVAL), "nor in a page table");
        guests::mmuext(xen_abi::mmu::MMUEXT_UNPIN_TABLE, table.mfn()).expect("it was pinned");
        core::mem::forget(table);
    }
}

fn words(tap: &mut Tap, fifo: &mut Fifo, early: &[Port; 2]) {
    let late = ec::bind_ipi(V0).expect("a free port");
    tap.is(ec::send(late), Ok(()), "an event before there are words");
    tap.is(ec::unmask(late), Ok(()), "to unmask it is nothing");
    let _ = fifo.take_upcall(V0);
    tap.is(fifo.ready(V0), 0, "nothing is ready without words");
    let first = Page::new();
    // What the words say before they are handed over counts.
    first.bytes.store_u32(early[1].0 as usize * 4, MASKED);
    // Others' news are not what this is about.
    for port in [boot().console_evtchn, boot().store_evtchn].into_iter().filter(|port| port.0 != 0) {
        first.bytes.store_u32(port.0 as usize * 4, MASKED);
    }
    tap.is(fifo.expand(first), Ok(()), "a page of words");
    tap.ok(fifo.take_upcall(V0), "it brings what had come before");
    let mut taken: Vec<Port> = core::iter::from_fn(|| fifo.take(V0)).map(|taken| taken.port).collect();
    taken.sort();
    tap.is(taken, [early[0], late].to_vec(), "in both layouts");
    tap.is(fifo.state(early[1]), PENDING | MASKED, "but for masked ports");
    tap.is(ec::unmask(early[1]), Ok(()), "which are unmasked");
    tap.is(fifo.take(V0).map(|taken| taken.port), Some(early[1]), "and come then");
    tap.is(fifo.take(V0), None, "and that is all");
    tap.ok(fifo.take_upcall(V0), "with another upcall");
    for port in early.iter().chain([&late]) {
        ec::close(*port).expect("a port of ours");
    }
}

fn ipis<const N: usize>(vcpu: VcpuId) -> [Port; N] {
    core::array::from_fn(|_| ec::bind_ipi(vcpu).expect("a free port"))
}

fn close<const N: usize>(fifo: &mut Fifo, ports: [Port; N]) {
    while fifo.take(V0).is_some() {}
    ports.into_iter().for_each(|port| ec::close(port).expect("a port of ours"));
    let _ = fifo.take_upcall(V0);
}

fn taken(port: Port, queue: usize) -> Option<Taken> {
    Some(Taken { port, queue, news: true })
}

fn order(tap: &mut Tap, fifo: &mut Fifo) {
    let ports = ipis::<4>(V0);
    let [a, b, c, d] = ports;
    for port in [c, a, d] {
        ec::send(port).expect("bound");
    }
    tap.ok(fifo.take_upcall(V0), "the first event raises the upcall");
    tap.is(fifo.word(c).load(SeqCst), PENDING | LINKED | a.0, "the first is linked to the second");
    tap.is(fifo.word(d).load(SeqCst), PENDING | LINKED, "the last to none");
    tap.is(fifo.ready(V0), 1 << USUAL, "one queue is ready");
    tap.is(fifo.take(V0), taken(c, USUAL), "first come");
    ec::send(b).expect("bound");
    ec::send(c).expect("bound");
    tap.ok(!fifo.take_upcall(V0), "joining a queue that is not empty raises nothing");
    let rest: Vec<_> = core::iter::from_fn(|| fifo.take(V0)).collect();
    tap.is(rest, [a, d, b, c].map(|port| Taken { port, queue: USUAL, news: true }).to_vec(), "first served");
    ec::send(a).expect("bound");
    ec::send(a).expect("bound");
    tap.is(fifo.word(a).load(SeqCst), PENDING | LINKED, "twice is once");
    tap.ok(fifo.take_upcall(V0), "an empty queue raises the upcall again");
    fifo.word(a).fetch_and(!PENDING, SeqCst);
    tap.is(
        fifo.take(V0),
        Some(Taken { port: a, queue: USUAL, news: false }),
        "what is not pending any more is skipped",
    );
    close(fifo, ports);
}

fn priorities(tap: &mut Tap, fifo: &mut Fifo) {
    let ports = ipis::<4>(V0);
    let [low, usual, high, top] = ports;
    tap.is(ec::set_priority(low, 15), Ok(()), "the lowest priority");
    tap.is(ec::set_priority(high, 3), Ok(()), "a high one");
    tap.is(ec::set_priority(top, 0), Ok(()), "the highest");
    tap.is(ec::set_priority(usual, 16), Err(Errno::EINVAL), "there are no more");
    tap.is(ec::set_priority(usual, u32::MAX), Err(Errno::EINVAL), "certainly not so many");
    tap.is(ec::set_priority(Port(0), 0), Err(Errno::EACCES), "port 0 has none");
    tap.is(ec::set_priority(Port(60), 0), Err(Errno::EACCES), "nor has a port that is not bound");
    tap.is(ec::set_priority(Port(1 << 20), 0), Err(Errno::EINVAL), "or that does not exist");
    for port in ports {
        ec::send(port).expect("bound");
    }
    tap.is(fifo.ready(V0), 1 << 15 | 1 << USUAL | 1 << 3 | 1, "each has its queue");
    let order: Vec<_> = core::iter::from_fn(|| fifo.take(V0)).map(|taken| (taken.port, taken.queue)).collect();
    tap.is(order, [(top, 0), (high, 3), (usual, USUAL), (low, 15)].to_vec(), "the most urgent first");
    ec::send(low).expect("bound");
    tap.is(ec::set_priority(low, 1), Ok(()), "the priority of a port that is queued");
    tap.is(fifo.take(V0), taken(low, 15), "counts from the next event on");
    ec::send(low).expect("bound");
    tap.is(fifo.take(V0), taken(low, 1), "when it joins another queue");
    // The old queue's last port was this one: what joins now must not be linked behind it.
    ec::send(low).expect("bound");
    ec::set_priority(usual, 15).expect("bound");
    ec::send(usual).expect("bound");
    tap.is(fifo.take(V0), taken(low, 1), "a port that moved");
    tap.is(fifo.take(V0), taken(usual, 15), "takes nobody along");
    tap.is(fifo.take(V0), None, "and is not seen twice");
    ec::close(low).expect("a port of ours");
    let again = ec::bind_ipi(V0).expect("a free port");
    tap.is(again, low, "a port that is bound again");
    ec::send(again).expect("bound");
    tap.is(fifo.take(V0), taken(again, USUAL), "has the usual priority");
    close(fifo, ports);
}

fn masks(tap: &mut Tap, fifo: &mut Fifo) {
    let ports = ipis::<2>(V0);
    let [a, b] = ports;
    fifo.mask(a);
    tap.is(ec::send(a), Ok(()), "an event for a masked port");
    tap.is((fifo.state(a), fifo.take_upcall(V0)), (PENDING | MASKED, false), "is pending and nothing else");
    tap.is(ec::unmask(a), Ok(()), "when it is unmasked");
    tap.is((fifo.state(a), fifo.take_upcall(V0)), (PENDING | LINKED, true), "it joins its queue");
    fifo.mask(a);
    tap.is(fifo.take(V0), Some(Taken { port: a, queue: USUAL, news: false }), "masked while it is queued");
    tap.is(fifo.state(a), PENDING | MASKED, "it stays pending");
    tap.is(ec::unmask(a), Ok(()), "and unmasked");
    tap.is(fifo.take(V0), taken(a, USUAL), "it comes again");
    tap.is(ec::unmask(b), Ok(()), "a port that is not masked can be unmasked");
    fifo.word(b).fetch_or(PENDING, SeqCst);
    tap.is(ec::unmask(b), Ok(()), "and if the guest itself had made it pending");
    tap.is(fifo.take(V0), taken(b, USUAL), "it comes");
    fifo.word(Port(60)).fetch_or(PENDING | MASKED, SeqCst);
    tap.is(ec::unmask(Port(60)), Ok(()), "a port that is not bound");
    tap.is(fifo.state(Port(60)), PENDING | MASKED, "stays as it is");
    fifo.word(Port(60)).store(0, SeqCst);
    close(fifo, ports);
}

fn vcpus(tap: &mut Tap, fifo: &mut Fifo) {
    let port = ec::alloc_unbound(DomId::SELF, DomId::SELF).expect("a free port");
    let peer = ec::bind_interdomain(DomId::SELF, port).expect("a free port");
    while fifo.take(V0).is_some() {}
    let ipi = ec::bind_ipi(V1).expect("the domain has two vCPUs");
    tap.is(ec::send(ipi), Ok(()), "an event for a vCPU without control block");
    tap.is(fifo.state(ipi), 0, "is dropped");
    let control = Page::new();
    tap.is(fifo.init_control(&control, 0, V1), Ok(17), "the vCPU gets one");
    tap.is(fifo.take(V1), None, "nothing comes by that");
    tap.is(ec::send(ipi), Ok(()), "but the next event");
    tap.is(fifo.take(V1), taken(ipi, USUAL), "comes");
    tap.is(ec::bind_vcpu(port, V1), Ok(()), "a port moves to another vCPU");
    ec::send(peer).expect("bound");
    tap.is((fifo.take(V0), fifo.take(V1)), (None, taken(port, USUAL)), "and so do its events");
    ec::send(peer).expect("bound");
    tap.is(ec::bind_vcpu(port, V0), Ok(()), "it moves back while it is queued");
    ec::send(peer).expect("bound");
    tap.is((fifo.take(V0), fifo.take(V1)), (None, taken(port, USUAL)), "what is queued stays where it is");
    ec::send(peer).expect("bound");
    tap.is((fifo.take(V0), fifo.take(V1)), (taken(port, USUAL), None), "what comes later moves");
    ec::send(ipi).expect("bound");
    tap.is(fifo.take(V1), taken(ipi, USUAL), "the queue it left goes on");
    tap.is(ec::bind_vcpu(ipi, V0), Err(Errno::EINVAL), "an IPI stays with its vCPU");
    let virq = ec::bind_virq(VIRQ_DEBUG, V1).expect("it is not bound");
    tap.is(ec::bind_vcpu(virq, V0), Err(Errno::EINVAL), "so does a VIRQ of a vCPU");
    close(fifo, [port, peer, ipi, virq]);
}

fn closing(tap: &mut Tap, fifo: &mut Fifo) {
    let [a, b] = ipis::<2>(V0);
    ec::send(a).expect("bound");
    ec::send(b).expect("bound");
    ec::close(a).expect("a port of ours");
    tap.is(fifo.state(a), LINKED, "a port that is closed is not pending");
    let next = ec::bind_ipi(V0).expect("a free port");
    tap.ok(next != a, "and not given out while it is queued");
    tap.is(fifo.take(V0), Some(Taken { port: a, queue: USUAL, news: false }), "it is taken off");
    tap.is(fifo.take(V0), taken(b, USUAL), "others behind it are not lost");
    let again = ec::bind_ipi(V0).expect("a free port");
    tap.is(again, a, "then it is given out again");
    close(fifo, [again, b, next]);
}

fn polling(tap: &mut Tap, fifo: &mut Fifo) {
    let [port] = ipis::<1>(V0);
    fifo.mask(port);
    ec::send(port).expect("bound");
    tap.is(sched::poll(&[port], 0), Ok(()), "polling sees the pending bit of the word");
    fifo.word(port).store(0, SeqCst);
    close(fifo, [port]);
}

fn many(tap: &mut Tap, fifo: &mut Fifo) {
    let (mut ports, mut end) = (Vec::new(), None);
    while ports.len() < 5000 && end.is_none() {
        match ec::alloc_unbound(DomId::SELF, DomId::SELF) {
            Ok(port) => ports.push(port),
            Err(errno) => end = Some(errno),
        }
    }
    tap.is(end, None, "there are more than 4096 ports");
    let far = *ports.last().expect("there are some");
    let peer = ec::bind_interdomain(DomId::SELF, far).expect("a free port");
    while fifo.take(V0).is_some() {}
    tap.is(ec::send(peer), Ok(()), "an event for one without a word");
    tap.is(fifo.take(V0), None, "is not seen");
    for _ in 1..=far.0 / 1024 {
        fifo.expand(Page::new()).expect("there is room");
    }
    let first = fifo.take(V0).map(|taken| taken.port);
    let second = fifo.take(V0).map(|taken| taken.port);
    tap.is((first, second), (Some(far), Some(peer)), "until it has one, as has its peer");
    tap.is(fifo.take(V0), None, "no other");
    tap.is(ec::status(DomId::SELF, far).map(|status| status.status), Ok(2), "it is connected");
}

fn back(tap: &mut Tap) {
    tap.is(ec::reset(DomId::SELF), Ok(()), "the domain closes all its ports");
    tap.is(ec::set_priority(Port(1), 0), Err(Errno::ENOSYS), "and is back in the 2-level layout");
    tap.is(ec::expand_array(Page::new().mfn), Err(Errno::EOPNOTSUPP), "without an array");
    let port = ec::bind_ipi(V0).expect("a free port");
    tap.is(port, Port(1), "the first port is free");
    ec::send(port).expect("bound");
    tap.ok(guest_pv::events::is_pending(port), "an event sets its bit");
    let mut fifo = Fifo::new();
    tap.is(fifo.init_control(&Page::new(), 8, V0), Ok(17), "and there again");
    tap.is(fifo.expand(Page::new()), Ok(()), "with new pages");
    tap.is(fifo.take(V0), taken(port, USUAL), "the event is not lost");
    let mut pages = 1;
    let page = Page::new();
    let end = loop {
        match ec::expand_array(page.mfn) {
            Ok(()) => pages += 1,
            Err(errno) => break errno,
        }
    };
    tap.is((pages, end), (128, Errno::ENOSPC), "an array has 128 pages, be they all the same");
    tap.is(ec::reset(DomId::SELF), Ok(()), "and back");
}

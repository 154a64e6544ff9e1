//! Ports join a FIFO queue while the guest takes them off, in all interleavings: no event is lost, no port stays behind.
//!
//! Run: `RUSTFLAGS="--cfg loom" cargo test -p xen-rs-logic --release --lib loom`

use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use loom::sync::{Arc, Mutex};
use loom::thread;
use std::vec::Vec;
use xen_abi::event_channel::{EVTCHN_FIFO_LINK_MASK, EVTCHN_FIFO_LINKED, EVTCHN_FIFO_MASKED, EVTCHN_FIFO_PENDING};
use xen_abi::ids::{DomId, Port, VcpuId};

use super::fifo::{ControlBlock, EventWord, FifoMemory, Priority, Queues};
use super::never::Never;
use super::{Channels, EventDomain, Table, VcpuBits, VcpuEvents, raise, unmask};
use crate::width::Width;

const PENDING: u32 = 1 << EVTCHN_FIFO_PENDING;
const MASKED: u32 = 1 << EVTCHN_FIFO_MASKED;
const LINKED: u32 = 1 << EVTCHN_FIFO_LINKED;

/// Two vCPUs of which each has one queue, and two ports.
struct Domain {
    channels: Channels,
    vcpus: Vec<VcpuEvents>,
    upcalls: [AtomicBool; 2],
    shared: Shared,
    /// How often the guest handled each port.
    handled: [AtomicU32; 3],
}

struct Shared {
    words: [AtomicU32; 3],
    controls: [Control; 2],
    queues: [Mutex<Queues>; 2],
}

struct Control {
    ready: AtomicU32,
    head: AtomicU32,
    /// The guest's own: where it is in the queue.
    read: AtomicU32,
}

impl Control {
    fn new() -> Self {
        Control { ready: AtomicU32::new(0), head: AtomicU32::new(0), read: AtomicU32::new(0) }
    }
}

impl EventWord for &AtomicU32 {
    fn load(self) -> u32 {
        self.fetch_or(0, SeqCst)
    }
    fn set(self, bits: u32) -> u32 {
        self.fetch_or(bits, SeqCst)
    }
    fn clear(self, bits: u32) -> u32 {
        self.fetch_and(!bits, SeqCst)
    }
    fn replace(self, old: u32, new: u32) -> Result<(), u32> {
        self.compare_exchange(old, new, SeqCst, SeqCst).map(drop)
    }
}

impl ControlBlock for &Control {
    fn set_head(self, _: Priority, port: Port) {
        self.head.swap(port.0, SeqCst);
    }
    fn test_and_set_ready(self, _: Priority) -> bool {
        self.ready.fetch_or(1, SeqCst) != 0
    }
}

impl FifoMemory for Shared {
    type Word<'a> = &'a AtomicU32;
    type Control<'a> = &'a Control;
    fn word(&self, port: Port) -> Option<&AtomicU32> {
        self.words.get(port.0 as usize)
    }
    fn control(&self, vcpu: VcpuId) -> Option<&Control> {
        self.controls.get(vcpu.0 as usize)
    }
    fn with_queues<V>(&self, vcpu: VcpuId, f: impl FnOnce(&mut Queues) -> V) -> Option<V> {
        Some(f(&mut self.queues.get(vcpu.0 as usize)?.lock().unwrap()))
    }
}

impl EventDomain for Domain {
    type Bits<'a> = Never;
    type Info<'a> = &'a AtomicBool;
    type Fifo = Shared;
    fn fifo(&self) -> Option<&Shared> {
        Some(&self.shared)
    }
    fn id(&self) -> DomId {
        DomId(1)
    }
    fn channels(&self) -> &Channels {
        &self.channels
    }
    fn vcpu(&self, vcpu: VcpuId) -> Option<&VcpuEvents> {
        self.vcpus.get(vcpu.0 as usize)
    }
    fn max_vcpus(&self) -> u32 {
        2
    }
    fn bits(&self, _: Width) -> Option<Never> {
        None
    }
    fn info(&self, vcpu: VcpuId) -> Option<&AtomicBool> {
        self.upcalls.get(vcpu.0 as usize)
    }
}

impl VcpuBits for &AtomicBool {
    fn test_and_set_selector(self, _: Width, _: u32) -> bool {
        unreachable!("not of this layout")
    }
    fn test_and_set_upcall(self) -> bool {
        self.swap(true, SeqCst)
    }
}

impl Domain {
    fn new() -> Arc<Self> {
        let domain = Domain {
            channels: Channels::new().unwrap(),
            vcpus: (0..2).map(|_| VcpuEvents::new()).collect(),
            upcalls: [AtomicBool::new(false), AtomicBool::new(false)],
            shared: Shared {
                words: [AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0)],
                controls: [Control::new(), Control::new()],
                queues: [Mutex::new(Queues::new()), Mutex::new(Queues::new())],
            },
            handled: [AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0)],
        };
        let mut table = Table::new(u32::MAX);
        (0..2).for_each(|_| assert!(table.bind_ipi(&domain, VcpuId(0)).is_ok()));
        Arc::new(domain)
    }

    /// What the guest does in an upcall, as Linux does it.
    fn upcall(&self, vcpu: usize) {
        if !self.upcalls[vcpu].swap(false, SeqCst) {
            return;
        }
        let control = &self.shared.controls[vcpu];
        let mut ready = control.ready.swap(0, SeqCst);
        while ready != 0 {
            let head = match control.read.load(SeqCst) {
                0 => control.head.fetch_or(0, SeqCst),
                head => head,
            };
            let word = &self.shared.words[head as usize];
            let next = word.fetch_and(!(LINKED | EVTCHN_FIFO_LINK_MASK), SeqCst) & EVTCHN_FIFO_LINK_MASK;
            if next == 0 {
                ready = 0;
            }
            if EventWord::load(word) & (PENDING | MASKED) == PENDING {
                word.fetch_and(!PENDING, SeqCst);
                self.handled[head as usize].fetch_add(1, SeqCst);
            }
            control.read.store(next, SeqCst);
            ready |= control.ready.swap(0, SeqCst);
        }
    }

    /// All is quiet: what was sent has been handled, and nothing is left.
    fn settle(&self, ports: &[u32]) {
        (0..2).for_each(|vcpu| self.upcall(vcpu));
        for &port in ports {
            assert_eq!(EventWord::load(&self.shared.words[port as usize]), 0, "port {port} is left behind");
            assert_ne!(self.handled[port as usize].load(SeqCst), 0, "port {port} is lost");
        }
    }
}

fn spawn(domain: &Arc<Domain>, work: impl FnOnce(&Domain) + 'static) -> thread::JoinHandle<()> {
    let domain = domain.clone();
    thread::spawn(move || work(&domain))
}

/// All interleavings with up to three switches that nobody asked for.
fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

fn send(vcpu: u32, port: u32) -> impl FnOnce(&Domain) + 'static {
    move |domain| {
        let _ = raise(domain, VcpuId(vcpu), Port(port));
    }
}

#[test]
fn two_ports_join_while_the_guest_takes_them() {
    check(|| {
        let domain = Domain::new();
        let senders = [spawn(&domain, send(0, 1)), spawn(&domain, send(0, 2))];
        domain.upcall(0);
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        domain.settle(&[1, 2]);
    });
}

#[test]
fn a_port_joins_behind_one_that_is_being_taken() {
    check(|| {
        let domain = Domain::new();
        send(0, 1)(&domain);
        let sender = spawn(&domain, send(0, 2));
        domain.upcall(0);
        send(0, 1)(&domain);
        sender.join().unwrap();
        domain.settle(&[1, 2]);
    });
}

#[test]
fn a_port_moves_to_another_vcpu_while_it_is_sent() {
    check(|| {
        let domain = Domain::new();
        let senders = [spawn(&domain, send(0, 1)), spawn(&domain, send(1, 1))];
        domain.upcall(0);
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        domain.settle(&[1]);
    });
}

#[test]
fn a_tail_moves_away_while_another_port_joins() {
    check(|| {
        let domain = Domain::new();
        send(0, 1)(&domain);
        domain.upcall(0);
        // Port 1 is still the tail of the first queue.
        let senders = [spawn(&domain, send(1, 1)), spawn(&domain, send(0, 2))];
        domain.upcall(0);
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        domain.settle(&[1, 2]);
    });
}

#[test]
fn unmasking_races_with_sending() {
    check(|| {
        let domain = Domain::new();
        domain.shared.words[1].fetch_or(MASKED, SeqCst);
        let sender = spawn(&domain, send(0, 1));
        let _ = unmask(&*domain, Port(1)).unwrap();
        sender.join().unwrap();
        domain.settle(&[1]);
    });
}

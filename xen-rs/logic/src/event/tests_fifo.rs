//! The FIFO layout against queues that are queues, with a guest that plays by the rules and one that does not.

use super::fifo::{ControlBlock, EventWord, FifoMemory, Priority, Queues};
use super::*;
use proptest::prelude::*;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::vec;
use std::vec::Vec;
use xen_abi::errno::Errno;
use xen_abi::event_channel::{
    EVTCHN_FIFO_BUSY, EVTCHN_FIFO_LINK_MASK, EVTCHN_FIFO_LINKED, EVTCHN_FIFO_MASKED, EVTCHN_FIFO_PENDING,
};

const PENDING: u32 = 1 << EVTCHN_FIFO_PENDING;
const MASKED: u32 = 1 << EVTCHN_FIFO_MASKED;
const LINKED: u32 = 1 << EVTCHN_FIFO_LINKED;
const BUSY: u32 = 1 << EVTCHN_FIFO_BUSY;

/// What the guest shares, and what it keeps for itself: the heads it has read.
#[derive(Default)]
struct Shared {
    words: RefCell<Vec<Cell<u32>>>,
    controls: Vec<Control>,
    queues: RefCell<Vec<Queues>>,
}

#[derive(Default)]
struct Control {
    there: Cell<bool>,
    ready: Cell<u32>,
    head: [Cell<u32>; 16],
    read: [Cell<u32>; 16],
}

#[derive(Clone, Copy)]
struct Word<'a>(&'a Shared, usize);

impl Word<'_> {
    fn update(self, f: impl FnOnce(u32) -> u32) -> u32 {
        let words = self.0.words.borrow();
        let old = words[self.1].get();
        words[self.1].set(f(old));
        old
    }
}

impl EventWord for Word<'_> {
    fn load(self) -> u32 {
        self.update(|word| word)
    }
    fn set(self, bits: u32) -> u32 {
        self.update(|word| word | bits)
    }
    fn clear(self, bits: u32) -> u32 {
        self.update(|word| word & !bits)
    }
    fn replace(self, old: u32, new: u32) -> Result<(), u32> {
        let found = self.update(|word| if word == old { new } else { word });
        if found == old { Ok(()) } else { Err(found) }
    }
}

impl ControlBlock for &Control {
    fn set_head(self, queue: Priority, port: Port) {
        self.head[queue.index()].set(port.0);
    }
    fn test_and_set_ready(self, queue: Priority) -> bool {
        let bit = 1 << queue.index();
        self.ready.replace(self.ready.get() | bit) & bit != 0
    }
}

impl FifoMemory for Shared {
    type Word<'a> = Word<'a>;
    type Control<'a> = &'a Control;
    fn word(&self, port: Port) -> Option<Word<'_>> {
        (self.words.borrow().len() > port.0 as usize).then_some(Word(self, port.0 as usize))
    }
    fn control(&self, vcpu: VcpuId) -> Option<&Control> {
        self.controls.get(vcpu.0 as usize).filter(|control| control.there.get())
    }
    fn with_queues<V>(&self, vcpu: VcpuId, f: impl FnOnce(&mut Queues) -> V) -> Option<V> {
        Some(f(&mut self.queues.borrow_mut()[vcpu.0 as usize]))
    }
}

struct Fake {
    channels: Channels,
    vcpus: Vec<VcpuEvents>,
    old_bits: RefCell<Vec<u32>>,
    fifo: Cell<bool>,
    shared: Shared,
    upcalls: RefCell<Vec<bool>>,
}

const VCPUS: usize = 3;

impl Fake {
    /// A domain in the 2-level layout.
    fn new() -> Self {
        Fake {
            channels: Channels::new().unwrap(),
            vcpus: (0..VCPUS).map(|_| VcpuEvents::new()).collect(),
            old_bits: RefCell::default(),
            fifo: Cell::new(false),
            shared: Shared {
                words: RefCell::default(),
                controls: (0..VCPUS).map(|_| Control::default()).collect(),
                queues: RefCell::new((0..VCPUS).map(|_| Queues::new()).collect()),
            },
            upcalls: RefCell::new(vec![false; VCPUS]),
        }
    }

    fn begin(&self, table: &mut Table) {
        self.fifo.set(true);
        let mut first = Some(0);
        while let Some(at) = first {
            first = table.begin_fifo(self, at, |_| {});
        }
        self.shared.controls.iter().for_each(|control| control.there.set(true));
    }

    /// One more page of words; who is told.
    fn expand(&self) -> Vec<Notify> {
        let pages = self.shared.words.borrow().len() / 1024;
        self.shared.words.borrow_mut().extend((0..1024).map(|_| Cell::new(0)));
        let mut told = Vec::new();
        let first = u32::try_from(pages).unwrap() * 1024;
        for first in (first..first + 1024).step_by(PORTS_PER_ROUND as usize) {
            collect_saved(self, first, |notify| told.push(notify));
        }
        told
    }

    /// In the FIFO layout with a page of words.
    fn with_words() -> (Self, Table) {
        let (d, mut t) = (Fake::new(), Table::new(u32::MAX));
        d.begin(&mut t);
        d.expand();
        (d, t)
    }

    fn word(&self, port: Port) -> Word<'_> {
        Word(&self.shared, port.0 as usize)
    }

    /// The next port that the guest takes off a queue of a vCPU, and whether there was news of it.
    fn consume(&self, vcpu: u32) -> Option<(u32, bool)> {
        let control = &self.shared.controls[vcpu as usize];
        self.upcalls.borrow_mut()[vcpu as usize] = false;
        let ready = control.ready.get();
        let queue = (0..16).find(|queue| ready & 1 << queue != 0)?;
        let head = match control.read[queue].get() {
            0 => control.head[queue].get(),
            head => head,
        };
        let word = self.word(Port(head));
        let old = word.clear(LINKED | EVTCHN_FIFO_LINK_MASK);
        let next = old & EVTCHN_FIFO_LINK_MASK;
        control.read[queue].set(next);
        if next == 0 {
            control.ready.set(control.ready.get() & !(1 << queue));
        }
        let news = word.load() & (PENDING | MASKED) == PENDING;
        if news {
            word.clear(PENDING);
        }
        Some((head, news))
    }
}

impl EventDomain for Fake {
    type Bits<'a> = &'a Fake;
    type Info<'a> = (&'a Fake, usize);
    type Fifo = Shared;
    fn fifo(&self) -> Option<&Shared> {
        self.fifo.get().then_some(&self.shared)
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
        u32::try_from(VCPUS).unwrap()
    }
    fn bits(&self, _: Width) -> Option<&Fake> {
        Some(self)
    }
    fn info(&self, vcpu: VcpuId) -> Option<(&Fake, usize)> {
        Some((self, vcpu.0 as usize))
    }
}

/// What is left of the 2-level layout.
impl PortBits for &Fake {
    fn test_and_set_pending(self, port: Port) -> bool {
        let there = self.old_bits.borrow().contains(&port.0);
        self.old_bits.borrow_mut().push(port.0);
        there
    }
    fn clear_pending(self, port: Port) {
        self.old_bits.borrow_mut().retain(|old| *old != port.0);
    }
    fn is_pending(self, port: Port) -> bool {
        self.old_bits.borrow().contains(&port.0)
    }
    fn is_masked(self, _: Port) -> bool {
        false
    }
    fn test_and_clear_mask(self, _: Port) -> bool {
        false
    }
}

impl VcpuBits for (&Fake, usize) {
    fn test_and_set_selector(self, _: Width, _: u32) -> bool {
        false
    }
    fn test_and_set_upcall(self) -> bool {
        std::mem::replace(&mut self.0.upcalls.borrow_mut()[self.1], true)
    }
}

fn kick(vcpu: u32) -> Result<Sent, Errno> {
    Ok(Sent::Here(Notify::of(Some(VcpuId(vcpu)), None)))
}

const QUIET: Result<Sent, Errno> = Ok(Sent::Here(Notify::NOBODY));

#[test]
fn first_come_first_served_by_priority() {
    let (d, mut t) = Fake::with_words();
    let ports: Vec<_> = (0..5).map(|_| t.bind_ipi(&d, VcpuId(0)).unwrap()).collect();
    assert_eq!(t.set_priority(&d, ports[3], 0), Ok(()));
    assert_eq!(t.set_priority(&d, ports[4], 15), Ok(()));
    assert_eq!(send(&d, ports[4]), kick(0));
    for port in [ports[2], ports[0], ports[1], ports[3]] {
        assert_eq!(send(&d, port), QUIET, "the vCPU has been told");
    }
    assert_eq!(send(&d, ports[2]), QUIET, "pending already");
    let order: Vec<_> = std::iter::from_fn(|| d.consume(0)).collect();
    assert_eq!(order, [ports[3], ports[2], ports[0], ports[1], ports[4]].map(|port| (port.0, true)));
    assert_eq!(send(&d, ports[2]), kick(0));
    assert_eq!(d.consume(0), Some((ports[2].0, true)));
}

#[test]
fn masked_ports_wait_for_unmask() {
    let (d, mut t) = Fake::with_words();
    let port = t.bind_ipi(&d, VcpuId(1)).unwrap();
    d.word(port).set(MASKED);
    assert_eq!(send(&d, port), QUIET);
    assert_eq!((is_pending(&d, port), d.consume(1)), (Some(true), None));
    assert_eq!(unmask(&d, port), Ok(Notify::of(Some(VcpuId(1)), None)));
    assert_eq!(d.consume(1), Some((port.0, true)));
    assert_eq!(unmask(&d, port), Ok(Notify::NOBODY));
    d.word(Port(60)).set(PENDING | MASKED);
    assert_eq!(unmask(&d, Port(60)), Ok(Notify::NOBODY), "not bound");
    assert_eq!(is_pending(&d, Port(60)), Some(false));
    assert_eq!(is_pending(&d, Port(64)), None);
}

#[test]
fn what_came_before_the_words_is_kept() {
    let (d, mut t) = (Fake::new(), Table::new(u32::MAX));
    let early = t.bind_ipi(&d, VcpuId(0)).unwrap();
    let closed = t.bind_ipi(&d, VcpuId(0)).unwrap();
    d.old_bits.borrow_mut().extend([early.0, closed.0, 50]);
    assert_eq!(t.set_priority(&d, early, 3), Err(Errno::ENOSYS));
    d.begin(&mut t);
    let late = t.bind_ipi(&d, VcpuId(2)).unwrap();
    assert_eq!(send(&d, late), QUIET, "there is no word for it");
    t.close(&d, closed, None).unwrap();
    let told = d.expand();
    assert_eq!(told.iter().map(|notify| notify.vcpu().unwrap().0).collect::<Vec<_>>(), [0, 2]);
    assert_eq!((d.consume(0), d.consume(0)), (Some((early.0, true)), None));
    assert_eq!(d.consume(2), Some((late.0, true)));
}

#[test]
fn without_a_control_block_nobody_hears() {
    let (d, mut t) = Fake::with_words();
    let port = t.bind_ipi(&d, VcpuId(1)).unwrap();
    d.shared.controls[1].there.set(false);
    assert_eq!(send(&d, port), QUIET);
    assert_eq!(is_pending(&d, port), Some(false));
    d.shared.controls[1].there.set(true);
    assert_eq!(send(&d, port), kick(1));
}

#[test]
fn misuse_of_priorities() {
    let (d, mut t) = Fake::with_words();
    let port = t.bind_ipi(&d, VcpuId(0)).unwrap();
    assert_eq!(t.set_priority(&d, port, 16), Err(Errno::EINVAL));
    assert_eq!(t.set_priority(&d, Port(5), 0), Err(Errno::EACCES));
    assert_eq!(t.set_priority(&d, Port(0), 0), Err(Errno::EACCES));
    assert_eq!(t.set_priority(&d, Port(64), 0), Err(Errno::EINVAL));
}

#[test]
fn a_port_is_not_given_out_while_it_is_queued() {
    let (d, mut t) = Fake::with_words();
    let port = t.bind_ipi(&d, VcpuId(0)).unwrap();
    let _ = send(&d, port);
    t.close(&d, port, None).unwrap();
    assert_eq!(t.bind_ipi(&d, VcpuId(0)), Ok(Port(2)));
    assert_eq!(d.consume(0), Some((port.0, false)), "closed: no news");
    assert_eq!(t.bind_ipi(&d, VcpuId(0)), Ok(port));
}

#[test]
fn all_ports() {
    let (d, mut t) = Fake::with_words();
    while t.alloc_unbound(&d, DomId(0)).is_ok() {}
    assert_eq!((t.active(), d.channels.valid()), (PORTS_FIFO - 1, PORTS_FIFO));
    assert_eq!(t.alloc_unbound(&d, DomId(0)), Err(Errno::ENOSPC));
    let last = Port(PORTS_FIFO - 1);
    t.close(&d, last, None).unwrap();
    assert_eq!(t.bind_ipi(&d, VcpuId(0)), Ok(last));
    assert_eq!(d.channels.get(Port(PORTS_FIFO)), None);
    (1..128).for_each(|_| drop(d.expand()));
    assert_eq!(send(&d, last), kick(0));
    assert_eq!(d.consume(0), Some((last.0, true)));
    assert_eq!(t.next_bound(Port(0)), Some(Port(1)));
    assert_eq!(t.next_bound(Port(70)), Some(Port(70)));
    for port in 2..PORTS_FIFO {
        t.close(&d, Port(port), None).unwrap();
    }
    assert_eq!((t.next_bound(Port(1)), t.next_bound(Port(2))), (Some(Port(1)), None));
}

#[derive(Debug, Clone)]
enum Act {
    Send(u32),
    Mask(u32),
    Unmask(u32),
    Move(u32, u32),
    Priority(u32, u32),
    Consume(u32),
    Clear(u32),
}

fn act() -> impl Strategy<Value = Act> {
    let port = 1u32..7;
    prop_oneof![
        4 => port.clone().prop_map(Act::Send),
        1 => port.clone().prop_map(Act::Mask),
        2 => port.clone().prop_map(Act::Unmask),
        1 => (port.clone(), 0u32..3).prop_map(|(port, vcpu)| Act::Move(port, vcpu)),
        1 => (port.clone(), 0u32..16).prop_map(|(port, queue)| Act::Priority(port, queue)),
        3 => (0u32..3).prop_map(Act::Consume),
        1 => port.prop_map(Act::Clear),
    ]
}

/// A port as the model sees it.
#[derive(Default, Clone, Copy)]
struct Seen {
    vcpu: usize,
    queue: usize,
    pending: bool,
    masked: bool,
    queued: bool,
}

proptest! {
    #[test]
    fn queues_are_queues(acts in proptest::collection::vec(act(), 1..200)) {
        let (d, mut t) = Fake::with_words();
        let mut seen = [Seen { queue: 7, ..Seen::default() }; 7];
        let mut queues: [[VecDeque<u32>; 16]; 3] = Default::default();
        (1..7).for_each(|_| assert!(t.alloc_unbound(&d, DomId(1)).is_ok()));
        for act in acts {
            let mut join = |seen: &mut Seen, port: u32| {
                if seen.pending && !seen.masked && !seen.queued {
                    seen.queued = true;
                    queues[seen.vcpu][seen.queue].push_back(port);
                }
            };
            match act {
                Act::Send(port) => {
                    let _ = raise(&d, d.channels.get(Port(port)).unwrap().vcpu, Port(port));
                    seen[port as usize].pending = true;
                    join(&mut seen[port as usize], port);
                }
                Act::Mask(port) => {
                    d.word(Port(port)).set(MASKED);
                    seen[port as usize].masked = true;
                }
                Act::Unmask(port) => {
                    let _ = unmask(&d, Port(port)).unwrap();
                    seen[port as usize].masked = false;
                    join(&mut seen[port as usize], port);
                }
                Act::Move(port, vcpu) => {
                    t.bind_vcpu(&d, Port(port), VcpuId(vcpu)).unwrap();
                    seen[port as usize].vcpu = vcpu as usize;
                }
                Act::Priority(port, queue) => {
                    t.set_priority(&d, Port(port), queue).unwrap();
                    seen[port as usize].queue = queue as usize;
                }
                Act::Consume(vcpu) => {
                    let first = queues[vcpu as usize].iter_mut().find_map(VecDeque::pop_front);
                    let want = first.map(|port| {
                        let seen = &mut seen[port as usize];
                        let news = seen.pending && !seen.masked;
                        seen.queued = false;
                        seen.pending &= !news;
                        (port, news)
                    });
                    prop_assert_eq!(d.consume(vcpu), want);
                }
                Act::Clear(port) => {
                    d.word(Port(port)).clear(PENDING);
                    seen[port as usize].pending = false;
                }
            }
            for (port, seen) in (1..7).zip(&seen[1..]) {
                let word = d.word(Port(port)).load();
                let want = [(seen.pending, PENDING), (seen.masked, MASKED), (seen.queued, LINKED)];
                let want = want.into_iter().filter(|(set, _)| *set).fold(0, |all, (_, bit)| all | bit);
                prop_assert_eq!(word & (PENDING | MASKED | LINKED), want);
                prop_assert_eq!(word & BUSY, 0);
            }
        }
    }

    /// Whatever the guest writes, sending comes to an end.
    #[test]
    fn any_words_will_do(words in proptest::collection::vec(any::<u32>(), 8), ports in proptest::collection::vec(1u32..7, 1..60)) {
        let (d, mut t) = Fake::with_words();
        (1..7).for_each(|_| assert!(t.bind_ipi(&d, VcpuId(0)).is_ok()));
        for (index, port) in ports.into_iter().enumerate() {
            let _ = send(&d, Port(port));
            d.word(Port(port % 7)).update(|_| words[index % 8]);
            d.shared.controls[0].head[7].set(words[index % 8]);
        }
    }
}

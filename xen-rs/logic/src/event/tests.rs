//! Event channels against a slow, obvious model, and the answers to each misuse.

use super::never::Never;
use super::*;
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;
use xen_abi::errno::Errno;

/// A domain whose shared page is a pair of sets.
struct Fake {
    id: DomId,
    channels: Channels,
    vcpus: Vec<VcpuEvents>,
    bits: RefCell<Bits>,
    width: Width,
}

#[derive(Default)]
struct Bits {
    pending: BTreeSet<u32>,
    masked: BTreeSet<u32>,
    selectors: BTreeSet<(u32, u32)>,
    upcalls: BTreeSet<u32>,
}

impl Fake {
    fn new(id: u16, vcpus: usize) -> Self {
        Fake {
            id: DomId(id),
            channels: Channels::new().unwrap(),
            vcpus: (0..vcpus).map(|_| VcpuEvents::new()).collect(),
            bits: RefCell::default(),
            width: Width::Long64,
        }
    }
}

impl EventDomain for Fake {
    type Bits<'a> = &'a Fake;
    type Info<'a> = (&'a Fake, u32);
    type Fifo = Never;
    fn fifo(&self) -> Option<&Never> {
        None
    }
    fn width(&self) -> Width {
        self.width
    }
    fn id(&self) -> DomId {
        self.id
    }
    fn channels(&self) -> &Channels {
        &self.channels
    }
    fn vcpu(&self, vcpu: VcpuId) -> Option<&VcpuEvents> {
        self.vcpus.get(vcpu.0 as usize)
    }
    fn max_vcpus(&self) -> u32 {
        u32::try_from(self.vcpus.len()).unwrap()
    }
    fn bits(&self, width: Width) -> Option<&Fake> {
        assert_eq!(width, self.width);
        Some(self)
    }
    fn info(&self, vcpu: VcpuId) -> Option<(&Fake, u32)> {
        Some((self, vcpu.0))
    }
}

impl PortBits for &Fake {
    fn test_and_set_pending(self, port: Port) -> bool {
        !self.bits.borrow_mut().pending.insert(port.0)
    }
    fn clear_pending(self, port: Port) {
        self.bits.borrow_mut().pending.remove(&port.0);
    }
    fn is_pending(self, port: Port) -> bool {
        self.bits.borrow().pending.contains(&port.0)
    }
    fn is_masked(self, port: Port) -> bool {
        self.bits.borrow().masked.contains(&port.0)
    }
    fn test_and_clear_mask(self, port: Port) -> bool {
        self.bits.borrow_mut().masked.remove(&port.0)
    }
}

impl VcpuBits for (&Fake, u32) {
    fn test_and_set_selector(self, width: Width, word: u32) -> bool {
        assert_eq!(width, self.0.width);
        !self.0.bits.borrow_mut().selectors.insert((self.1, word))
    }
    fn test_and_set_upcall(self) -> bool {
        !self.0.bits.borrow_mut().upcalls.insert(self.1)
    }
}

fn kick(vcpu: u32) -> Notify {
    Notify::of(Some(VcpuId(vcpu)), None)
}

#[test]
fn ports_are_the_lowest_free_ones() {
    let (d, mut t) = (Fake::new(1, 1), Table::new(u32::MAX));
    for want in 1..100 {
        assert_eq!(t.alloc_unbound(&d, DomId(0)), Ok(Port(want)));
    }
    assert_eq!(t.close(&d, Port(70), None), Ok(Closed::Plain));
    assert_eq!(t.close(&d, Port(7), None), Ok(Closed::Plain));
    assert_eq!(t.alloc_unbound(&d, DomId(0)), Ok(Port(7)));
    assert_eq!(t.alloc_unbound(&d, DomId(0)), Ok(Port(70)));
    assert_eq!(t.alloc_unbound(&d, DomId(0)), Ok(Port(100)));
    assert_eq!(d.channels.valid(), 128);
}

#[test]
fn limits() {
    let (d, mut t) = (Fake::new(1, 1), Table::new(3));
    for _ in 1..=3 {
        t.alloc_unbound(&d, DomId(0)).unwrap();
    }
    assert_eq!(t.alloc_unbound(&d, DomId(0)), Err(Errno::ENOSPC));
    t.set_max_port(u32::MAX);
    for _ in 4..PORTS_2L {
        t.alloc_unbound(&d, DomId(0)).unwrap();
    }
    assert_eq!(t.alloc_unbound(&d, DomId(0)), Err(Errno::ENOSPC));
    assert_eq!(t.active(), PORTS_2L - 1);
    t.set_dying();
    t.close(&d, Port(9), None).unwrap();
    assert_eq!(t.alloc_unbound(&d, DomId(0)), Err(Errno::EINVAL));
}

#[test]
fn a_kernel_with_words_of_32_bits() {
    let (mut d, mut t) = (Fake::new(1, 1), Table::new(u32::MAX));
    for _ in 1..2000 {
        t.alloc_unbound(&d, DomId(1)).unwrap();
    }
    assert_eq!(t.bind_ipi(&d, VcpuId(0)), Ok(Port(2000)));
    d.width = Width::Long32;
    assert_eq!(t.alloc_unbound(&d, DomId(1)), Err(Errno::ENOSPC), "there are no more bits");
    t.close(&d, Port(33), None).unwrap();
    assert_eq!(t.bind_ipi(&d, VcpuId(0)), Ok(Port(33)));
    assert_eq!(send_at_once(&d, Port(33)), None, "not the short way");
    assert_eq!(send(&d, Port(33)), Ok(Sent::Here(kick(0))));
    assert!(d.bits.borrow().pending.contains(&33));
    assert_eq!(d.bits.borrow().selectors, BTreeSet::from([(0, 1)]), "the second word");
    // Masked, and unmasked again when its word and upcall were seen.
    d.bits.borrow_mut().masked.insert(33);
    d.bits.borrow_mut().selectors.clear();
    d.bits.borrow_mut().upcalls.clear();
    assert_eq!(unmask(&d, Port(33)), Ok(kick(0)));
    assert_eq!(d.bits.borrow().selectors, BTreeSet::from([(0, 1)]));
    // One that was bound before and has no bit any more.
    assert_eq!(send(&d, Port(2000)), Ok(Sent::Here(Notify::NOBODY)));
    assert_eq!(unmask(&d, Port(2000)), Ok(Notify::NOBODY));
    assert_eq!(is_pending(&d, Port(2000)), Some(false));
    assert_eq!(t.close(&d, Port(2000), None), Ok(Closed::Plain));
    assert!(d.bits.borrow().pending.iter().eq(&[33]));
}

#[test]
fn misuse_of_binding() {
    let (d, mut t) = (Fake::new(1, 2), Table::new(u32::MAX));
    let (e, mut u) = (Fake::new(2, 1), Table::new(u32::MAX));
    assert_eq!(t.bind_virq(&d, 24, VcpuId(0)), Err(Errno::EINVAL));
    assert_eq!(t.bind_virq(&d, u32::MAX, VcpuId(0)), Err(Errno::EINVAL));
    assert_eq!(t.bind_virq(&d, 2, VcpuId(1)), Err(Errno::EINVAL), "global VIRQs are bound on vCPU 0");
    assert_eq!(t.bind_virq(&d, 0, VcpuId(2)), Err(Errno::ENOENT));
    assert_eq!(t.bind_virq(&d, 0, VcpuId(1)), Ok(Port(1)));
    assert_eq!(t.bind_virq(&d, 0, VcpuId(1)), Err(Errno::EEXIST));
    assert_eq!(t.bind_ipi(&d, VcpuId(2)), Err(Errno::ENOENT));
    assert_eq!(t.bind_ipi(&d, VcpuId(1)), Ok(Port(2)));
    assert_eq!(t.bind_vcpu(&d, Port(1), VcpuId(0)), Err(Errno::EINVAL), "a per-vCPU VIRQ stays");
    assert_eq!(t.bind_vcpu(&d, Port(2), VcpuId(0)), Err(Errno::EINVAL), "an IPI stays");
    assert_eq!(t.bind_vcpu(&d, Port(3), VcpuId(2)), Err(Errno::ENOENT));
    assert_eq!(t.bind_vcpu(&d, Port(64), VcpuId(0)), Err(Errno::EINVAL));
    assert_eq!(t.bind_vcpu(&d, Port(3), VcpuId(0)), Err(Errno::EINVAL));
    assert_eq!(t.bind_vcpu(&d, Port(0), VcpuId(0)), Err(Errno::EINVAL));
    assert_eq!(t.close(&d, Port(0), None), Err(Errno::EINVAL));
    assert_eq!(t.close(&d, Port(3), None), Err(Errno::EINVAL));
    assert_eq!(t.close(&d, Port(9999), None), Err(Errno::EINVAL));
    assert_eq!(send(&d, Port(0)), Err(Errno::EINVAL));
    assert_eq!(send(&d, Port(1)), Err(Errno::EINVAL), "a VIRQ cannot be sent by the guest");
    assert_eq!(send(&d, Port(5000)), Err(Errno::EINVAL));
    assert_eq!(unmask(&d, Port(64)), Err(Errno::EINVAL));
    assert_eq!(unmask(&d, Port(63)), Ok(Notify::NOBODY));

    let offered = u.alloc_unbound(&e, DomId(3)).unwrap();
    assert_eq!(t.bind_interdomain(&d, &e, offered), Err(Errno::EINVAL), "offered to someone else");
    assert_eq!(t.bind_interdomain(&d, &e, Port(0)), Err(Errno::EINVAL));
    assert_eq!(t.bind_interdomain(&d, &e, Port(640)), Err(Errno::EINVAL));
    assert_eq!(t.bind_pirq(&d, 9), Ok(Port(3)));
    assert_eq!(t.bind_pirq(&d, 9), Err(Errno::EEXIST));
    assert_eq!(t.close(&d, Port(3), None), Ok(Closed::Pirq(9)));
    assert_eq!(t.bind_pirq(&d, 9), Ok(Port(3)));
    assert_eq!(t.active(), 3);
}

#[test]
fn a_close_changes_no_port_but_the_other_end() {
    let (d, mut t) = (Fake::new(1, 1), Table::new(u32::MAX));
    let (e, mut u) = (Fake::new(2, 1), Table::new(u32::MAX));
    let there = u.alloc_unbound(&e, DomId(1)).unwrap();
    let (here, _) = t.bind_interdomain(&d, &e, there).unwrap();
    // The domain went without closing its end, and another has its number now.
    let (next, mut v) = (Fake::new(2, 1), Table::new(u32::MAX));
    assert_eq!(v.bind_ipi(&next, VcpuId(0)), Ok(there));
    assert_eq!(t.close(&d, here, Some(&next)), Ok(Closed::Plain));
    assert_eq!(next.channels.get(there).unwrap().binding, Binding::Ipi);
}

#[test]
fn a_connection_from_offer_to_close() {
    let (d, mut t) = (Fake::new(1, 1), Table::new(u32::MAX));
    let (e, mut u) = (Fake::new(2, 3), Table::new(u32::MAX));
    let there = u.alloc_unbound(&e, DomId(1)).unwrap();
    u.bind_vcpu(&e, there, VcpuId(2)).unwrap();
    assert_eq!(send(&e, there), Ok(Sent::Here(Notify::NOBODY)), "nobody hears it yet");
    let (here, notify) = t.bind_interdomain(&d, &e, there).unwrap();
    assert_eq!(notify, kick(0), "a new connection starts pending");
    assert!(d.is_pending(here));
    assert_eq!(send(&d, here), Ok(Sent::There(DomId(2), there)));
    assert_eq!(deliver_remote(&e, there, DomId(1)), kick(2));
    assert_eq!(deliver_remote(&e, there, DomId(1)), Notify::NOBODY, "pending already");
    assert_eq!(deliver_remote(&e, there, DomId(7)), Notify::NOBODY, "not its connection");
    assert_eq!(Table::peer(&d, here), Some(DomId(2)));
    assert_eq!(t.close(&d, here, None), Err(Errno::EINVAL), "the peer has to be locked too");
    assert_eq!(t.close(&d, here, Some(&e)), Ok(Closed::Plain));
    assert!(!d.is_pending(here));
    assert_eq!(e.channels.get(there).unwrap().binding, Binding::Unbound { remote: DomId(1) });
    assert_eq!(t.bind_interdomain(&d, &e, there).unwrap().0, here, "it can be bound again");
}

#[test]
fn virqs_go_where_they_are_bound() {
    let (d, mut t) = (Fake::new(1, 2), Table::new(u32::MAX));
    assert_eq!(send_virq(&d, VcpuId(1), 0), Notify::NOBODY);
    let timer = t.bind_virq(&d, 0, VcpuId(1)).unwrap();
    let console = t.bind_virq(&d, 2, VcpuId(0)).unwrap();
    assert_eq!(send_virq(&d, VcpuId(1), 0), kick(1));
    assert_eq!(send_virq(&d, VcpuId(0), 0), Notify::NOBODY);
    t.bind_vcpu(&d, console, VcpuId(1)).unwrap();
    d.bits.borrow_mut().upcalls.clear();
    d.bits.borrow_mut().selectors.clear();
    assert_eq!(send_virq(&d, VcpuId(0), 2), kick(1), "a global VIRQ follows its port");
    t.close(&d, console, None).unwrap();
    t.close(&d, timer, None).unwrap();
    assert_eq!(send_virq(&d, VcpuId(0), 2), Notify::NOBODY);
    assert_eq!(d.vcpus[1].virq_port(0), None);
    assert_eq!(t.bind_virq(&d, 0, VcpuId(1)), Ok(timer));
}

#[test]
fn masked_ports_wake_pollers_only() {
    let (d, mut t) = (Fake::new(1, 2), Table::new(u32::MAX));
    let ipi = t.bind_ipi(&d, VcpuId(0)).unwrap();
    let other = t.bind_ipi(&d, VcpuId(0)).unwrap();
    d.bits.borrow_mut().masked.extend([ipi.0, other.0]);
    start_poll(&d, &d.vcpus[1], Poll::One(ipi));
    assert_eq!(send(&d, other), Ok(Sent::Here(Notify::of(None, Some(other)))));
    wake_pollers(&d, other, |_| panic!("polls for another port"));
    assert_eq!(send(&d, ipi), Ok(Sent::Here(Notify::of(None, Some(ipi)))));
    let mut woken = Vec::new();
    wake_pollers(&d, ipi, |v| woken.push(v));
    assert_eq!(woken, [VcpuId(1)]);
    assert!(!is_polled(&d.vcpus[1]) && !end_poll(&d, &d.vcpus[1]));
    start_poll(&d, &d.vcpus[1], Poll::Any);
    assert!(end_poll(&d, &d.vcpus[1]));
    assert_eq!(unmask(&d, ipi), Ok(kick(0)));
    assert_eq!(unmask(&d, ipi), Ok(Notify::NOBODY), "was not masked");
}

#[derive(Debug, Clone)]
enum Step {
    Offer(u16),
    Bind(u32),
    Virq(u32, u32),
    Ipi(u32),
    Move(u32, u32),
    Close(u32),
    Send(u32),
    Consume,
}

fn step() -> impl Strategy<Value = (usize, Step)> {
    let port = 0u32..12;
    let step = prop_oneof![
        (1u16..4).prop_map(Step::Offer),
        port.clone().prop_map(Step::Bind),
        (0u32..4, 0u32..3).prop_map(|(virq, vcpu)| Step::Virq(virq, vcpu)),
        (0u32..3).prop_map(Step::Ipi),
        (port.clone(), 0u32..3).prop_map(|(port, vcpu)| Step::Move(port, vcpu)),
        port.clone().prop_map(Step::Close),
        port.prop_map(Step::Send),
        Just(Step::Consume),
    ];
    (0usize..2, step)
}

/// The model: each domain's ports as a map, connections looked up by searching.
type Model = [BTreeMap<u32, (Binding, u32)>; 2];

fn lowest(ports: &BTreeMap<u32, (Binding, u32)>) -> u32 {
    (1..).find(|p| !ports.contains_key(p)).unwrap()
}

proptest! {
    #[test]
    fn agrees_with_the_model(steps in prop::collection::vec(step(), 1..120)) {
        let doms = [Fake::new(1, 2), Fake::new(2, 2)];
        let mut tables = [Table::new(u32::MAX), Table::new(u32::MAX)];
        let mut model: Model = Default::default();
        for (who, step) in steps {
            let other = 1 - who;
            let (d, e) = (&doms[who], &doms[other]);
            match step {
                Step::Offer(to) => {
                    let port = lowest(&model[who]);
                    model[who].insert(port, (Binding::Unbound { remote: DomId(to) }, 0));
                    prop_assert_eq!(tables[who].alloc_unbound(d, DomId(to)), Ok(Port(port)));
                }
                Step::Bind(remote) => {
                    let ok = model[other].get(&remote).map(|p| p.0) == Some(Binding::Unbound { remote: d.id });
                    let got = tables[who].bind_interdomain(d, e, Port(remote));
                    if ok {
                        let port = lowest(&model[who]);
                        model[who].insert(port, (Binding::Interdomain { remote: e.id, port: Port(remote) }, 0));
                        model[other].get_mut(&remote).unwrap().0 = Binding::Interdomain { remote: d.id, port: Port(port) };
                        prop_assert_eq!(got.unwrap().0, Port(port));
                        prop_assert!(d.is_pending(Port(port)));
                    } else {
                        prop_assert_eq!(got, Err(Errno::EINVAL));
                    }
                }
                Step::Virq(virq, vcpu) => {
                    let got = tables[who].bind_virq(d, virq, VcpuId(vcpu));
                    let bound = model[who].values().any(|p| {
                        p.0 == Binding::Virq(virq) && (virq_is_global(virq) || p.1 == vcpu)
                    });
                    if virq_is_global(virq) && vcpu != 0 {
                        prop_assert_eq!(got, Err(Errno::EINVAL));
                    } else if vcpu >= 2 {
                        prop_assert_eq!(got, Err(Errno::ENOENT));
                    } else if bound {
                        prop_assert_eq!(got, Err(Errno::EEXIST));
                    } else {
                        let port = lowest(&model[who]);
                        model[who].insert(port, (Binding::Virq(virq), vcpu));
                        prop_assert_eq!(got, Ok(Port(port)));
                    }
                }
                Step::Ipi(vcpu) => {
                    let got = tables[who].bind_ipi(d, VcpuId(vcpu));
                    if vcpu >= 2 {
                        prop_assert_eq!(got, Err(Errno::ENOENT));
                    } else {
                        let port = lowest(&model[who]);
                        model[who].insert(port, (Binding::Ipi, vcpu));
                        prop_assert_eq!(got, Ok(Port(port)));
                    }
                }
                Step::Move(port, vcpu) => {
                    let got = tables[who].bind_vcpu(d, Port(port), VcpuId(vcpu));
                    let movable = |b: &Binding| match b {
                        Binding::Virq(v) => virq_is_global(*v),
                        Binding::Unbound { .. } | Binding::Interdomain { .. } => true,
                        _ => false,
                    };
                    if vcpu >= 2 {
                        prop_assert_eq!(got, Err(Errno::ENOENT));
                    } else if let Some(p) = model[who].get_mut(&port).filter(|p| movable(&p.0)) {
                        p.1 = vcpu;
                        prop_assert_eq!(got, Ok(()));
                    } else {
                        prop_assert_eq!(got, Err(Errno::EINVAL));
                    }
                }
                Step::Close(port) => {
                    let peer = Table::peer(d, Port(port)).map(|_| e);
                    let got = tables[who].close(d, Port(port), peer);
                    match model[who].remove(&port) {
                        None => prop_assert_eq!(got, Err(Errno::EINVAL)),
                        Some((binding, _)) => {
                            prop_assert_eq!(got, Ok(Closed::Plain));
                            prop_assert!(!d.is_pending(Port(port)));
                            if let Binding::Interdomain { port, .. } = binding {
                                model[other].get_mut(&port.0).unwrap().0 = Binding::Unbound { remote: d.id };
                            }
                        }
                    }
                }
                Step::Send(port) => {
                    let got = send(d, Port(port));
                    match model[who].get(&port).copied() {
                        Some((Binding::Interdomain { port: there, .. }, _)) => {
                            prop_assert_eq!(got, Ok(Sent::There(e.id, there)));
                            let _ = deliver_remote(e, there, d.id);
                            prop_assert!(e.is_pending(there));
                        }
                        Some((Binding::Ipi, vcpu)) => {
                            prop_assert!(d.is_pending(Port(port)));
                            prop_assert!(d.bits.borrow().upcalls.contains(&vcpu));
                        }
                        Some((Binding::Unbound { .. }, _)) => prop_assert_eq!(got, Ok(Sent::Here(Notify::NOBODY))),
                        _ => prop_assert_eq!(got, Err(Errno::EINVAL)),
                    }
                }
                Step::Consume => *d.bits.borrow_mut() = Bits::default(),
            }
            for (dom, ports) in doms.iter().zip(&model) {
                for port in 1..64 {
                    let channel = dom.channels.get(Port(port)).unwrap();
                    let want = ports.get(&port).copied().unwrap_or((Binding::Free, 0));
                    prop_assert_eq!((channel.binding, channel.vcpu.0), want);
                }
            }
        }
    }
}

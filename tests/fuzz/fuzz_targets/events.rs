//! Event channels of two domains, bound, closed and sent to in any order, against a table of who is bound to whom.
#![no_main]
#![forbid(unsafe_code)]

use fuzz::Bytes;
use libfuzzer_sys::fuzz_target;
use logic::event::{
    Binding, Channels, Closed, EventDomain, PortBits, Sent, Table, VcpuBits, VcpuEvents, deliver_remote, never::Never,
    send, unmask,
};
use logic::width::Width;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use xen_abi::ids::{DomId, Port, VcpuId};

struct Domain {
    id: DomId,
    channels: Channels,
    vcpus: [VcpuEvents; 2],
    pending: RefCell<BTreeSet<u32>>,
    masked: RefCell<BTreeSet<u32>>,
    upcalls: RefCell<BTreeSet<u32>>,
    width: Cell<Width>,
}

impl Domain {
    fn new(id: u16) -> Self {
        let channels = Channels::new().unwrap();
        Domain {
            id: DomId(id),
            channels,
            vcpus: [VcpuEvents::new(), VcpuEvents::new()],
            pending: RefCell::default(),
            masked: RefCell::default(),
            upcalls: RefCell::default(),
            width: Cell::default(),
        }
    }
}

impl EventDomain for Domain {
    type Bits<'a> = &'a Domain;
    type Info<'a> = Info<'a>;
    type Fifo = Never;
    fn fifo(&self) -> Option<&Never> {
        None
    }
    fn width(&self) -> Width {
        self.width.get()
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
        2
    }
    fn bits(&self, width: Width) -> Option<&Domain> {
        assert_eq!(width, self.width.get());
        Some(self)
    }
    fn info(&self, vcpu: VcpuId) -> Option<Info<'_>> {
        Some(Info(self, vcpu.0))
    }
}

impl PortBits for &Domain {
    fn test_and_set_pending(self, port: Port) -> bool {
        !self.pending.borrow_mut().insert(port.0)
    }
    fn clear_pending(self, port: Port) {
        self.pending.borrow_mut().remove(&port.0);
    }
    fn is_pending(self, port: Port) -> bool {
        self.pending.borrow().contains(&port.0)
    }
    fn is_masked(self, port: Port) -> bool {
        self.masked.borrow().contains(&port.0)
    }
    fn test_and_clear_mask(self, port: Port) -> bool {
        self.masked.borrow_mut().remove(&port.0)
    }
}

/// The bits of one vCPU.
#[derive(Clone, Copy)]
struct Info<'a>(&'a Domain, u32);

impl VcpuBits for Info<'_> {
    fn test_and_set_selector(self, width: Width, word: u32) -> bool {
        assert!(width == self.0.width.get() && word < width.bits());
        false
    }
    fn test_and_set_upcall(self) -> bool {
        !self.0.upcalls.borrow_mut().insert(self.1)
    }
}

/// Both ends of a channel name each other.
fn consistent(one: &Domain, other: &Domain) {
    let mut bound = 0;
    for port in (0..one.channels.valid()).map(Port) {
        let Some(channel) = one.channels.get(port) else { panic!("{port:?} is valid and not there") };
        if let Binding::Interdomain { remote, port: there } = channel.binding {
            bound += 1;
            let peer = if remote == one.id { one } else { other };
            let back = peer.channels.get(there).map(|channel| channel.binding);
            assert_eq!(back, Some(Binding::Interdomain { remote: one.id, port }), "{port:?} leads to a stranger");
        }
    }
    assert!(bound <= one.channels.valid());
}

fuzz_target!(|data: &[u8]| {
    let domains = [Domain::new(1), Domain::new(2)];
    let mut tables = [Table::new(200), Table::new(200)];
    let mut bytes = Bytes::new(data);
    while !bytes.is_empty() {
        let what = bytes.u8();
        let who = usize::from(what >> 7);
        let (own, other, table) = (&domains[who], &domains[1 - who], &mut tables[who]);
        let (a, b) = (u32::from(bytes.u8()), u32::from(bytes.u8()));
        let port = Port(a);
        match what % 10 {
            0 => drop(table.alloc_unbound(own, DomId(b as u16 % 4))),
            1 => drop(table.bind_virq(own, a, VcpuId(b % 4))),
            2 => drop(table.bind_ipi(own, VcpuId(b % 4))),
            3 => {
                if let Ok((mine, _)) = table.bind_interdomain(own, other, port) {
                    assert!(matches!(own.channels.get(mine).unwrap().binding, Binding::Interdomain { .. }));
                }
            }
            4 => drop(table.bind_vcpu(own, port, VcpuId(b % 4))),
            5 => {
                // As the hypervisor does: with the peer, if there is one.
                let peer = Table::peer(own, port).filter(|id| *id == other.id).map(|_| other);
                if table.close(own, port, peer) == Ok(Closed::Plain) {
                    assert_eq!(own.channels.get(port).unwrap().binding, Binding::Free);
                }
            }
            6 => {
                if let Ok(Sent::There(remote, there)) = send(own, port) {
                    assert_eq!(remote, other.id);
                    let _ = deliver_remote(other, there, own.id);
                }
            }
            7 => drop(unmask(own, port)),
            8 => drop(own.masked.borrow_mut().insert(a)),
            _ => {
                own.pending.borrow_mut().clear();
                own.upcalls.borrow_mut().clear();
                own.width.set(if b % 2 == 0 { Width::Long64 } else { Width::Long32 });
            }
        }
        assert!(tables[who].active() <= 200);
        consistent(own, other);
        consistent(other, own);
    }
});

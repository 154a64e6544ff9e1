//! The FIFO layout with a guest that writes anything into its words and control blocks: the hypervisor comes to an end with
//! every event, and once the guest keeps to the rules again, what is raised from then on arrives.
#![no_main]
#![forbid(unsafe_code)]

use fuzz::Bytes;
use libfuzzer_sys::fuzz_target;
use logic::event::fifo::{ControlBlock, EventWord, FifoMemory, Priority, Queues};
use logic::event::{Channels, EventDomain, PortBits, Table, VcpuBits, VcpuEvents, raise, unmask};
use logic::width::Width;
use std::cell::{Cell, RefCell};
use xen_abi::event_channel::{EVTCHN_FIFO_LINK_MASK, EVTCHN_FIFO_LINKED, EVTCHN_FIFO_MASKED, EVTCHN_FIFO_PENDING};
use xen_abi::ids::{DomId, Port, VcpuId};

const PORTS: u32 = 40;
const VCPUS: u32 = 2;
const PENDING: u32 = 1 << EVTCHN_FIFO_PENDING;
const MASKED: u32 = 1 << EVTCHN_FIFO_MASKED;
const LINKED: u32 = 1 << EVTCHN_FIFO_LINKED;

#[derive(Default)]
struct Control {
    ready: Cell<u32>,
    heads: [Cell<u32>; 16],
}

#[derive(Clone, Copy)]
struct Word<'a>(&'a Cell<u32>);

impl EventWord for Word<'_> {
    fn load(self) -> u32 {
        self.0.get()
    }
    fn set(self, bits: u32) -> u32 {
        self.0.replace(self.0.get() | bits)
    }
    fn clear(self, bits: u32) -> u32 {
        self.0.replace(self.0.get() & !bits)
    }
    fn replace(self, old: u32, new: u32) -> Result<(), u32> {
        let found = self.0.get();
        if found != old {
            return Err(found);
        }
        self.0.set(new);
        Ok(())
    }
}

impl ControlBlock for &Control {
    fn set_head(self, queue: Priority, port: Port) {
        self.heads[queue.index()].set(port.0);
    }
    fn test_and_set_ready(self, queue: Priority) -> bool {
        let bit = 1 << queue.index();
        self.ready.replace(self.ready.get() | bit) & bit != 0
    }
}

struct Shared {
    words: Vec<Cell<u32>>,
    controls: [Control; VCPUS as usize],
    queues: [RefCell<Queues>; VCPUS as usize],
}

impl FifoMemory for Shared {
    type Word<'a> = Word<'a>;
    type Control<'a> = &'a Control;
    fn word(&self, port: Port) -> Option<Word<'_>> {
        self.words.get(port.0 as usize).map(Word)
    }
    fn control(&self, vcpu: VcpuId) -> Option<&Control> {
        self.controls.get(vcpu.0 as usize)
    }
    fn with_queues<V>(&self, vcpu: VcpuId, f: impl FnOnce(&mut Queues) -> V) -> Option<V> {
        // Borrowed twice it would be a lock that waits for itself.
        Some(f(&mut self.queues.get(vcpu.0 as usize)?.borrow_mut()))
    }
}

struct Domain {
    channels: Channels,
    vcpus: [VcpuEvents; VCPUS as usize],
    shared: Shared,
}

/// Of the other layout, which it does not use.
#[derive(Clone, Copy)]
struct Nothing;

impl PortBits for Nothing {
    fn test_and_set_pending(self, _: Port) -> bool {
        false
    }
    fn clear_pending(self, _: Port) {}
    fn is_pending(self, _: Port) -> bool {
        false
    }
    fn is_masked(self, _: Port) -> bool {
        false
    }
    fn test_and_clear_mask(self, _: Port) -> bool {
        false
    }
}

impl VcpuBits for Nothing {
    fn test_and_set_selector(self, _: Width, _: u32) -> bool {
        false
    }
    fn test_and_set_upcall(self) -> bool {
        false
    }
}

impl EventDomain for Domain {
    type Bits<'a> = Nothing;
    type Info<'a> = Nothing;
    type Fifo = Shared;
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
        VCPUS
    }
    fn bits(&self, _: Width) -> Option<Nothing> {
        Some(Nothing)
    }
    fn info(&self, _: VcpuId) -> Option<Nothing> {
        Some(Nothing)
    }
    fn fifo(&self) -> Option<&Shared> {
        Some(&self.shared)
    }
}

impl Domain {
    fn vcpu_of(&self, port: Port) -> VcpuId {
        self.channels.get(port).unwrap().vcpu
    }

    /// Takes everything off all queues, as a guest does that keeps to the rules; the ports it finds.
    fn drain(&self) -> Vec<u32> {
        let mut seen = Vec::new();
        for control in &self.shared.controls {
            let ready = control.ready.take();
            for queue in (0..16).filter(|queue| ready & 1 << queue != 0) {
                let mut port = control.heads[queue].get();
                for _ in 0..=PORTS {
                    let Some(word) = self.shared.words.get(port as usize).filter(|_| port != 0) else { break };
                    let old = word.replace(word.get() & !(LINKED | EVTCHN_FIFO_LINK_MASK));
                    if old & PENDING != 0 && old & MASKED == 0 {
                        word.set(word.get() & !PENDING);
                        seen.push(port);
                    }
                    port = old & EVTCHN_FIFO_LINK_MASK;
                }
            }
        }
        seen
    }
}

fuzz_target!(|data: &[u8]| {
    let shared = Shared {
        words: (0..PORTS + 1).map(|_| Cell::new(0)).collect(),
        controls: Default::default(),
        queues: Default::default(),
    };
    let domain = Domain { channels: Channels::new().unwrap(), vcpus: Default::default(), shared };
    let mut table = Table::new(PORTS);
    let ports: Vec<Port> = (0..PORTS).map_while(|_| table.alloc_unbound(&domain, DomId(2)).ok()).collect();
    assert_eq!(ports.len() as u32, PORTS);
    let mut bytes = Bytes::new(data);
    while !bytes.is_empty() {
        let (what, a) = (bytes.u8(), u32::from(bytes.u8()));
        let port = Port(1 + a % PORTS);
        match what % 6 {
            0 | 1 => drop(raise(&domain, domain.vcpu_of(port), port)),
            2 => drop(unmask(&domain, port)),
            3 => drop(table.bind_vcpu(&domain, port, VcpuId(u32::from(what >> 4) % VCPUS))),
            4 => drop(table.set_priority(&domain, port, u32::from(what >> 4))),
            // Anything, into a word or a control block.
            _ => match what >> 6 {
                0 => domain.shared.words[port.0 as usize].set(bytes.u32()),
                1 => domain.shared.controls[a as usize % 2].ready.set(bytes.u32()),
                2 => domain.shared.controls[a as usize % 2].heads[a as usize / 2 % 16].set(bytes.u32()),
                _ => drop(domain.drain()),
            },
        }
    }
    // From here on the guest keeps to the rules: nothing is on a queue, nothing pending.
    domain.shared.words.iter().for_each(|word| word.set(0));
    domain.shared.controls.iter().for_each(|control| control.ready.set(0));
    for port in &ports {
        let _ = raise(&domain, domain.vcpu_of(*port), *port);
    }
    let mut seen = domain.drain();
    seen.sort_unstable();
    assert_eq!(seen, ports.iter().map(|port| port.0).collect::<Vec<_>>(), "an event was lost");
});

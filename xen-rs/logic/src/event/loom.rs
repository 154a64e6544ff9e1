//! An event that comes while its receiver goes to sleep, in all interleavings: it is never lost.
//!
//! Run: `RUSTFLAGS="--cfg loom" cargo test -p xen-rs-logic --release --lib loom`
//!
//! What the model takes as given, since it has no total order of plain accesses: reads of shared bits are made by
//! read-modify-write.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use loom::thread;
use std::vec::Vec;
use xen_abi::ids::{DomId, Port, VcpuId};

use super::never::Never;
use super::{
    Channels, EventDomain, Poll, PortBits, Sent, Table, VcpuBits, VcpuEvents, end_poll, is_polled, send, start_poll,
    wake_pollers,
};
use crate::sched::{Readiness, Wake};
use crate::width::Width;

/// A domain of one vCPU with one port, an IPI to itself.
struct Domain {
    channels: Channels,
    vcpus: Vec<VcpuEvents>,
    ready: Readiness,
    pending: AtomicBool,
    masked: AtomicBool,
    selector: AtomicBool,
    upcall: AtomicBool,
    /// How often somebody had to put the vCPU on a queue.
    queued: AtomicU32,
}

const PORT: Port = Port(1);

impl Domain {
    fn new(masked: bool) -> Arc<Self> {
        let domain = Domain {
            channels: Channels::new().unwrap(),
            vcpus: Vec::from([VcpuEvents::new()]),
            ready: Readiness::new(),
            pending: AtomicBool::new(false),
            masked: AtomicBool::new(masked),
            selector: AtomicBool::new(false),
            upcall: AtomicBool::new(false),
            queued: AtomicU32::new(0),
        };
        assert_eq!(Table::new(u32::MAX).bind_ipi(&domain, VcpuId(0)), Ok(PORT));
        let _ = domain.ready.bring_up();
        assert!(domain.ready.switch_in());
        Arc::new(domain)
    }

    fn unblock(&self) {
        if self.ready.unblock() == Wake::Enqueue {
            self.queued.fetch_add(1, SeqCst);
        }
    }

    /// What the hypervisor does on behalf of a sender on another CPU.
    fn send(&self) {
        let Ok(Sent::Here(notify)) = send(self, PORT) else { panic!("an IPI") };
        if notify.vcpu().is_some() {
            self.unblock();
        }
        if let Some(port) = notify.poll() {
            wake_pollers(self, port, |_| self.unblock());
        }
    }

    /// The CPU of the vCPU puts it aside if it may not run on.
    fn put_back(&self) {
        if !self.ready.is_runnable() && self.ready.switch_out() {
            self.queued.fetch_add(1, SeqCst);
        }
    }

    fn is_on_cpu_or_queue(&self) -> bool {
        let (running, queued) = (self.ready.is_running(), self.queued.load(SeqCst));
        assert!(queued <= 1 && !(running && queued == 1), "never on two");
        running || queued == 1
    }
}

fn read(bit: &AtomicBool) -> bool {
    bit.fetch_or(false, SeqCst)
}

impl EventDomain for Domain {
    type Bits<'a> = &'a Domain;
    type Info<'a> = &'a Domain;
    type Fifo = Never;
    fn fifo(&self) -> Option<&Never> {
        None
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
        1
    }
    fn bits(&self, _: Width) -> Option<&Domain> {
        Some(self)
    }
    fn info(&self, _: VcpuId) -> Option<&Domain> {
        Some(self)
    }
}

impl PortBits for &Domain {
    fn test_and_set_pending(self, _: Port) -> bool {
        self.pending.swap(true, SeqCst)
    }
    fn clear_pending(self, _: Port) {
        self.pending.swap(false, SeqCst);
    }
    fn is_pending(self, _: Port) -> bool {
        read(&self.pending)
    }
    fn is_masked(self, _: Port) -> bool {
        read(&self.masked)
    }
    fn test_and_clear_mask(self, _: Port) -> bool {
        self.masked.swap(false, SeqCst)
    }
}

impl VcpuBits for &Domain {
    fn test_and_set_selector(self, _: Width, _: u32) -> bool {
        self.selector.swap(true, SeqCst)
    }
    fn test_and_set_upcall(self) -> bool {
        self.upcall.swap(true, SeqCst)
    }
}

#[test]
fn an_event_is_not_lost_on_a_vcpu_that_blocks() {
    loom::model(|| {
        let domain = Domain::new(false);
        let sender = {
            let domain = domain.clone();
            thread::spawn(move || domain.send())
        };
        domain.ready.block();
        if read(&domain.upcall) {
            domain.unblock();
        }
        domain.put_back();
        sender.join().unwrap();
        assert!(domain.ready.is_runnable() && domain.is_on_cpu_or_queue());
    });
}

#[test]
fn two_senders_wake_a_blocked_vcpu_once() {
    loom::model(|| {
        let domain = Domain::new(false);
        let senders: Vec<_> = (0..2)
            .map(|_| {
                let domain = domain.clone();
                thread::spawn(move || domain.send())
            })
            .collect();
        domain.ready.block();
        if read(&domain.upcall) {
            domain.unblock();
        }
        domain.put_back();
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        assert!(domain.ready.is_runnable() && domain.is_on_cpu_or_queue());
    });
}

#[test]
fn a_masked_event_is_not_lost_on_a_vcpu_that_polls() {
    loom::model(|| {
        let domain = Domain::new(true);
        let sender = {
            let domain = domain.clone();
            thread::spawn(move || domain.send())
        };
        domain.ready.block();
        start_poll(&*domain, &domain.vcpus[0], Poll::One(PORT));
        if (&*domain).is_pending(PORT) {
            end_poll(&*domain, &domain.vcpus[0]);
            domain.unblock();
        }
        domain.put_back();
        sender.join().unwrap();
        assert!(domain.ready.is_runnable() && domain.is_on_cpu_or_queue());
        assert!(!is_polled(&domain.vcpus[0]));
    });
}

#[test]
fn unmasking_and_sending_at_once_raises_the_upcall() {
    loom::model(|| {
        let domain = Domain::new(true);
        let sender = {
            let domain = domain.clone();
            thread::spawn(move || domain.send())
        };
        let _ = super::unmask(&*domain, PORT).unwrap();
        sender.join().unwrap();
        assert!(read(&domain.upcall));
    });
}

//! The FIFO layout of events, as the guest sees it (`event_channel.h`): a word per port, and sixteen queues per vCPU.
//!
//! The pages stay with the hypervisor until `EVTCHNOP_reset`, so they are never given back.

use crate::call::event_channel;
use crate::events::{shared, vcpu_info_of};
use crate::mem::{Access, Frame, Mapping, SharedBytes};
use crate::smp;
use alloc::vec::Vec;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, Ordering::SeqCst};
use xen_abi::arch_x86::vcpu_info;
use xen_abi::errno::Errno;
use xen_abi::event_channel::{
    EVTCHN_FIFO_LINK_MASK, EVTCHN_FIFO_LINKED, EVTCHN_FIFO_MASKED, EVTCHN_FIFO_MAX_QUEUES, EVTCHN_FIFO_PENDING,
    EvtchnFifoControlBlock,
};
use xen_abi::ids::{Mfn, Port, VcpuId};

/// The port is pending.
pub const PENDING: u32 = 1 << EVTCHN_FIFO_PENDING;
/// The port is masked.
pub const MASKED: u32 = 1 << EVTCHN_FIFO_MASKED;
/// The port is on a queue.
pub const LINKED: u32 = 1 << EVTCHN_FIFO_LINKED;
/// Words in a page.
pub const WORDS: u32 = 1024;

/// A page of ours that the hypervisor may write, too.
pub struct Page {
    /// Its number.
    pub mfn: Mfn,
    /// Its bytes.
    pub bytes: &'static SharedBytes,
}

impl Page {
    /// A new one.
    ///
    /// # Panics
    /// Without memory.
    pub fn new() -> Self {
        let mfn = {
            let frame = Frame::zeroed().expect("the guest has memory");
            let mfn = frame.mfn();
            frame.leak();
            mfn
        };
        let bytes = Mapping::own(&[mfn.0], Access::ReadWrite).expect("own memory can be mapped").leak();
        Self { mfn, bytes }
    }
}

impl Default for Page {
    fn default() -> Self {
        Self::new()
    }
}

/// A vCPU's queues.
struct Queues {
    control: &'static SharedBytes,
    offset: usize,
    /// How far each queue has been read; 0: its head says.
    heads: [u32; EVTCHN_FIFO_MAX_QUEUES],
    ready: u32,
}

/// The layout in use.
#[derive(Default)]
pub struct Fifo {
    array: Vec<Page>,
    vcpus: [Option<Queues>; smp::MAX],
}

/// A port that was taken off a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The port.
    pub port: Port,
    /// The queue it was on.
    pub queue: usize,
    /// It was pending and not masked. Now it is not pending.
    pub news: bool,
}

impl Fifo {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers the control block of a vCPU; the number of bits of a link.
    ///
    /// # Errors
    /// Those of the hypercall.
    pub fn init_control(&mut self, page: &Page, offset: usize, vcpu: VcpuId) -> Result<u8, Errno> {
        let place = u32::try_from(offset).map_err(|_| Errno::EINVAL)?;
        let bits = event_channel::init_control(page.mfn, place, vcpu)?;
        if let Some(queues) = self.vcpus.get_mut(vcpu.0 as usize) {
            let heads = [0; EVTCHN_FIFO_MAX_QUEUES];
            *queues = Some(Queues { control: page.bytes, offset, heads, ready: 0 });
        }
        Ok(bits)
    }

    /// Adds a page of words.
    ///
    /// # Errors
    /// Those of the hypercall.
    pub fn expand(&mut self, page: Page) -> Result<(), Errno> {
        event_channel::expand_array(page.mfn)?;
        self.array.push(page);
        Ok(())
    }

    /// The word of a port.
    ///
    /// # Panics
    /// When there is no page with it.
    pub fn word(&self, port: Port) -> &AtomicU32 {
        self.array[(port.0 / WORDS) as usize].bytes.u32_at((port.0 % WORDS) as usize * 4)
    }

    /// The bits of a port's word that say what it is, without the link.
    pub fn state(&self, port: Port) -> u32 {
        self.word(port).load(SeqCst) & (PENDING | MASKED | LINKED)
    }

    /// Masks a port.
    pub fn mask(&self, port: Port) {
        self.word(port).fetch_or(MASKED, SeqCst);
    }

    /// Whether a vCPU's upcall is pending; it is not any more.
    pub fn take_upcall(&self, vcpu: VcpuId) -> bool {
        let pending = vcpu_info_of(vcpu.0 as usize) + vcpu_info::EVTCHN_UPCALL_PENDING;
        shared().u8_at(pending).swap(0, SeqCst) != 0
    }

    /// The queues of a vCPU that are ready, as it has read them so far.
    ///
    /// # Panics
    /// Without a control block.
    pub fn ready(&mut self, vcpu: VcpuId) -> u32 {
        let queues = self.vcpus[vcpu.0 as usize].as_mut().expect("the vCPU has a control block");
        let ready = queues.control.u32_at(queues.offset + offset_of!(EvtchnFifoControlBlock, ready));
        queues.ready |= ready.swap(0, SeqCst);
        queues.ready
    }

    /// Takes the first port off the most urgent queue of a vCPU.
    ///
    /// # Panics
    /// Without a control block.
    pub fn take(&mut self, vcpu: VcpuId) -> Option<Taken> {
        let ready = self.ready(vcpu);
        let queue = (ready != 0).then(|| ready.trailing_zeros() as usize)?;
        let queues = self.vcpus[vcpu.0 as usize].as_ref().expect("the vCPU has a control block");
        let port = Port(match queues.heads[queue] {
            0 => queues.control.load_u32(queues.offset + offset_of!(EvtchnFifoControlBlock, head) + queue * 4),
            head => head,
        });
        let word = self.word(port);
        let next = word.fetch_and(!(LINKED | EVTCHN_FIFO_LINK_MASK), SeqCst) & EVTCHN_FIFO_LINK_MASK;
        let news = word.load(SeqCst) & (PENDING | MASKED) == PENDING;
        if news {
            word.fetch_and(!PENDING, SeqCst);
        }
        let queues = self.vcpus[vcpu.0 as usize].as_mut().expect("the vCPU has a control block");
        queues.heads[queue] = next;
        if next == 0 {
            queues.ready &= !(1 << queue);
        }
        Some(Taken { port, queue, news })
    }
}

//! Nested page tables in real frames, and what makes CPUs forget them.
//!
//! The rules are `logic::hvm::p2m`'s; here its entries are read and written. A domain's [`Tables`] are shared by its vCPUs:
//! they find the root there, look guest frames up without a lock, and see from [`Tables::generation`] whether they have to
//! drop translations before they enter the guest. That is all a CPU has to do that does not run the domain at the moment;
//! one that does is called out of it by [`Tables::flush`].
//!
//! The same call is why a look-up needs no reference for a moment's use: a page's references are given up after the flush,
//! and a CPU that runs the domain and has looked something up answers only when it polls. So what a running vCPU of the
//! domain found is there until its CPU takes a lock, waits, or opens interrupts.
//!
//! Unsafe: tables are read and written through the direct map.

use super::direct_map::va_of;
use super::frame_table::frames;
use super::tlb;
use crate::mailbox;
use core::sync::atomic::{AtomicU64, Ordering};
use logic::frames::Block;
use logic::grant::Flushed;
use logic::hvm::p2m::{Format, Found, Node, Order, Physmap, TableMemory, Walker};
use logic::page::Slot;
use logic::sched::CpuMask;
use xen_abi::ids::{DomId, Gfn};

/// Tables in the direct map.
#[derive(Clone, Copy, Debug)]
pub struct DirectMapped(());

fn cell(node: &Node, slot: Slot) -> &'static AtomicU64 {
    let at = va_of(node.mfn()) + u64::from(slot.number()) * 8;
    // SAFETY: a node is a frame of memory that is the hypervisor's own, or was when it was read from a table in use; memory
    // is in the direct map for good, and the CPU's walks and ours are single accesses.
    unsafe { AtomicU64::from_ptr(at as *mut u64) }
}

impl TableMemory for DirectMapped {
    #[inline(always)]
    fn read(self, node: &Node, slot: Slot) -> u64 {
        cell(node, slot).load(Ordering::Acquire)
    }
    #[inline(always)]
    fn swap(self, node: &Node, slot: Slot, value: u64) -> u64 {
        cell(node, slot).swap(value, Ordering::SeqCst)
    }
    #[inline(always)]
    fn fill(self, node: &Node, slot: Slot, value: u64) {
        cell(node, slot).store(value, Ordering::Release);
    }
}

/// A domain's physical map, for changing it.
pub type Map = Physmap<DirectMapped>;

/// A new, empty map and what its vCPUs need of it. Gives back a block that cannot be a root: not a single zeroed frame.
pub fn new(domain: DomId, format: Format, largest: Order, root: Block) -> Result<(Map, Tables), Block> {
    let map = Map::new(format, largest, DirectMapped(()), root, frames())?;
    let tables = Tables { domain, walker: map.walker(), generation: AtomicU64::new(1) };
    Ok((map, tables))
}

/// A domain's nested page tables, for using them.
#[derive(Debug)]
pub struct Tables {
    domain: DomId,
    walker: Walker<DirectMapped>,
    generation: AtomicU64,
}

impl Tables {
    /// What is mapped at a guest frame number at the moment.
    #[inline]
    #[must_use]
    pub fn lookup(&self, gfn: Gfn) -> Option<Found> {
        self.walker.find(gfn)
    }

    /// What the CPU is told: the EPT pointer, or nested CR3.
    #[must_use]
    pub const fn pointer(&self, accessed_dirty: bool) -> u64 {
        self.walker.pointer(accessed_dirty)
    }

    /// Changes with each removal. A CPU that has translations of an earlier one (or whose number for this domain's
    /// translations comes from another CPU) drops them before it enters the guest; it reads this after [`tlb`] counts it
    /// among the CPUs of the domain, with interrupts off until the entry.
    #[inline(always)]
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Has every CPU that runs the domain leave it and drop what it knows, and every other do so before it runs it again.
    pub fn flush(&self) -> Flushed {
        // After this, whoever enters the guest sees the new number; and whoever had entered it before is called.
        self.generation.fetch_add(1, Ordering::SeqCst);
        let others = tlb::cpus_of(self.domain);
        mailbox::call(CpuMask(others), |_| (), 0);
        Flushed::acknowledged()
    }
}

//! What the rules of page types (`logic::page`) find above them: table memory and TLBs from `machine`, domains from here.

use alloc::{sync::Arc, vec::Vec};

use logic::{
    frames::Batch,
    hvm::p2m::Found,
    hypercall::Budget,
    lock::Held,
    page::{Deferred, Entry, Env, Freed, Mmu, Slot, Stamp, Table},
};
use machine::{
    arch::x86_64::{
        cpu::{Features, has},
        speculation,
    },
    mailbox::Poll,
    mem::{
        frame_table::frames,
        pv_pte,
        tlb::{self, Forget},
    },
};
use spin::RelaxStrategy;
use xen_abi::{
    ids::{DomId, Gfn, Mfn},
    vm_assist::VMASST_TYPE_M2P_STRICT,
};

use super::heap;
use crate::{
    cpu_loop::breathe,
    domain::{self, Domain},
    irq,
};

/// The floor above `logic::page` during one operation.
pub struct Environment<'a> {
    held: Held<'a, 0>,
    /// Domains that need no look-up: the caller and whom it acts on.
    known: [&'a Arc<Domain>; 2],
    /// Units of work left in this slice (`logic::hypercall::Budget` has their size). No clock: each unit is bounded.
    left: u32,
    /// What operations leave for later.
    pub deferred: &'a mut Vec<Deferred>,
    /// Where freed pages gather when many are expected.
    batch: Option<&'a mut Batch>,
}

/// The rules of page types, at work.
pub type Mm<'a> = Mmu<'static, Environment<'a>>;

/// For work on behalf of `domain`.
#[inline(always)]
#[must_use]
pub fn mmu<'a>(held: Held<'a, 0>, domain: &'a Arc<Domain>, deferred: &'a mut Vec<Deferred>) -> Mm<'a> {
    mmu_with(held, domain, domain, deferred)
}

/// For work of one domain on another's pages.
#[inline(always)]
#[must_use]
pub fn mmu_with<'a>(
    held: Held<'a, 0>,
    caller: &'a Arc<Domain>,
    target: &'a Arc<Domain>,
    deferred: &'a mut Vec<Deferred>,
) -> Mm<'a> {
    Mmu {
        frames: frames(),
        env: Environment { held, known: [caller, target], left: Budget::ROUND, deferred, batch: None },
    }
}

/// For work on behalf of `domain` that has `left` units of its slice left, and frees many pages, which gather in `batch`.
#[must_use]
pub fn mmu_within<'a>(
    left: u32,
    held: Held<'a, 0>,
    domain: &'a Arc<Domain>,
    deferred: &'a mut Vec<Deferred>,
    batch: &'a mut Batch,
) -> Mm<'a> {
    let batch = Some(batch);
    Mmu { frames: frames(), env: Environment { held, known: [domain, domain], left, deferred, batch } }
}

impl Environment<'_> {
    /// Runs `f` on a domain, known or looked up.
    fn with<R>(&mut self, id: DomId, f: impl FnOnce(&Domain, &mut Held<'_, 0>) -> R) -> Option<R> {
        let held = &mut self.held;
        if let Some(domain) = self.known.iter().find(|d| d.id == id) {
            return Some(f(domain, held));
        }
        let domain = domain::find(id, held)?;
        Some(f(&domain, held))
    }

    /// What is at a guest frame number of a PVH domain.
    #[must_use]
    pub fn find_gfn(&mut self, domain: &Domain, gfn: Gfn) -> Option<Found> {
        domain.pvh()?.physmap.find(gfn, &mut self.held)
    }

    /// Charges work between operations to the slice; true when it is used up.
    #[inline(always)]
    pub fn must_stop(&mut self, units: u32) -> bool {
        self.left = self.left.saturating_sub(units);
        self.left == 0
    }

    /// How much of the slice is left.
    #[must_use]
    pub const fn left(&self) -> u32 {
        self.left
    }

    /// Whether the slice is used up.
    #[must_use]
    pub const fn is_spent(&self) -> bool {
        self.left == 0
    }
}

impl Env for Environment<'_> {
    #[inline(always)]
    fn read(&self, table: &Table<'_>, slot: Slot) -> Entry {
        pv_pte::read(table, slot)
    }
    #[inline(always)]
    fn swap(&mut self, table: &Table<'_>, slot: Slot, new: Entry) -> Entry {
        pv_pte::swap(table, slot, new)
    }
    #[inline(always)]
    fn compare_exchange(&mut self, table: &Table<'_>, slot: Slot, old: Entry, new: Entry) -> Result<(), Entry> {
        pv_pte::compare_exchange(table, slot, old, new)
    }

    fn fill_root(&mut self, root: &Table<'_>, owner: DomId) {
        // With m2p_strict every root shows the table until it is used for user mode; without, a root shows it from its
        // first use by the kernel on.
        let strict = self.with(owner, |d, _| d.assists(VMASST_TYPE_M2P_STRICT)).unwrap_or(false);
        pv_pte::fill_root(root, strict);
    }

    #[inline(always)]
    fn now(&self) -> Stamp {
        tlb::now()
    }
    fn flush(&mut self, owner: DomId, everyone: bool, since: Stamp) {
        let whose = if everyone { None } else { Some(owner) };
        tlb::flush(tlb::stale_cpus(whose, since), Forget::All);
    }

    fn relax(&mut self) {
        Poll::relax();
    }
    #[inline(always)]
    fn spend(&mut self, units: u32) -> bool {
        self.must_stop(units)
    }
    fn breathe(&mut self) {
        breathe(&mut self.held);
    }

    fn release(&mut self, freed: Freed<'_>) {
        let f = freed.frame();
        if !f.info().is_special()
            && let Some(owner) = freed.owner()
        {
            self.with(owner, |d, held| {
                d.memory.forget_page(f, held);
                domain::teardown::bury(d, held);
            });
        }
        pv_pte::set_m2p(f, u64::MAX);
        let block = freed.into_block(tlb::now());
        let block = match &mut self.batch {
            Some(batch) => batch.add(block),
            None => Some(block),
        };
        if let Some(block) = block {
            heap::free(block, &mut self.held);
        }
    }
    fn defer(&mut self, table: Deferred) {
        self.deferred.push(table);
    }

    fn may_map_io(&mut self, who: DomId, mfn: Mfn) -> bool {
        self.with(who, |d, _| d.memory.may_map_io(mfn)).unwrap_or(false)
    }
    fn is_read_only_io(&mut self, mfn: Mfn) -> bool {
        irq::has_message_table(mfn)
    }
    #[inline(always)]
    fn may_choose_caching(&mut self, who: DomId) -> bool {
        match self.known.iter().find(|d| d.id == who) {
            Some(domain) => domain.memory.has_io(),
            None => self.with(who, |d, _| d.memory.has_io()).unwrap_or(false),
        }
    }
    #[inline(always)]
    fn has_nx(&self) -> bool {
        has(Features::NX)
    }
    fn refuse_absent(&mut self, owner: DomId, entry: Entry) -> bool {
        if !speculation::is_terminal_fault(entry.0) {
            return false;
        }
        let plan = speculation::plan();
        let crash = |domain: &Domain, held: &mut Held<'_, 0>| {
            let checked = if domain.is_control() { plan.l1tf_control } else { plan.l1tf_guests };
            if checked {
                domain.crash(&format_args!("an entry that is not present names memory ({:#x}): L1TF", entry.0), held);
            }
            checked
        };
        self.with(owner, crash).unwrap_or(false)
    }
}

//! `XENMEM_exchange`: a domain trades frames for others, mostly for some that follow each other, or that a device reaches.

use alloc::vec::Vec;

use logic::{
    access::{Allowed, MemoryOp as Op},
    field,
    frames::{Block, Shortage},
    guest::{In, InOut},
    hypercall::Outcome,
    lock::Held,
    memory_op::Trade as Plan,
    page::Stolen,
};
use xen_abi::{errno::Errno, ids::Mfn, memory::*};

use super::{address_bits, reservation, zone};
use crate::{
    cpu::{Context, Target},
    cpu_loop::breathe,
    domain::Life,
    guest::{Caller, Handle},
    memory,
};

/// Pages after which a round ends.
const PAGES_PER_ROUND: u64 = 32;
/// Pages after which interrupts are taken: what is traded together, 512 pages at most, is more than that.
const BREATH: u64 = 64;

/// The operation. A continuation finds how far it has come in the argument.
pub fn exchange(cx: &mut Context<'_>, op: Allowed<Op>, argument: u64) -> Outcome {
    memory::feed_heap(&mut cx.held);
    let (wanted, answer) = match Handle::<MemoryExchange, InOut>::new(argument).read() {
        Ok(read) => read,
        Err(errno) => return Outcome::Fail(errno),
    };
    let (done, end) = match Trade::new(cx, op, &wanted) {
        Ok(trade) => trade.run(cx, wanted.nr_exchanged),
        Err(errno) => (wanted.nr_exchanged, End::Fail(errno)),
    };
    // How many are exchanged is all that is told.
    if matches!(end, End::Done) && done == wanted.nr_exchanged {
        return Outcome::OK;
    }
    if answer.part(field!(MemoryExchange, nr_exchanged)).write(&done).is_err() {
        return Outcome::Fail(Errno::EFAULT);
    }
    match end {
        End::Done => Outcome::OK,
        End::Fail(errno) => Outcome::Fail(errno),
        End::Again => Outcome::Again,
    }
}

/// How a round, or one step of it, ends.
enum End {
    Done,
    Fail(Errno),
    Again,
}

impl From<Errno> for End {
    fn from(errno: Errno) -> Self {
        End::Fail(errno)
    }
}

/// A trade of a domain's.
struct Trade {
    domain: Target,
    plan: Plan,
    /// What `out` wants of memory.
    mem_flags: u32,
}

impl Trade {
    fn new(cx: &mut Context<'_>, op: Allowed<Op>, wanted: &MemoryExchange) -> Result<Self, Errno> {
        let plan = Plan::new::<Caller>(wanted)?;
        let domain = cx.target(&op, wanted.in_.domid)?;
        // Its numbers are not the machine's, and no device of its own needs frames that lie together.
        if domain.pvh().is_some() {
            return Err(Errno::EOPNOTSUPP);
        }
        Ok(Self { domain, plan, mem_flags: wanted.out.mem_flags })
    }

    /// Trades chunk by chunk from extent `from` on: how many extents are given now, and whether that is all.
    fn run(&self, cx: &mut Context<'_>, from: u64) -> (u64, End) {
        let mut left = PAGES_PER_ROUND;
        for chunk in self.plan.chunks(from) {
            let done = self.plan.given_before(chunk);
            if left == 0 {
                return (done, End::Again);
            }
            left = left.saturating_sub(self.plan.pages_per_chunk());
            if let Err(end) = self.chunk(cx, chunk) {
                return (done, end);
            }
        }
        (self.plan.count(), End::Done)
    }

    fn chunk(&self, cx: &mut Context<'_>, chunk: u64) -> Result<(), End> {
        let (mut old, mut new, mut firsts) = (Vec::new(), Vec::new(), Vec::new());
        firsts.try_reserve_exact(self.plan.taken_per_chunk()).map_err(|_| Errno::ENOMEM)?;
        // Frames that have to be zeroed first take several rounds: nothing is taken away before they are there. That a page
        // cannot be taken counts before a lack of frames, as in Xen.
        let allocated = self.allocate(cx, &mut new);
        let result = match allocated {
            Err(End::Again) => allocated,
            _ => self.steal(cx, chunk, &mut old).and(allocated),
        }
        .and_then(|()| {
            firsts.extend(new.iter().map(Block::mfn));
            self.domain.memory.exchange(self.domain.id, &mut old, &mut new, &mut cx.held).map_err(End::Fail)
        });
        self.undo(cx, old, new);
        result?;
        // What cannot be told to the caller is the caller's loss, and ends the call.
        let mut told = Ok(());
        for (extent, (at, first)) in (0u64..).zip(self.plan.taken(chunk).zip(firsts)) {
            if extent.is_multiple_of(BREATH) {
                breathe(&mut cx.held);
            }
            match Handle::<u64, InOut>::new(at).read() {
                Ok((pfn, answer)) => {
                    reservation::name(first, self.plan.taken_order(), pfn);
                    told = told.and(answer.write(&first.0));
                }
                Err(errno) => told = Err(errno),
            }
        }
        told.map_err(End::Fail)
    }

    /// Takes the pages of a chunk away.
    fn steal(&self, cx: &mut Context<'_>, chunk: u64, old: &mut Vec<Stolen<'static>>) -> Result<(), End> {
        let pages = usize::try_from(self.plan.pages_per_chunk()).map_err(|_| Errno::ENOMEM)?;
        old.try_reserve_exact(pages).map_err(|_| Errno::ENOMEM)?;
        for at in self.plan.given(chunk) {
            let first = Handle::<u64, In>::new(at).read()?;
            for mfn in first..first.saturating_add(1 << self.plan.given_order()) {
                if (old.len() as u64).is_multiple_of(BREATH) {
                    breathe(&mut cx.held);
                }
                let held = cx.held.again();
                let mut mm = memory::mmu_with(held, cx.domain, &self.domain, &mut cx.state.paging.deferred);
                old.push(mm.steal(Mfn(mfn), self.domain.id)?);
            }
        }
        Ok(())
    }

    /// Takes frames for the other side.
    fn allocate(&self, cx: &mut Context<'_>, new: &mut Vec<Block>) -> Result<(), End> {
        // Like Xen, which takes a width that excludes all memory for one that no memory has.
        let zone = zone(address_bits(self.mem_flags)).map_err(|_| Errno::ENOMEM)?;
        let extents = self.plan.taken_per_chunk();
        new.try_reserve_exact(extents).map_err(|_| Errno::ENOMEM)?;
        let claim = self.domain.memory.outstanding();
        for _ in 0..extents {
            if (new.len() as u64).is_multiple_of(BREATH / 4) {
                breathe(&mut cx.held);
            }
            match memory::alloc_for(claim, self.plan.taken_order(), zone, &mut cx.held) {
                Ok(block) => new.push(block),
                Err(Shortage::Exhausted) => return Err(End::Fail(Errno::ENOMEM)),
                Err(Shortage::Unfinished) => return Err(End::Again),
            }
        }
        Ok(())
    }

    /// Gives back what was not traded after all.
    fn undo(&self, cx: &mut Context<'_>, old: Vec<Stolen<'static>>, new: Vec<Block>) {
        let held: &mut Held<'_, 0> = &mut cx.held;
        for (i, block) in (0u64..).zip(new) {
            if i.is_multiple_of(BREATH) {
                breathe(held);
            }
            memory::free(block, held);
        }
        for (i, page) in (0u64..).zip(old) {
            if i.is_multiple_of(BREATH) {
                breathe(held);
            }
            let mut mm = memory::mmu_with(held.again(), cx.domain, &self.domain, &mut cx.state.paging.deferred);
            let f = page.restore();
            // Its owner may have died meanwhile, and looked for it in vain.
            if self.domain.life.get() != Life::Alive {
                let _gone = mm.give_back(f.mfn(), self.domain.id);
            }
        }
    }
}

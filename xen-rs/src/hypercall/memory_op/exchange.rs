//! `XENMEM_exchange`: a domain trades frames for others, mostly for some that follow each other, or that a device reaches.

use alloc::vec::Vec;

use logic::{
    access::{Allowed, MemoryOp as Op},
    frames::{Block, Shortage},
    hypercall::Outcome,
    lock::Held,
    page::Stolen,
};
use machine::mem::guest_copy;
use xen_abi::{errno::Errno, ids::Mfn, memory::*};

use super::{LARGEST_ORDER, address_bits, reservation, zone};
use crate::{
    cpu::{Context, Target},
    cpu_loop::breathe,
    domain::Life,
    memory,
};

/// Offset of `nr_exchanged` in the argument: all that is told to the caller.
const DONE: u64 = core::mem::offset_of!(MemoryExchange, nr_exchanged) as u64;
/// Pages after which a round ends.
const PAGES_PER_ROUND: u64 = 32;
/// Pages after which interrupts are taken: what is traded together, 512 pages at most, is more than that.
const BREATH: u64 = 64;

/// The operation. A continuation finds how far it has come in the argument.
pub fn exchange(cx: &mut Context<'_>, op: Allowed<Op>, argument: u64) -> Outcome {
    memory::feed_heap(&mut cx.held);
    let wanted: MemoryExchange = match guest_copy::read(argument) {
        Ok(wanted) => wanted,
        Err(errno) => return Outcome::Fail(errno),
    };
    let (done, end) = match Trade::new(cx, op, &wanted) {
        Ok(trade) => trade.run(cx, wanted.nr_exchanged),
        Err(errno) => (wanted.nr_exchanged, End::Fail(errno)),
    };
    if matches!(end, End::Done) && done == wanted.nr_exchanged {
        return Outcome::OK;
    }
    if guest_copy::write(argument.wrapping_add(DONE), &done).is_err() {
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

/// A trade in chunks: as many extents of one side as make one of the other.
struct Trade {
    domain: Target,
    given: MemoryReservation,
    taken: MemoryReservation,
    given_order: u8,
    taken_order: u8,
    /// Extents that a chunk gives, as a power of two.
    given_per_chunk: u8,
    /// Extents that a chunk takes, as a power of two.
    taken_per_chunk: u8,
}

impl Trade {
    /// The checks, in Xen's order.
    fn new(cx: &mut Context<'_>, op: Allowed<Op>, wanted: &MemoryExchange) -> Result<Self, Errno> {
        let (given, taken) = (wanted.in_, wanted.out);
        if given.extent_order.max(taken.extent_order) > LARGEST_ORDER {
            return Err(Errno::EPERM);
        }
        let order = |side: &MemoryReservation| u8::try_from(side.extent_order).map_err(|_| Errno::EPERM);
        let (given_order, taken_order) = (order(&given)?, order(&taken)?);
        let fits = |side: &MemoryReservation| u64::MAX >> side.extent_order >= side.nr_extents;
        if wanted.nr_exchanged > given.nr_extents
            || given.domid != taken.domid
            || !fits(&given)
            || !fits(&taken)
            || given.nr_extents << given_order != taken.nr_extents << taken_order
        {
            return Err(Errno::EINVAL);
        }
        for side in [&given, &taken] {
            if !guest_copy::is_guest_range(side.extent_start, 1) {
                return Err(Errno::EFAULT);
            }
        }
        let domain = cx.target(&op, given.domid)?;
        Ok(Self {
            domain,
            given,
            taken,
            given_order,
            taken_order,
            given_per_chunk: taken_order.saturating_sub(given_order),
            taken_per_chunk: given_order.saturating_sub(taken_order),
        })
    }

    /// Trades chunk by chunk from extent `from` on: how many extents are given now, and whether that is all.
    fn run(&self, cx: &mut Context<'_>, from: u64) -> (u64, End) {
        let mut left = PAGES_PER_ROUND;
        let chunks = self.given.nr_extents >> self.given_per_chunk;
        for chunk in from >> self.given_per_chunk..chunks {
            let done = chunk << self.given_per_chunk;
            if left == 0 {
                return (done, End::Again);
            }
            left = left.saturating_sub(1 << self.given_order.max(self.taken_order));
            if let Err(end) = self.chunk(cx, chunk) {
                return (done, end);
            }
        }
        (self.given.nr_extents, End::Done)
    }

    fn chunk(&self, cx: &mut Context<'_>, chunk: u64) -> Result<(), End> {
        let (mut old, mut new, mut firsts) = (Vec::new(), Vec::new(), Vec::new());
        firsts.try_reserve_exact(1 << self.taken_per_chunk).map_err(|_| Errno::ENOMEM)?;
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
        for (extent, first) in (chunk << self.taken_per_chunk..).zip(firsts) {
            if extent.is_multiple_of(BREATH) {
                breathe(&mut cx.held);
            }
            let at = self.taken.extent_start.wrapping_add(extent * 8);
            match guest_copy::read::<u64>(at) {
                Ok(pfn) => {
                    reservation::name(first, self.taken_order, pfn);
                    told = told.and(guest_copy::write(at, &first.0));
                }
                Err(errno) => told = Err(errno),
            }
        }
        told.map_err(End::Fail)
    }

    /// Takes the pages of a chunk away.
    fn steal(&self, cx: &mut Context<'_>, chunk: u64, old: &mut Vec<Stolen<'static>>) -> Result<(), End> {
        let extents = 1u64 << self.given_per_chunk;
        let pages = usize::try_from(extents << self.given_order).map_err(|_| Errno::ENOMEM)?;
        old.try_reserve_exact(pages).map_err(|_| Errno::ENOMEM)?;
        for extent in chunk * extents..(chunk + 1) * extents {
            let first = guest_copy::read::<u64>(self.given.extent_start.wrapping_add(extent * 8))?;
            for mfn in first..first.saturating_add(1 << self.given_order) {
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
        let zone = zone(address_bits(self.taken.mem_flags)).map_err(|_| Errno::ENOMEM)?;
        let extents = 1usize << self.taken_per_chunk;
        new.try_reserve_exact(extents).map_err(|_| Errno::ENOMEM)?;
        let claim = self.domain.memory.outstanding();
        for _ in 0..extents {
            if (new.len() as u64).is_multiple_of(BREATH / 4) {
                breathe(&mut cx.held);
            }
            match memory::alloc_for(claim, self.taken_order, zone, &mut cx.held) {
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

//! `GNTTABOP_cache_flush`: what CPUs have cached of a page goes to memory, for devices that do not look into caches.

use logic::{
    grant::Search,
    guest::In,
    hypercall::{Budget, Outcome},
};
use machine::{
    arch::x86_64::{cache, interrupts},
    mem::{end_of_ram, frame_table::frames},
};
use xen_abi::{
    errno::Errno,
    grant_table::{self as abi, GNTTAB_CACHE_CLEAN, GNTTAB_CACHE_INVAL},
    ids::{GrantRef, Mfn},
};

use crate::{
    cpu::Context,
    cpu_loop::breathe,
    domain::{self, Domain},
    guest::{Elements, Handle, Series},
};

/// Entries that one round looks at: a continuation counts in these, above the number of the operation.
const ROUND: u32 = super::COMMAND + 1;
/// Entries after which interrupts are taken.
const STEP: u32 = 512;
const PAGE: u16 = 4096;

/// The operations. `reached`: the grant at which the search for the first one's page goes on.
#[cold]
#[inline(never)]
pub(super) fn cache_flush(cx: &mut Context<'_>, reached: u32, count: u32) -> Outcome {
    let va = cx.args()[1];
    if let Err(errno) = Elements::<abi::GnttabCacheFlush, In>::new(va, count.max(1).into()) {
        return Outcome::Fail(errno);
    }
    let mut ops = Series::<abi::GnttabCacheFlush, In>::new(va);
    let mut budget = Budget::units(Budget::ROUND);
    let mut from = GrantRef(reached);
    for done in 0..count {
        let here = ops.address();
        if done != 0 && (!budget.spend(16) || interrupts::any()) {
            return later(cx, here, count - done, GrantRef(0));
        }
        match one(cx, ops.step(), from) {
            Ok(None) => {}
            Ok(Some(reached)) => return later(cx, here, count - done, reached),
            Err(errno) => return Outcome::Fail(errno),
        }
        from = GrantRef(0);
    }
    Outcome::OK
}

/// The guest makes the call again for the operations from `va` on.
fn later(cx: &mut Context<'_>, va: u64, count: u32, reached: GrantRef) -> Outcome {
    cx.set_arg(0, u64::from(abi::GNTTABOP_CACHE_FLUSH | reached.0));
    cx.set_arg(1, va);
    cx.set_arg(2, count.into());
    Outcome::Again
}

/// One operation; `Some`: where the search for its page goes on. The checks are in Xen's order.
fn one(cx: &mut Context<'_>, op: Handle<abi::GnttabCacheFlush, In>, from: GrantRef) -> Result<Option<GrantRef>, Errno> {
    let op = op.read()?;
    let known = GNTTAB_CACHE_CLEAN | GNTTAB_CACHE_INVAL;
    if op.offset >= PAGE || op.length > PAGE - op.offset || op.op & !known != 0 {
        return Err(Errno::EINVAL);
    }
    if op.length == 0 || op.op == 0 {
        return if from.0 == 0 { Ok(None) } else { Err(Errno::EILSEQ) };
    }
    let mfn = Mfn(op.a >> 12);
    if mfn >= end_of_ram() {
        return Err(Errno::EINVAL);
    }
    let frame = frames().ram(mfn).ok_or(Errno::EPERM)?;
    let owner = frame.info().owner().ok_or(Errno::EPERM)?;
    if owner != cx.domain.id {
        let granter = domain::find(owner, &mut cx.held).ok_or(Errno::EPERM)?;
        match find_use(cx, &granter, mfn, from) {
            Search::Found => {}
            Search::Unfinished(reached) => return Ok(Some(reached)),
            Search::NotFound => return Err(Errno::EINVAL),
        }
    }
    // Dropped, but not written back: somebody else may have written to the same line.
    if op.op == GNTTAB_CACHE_INVAL {
        return Err(Errno::EOPNOTSUPP);
    }
    cache::flush(frame, op.offset, op.length);
    Ok(None)
}

/// Looks for a use of a page by the caller, for one round.
fn find_use(cx: &mut Context<'_>, granter: &Domain, mfn: Mfn, from: GrantRef) -> Search {
    let mut at = from;
    for _ in 0..ROUND / STEP {
        match granter.grants.table.lock(&mut cx.held).0.find_use(cx.domain.id, mfn, at, STEP) {
            Search::Unfinished(reached) => at = reached,
            answer => return answer,
        }
        breathe(&mut cx.held);
    }
    Search::Unfinished(at)
}

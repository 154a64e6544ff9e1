//! What stands where in the physical map of a PVH domain: `add_to_physmap`, `add_to_physmap_batch`, `remove_from_physmap`.
//!
//! PV domains have no such map: EACCES, once the arguments before that are right, as in Xen.

use alloc::sync::Arc;

use logic::{
    access::{Allowed, MemoryOp as Op},
    grant::Version,
    guest::{In, Out},
    hvm::p2m::{Access, Use},
    hypercall::Outcome,
};
use machine::mem::frame_table::frames;
use xen_abi::{
    errno::Errno,
    ids::{DomId, Gfn, Mfn},
    memory::*,
};

use crate::{
    cpu::Context,
    domain::{self, Domain},
    guest::{Handle, Series},
    hvm::PvhDomain,
};

/// The most that `add_to_physmap` can have done before: its sizes have 16 bits.
const MOST: u64 = 0xffff;
/// Pages of one round.
const ROUND: u64 = 32;

/// A page that is to be entered.
struct Wish {
    space: u32,
    index: u64,
    gfn: Gfn,
    /// Whose page, of `XENMAPSPACE_GMFN_FOREIGN`.
    foreign: DomId,
}

/// `add_to_physmap`; `first`: how many of a range are done.
pub fn add(cx: &mut Context<'_>, op: Allowed<Op>, first: u64, argument: u64) -> Outcome {
    match add_some(cx, op, first, argument) {
        Ok(None) => Outcome::OK,
        Ok(Some(done)) => again(cx, XENMEM_ADD_TO_PHYSMAP, done),
        Err(errno) => Outcome::Fail(errno),
    }
}

fn again(cx: &mut Context<'_>, command: u32, done: u64) -> Outcome {
    cx.set_arg(0, u64::from(command) | done << MEMOP_EXTENT_SHIFT);
    Outcome::Again
}

/// `Some`: so many are done, and there are more.
fn add_some(cx: &mut Context<'_>, op: Allowed<Op>, first: u64, argument: u64) -> Result<Option<u64>, Errno> {
    if first > MOST {
        return Err(Errno::EDOM);
    }
    let wanted = Handle::<AddToPhysmap, In>::new(argument).read()?;
    if wanted.space == XENMAPSPACE_GMFN_FOREIGN {
        return Err(Errno::ENOSYS);
    }
    let domain = cx.target(&op, wanted.domid)?;
    let pvh = domain.pvh().ok_or(Errno::EACCES)?;
    let (space, count) = match wanted.space {
        XENMAPSPACE_GMFN_RANGE => (XENMAPSPACE_GMFN, u64::from(wanted.size)),
        space => (space, 1),
    };
    let last = count.min(first + ROUND);
    for i in first..last {
        let (index, gfn) = (wanted.idx.wrapping_add(i), Gfn(wanted.gpfn.wrapping_add(i)));
        add_one(cx, &domain, pvh, &Wish { space, index, gfn, foreign: DomId::INVALID })?;
    }
    Ok((last < count).then_some(last))
}

/// `add_to_physmap_batch`: each page has its own answer.
pub fn add_batch(cx: &mut Context<'_>, op: Allowed<Op>, first: u64, argument: u64) -> Outcome {
    match add_some_of_batch(cx, op, first, argument) {
        Ok(None) => Outcome::OK,
        Ok(Some(done)) => again(cx, XENMEM_ADD_TO_PHYSMAP_BATCH, done),
        Err(errno) => Outcome::Fail(errno),
    }
}

fn add_some_of_batch(cx: &mut Context<'_>, op: Allowed<Op>, first: u64, argument: u64) -> Result<Option<u64>, Errno> {
    if first > MOST {
        return Err(Errno::EDOM);
    }
    let wanted = Handle::<AddToPhysmapBatch, In>::new(argument).read()?;
    let space = u32::from(wanted.space);
    if space == XENMAPSPACE_GMFN_RANGE {
        return Err(Errno::EOPNOTSUPP);
    }
    let domain = cx.target(&op, wanted.domid)?;
    let pvh = domain.pvh().ok_or(Errno::EACCES)?;
    let count = u64::from(wanted.size);
    let last = count.min(first + ROUND);
    let indices = Series::<u64, In>::new(wanted.idxs).after(first);
    let numbers = Series::<u64, In>::new(wanted.gpfns).after(first);
    let answers = Series::<i32, Out>::new(wanted.errs).after(first);
    for (_, ((index, gfn), told)) in (first..last).zip(indices.zip(numbers).zip(answers)) {
        let index = index.read()?;
        let gfn = Gfn(gfn.read()?);
        let wish = Wish { space, index, gfn, foreign: wanted.foreign_domid };
        let answer = match add_one(cx, &domain, pvh, &wish) {
            Ok(()) => 0,
            Err(errno) => -i32::try_from(errno as u64).unwrap_or(i32::MAX),
        };
        told.write(&answer)?;
    }
    Ok((last < count).then_some(last))
}

fn add_one(cx: &mut Context<'_>, domain: &Arc<Domain>, pvh: &PvhDomain, wish: &Wish) -> Result<(), Errno> {
    let enter = |cx: &mut Context<'_>, mfn: Mfn, owner: DomId, how| {
        pvh.physmap.enter(domain, (wish.gfn, mfn, 0), owner, how, &mut cx.held)
    };
    match wish.space {
        XENMAPSPACE_SHARED_INFO if wish.index == 0 => {
            let mfn = domain.shared_info_frame();
            enter(cx, mfn, domain.id, (Access::DATA, Use::Shared))?;
            leave_old_place(cx, domain, pvh, mfn, wish.gfn)
        }
        XENMAPSPACE_GRANT_TABLE => {
            let mfn = grant_frame(cx, domain, wish.index)?;
            enter(cx, mfn, domain.id, (Access::DATA, Use::Shared))?;
            leave_old_place(cx, domain, pvh, mfn, wish.gfn)
        }
        XENMAPSPACE_GMFN => {
            let old = Gfn(wish.index);
            let found = pvh.physmap.find(old, &mut cx.held).ok_or(Errno::EINVAL)?;
            if old == wish.gfn {
                return Ok(());
            }
            enter(cx, found.mfn, domain.id, (found.access, found.usage))?;
            // It has moved.
            pvh.physmap.remove(domain, old, 0, &mut cx.held).map(drop)
        }
        XENMAPSPACE_GMFN_FOREIGN => {
            if !cx.domain.is_control() || wish.foreign == domain.id {
                return Err(Errno::EPERM);
            }
            let owner = domain::find(wish.foreign, &mut cx.held).ok_or(Errno::ESRCH)?;
            let mfn = match owner.pvh() {
                Some(other) => other.physmap.find(Gfn(wish.index), &mut cx.held).map(|found| found.mfn),
                None => frames().ram(Mfn(wish.index)).map(|frame| frame.mfn()),
            };
            let mfn = mfn.ok_or(Errno::EINVAL)?;
            match enter(cx, mfn, owner.id, (Access::DATA, Use::Foreign)) {
                // A PV domain's page tables are to be read only.
                Err(Errno::EINVAL) => enter(cx, mfn, owner.id, (Access::READ, Use::Foreign)),
                result => result,
            }
        }
        _ => Err(Errno::EINVAL),
    }
}

/// What a domain shares with the hypervisor is in one place of its map: a kernel that starts another one leaves it where it
/// was, and the other one has memory there.
fn leave_old_place(
    cx: &mut Context<'_>,
    domain: &Arc<Domain>,
    pvh: &PvhDomain,
    mfn: Mfn,
    gfn: Gfn,
) -> Result<(), Errno> {
    let Some(old) = pvh.physmap.note_place(mfn, gfn, &mut cx.held).filter(|&old| old != gfn) else { return Ok(()) };
    match pvh.physmap.find(old, &mut cx.held) {
        Some(found) if found.mfn == mfn => pvh.physmap.remove(domain, old, 0, &mut cx.held).map(drop),
        _ => Ok(()),
    }
}

/// A frame of the grant table, which grows as far as it has to.
fn grant_frame(cx: &mut Context<'_>, domain: &Arc<Domain>, index: u64) -> Result<Mfn, Errno> {
    let status = index & XENMAPIDX_GRANT_TABLE_STATUS != 0;
    let number = u32::try_from(index & !XENMAPIDX_GRANT_TABLE_STATUS).map_err(|_| Errno::EINVAL)?;
    if status && domain.grants.table.lock(&mut cx.held).0.version() != Version::Two {
        return Err(Errno::EINVAL);
    }
    // One page of status serves so many of entries of version 2.
    let entries = if status { number.checked_mul(8) } else { Some(number) };
    let wanted = entries.and_then(|entries| entries.checked_add(1)).ok_or(Errno::EINVAL)?;
    domain.grants.grow(domain, wanted, Version::One, &mut cx.held).map_err(|_| Errno::EINVAL)?;
    let (table, _held) = domain.grants.table.lock(&mut cx.held);
    let page = if status { table.status_frame(number) } else { table.frame(number) };
    page.map(|page| page.mfn()).ok_or(Errno::EINVAL)
}

/// `remove_from_physmap`. A page of the domain's own stays its own.
pub fn remove(cx: &mut Context<'_>, op: Allowed<Op>, argument: u64) -> Result<(), Errno> {
    let wanted = Handle::<RemoveFromPhysmap, In>::new(argument).read()?;
    let domain = cx.target(&op, wanted.domid)?;
    let pvh = domain.pvh().ok_or(Errno::EACCES)?;
    match pvh.physmap.remove(&domain, Gfn(wanted.gpfn), 0, &mut cx.held)? {
        0 => Err(Errno::ENOENT),
        _ => Ok(()),
    }
}

//! `XENMEM_acquire_resource`: pages that the hypervisor keeps for a domain, for its builder to map.

use alloc::sync::Arc;

use arrayvec::ArrayVec;
use logic::{
    access::{Allowed, MemoryOp as Op},
    grant::Version,
    guest::{InOut, Out},
    hvm::p2m::{Access, Use},
    hypercall::Outcome,
};
use xen_abi::{
    errno::Errno,
    ids::{DomId, Gfn, Mfn},
    memory::*,
};

use crate::{
    cpu::Context,
    domain::Domain,
    guest::{Handle, Series},
};

/// Frames of one round.
const CHUNK: usize = 32;
/// Pages of entries of version 2 whose status is on one page.
const STATUS_RATIO: u32 = 8;

/// The operation; `first`: frames that earlier rounds have told.
pub fn acquire_resource(cx: &mut Context<'_>, op: Allowed<Op>, first: u64, argument: u64) -> Outcome {
    match acquire(cx, op, first, argument) {
        Ok(None) => Outcome::OK,
        Ok(Some(done)) => {
            cx.set_arg(0, u64::from(XENMEM_ACQUIRE_RESOURCE) | done << MEMOP_EXTENT_SHIFT);
            Outcome::Again
        }
        Err(errno) => Outcome::Fail(errno),
    }
}

/// `Some`: so many frames are told, and there are more.
fn acquire(cx: &mut Context<'_>, op: Allowed<Op>, first: u64, argument: u64) -> Result<Option<u64>, Errno> {
    // A domain in a container names places of its own; only the control domain has pages of others there.
    if cx.domain.pvh().is_some() && !cx.domain.is_control() {
        return Err(Errno::EACCES);
    }
    let (mut wanted, answer) = Handle::<MemAcquireResource, InOut>::new(argument).read()?;
    let count = u64::from(wanted.nr_frames);
    let end = wanted.frame.checked_add(count).ok_or(Errno::EINVAL)?;
    if wanted.pad != 0 || wanted.frame >> 32 != 0 || end >> 32 != 0 {
        return Err(Errno::EINVAL);
    }
    // A domain finds its own by other means.
    if wanted.domid == DomId::SELF {
        return Err(Errno::ESRCH);
    }
    let domain = cx.target(&op, wanted.domid)?;
    let size = size(cx, &domain, &wanted)?;
    if wanted.frame_list == 0 {
        if count != 0 || first != 0 {
            return Err(Errno::EINVAL);
        }
        wanted.nr_frames = size;
        return answer.write(&wanted).map(|()| None);
    }
    if first >= count || wanted.nr_frames > u32::MAX >> MEMOP_EXTENT_SHIFT {
        return Err(Errno::EINVAL);
    }
    let frames = grant_frames(cx, &domain, &wanted, first)?;
    for (at, mfn) in Series::<u64, InOut>::new(wanted.frame_list).after(first).zip(&frames) {
        match cx.domain.pvh() {
            None => Handle::<u64, Out>::new(at.into_address()).write(mfn)?,
            Some(pvh) => {
                let place = (Gfn(at.read()?.0), Mfn(*mfn), 0);
                pvh.physmap.enter(cx.domain, place, domain.id, (Access::DATA, Use::Foreign), &mut cx.held)?;
            }
        }
    }
    let done = first + frames.len() as u64;
    Ok((done < count).then_some(done))
}

/// How many frames there may be.
fn size(cx: &mut Context<'_>, domain: &Domain, wanted: &MemAcquireResource) -> Result<u32, Errno> {
    match (wanted.type_, wanted.id) {
        (XENMEM_RESOURCE_GRANT_TABLE, XENMEM_RESOURCE_GRANT_TABLE_ID_SHARED) => {
            Ok(domain.grants.table.lock(&mut cx.held).0.max_frames())
        }
        (XENMEM_RESOURCE_GRANT_TABLE, XENMEM_RESOURCE_GRANT_TABLE_ID_STATUS) => {
            // Two bytes of status for each entry of 16 bytes.
            Ok(domain.grants.table.lock(&mut cx.held).0.max_frames().div_ceil(STATUS_RATIO))
        }
        // PV domains have neither I/O request servers nor trace buffers.
        (XENMEM_RESOURCE_GRANT_TABLE | XENMEM_RESOURCE_IOREQ_SERVER | XENMEM_RESOURCE_VMTRACE_BUF, _) => {
            Err(Errno::EINVAL)
        }
        _ => Err(Errno::EOPNOTSUPP),
    }
}

/// The machine frames of a part of the grant table, which grows as far as it has to.
fn grant_frames(
    cx: &mut Context<'_>,
    domain: &Arc<Domain>,
    wanted: &MemAcquireResource,
    first: u64,
) -> Result<ArrayVec<u64, CHUNK>, Errno> {
    let status = wanted.id == XENMEM_RESOURCE_GRANT_TABLE_ID_STATUS;
    // Tables of version 1 have no status frames.
    if status && domain.grants.table.lock(&mut cx.held).0.version() != Version::Two {
        return Err(Errno::EINVAL);
    }
    let from = wanted.frame + first;
    let to = (wanted.frame + u64::from(wanted.nr_frames)).min(from + CHUNK as u64);
    let to = u32::try_from(to).map_err(|_| Errno::EINVAL)?;
    let entries = if status { to.checked_mul(STATUS_RATIO).ok_or(Errno::EINVAL)? } else { to };
    domain.grants.grow(domain, entries, Version::One, &mut cx.held).map_err(|_| Errno::EINVAL)?;
    let (table, _held) = domain.grants.table.lock(&mut cx.held);
    let frame = |i: u32| if status { table.status_frame(i) } else { table.frame(i) };
    let mfn = |i: u64| u32::try_from(i).ok().and_then(frame).map(|page| page.mfn().0);
    (from..u64::from(to)).map(|i| mfn(i).ok_or(Errno::EINVAL)).collect()
}

//! `GNTTABOP_copy`: bytes from one page to another, either of them by a grant or the caller's own.

mod at_once;

use alloc::sync::Arc;

use logic::{
    field,
    grant::{Access, Claim, Extent, PassedOn, Pinned, Refusal, Via},
    guest::InOut,
    lock::Held,
    page::{Frame, TypeRef, Writable},
};
use machine::mem::pv_pte::{self, Bytes};
use xen_abi::{
    errno::Errno,
    grant_table::{self as abi, GNTCOPY_DEST_GREF, GNTCOPY_SOURCE_GREF},
    ids::{DomId, Gfn, GrantRef, Mfn},
};

pub(super) use self::at_once::only_one;
use super::{answer, peer};
use crate::{
    cpu::Context,
    domain::{self, Domain},
    grant::granted_frame,
    guest::Handle,
    memory,
    vcpu::VcpuState,
};

/// How often a grant that is passed on is looked at when it changes under our eyes.
const TRIES: u32 = 4;

/// What a copy names for one of its ends.
#[derive(Clone, Copy)]
enum Name {
    /// A page of the caller's own.
    Own(Gfn),
    /// A page that somebody grants the caller.
    Granted(GrantRef),
}

/// The page at one end of a copy.
#[derive(Clone, Copy)]
struct Page {
    mfn: Mfn,
    extent: Extent,
}

impl Page {
    /// All of it.
    const fn whole(mfn: Mfn) -> Self {
        Page { mfn, extent: Extent::PAGE }
    }
}

/// An end of a copy: the page, pinned if it is granted.
struct End {
    page: Page,
    /// Whose page it is, and by which grant, if the granting domain passes it on.
    origin: Option<(Arc<Domain>, GrantRef)>,
}

/// One copy.
#[inline(never)]
pub(super) fn copy(cx: &mut Context<'_>, arg: Handle<abi::GnttabCopy, InOut>) -> Result<(), Errno> {
    let (arg, to) = arg.read()?;
    let result = match copy_pages(cx.domain, cx.state, cx.held.again(), &arg) {
        Some(()) => Ok(()),
        None => copy_slowly(cx, &arg),
    };
    answer(to, field!(abi::GnttabCopy, status), &result)
}

#[inline(never)]
fn copy_pages(caller: &Arc<Domain>, state: &mut VcpuState, held: Held<'_, 0>, arg: &abi::GnttabCopy) -> Option<()> {
    at_once::copy(caller, &mut { state }, held, *arg)
}

/// A copy from or to whatever can be granted.
#[cold]
#[inline(never)]
fn copy_slowly(cx: &mut Context<'_>, arg: &abi::GnttabCopy) -> Result<(), Refusal> {
    let (source, source_domain) = name(cx, &arg.source, arg.flags & GNTCOPY_SOURCE_GREF)?;
    let (target, target_domain) = name(cx, &arg.dest, arg.flags & GNTCOPY_DEST_GREF)?;
    let (mut other_source, mut other_target) = (None, None);
    let source_domain = peer(cx.domain, source_domain, &mut other_source, &mut cx.held).ok_or(Refusal::BadDomain)?;
    let target_domain = peer(cx.domain, target_domain, &mut other_target, &mut cx.held).ok_or(Refusal::BadDomain)?;
    let from = claim(cx, source_domain, source, Access::Read)?;
    let result = claim(cx, target_domain, target, Access::Write).and_then(|to| {
        let from_owner = from.origin.as_ref().map_or(source_domain, |(origin, _)| origin);
        let to_owner = to.origin.as_ref().map_or(target_domain, |(origin, _)| origin);
        let result = copy_between(cx, (from.page, from_owner), (to.page, to_owner), arg);
        release_end(cx, to, target_domain, target, Access::Write);
        result
    });
    release_end(cx, from, source_domain, source, Access::Read);
    result
}

/// What an end of a copy is, and whose. A page that is not granted must be the caller's own.
fn name(cx: &Context<'_>, end: &abi::GnttabCopyPtr, by_grant: u16) -> Result<(Name, DomId), Refusal> {
    let own = end.domid == DomId::SELF;
    if by_grant == 0 && !own {
        return Err(Refusal::PermissionDenied);
    }
    #[allow(clippy::cast_possible_truncation, reason = "the union's other member has 32 bits")]
    let name = if by_grant == 0 { Name::Own(Gfn(end.u)) } else { Name::Granted(GrantRef(end.u as u32)) };
    Ok((name, if own { cx.domain.id } else { end.domid }))
}

fn claim(cx: &mut Context<'_>, domain: &Arc<Domain>, name: Name, access: Access) -> Result<End, Refusal> {
    let gref = match name {
        Name::Own(gfn) => {
            return Ok(End { page: Page::whole(granted_frame(domain, gfn, &mut cx.held)?), origin: None });
        }
        Name::Granted(gref) => gref,
    };
    match claim_grant(cx, domain, gref, cx.domain.id, access)? {
        Claim::Pinned(Pinned { frame: mfn, extent }) => Ok(End { page: Page { mfn, extent }, origin: None }),
        Claim::PassedOn(passed_on) => claim_passed_on(cx, domain, gref, access, passed_on),
    }
}

fn claim_grant(
    cx: &mut Context<'_>,
    domain: &Arc<Domain>,
    gref: GrantRef,
    by: DomId,
    access: Access,
) -> Result<Claim, Refusal> {
    let (mut table, mut held) = domain.grants.table.lock(&mut cx.held);
    table.claim(gref, by, access, |gfn| granted_frame(domain, gfn, &mut held))
}

/// `domain` passes on what another one grants it: both grants are in use then. One step is all that is allowed.
fn claim_passed_on(
    cx: &mut Context<'_>,
    domain: &Arc<Domain>,
    gref: GrantRef,
    access: Access,
    first: PassedOn,
) -> Result<End, Refusal> {
    let mut passed_on = first;
    for _ in 0..TRIES {
        let origin = domain::find(passed_on.domain, &mut cx.held).ok_or(Refusal::GeneralError);
        let claimed = origin.and_then(|origin| match claim_grant(cx, &origin, passed_on.gref, domain.id, access)? {
            Claim::Pinned(page) => Ok((origin, page)),
            Claim::PassedOn(_) => {
                origin.grants.table.lock(&mut cx.held).0.give_up(passed_on.gref, access);
                Err(Refusal::GeneralError)
            }
        });
        let (origin, page) = match claimed {
            Ok(claimed) => claimed,
            Err(refusal) => {
                domain.grants.table.lock(&mut cx.held).0.give_up(gref, access);
                return Err(refusal);
            }
        };
        let caller = cx.domain.id;
        let pinned = domain.grants.table.lock(&mut cx.held).0.pin_passed_on(gref, caller, access, passed_on, page);
        match pinned {
            Ok(Pinned { frame, extent }) => {
                return Ok(End { page: Page { mfn: frame, extent }, origin: Some((origin, passed_on.gref)) });
            }
            Err(_) => {
                let _ = origin.grants.table.lock(&mut cx.held).0.unpin(passed_on.gref, access, Via::HOST);
            }
        }
        match claim_grant(cx, domain, gref, caller, access)? {
            Claim::PassedOn(now) => passed_on = now,
            Claim::Pinned(_) => {
                let _ = domain.grants.table.lock(&mut cx.held).0.unpin(gref, access, Via::HOST);
                return Err(Refusal::Again);
            }
        }
    }
    domain.grants.table.lock(&mut cx.held).0.give_up(gref, access);
    Err(Refusal::Again)
}

fn release_end(cx: &mut Context<'_>, end: End, domain: &Domain, name: Name, access: Access) {
    release(cx, domain, name, access);
    if let Some((origin, gref)) = end.origin {
        let _ = origin.grants.table.lock(&mut cx.held).0.unpin(gref, access, Via::HOST);
    }
}

fn release(cx: &mut Context<'_>, domain: &Domain, name: Name, access: Access) {
    if let Name::Granted(gref) = name {
        // The grant that was passed on is the one that is known to `release_end`.
        let _ = domain.grants.table.lock(&mut cx.held).0.unpin(gref, access, Via::HOST);
    }
}

fn copy_between(
    cx: &mut Context<'_>,
    (from, from_owner): (Page, &Arc<Domain>),
    (to, to_owner): (Page, &Arc<Domain>),
    arg: &abi::GnttabCopy,
) -> Result<(), Refusal> {
    let mut mm = memory::mmu_with(cx.held.again(), from_owner, to_owner, &mut cx.state.paging.deferred);
    let source: Frame<'static> = mm.get_page(from.mfn, from_owner.id).ok_or(Refusal::BadPage)?;
    let target = mm.get_writable_ref(to.mfn, to_owner.id).ok_or(Refusal::GeneralError);
    let result = target.and_then(|target: TypeRef<'static, Writable>| {
        let covered = from.extent.covers(arg.source.offset, arg.len) && to.extent.covers(arg.dest.offset, arg.len);
        let result = match Bytes::new(arg.dest.offset, arg.source.offset, arg.len) {
            None => Err(Refusal::BadCopyArg),
            Some(_) if !covered => Err(Refusal::GeneralError),
            Some(bytes) => {
                pv_pte::copy_bytes(&target, source, bytes);
                Ok(())
            }
        };
        mm.put_writable_ref(target);
        result
    });
    mm.put_page(source);
    result
}

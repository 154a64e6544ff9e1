//! `GNTTABOP_copy`: bytes from one page to another, either of them by a grant or the caller's own.

use logic::{
    grant::{Access, Claim, Extent, PassedOn, Pinned, Refusal, Via},
    page::{Frame, TypeRef, Writable},
};
use machine::mem::pv_pte;
use xen_abi::{
    grant_table::{self as abi, GNTCOPY_DEST_GREF, GNTCOPY_SOURCE_GREF},
    ids::{DomId, Gfn, GrantRef, Mfn},
};

use super::Peer;
use crate::{cpu::Context, grant::granted_frame, memory};

const PAGE: u32 = 4096;
/// How often a grant that is passed on is looked at when it changes under our eyes.
const TRIES: u32 = 4;

/// One end of a copy: a page, pinned if it is granted.
struct End<'a> {
    domain: Peer<'a>,
    grant: Option<GrantRef>,
    access: Access,
    mfn: Mfn,
    extent: Extent,
    /// Whose page it is, if `domain` passes on what that domain grants it.
    origin: Option<(Peer<'a>, GrantRef)>,
}

/// One copy.
pub(super) fn copy(cx: &mut Context<'_>, arg: &mut abi::GnttabCopy) {
    let result = copy_one(cx, arg);
    arg.status = logic::grant::status(&result);
}

fn copy_one(cx: &mut Context<'_>, arg: &abi::GnttabCopy) -> Result<(), Refusal> {
    let by_grant = |flag| arg.flags & flag != 0;
    let (source, target) = (&arg.source, &arg.dest);
    let from = lock_domain(cx, source.domid, by_grant(GNTCOPY_SOURCE_GREF))?;
    let to = lock_domain(cx, target.domid, by_grant(GNTCOPY_DEST_GREF))?;
    let from = claim(cx, from, source.u, by_grant(GNTCOPY_SOURCE_GREF), Access::Read)?;
    let result = claim(cx, to, target.u, by_grant(GNTCOPY_DEST_GREF), Access::Write).and_then(|to| {
        let result = copy_between(cx, &from, &to, arg);
        to.release(cx);
        result
    });
    from.release(cx);
    result
}

/// A page that is not granted must be the caller's own.
#[inline(always)]
fn lock_domain<'a>(cx: &mut Context<'a>, id: DomId, by_grant: bool) -> Result<Peer<'a>, Refusal> {
    if id != DomId::SELF && !by_grant {
        return Err(Refusal::PermissionDenied);
    }
    Peer::find_any(cx, id).ok_or(Refusal::BadDomain)
}

#[inline(always)]
fn claim<'a>(
    cx: &mut Context<'a>,
    domain: Peer<'a>,
    name: u64,
    by_grant: bool,
    access: Access,
) -> Result<End<'a>, Refusal> {
    if !by_grant {
        let mfn = granted_frame(&domain, Gfn(name))?;
        return Ok(End { domain, grant: None, access, mfn, extent: Extent::PAGE, origin: None });
    }
    #[allow(clippy::cast_possible_truncation, reason = "the union's other member has 32 bits")]
    let gref = GrantRef(name as u32);
    match claim_grant(cx, &domain, gref, cx.domain.id, access)? {
        Claim::Pinned(Pinned { frame, extent }) => {
            Ok(End { domain, grant: Some(gref), access, mfn: frame, extent, origin: None })
        }
        Claim::PassedOn(passed_on) => claim_passed_on(cx, domain, gref, access, passed_on),
    }
}

#[inline(always)]
fn claim_grant(
    cx: &mut Context<'_>,
    domain: &Peer<'_>,
    gref: GrantRef,
    by: DomId,
    access: Access,
) -> Result<Claim, Refusal> {
    let (mut table, _held) = domain.grants.table.lock(&mut cx.held);
    table.claim(gref, by, access, |gfn| granted_frame(domain, gfn))
}

/// `domain` passes on what another one grants it: both grants are in use then. One step is all that is allowed.
#[cold]
fn claim_passed_on<'a>(
    cx: &mut Context<'a>,
    domain: Peer<'a>,
    gref: GrantRef,
    access: Access,
    first: PassedOn,
) -> Result<End<'a>, Refusal> {
    let mut passed_on = first;
    for _ in 0..TRIES {
        let origin = Peer::find(cx, passed_on.domain).ok_or(Refusal::GeneralError);
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
                let origin = Some((origin, passed_on.gref));
                return Ok(End { domain, grant: Some(gref), access, mfn: frame, extent, origin });
            }
            Err(_) => {
                let _ = origin.grants.table.lock(&mut cx.held).0.unpin(passed_on.gref, access, Via::HOST);
            }
        }
        match claim_grant(cx, &domain, gref, caller, access)? {
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

impl<'a> End<'a> {
    /// Whose page it is.
    #[inline(always)]
    fn owner(&self) -> &Peer<'a> {
        self.origin.as_ref().map_or(&self.domain, |(origin, _)| origin)
    }

    #[inline(always)]
    fn release(self, cx: &mut Context<'_>) {
        if let Some(gref) = self.grant {
            // The grant that was passed on is the one that is known here.
            let _ = self.domain.grants.table.lock(&mut cx.held).0.unpin(gref, self.access, Via::HOST);
        }
        if let Some((origin, gref)) = self.origin {
            let _ = origin.grants.table.lock(&mut cx.held).0.unpin(gref, self.access, Via::HOST);
        }
    }
}

fn copy_between(cx: &mut Context<'_>, from: &End<'_>, to: &End<'_>, arg: &abi::GnttabCopy) -> Result<(), Refusal> {
    let mut mm = memory::mmu_with(cx.held.again(), from.owner(), to.owner(), &mut cx.state.paging.deferred);
    let source: Frame<'static> = mm.get_page(from.mfn, from.owner().id).ok_or(Refusal::BadPage)?;
    let target = mm.get_ref::<Writable>(to.mfn, to.owner().id).map_err(|_| Refusal::GeneralError);
    let result = target.and_then(|target: TypeRef<'static, Writable>| {
        let beyond = |offset: u16| u32::from(offset) + u32::from(arg.len) > PAGE;
        let result = if beyond(arg.source.offset) || beyond(arg.dest.offset) {
            Err(Refusal::BadCopyArg)
        } else if !from.extent.covers(arg.source.offset, arg.len) || !to.extent.covers(arg.dest.offset, arg.len) {
            Err(Refusal::GeneralError)
        } else {
            let (at, from) = (usize::from(arg.dest.offset), usize::from(arg.source.offset));
            pv_pte::copy_bytes(&target, at, source, from, usize::from(arg.len));
            Ok(())
        };
        mm.put_ref(target);
        result
    });
    mm.put_page(source);
    result
}

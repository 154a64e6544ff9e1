//! `GNTTABOP_copy`: bytes from one page to another, either of them by a grant or the caller's own.

use alloc::sync::Arc;

use logic::{
    grant::{Access, Purpose, Refusal, Via},
    page::{Frame, TypeRef, Writable},
};
use machine::mem::pv_pte;
use xen_abi::{
    grant_table::{self as abi, GNTCOPY_DEST_GREF, GNTCOPY_SOURCE_GREF},
    ids::{DomId, Gfn, GrantRef, Mfn},
};

use super::any_domain;
use crate::{cpu::Context, domain::Domain, grant::granted_frame, memory};

const PAGE: u32 = 4096;

/// One end of a copy: a page, pinned if it is granted.
struct End {
    domain: Arc<Domain>,
    grant: Option<GrantRef>,
    access: Access,
    mfn: Mfn,
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
fn lock_domain(cx: &mut Context<'_>, id: DomId, by_grant: bool) -> Result<Arc<Domain>, Refusal> {
    if id != DomId::SELF && !by_grant {
        return Err(Refusal::PermissionDenied);
    }
    any_domain(cx, id).ok_or(Refusal::BadDomain)
}

fn claim(cx: &mut Context<'_>, domain: Arc<Domain>, name: u64, by_grant: bool, access: Access) -> Result<End, Refusal> {
    if !by_grant {
        let mfn = granted_frame(&domain, Gfn(name))?;
        return Ok(End { domain, grant: None, access, mfn });
    }
    #[allow(clippy::cast_possible_truncation, reason = "the union's other member has 32 bits")]
    let gref = GrantRef(name as u32);
    let mfn = {
        let caller = cx.domain.id;
        let (mut table, _held) = domain.grants.table.lock(&mut cx.held);
        table.pin(gref, caller, access, Via::HOST, Purpose::Copy, |gfn| granted_frame(&domain, gfn))?.frame
    };
    Ok(End { domain, grant: Some(gref), access, mfn })
}

impl End {
    fn release(self, cx: &mut Context<'_>) {
        if let Some(gref) = self.grant {
            self.domain.grants.table.lock(&mut cx.held).0.unpin(gref, self.access, Via::HOST);
        }
    }
}

fn copy_between(cx: &mut Context<'_>, from: &End, to: &End, arg: &abi::GnttabCopy) -> Result<(), Refusal> {
    let mut mm = memory::mmu_with(cx.held.again(), &from.domain, &to.domain, &mut cx.state.paging.deferred);
    let source: Frame<'static> = mm.get_page(from.mfn, from.domain.id).ok_or(Refusal::BadPage)?;
    let target = mm.get_ref::<Writable>(to.mfn, to.domain.id).map_err(|_| Refusal::GeneralError);
    let result = target.and_then(|target: TypeRef<'static, Writable>| {
        let beyond = |offset: u16| u32::from(offset) + u32::from(arg.len) > PAGE;
        let result = if beyond(arg.source.offset) || beyond(arg.dest.offset) {
            Err(Refusal::BadCopyArg)
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

//! The copy that is nearly all there ever is: between whole pages, granted by entries that are not in use, or one of them
//! the caller's own.
//!
//! The table of the granting domain stays locked meanwhile, so nobody but the guests sees these uses and none is recorded.
//! Under the lock nothing waits or frees ([`logic::page::Brief`]).

use alloc::sync::Arc;
use core::{mem::offset_of, ops::DerefMut, sync::atomic::AtomicU64};

use logic::{
    grant::{Access, InUse, Offer, Offers},
    guest::InOut,
    lock::Held,
    page::{Brief, Last, Owner, TypeRef, Writable},
};
use machine::mem::{
    frame_table::frames,
    guest_words::Whole,
    pv_pte::{self, Bytes},
    shared::SharedPage,
    tlb,
};
use xen_abi::{
    grant_table::{self as abi, GNTCOPY_DEST_GREF, GNTCOPY_SOURCE_GREF},
    ids::{DomId, GrantRef, Mfn},
};

use crate::{
    cpu::Running,
    domain::{self, Domain},
    guest::Handle,
    memory,
    vcpu::VcpuState,
};

/// A hypercall for this one copy: its result. `None`: it is not as simple as that, and nothing has been done.
#[inline(always)]
pub fn only_one(running: &mut Running, arg: Handle<abi::GnttabCopy, InOut>, held: Held<'_, 0>) -> Option<u64> {
    const STATUS: u64 = offset_of!(abi::GnttabCopy, status) as u64;
    let (whole, answer) = Whole::<abi::GnttabCopy, 40>::new(arg.into_address())?;
    let arg: abi::GnttabCopy = zerocopy::transmute!(whole.words_at_once()?);
    copy(&running.domain, &mut running.state, held, arg)?;
    match answer.write_half::<STATUS>(abi::GNTST_OKAY.cast_unsigned()) {
        Ok(()) => Some(0),
        Err(errno) => Some(errno.as_ret()),
    }
}

/// One copy. `None`: it is not as simple as that, and nothing has been done.
#[inline(always)]
pub fn copy(
    caller: &Arc<Domain>,
    state: &mut impl DerefMut<Target = VcpuState>,
    held: Held<'_, 0>,
    arg: abi::GnttabCopy,
) -> Option<()> {
    const BOTH: u16 = GNTCOPY_SOURCE_GREF | GNTCOPY_DEST_GREF;
    if arg.flags & BOTH == BOTH {
        between::<true, true>(caller, state, held, arg)
    } else if arg.flags & GNTCOPY_SOURCE_GREF != 0 {
        between::<true, false>(caller, state, held, arg)
    } else if arg.flags & GNTCOPY_DEST_GREF != 0 {
        between::<false, true>(caller, state, held, arg)
    } else {
        None
    }
}

/// A copy of which these ends are granted by one domain, the other the caller's own.
#[inline(always)]
fn between<const FROM_GRANT: bool, const TO_GRANT: bool>(
    caller: &Arc<Domain>,
    state: &mut impl DerefMut<Target = VcpuState>,
    held: Held<'_, 0>,
    arg: abi::GnttabCopy,
) -> Option<()> {
    let bytes = Bytes::new(arg.dest.offset, arg.source.offset, arg.len)?;
    let (from, to) = (arg.source.domid, arg.dest.domid);
    let is_usual = match (FROM_GRANT, TO_GRANT) {
        (true, true) => from == to,
        (true, false) => to == DomId::SELF,
        _ => from == DomId::SELF,
    };
    if !is_usual {
        return None;
    }
    let id = if FROM_GRANT { from } else { to };
    let names = (arg.source.u, arg.dest.u);
    if id == DomId::SELF || id == caller.id {
        of_grants_of::<FROM_GRANT, TO_GRANT>(caller, names, bytes, caller, state, held)
    } else {
        of_others_grants::<FROM_GRANT, TO_GRANT>(id, names.0, names.1, bytes, caller, state, held)
    }
}

#[inline(never)]
fn of_others_grants<const FROM_GRANT: bool, const TO_GRANT: bool>(
    granter: DomId,
    from: u64,
    to: u64,
    bytes: Bytes,
    caller: &Arc<Domain>,
    state: &mut impl DerefMut<Target = VcpuState>,
    mut held: Held<'_, 0>,
) -> Option<()> {
    let granter = domain::find(granter, &mut held)?;
    of_grants_of::<FROM_GRANT, TO_GRANT>(&granter, (from, to), bytes, caller, state, held)
}

#[inline(always)]
fn of_grants_of<const FROM_GRANT: bool, const TO_GRANT: bool>(
    granter: &Domain,
    (from, to): (u64, u64),
    bytes: Bytes,
    caller: &Arc<Domain>,
    state: &mut impl DerefMut<Target = VcpuState>,
    mut held: Held<'_, 0>,
) -> Option<()> {
    let (granter_owner, own) = (granter.frames_by_number, caller.frames_by_number);
    let done = {
        let (table, _held) = granter.grants.table.lock(&mut held);
        let ends = Ends { offers: table.offers()?, granter: granter_owner, own, caller: caller.id };
        ends.carry_out::<FROM_GRANT, TO_GRANT>(from, to, bytes)
    };
    match done {
        Ok(()) => Some(()),
        Err(left) => left.end(caller, &mut *state, held),
    }
}

/// Who takes part in a copy.
struct Ends<'a> {
    offers: Offers<'a, SharedPage>,
    // Nobody for a PVH domain, whose numbers are others.
    granter: Owner,
    own: Owner,
    caller: DomId,
}

/// A page, in use by a grant or the caller's own.
struct End<'a> {
    page: Brief<'static>,
    granted: Option<InUse<&'a AtomicU64>>,
}

impl<'a> Ends<'a> {
    /// Holds what an end names. It is given up by the error, and nothing else that was begun.
    #[inline(always)]
    fn hold<const GRANT: bool>(&self, name: u64, access: Access) -> Result<End<'a>, Left> {
        let owner = if GRANT { self.granter } else { self.own };
        #[allow(clippy::cast_possible_truncation, reason = "the union's other member has 32 bits")]
        let offer = if GRANT {
            Some(self.offers.get(GrantRef(name as u32), self.caller, access).ok_or(Left::NOTHING)?)
        } else {
            None
        };
        let mfn = offer.as_ref().map_or(Mfn(name), |offer| Mfn(offer.gfn().0));
        let page = frames().hold(mfn).ok_or(Left::NOTHING)?;
        if !page.is_of(owner) {
            return Err(Left { page: Some(page), ..Left::NOTHING });
        }
        let granted = match offer.map(Offer::begin) {
            None => None,
            Some(Some(granted)) => Some(granted),
            Some(None) => return Err(Left { page: Some(page), ..Left::NOTHING }),
        };
        Ok(End { page, granted })
    }

    #[inline(always)]
    fn carry_out<const FROM_GRANT: bool, const TO_GRANT: bool>(
        &self,
        from: u64,
        to: u64,
        bytes: Bytes,
    ) -> Result<(), Left> {
        let from = self.hold::<FROM_GRANT>(from, Access::Read)?;
        let to = match self.hold::<TO_GRANT>(to, Access::Write) {
            Ok(to) => to,
            Err(left) => return Err(Left { other: Some(from.stop()), ..left }),
        };
        let End { page, granted } = to;
        let writable = match page.as_writable() {
            Ok(writable) => writable,
            Err(page) => {
                let to = End { page, granted }.stop();
                return Err(Left { page: Some(to), other: Some(from.stop()), ..Left::NOTHING });
            }
        };
        pv_pte::copy_bytes(&writable, from.page.frame(), bytes);
        if let Some(granted) = granted {
            granted.end();
        }
        let from = from.stop();
        let done = Left { done: true, ..Left::NOTHING };
        let to = match writable.as_any(tlb::now) {
            Ok(to) => to,
            Err(writable) => return Err(Left { page: Some(from), writable: Some(writable), ..done }),
        };
        if let Err(last) = to.end() {
            return Err(Left { page: Some(from), last: Some(last), ..done });
        }
        from.end().map_err(|last| Left { last: Some(last), ..done })
    }
}

impl End<'_> {
    /// The grant is not in use any more.
    #[inline(always)]
    fn stop(self) -> Brief<'static> {
        if let Some(granted) = self.granted {
            granted.end();
        }
        self.page
    }
}

/// What has to be given up when no lock is held any more, and whether the copy is done.
struct Left {
    page: Option<Brief<'static>>,
    other: Option<Brief<'static>>,
    writable: Option<TypeRef<'static, Writable>>,
    last: Option<Last<'static>>,
    done: bool,
}

impl Left {
    const NOTHING: Self = Left { page: None, other: None, writable: None, last: None, done: false };

    /// Gives it up. `None`: nothing is copied, and somebody else has to do it.
    #[cold]
    #[inline(never)]
    fn end(self, caller: &Arc<Domain>, state: &mut VcpuState, held: Held<'_, 0>) -> Option<()> {
        let mut mm = memory::mmu(held, caller, &mut state.paging.deferred);
        let briefs = [self.page, self.other].into_iter().flatten();
        let last = briefs.filter_map(|brief| brief.end().err());
        last.chain(self.last).for_each(|last| mm.end_last(last));
        if let Some(writable) = self.writable {
            mm.put_writable_ref(writable);
        }
        self.done.then_some(())
    }
}

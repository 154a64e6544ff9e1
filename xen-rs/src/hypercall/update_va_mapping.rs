//! `HYPERVISOR_update_va_mapping` and `_otherdomain`: changes the last-level entry of an address (public header `xen.h`).

use logic::num;
use logic::{
    hypercall::Outcome,
    page::{Entry, Owners, Replace},
};
use machine::mem::{
    pv_pte,
    tlb::{self, Forget},
};
use xen_abi::{
    errno::Errno,
    ids::DomId,
    mmu::{UVMF_ALL, UVMF_FLUSHTYPE_MASK, UVMF_INVLPG, UVMF_LOCAL, UVMF_TLB_FLUSH},
};

use super::{batch, vcpu_mask};
use crate::{cpu::Context, memory};

/// The hypercall: `(va, entry, flags)`.
pub fn update_va_mapping(cx: &mut Context<'_>) -> Outcome {
    let (pages, entry) = (cx.domain.id, Entry(cx.args()[1]));
    update(cx, pages, entry)
}

/// The hypercall: `(va, entry, flags, domain whose page it is)`.
pub fn other_domain(cx: &mut Context<'_>) -> Outcome {
    let Some(pages) = batch::page_owner(cx, num::domid(cx.args()[3]).0) else { return Outcome::Fail(Errno::ESRCH) };
    if pages != cx.domain.id && pages != DomId::IO && !cx.domain.is_control() && Entry(cx.args()[1]).is_present() {
        return Outcome::Fail(Errno::EPERM);
    }
    let mut entry = Entry(cx.args()[1]);
    if let Some(domain) = batch::translated(cx, pages) {
        let find = |gfn| domain.pvh()?.physmap.find(gfn, &mut cx.held);
        match batch::translate(entry, find) {
            Ok(translated) => entry = translated,
            Err(errno) => return Outcome::Fail(errno),
        }
    }
    update(cx, pages, entry)
}

#[inline]
fn update(cx: &mut Context<'_>, pages: DomId, entry: Entry) -> Outcome {
    let [va, _, flags, ..] = cx.args();
    let owner = cx.domain.id;
    let mut mm = memory::mmu(cx.held.again(), cx.domain, &mut cx.state.paging.deferred);
    let Some((f, slot)) = pv_pte::walk_to_table(va) else { return Outcome::Fail(Errno::EINVAL) };
    let owners = Owners { pages, caller: owner };
    match mm.update_data(f, slot, entry, Replace::Whole, owner, owners) {
        Ok(()) => flush(cx, va, flags),
        Err(errno) => Outcome::Fail(errno),
    }
}

/// The flush that the flags ask for.
#[inline]
fn flush(cx: &mut Context<'_>, va: u64, flags: u64) -> Outcome {
    let what = match flags & UVMF_FLUSHTYPE_MASK {
        UVMF_TLB_FLUSH => Forget::All,
        UVMF_INVLPG => Forget::Page(va),
        _ => return Outcome::OK,
    };
    let cpus = match flags & !UVMF_FLUSHTYPE_MASK {
        UVMF_LOCAL => {
            match what {
                Forget::All => tlb::flush_here(),
                Forget::Page(va) => tlb::flush_page_here(va),
            }
            return Outcome::OK;
        }
        UVMF_ALL => tlb::cpus_of(cx.domain.id),
        bitmap => match vcpu_mask::cpus(cx, bitmap) {
            Ok(cpus) => cpus,
            Err(errno) => return Outcome::Fail(errno),
        },
    };
    tlb::flush(cpus, what);
    Outcome::OK
}

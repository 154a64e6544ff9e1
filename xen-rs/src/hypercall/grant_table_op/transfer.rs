//! `GNTTABOP_transfer`: a page, with what is in it, becomes another domain's, which waits for it with an entry.

use logic::{field, grant::Refusal, guest::InOut, page::Stolen};
use machine::mem::{
    frame_table::frames,
    pv_pte,
    tlb::{self, Forget},
};
use xen_abi::{errno::Errno, grant_table as abi, ids::Mfn};

use super::answer;
use crate::{cpu::Context, domain, guest::Handle, memory};

/// One page.
#[cold]
#[inline(never)]
pub(super) fn transfer(cx: &mut Context<'_>, arg: Handle<abi::GnttabTransfer, InOut>) -> Result<(), Errno> {
    let (arg, to) = arg.read()?;
    let result = give(cx, &arg);
    answer(to, field!(abi::GnttabTransfer, status), &result)
}

/// The page is taken away first, and is lost if nobody takes it: so it is in Xen.
fn give(cx: &mut Context<'_>, arg: &abi::GnttabTransfer) -> Result<(), Refusal> {
    // A translated domain's pages are named by its own numbers, and Xen does not take them either.
    if cx.domain.pvh().is_some() {
        return Err(Refusal::GeneralError);
    }
    let page = take(cx, Mfn(arg.mfn))?;
    let frame = page.frame();
    match hand_over(cx, arg, page) {
        Ok(pfn) => {
            pv_pte::set_m2p(frame, pfn);
            Ok(())
        }
        Err((page, refusal)) => {
            if let Some(page) = page {
                memory::free(page.into_block(tlb::now()), &mut cx.held);
            }
            Err(refusal)
        }
    }
}

/// Takes a page of the caller's that nothing refers to.
fn take(cx: &mut Context<'_>, mfn: Mfn) -> Result<Stolen<'static>, Refusal> {
    let mut mm = memory::mmu(cx.held.again(), cx.domain, &mut cx.state.paging.deferred);
    let page = mm.steal(mfn, cx.domain.id).map_err(|_| Refusal::BadPage)?;
    cx.domain.memory.forget_page(page.frame(), &mut cx.held);
    pv_pte::set_m2p(page.frame(), u64::MAX);
    Ok(page)
}

/// The number that the new owner has for the page; or why there is none, and the page if it is nobody's still.
fn hand_over(
    cx: &mut Context<'_>,
    arg: &abi::GnttabTransfer,
    page: Stolen<'static>,
) -> Result<u64, (Option<Stolen<'static>>, Refusal)> {
    let Some(domain) = domain::find(arg.domid, &mut cx.held) else { return Err((Some(page), Refusal::BadDomain)) };
    // There is no way into a translated domain's memory from here.
    let committed = domain.pvh().is_none()
        && domain.memory.has_room()
        && domain.grants.table.lock(&mut cx.held).0.commit_transfer(arg.ref_, cx.domain.id);
    if !committed {
        return Err((Some(page), Refusal::GeneralError));
    }
    let mfn = page.frame().mfn();
    let block = page.into_stale(tlb::now()).flushed(frames(), |since| {
        tlb::flush(tlb::stale_cpus(None, since), Forget::All);
    });
    if let Err(block) = domain.memory.accept(domain.id, block, &mut cx.held) {
        memory::free(block, &mut cx.held);
        return Err((None, Refusal::GeneralError));
    }
    let named = domain.grants.table.lock(&mut cx.held).0.complete_transfer(arg.ref_, mfn);
    Ok(named.map_or(u64::MAX, |gfn| gfn.0))
}

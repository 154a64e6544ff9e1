//! `HYPERVISOR_mmu_update`: changes page-table entries and the machine-to-phys table (public header `xen.h`).

use alloc::sync::Arc;
use core::mem::offset_of;

use arrayvec::ArrayVec;
use logic::{
    hypercall::Outcome,
    num,
    page::{Changed, Entry, Fail, Owners, Replace, Slot, Writable},
};
use machine::mem::{
    guest_copy, guest_words, pv_pte,
    tlb::{self, Forget},
};
use xen_abi::{
    errno::Errno,
    ids::{DomId, Mfn},
    mmu::{
        MMU_MACHPHYS_UPDATE, MMU_NORMAL_PT_UPDATE, MMU_PT_UPDATE_NO_TRANSLATE, MMU_PT_UPDATE_PRESERVE_AD, MmuUpdate,
    },
};

use super::batch::{self, Batch};
use crate::{
    cpu::Context,
    domain::Domain,
    memory::{self, Mm},
};

/// Requests copied in at a time.
const CHUNK: usize = 16;
/// Entries are 8 bytes apart, which leaves three bits for the command; only four commands exist.
const COMMAND_BITS: u64 = 7;
/// Bytes of one request.
const SIZE: u64 = size_of::<MmuUpdate>() as u64;

/// Who is concerned by the requests of one call.
struct Parties {
    caller: DomId,
    caller_is_control: bool,
    /// Whose tables.
    tables: DomId,
    /// Whose pages: a domain, `DOMID_IO` or `DOMID_XEN`.
    pages: DomId,
    /// That domain, if it is a PVH domain: entries name guest frames.
    translated: Option<Arc<Domain>>,
}

/// The hypercall: `(requests, count, done_out, foreign)`.
pub fn mmu_update(cx: &mut Context<'_>) -> Outcome {
    let [requests, count, done_out, foreign, ..] = cx.args();
    if (1..=QUICK).contains(&count)
        && done_out == 0
        && foreign == u64::from(DomId::SELF.0)
        && own_data_entries(cx, requests, count)
    {
        return Outcome::OK;
    }
    any(cx)
}

/// The ordinary case without the ceremony: a few entries of the caller's own last-level tables. False: there is
/// something else among them, and the arguments name what is left.
///
/// No handles: a request is two words in registers, read once. One that is left to [`any`] had no effect, and is read anew.
#[inline(always)]
fn own_data_entries(cx: &mut Context<'_>, mut from: u64, count: u64) -> bool {
    if !cx.state.paging.deferred.is_empty() {
        return false;
    }
    let own = cx.domain.id;
    let mut mm = memory::mmu(cx.held.again(), cx.domain, &mut cx.state.paging.deferred);
    let owners = Owners { pages: own, caller: own };
    let mut left = count;
    while left > 0 {
        const { assert!(SIZE == 16 && offset_of!(MmuUpdate, val) == 8) };
        let Some([ptr, val]) = guest_words::read_2_at_once(from) else { break };
        let replace = match ptr & COMMAND_BITS {
            MMU_NORMAL_PT_UPDATE => Replace::Whole,
            MMU_PT_UPDATE_PRESERVE_AD => Replace::KeepAccessedDirty,
            _ => break,
        };
        let Some(f) = mm.frames.ram(Mfn(ptr >> 12)) else { break };
        // A refusal has no effect, so it can be found out once more.
        if mm.update_data(f, Slot::of_address(ptr), Entry(val), replace, own, owners).is_err() {
            break;
        }
        left -= 1;
        from += SIZE;
    }
    if left == 0 {
        return true;
    }
    cx.set_arg(0, from);
    cx.set_arg(1, left);
    false
}

/// Most requests of an ordinary call: their work fits in one round.
const QUICK: u64 = 64;

/// Every case.
fn any(cx: &mut Context<'_>) -> Outcome {
    let batch = match Batch::begin(cx) {
        Ok(batch) => batch,
        Err(outcome) => return outcome,
    };
    let foreign = batch.foreign;
    let own = cx.domain;
    let other = match foreign >> 16 {
        0 => None,
        tables => match batch::find(cx, num::domid(u64::from(tables) - 1)) {
            // Updating another domain's tables takes one that has vCPUs, says Xen.
            Some(domain) if domain.vcpus().is_empty() => return batch.end(cx, 0, Err(Fail::Refused(Errno::EINVAL))),
            Some(domain) => Some(domain),
            None => return Outcome::Fail(Errno::ESRCH),
        },
    };
    let tables = other.as_ref().unwrap_or(own);
    let Some(pages) = batch::page_owner(cx, num::domid(foreign.into()).0) else {
        return batch.end(cx, 0, Err(Fail::Refused(Errno::ESRCH)));
    };
    let parties = Parties {
        caller: cx.domain.id,
        caller_is_control: cx.domain.is_control(),
        tables: tables.id,
        pages,
        translated: batch::translated(cx, pages),
    };
    let (done, result, old_tables) = run(cx, &batch, tables, &parties);
    if old_tables {
        tlb::flush(tlb::cpus_of(parties.tables), Forget::All);
    }
    batch.end(cx, done, result)
}

/// Carries the requests out, one after another: how many are done, why it ended, whether a table was taken out of use.
fn run(cx: &mut Context<'_>, batch: &Batch, tables: &Arc<Domain>, parties: &Parties) -> (u32, Result<(), Fail>, bool) {
    let mut mm = memory::mmu_with(cx.held.again(), cx.domain, tables, &mut cx.state.paging.deferred);
    let mut requests = ArrayVec::<MmuUpdate, CHUNK>::new();
    let mut old_tables = false;
    let mut done = 0;
    while done < batch.count {
        let left = batch.count - done;
        guest_copy::read_some(&mut requests, batch.requests + u64::from(done) * SIZE, left);
        if requests.is_empty() {
            return (done, Err(Fail::Refused(Errno::EFAULT)), old_tables);
        }
        for request in &requests {
            if done > 0 && (mm.env.must_stop(4) || !mm.env.deferred.is_empty()) {
                return (done, Err(Fail::Again), old_tables);
            }
            match one(&mut mm, request, parties) {
                Ok(changed) => old_tables |= changed == Changed::OldTable,
                Err(fail) => return (done, Err(fail), old_tables),
            }
            done += 1;
        }
    }
    (done, Ok(()), old_tables)
}

#[inline]
fn one(mm: &mut Mm<'_>, request: &MmuUpdate, who: &Parties) -> Result<Changed, Fail> {
    let command = request.ptr & COMMAND_BITS;
    let mfn = Mfn(request.ptr >> 12);
    let replace = match command {
        MMU_NORMAL_PT_UPDATE | MMU_PT_UPDATE_NO_TRANSLATE => Replace::Whole,
        MMU_PT_UPDATE_PRESERVE_AD => Replace::KeepAccessedDirty,
        MMU_MACHPHYS_UPDATE => return machphys(mm, mfn, request.val, who).map(|()| Changed::Data),
        _ => return Err(Fail::Refused(Errno::ENOSYS)),
    };
    let mut new = Entry(request.val);
    if who.tables != who.caller || who.pages != who.caller {
        may_update(new, who).map_err(Fail::Refused)?;
    }
    if let Some(domain) = &who.translated
        && command != MMU_PT_UPDATE_NO_TRANSLATE
    {
        new = batch::translate(new, |gfn| mm.env.find_gfn(domain, gfn)).map_err(Fail::Refused)?;
    }
    let f = mm.frames.ram(mfn).ok_or(Fail::Refused(Errno::EINVAL))?;
    let slot = Slot::of_address(request.ptr);
    match mm.lock_table(f, who.tables) {
        Some(locked) => {
            let owners = Owners { pages: who.pages, caller: who.caller };
            mm.update(locked, slot, new, replace, who.tables, owners)
        }
        None => {
            // Not a table now: an ordinary write, as if through a writable mapping.
            let page = mm.get_ref::<Writable>(mfn, who.tables)?;
            pv_pte::write_word(&page, slot, request.val);
            mm.put_ref(page);
            Ok(Changed::Data)
        }
    }
}

/// The right to concern other domains: the control domain's alone, but for device memory, to which frame rights apply.
fn may_update(new: Entry, who: &Parties) -> Result<(), Errno> {
    let pages = who.pages == who.caller || who.pages == DomId::IO || !new.is_present();
    if who.caller_is_control || (pages && who.tables == who.caller) { Ok(()) } else { Err(Errno::EPERM) }
}

fn machphys(mm: &mut Mm<'_>, mfn: Mfn, pfn: u64, who: &Parties) -> Result<(), Fail> {
    if who.tables != who.caller || (who.pages != who.caller && !who.caller_is_control) {
        return Err(Fail::Refused(Errno::EPERM));
    }
    let f = mm.get_page(mfn, who.pages).ok_or(Fail::Refused(Errno::EINVAL))?;
    pv_pte::set_m2p(f, pfn);
    mm.put_page(f);
    Ok(())
}

//! `HYPERVISOR_mmuext_op`: pins tables, loads roots, flushes TLBs and caches (public header `xen.h`).

use logic::num;
use logic::{
    access::{Allowed, MmuextOp as Op, Rule},
    guest::In,
    hypercall::Outcome,
    page::{Fail, Writable, pin_kind},
};
use machine::{
    arch::x86_64::cache,
    mem::{
        layout::is_guest_address,
        pv_pte,
        tlb::{self, Forget},
    },
};
use xen_abi::{
    errno::Errno,
    ids::{DomId, Mfn},
    mmu::*,
};

use super::{
    batch::{self, Batch},
    vcpu_mask,
};
use crate::{
    cpu::Context,
    domain::{self, Life},
    guest::{Handle, Series},
    memory,
    trap::ldt,
};

/// Bytes of one operation.
const SIZE: u64 = size_of::<MmuextOp>() as u64;
/// Most descriptors of an LDT.
const LDT_ENTRIES: u64 = 8192;

/// The hypercall: `(operations, count, done_out, domain)`.
pub fn mmuext_op(cx: &mut Context<'_>) -> Outcome {
    let [operation, count, done_out, foreign, ..] = cx.args();
    let one_of_own = count == 1 && done_out == 0 && foreign == u64::from(DomId::SELF.0);
    if one_of_own && cx.state.paging.deferred.is_empty() && flush_here(operation) {
        return Outcome::OK;
    }
    any(cx)
}

/// The hypercall from a container: the control domain pins the tables of PV domains that it builds. Nobody there has any of its
/// own.
#[cold]
pub fn of_others(cx: &mut Context<'_>) -> Outcome {
    let [requests, count, _, owner, ..] = cx.args();
    let own = num::domid(owner).0 == DomId::SELF.0;
    if own && !batch::is_end_of_call(requests, count) {
        return Outcome::Fail(Errno::EINVAL);
    }
    any(cx)
}

// Nobody has to be asked for a flush of the own TLB.
const _: (Allowed<Op>, Allowed<Op>) = (Op::TlbFlushLocal.open_to_all(), Op::InvlpgLocal.open_to_all());

/// The ordinary case without the ceremony: one flush of this CPU. False: it is something else.
#[inline(always)]
fn flush_here(operation: u64) -> bool {
    let Ok(op) = Handle::<MmuextOp, In>::new(operation).read() else { return false };
    match op.cmd {
        MMUEXT_TLB_FLUSH_LOCAL => tlb::flush_here(),
        MMUEXT_INVLPG_LOCAL if is_guest_address(op.arg1) => tlb::flush_page_here(op.arg1),
        _ => return false,
    }
    true
}

/// Every case.
fn any(cx: &mut Context<'_>) -> Outcome {
    let batch = match Batch::begin(cx) {
        Ok(batch) => batch,
        Err(outcome) => return outcome,
    };
    let Some(owner) = batch::page_owner(cx, num::domid(batch.foreign.into()).0) else {
        return Outcome::Fail(Errno::ESRCH);
    };
    if owner != cx.domain.id && !cx.domain.is_control() {
        return Outcome::Fail(Errno::EPERM);
    }
    let mut operations = Series::<MmuextOp, In>::new(batch.requests);
    let mut done = 0;
    let mut result = Ok(());
    while done < batch.count {
        // Operations are large: two in a round at most when the first has left work, else as many as fit.
        if done > 0 && (!cx.state.paging.deferred.is_empty() || done >= MOST) {
            result = Err(Fail::Again);
            break;
        }
        let op = match operations.step().read() {
            Ok(op) => op,
            Err(errno) => {
                result = Err(Fail::Refused(errno));
                break;
            }
        };
        result = one(cx, &op, owner);
        if result.is_err() {
            break;
        }
        done += 1;
    }
    batch.end_sized(cx, SIZE, done, result)
}

/// Operations in one round.
const MOST: u32 = 64;

fn one(cx: &mut Context<'_>, op: &MmuextOp, owner: DomId) -> Result<(), Fail> {
    let mfn = Mfn(op.arg1);
    let command = cx.permit::<Op>(op.cmd).map_err(Fail::Refused)?.op();
    // Most concerns what the caller itself runs on.
    if command.who() == Rule::Anyone && owner != cx.domain.id {
        return Err(Fail::Refused(Errno::EPERM));
    }
    match command {
        Op::PinL1 | Op::PinL2 | Op::PinL3 | Op::PinL4 => return pin(cx, op.cmd, mfn, owner),
        Op::Unpin => {
            let mut mm = memory::mmu(cx.held.again(), cx.domain, &mut cx.state.paging.deferred);
            return mm.unpin(mfn, owner).map_err(Fail::Refused);
        }
        Op::ClearPage | Op::CopyPage => return fill(cx, op, owner),
        Op::NewBaseptr => memory::set_kernel_root(cx, mfn)?,
        Op::NewUserBaseptr => memory::set_user_root(cx, (mfn.0 != 0).then_some(mfn))?,
        Op::TlbFlushLocal => tlb::flush_here(),
        Op::InvlpgLocal => {
            if is_guest_address(op.arg1) {
                tlb::flush_page_here(op.arg1);
            }
        }
        Op::TlbFlushAll => tlb::flush(tlb::cpus_of(owner), Forget::All),
        Op::InvlpgAll => {
            if is_guest_address(op.arg1) {
                tlb::flush(tlb::cpus_of(owner), Forget::Page(op.arg1));
            }
        }
        Op::TlbFlushMulti | Op::InvlpgMulti => {
            let cpus = vcpu_mask::cpus(cx, op.arg2).map_err(|_| Fail::Refused(Errno::EINVAL))?;
            if command == Op::TlbFlushMulti {
                tlb::flush(cpus, Forget::All);
            } else if is_guest_address(op.arg1) {
                tlb::flush(cpus, Forget::Page(op.arg1));
            }
        }
        Op::FlushCache | Op::FlushCacheGlobal => {
            if !cx.domain.memory.has_io() {
                return Err(Fail::Refused(Errno::EACCES));
            }
            cache::flush_everywhere();
        }
        Op::SetLdt => set_ldt(cx, op.arg1, op.arg2 & u64::from(u32::MAX)).map_err(Fail::Refused)?,
    }
    Ok(())
}

fn pin(cx: &mut Context<'_>, command: u32, mfn: Mfn, owner: DomId) -> Result<(), Fail> {
    let Some(kind) = pin_kind(command) else { return Err(Fail::Refused(Errno::EINVAL)) };
    let target = if owner == cx.domain.id { None } else { domain::find(owner, &mut cx.held) };
    let target = target.as_ref().unwrap_or(cx.domain);
    let mut mm = memory::mmu_with(cx.held.again(), cx.domain, target, &mut cx.state.paging.deferred);
    mm.pin(mfn, kind, owner)?;
    // Pages of nobody that runs are on no domain's list.
    if target.id == owner
        && let Some(f) = mm.get_page(mfn, owner)
    {
        target.memory.put_last(f, &mut cx.held.again());
        memory::mmu(cx.held.again(), target, &mut cx.state.paging.deferred).put_page(f);
    }
    let mut mm = memory::mmu_with(cx.held.again(), cx.domain, target, &mut cx.state.paging.deferred);
    // A foreign domain may have begun to die meanwhile, and its pins may have been given up already.
    if owner != cx.domain.id && target.life.get() != Life::Alive {
        mm.pin_raced_with_death(mfn);
    }
    Ok(())
}

fn fill(cx: &mut Context<'_>, op: &MmuextOp, owner: DomId) -> Result<(), Fail> {
    let mut mm = memory::mmu(cx.held.again(), cx.domain, &mut cx.state.paging.deferred);
    let refused = Fail::Refused(Errno::EINVAL);
    let source = match op.cmd {
        MMUEXT_COPY_PAGE => Some(mm.get_page(Mfn(op.arg2), owner).ok_or(refused)?),
        _ => None,
    };
    let target = mm.get_ref::<Writable>(Mfn(op.arg1), owner);
    if let Ok(target) = &target {
        match source {
            Some(source) => pv_pte::copy_page(target, source),
            None => pv_pte::clear(target),
        }
    }
    if let Some(source) = source {
        mm.put_page(source);
    }
    mm.put_ref(target.map_err(|_| refused)?);
    Ok(())
}

fn set_ldt(cx: &mut Context<'_>, base: u64, entries: u64) -> Result<(), Errno> {
    if entries > LDT_ENTRIES || (entries != 0 && (base & 0xfff != 0 || !is_guest_address(base))) {
        return Err(Errno::EINVAL);
    }
    let current = &cx.state.pv.ldt;
    let base = if entries == 0 { 0 } else { base };
    if (current.base, u64::from(current.entries)) != (base, entries) {
        ldt::replace(cx, base, num::uint(entries));
    }
    Ok(())
}

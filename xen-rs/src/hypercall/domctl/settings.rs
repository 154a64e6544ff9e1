//! Settings of a domain that the toolstack makes while building it.

use core::sync::atomic::Ordering;

use logic::{
    lock::Held,
    sched::{Scheduler, WEIGHT_DEFAULT},
};
use machine::container;
use xen_abi::{
    domctl::{self as abi, Domctl},
    errno::Errno,
    ids::Mfn,
};
use zerocopy::{FromBytes, IntoBytes};

use super::{Reply, put, vcpu};
use crate::{
    cpu::{Context, Target},
    cpu_loop, time,
};

/// Bytes of a page.
const PAGE_SIZE: u64 = 4096;
/// Kibibytes in a page, as a shift.
const KIB_PER_PAGE_SHIFT: u32 = 2;

/// `XEN_DOMCTL_max_mem`: how much memory it may have, in KiB; below what it has is allowed, growth is refused then.
pub(super) fn max_mem(cx: &mut Context<'_>, target: &Target, arg: &abi::MaxMem) -> Result<Reply, Errno> {
    target.memory.set_maximum(arg.max_memkb >> KIB_PER_PAGE_SHIFT, &mut cx.held);
    Ok(Reply::Nothing)
}

/// `XEN_DOMCTL_get_paging_mempool_size`: how much memory its nested page tables may take.
pub(super) fn get_paging_pool(target: &Target, raw: &mut Domctl) -> Result<Reply, Errno> {
    let pvh = target.pvh().ok_or(Errno::EOPNOTSUPP)?;
    put(raw, &abi::PagingMempool { size: pvh.physmap.pool() * PAGE_SIZE })
}

/// `XEN_DOMCTL_set_paging_mempool_size`. Xen takes the frames at once, here they are taken as they are needed.
pub(super) fn set_paging_pool(cx: &mut Context<'_>, target: &Target, arg: &abi::PagingMempool) -> Result<Reply, Errno> {
    let pvh = target.pvh().ok_or(Errno::EOPNOTSUPP)?;
    if !arg.size.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    pvh.physmap.set_pool(arg.size / PAGE_SIZE, &mut cx.held)?;
    Ok(Reply::Nothing)
}

/// `XEN_DOMCTL_setdomainhandle`.
pub(super) fn set_handle(target: &Target, arg: &abi::SetDomainHandle) -> Result<Reply, Errno> {
    target.set_handle(arg.handle);
    Ok(Reply::Nothing)
}

/// `XEN_DOMCTL_hypercall_init`: fills a page of the domain with the ways into the hypervisor.
pub(super) fn hypercall_init(cx: &mut Context<'_>, target: &Target, arg: &abi::HypercallInit) -> Result<Reply, Errno> {
    if target.pvh().is_some() {
        crate::hvm::hypercall_page::fill(target, xen_abi::ids::Gfn(arg.gmfn), &mut cx.held)?;
    } else {
        target.memory.write_hypercall_page(target, Mfn(arg.gmfn), &mut cx.held)?;
    }
    Ok(Reply::Nothing)
}

/// `XEN_DOMCTL_set_address_size`: 64-bit is what every PV domain is; 32-bit PV is not offered.
pub(super) fn set_address_size(arg: &abi::AddressSize) -> Result<Reply, Errno> {
    match arg.size {
        64 => Ok(Reply::Nothing),
        32 => Err(Errno::EOPNOTSUPP),
        _ => Err(Errno::EINVAL),
    }
}

/// `XEN_DOMCTL_get_address_size`.
pub(super) fn get_address_size(raw: &mut Domctl) -> Result<Reply, Errno> {
    put(raw, &abi::AddressSize { size: 64 })
}

/// `XEN_DOMCTL_settscinfo`. The control domain's TSC is the CPU's, whatever is asked for.
pub(super) fn set_tsc_info(cx: &mut Context<'_>, target: &Target, arg: &abi::TscInfo) -> Result<Reply, Errno> {
    if target.id == cx.domain.id {
        return Err(Errno::EINVAL);
    }
    let scaling = target.pvh().and_then(|_| container::tsc_scaling());
    let set = vcpu::while_all_stopped(target, &mut cx.held, |_| {
        target.tsc.set(arg, scaling)?;
        target.vcpus().iter().for_each(|vcpu| time::show_time(vcpu, &target.tsc));
        Ok(Reply::Nothing)
    });
    // A CPU has not let go of one yet.
    set.unwrap_or(Ok(Reply::Again))
}

/// `XEN_DOMCTL_gettscinfo`.
pub(super) fn get_tsc_info(target: &Target, raw: &mut Domctl) -> Result<Reply, Errno> {
    put(raw, &target.tsc.info())
}

/// `XEN_DOMCTL_settimeoffset`: how many seconds its wall clock is ahead of the host's.
pub(super) fn set_time_offset(cx: &mut Context<'_>, target: &Target, arg: &abi::SetTimeOffset) -> Result<Reply, Errno> {
    target.time_offset.store(arg.time_offset_seconds, Ordering::Relaxed);
    time::show_wall_clock(target, &mut cx.held);
    Ok(Reply::Nothing)
}

/// `XEN_DOMCTL_scheduler_op`: weight (0: as it is) and cap (0: none), which are those of a domain as a whole.
pub(super) fn scheduler_op(
    target: &Target,
    arg: &abi::SchedulerOp,
    raw: &mut Domctl,
    held: &mut Held<'_, 0>,
) -> Result<Reply, Errno> {
    /// Credit: the cap stays as it is.
    const AS_IT_IS: u16 = u16::MAX;
    let scheduler = target.pool.scheduler();
    if arg.sched_id != scheduler.number() {
        return Err(Errno::EINVAL);
    }
    let puts = match arg.cmd {
        abi::XEN_DOMCTL_SCHEDOP_PUTINFO => true,
        abi::XEN_DOMCTL_SCHEDOP_GETINFO => false,
        // Single vCPUs have none of their own.
        _ => return Err(Errno::EINVAL),
    };
    if scheduler == Scheduler::Null {
        return put(raw, arg);
    }
    // Both credits have the same two numbers.
    let (wanted, _) = abi::SchedCredit2::read_from_prefix(arg.u.as_bytes()).map_err(|_| Errno::EINVAL)?;
    let cap = target.budget.lock_leaf(|budget| budget.cap());
    if puts {
        if wanted.weight != 0 {
            target.vcpus().iter().for_each(|vcpu| vcpu.seat.set_weight(wanted.weight));
        }
        let stays = scheduler == Scheduler::Credit && wanted.cap == AS_IT_IS;
        if !stays && wanted.cap != cap {
            cpu_loop::set_cap(target, wanted.cap, held);
        }
        return Ok(Reply::Nothing);
    }
    let weight = target.vcpus().first().map_or(WEIGHT_DEFAULT, |vcpu| vcpu.seat.weight());
    let mut reply = *arg;
    abi::SchedCredit2 { weight, cap }.write_to_prefix(reply.u.as_mut_bytes()).map_err(|_| Errno::EINVAL)?;
    put(raw, &reply)
}

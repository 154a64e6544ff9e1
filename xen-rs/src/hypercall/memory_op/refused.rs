//! Operations on what domains do not have: memory on demand, access rights per page, virtual nodes. Their
//! arguments are looked at in Xen's order, so that each wrong one gets its own error.

use logic::{
    access::{Allowed, MemoryOp as Op},
    guest::{In, Out},
};
use xen_abi::{errno::Errno, ids::DomId, memory::*};

use crate::{cpu::Context, domain, guest::Handle};

/// `set_pod_target` and `get_pod_target`: no page of a PVH domain is ever missing until it is touched, so there is nothing to do,
/// and libxl wants to hear that before it sets a balloon's target.
pub fn pod_target(cx: &mut Context<'_>, op: Allowed<Op>, argument: u64) -> Result<(), Errno> {
    let wanted = Handle::<PodTarget, In>::new(argument).read()?;
    let domain = cx.target(&op, wanted.domid)?;
    domain.pvh().ok_or(Errno::EINVAL)?;
    let memory = domain.memory.totals(&mut cx.held);
    if op.op() == Op::SetPodTarget && wanted.target_pages > memory.maximum {
        return Err(Errno::EINVAL);
    }
    let answer = PodTarget { tot_pages: memory.total, pod_cache_pages: 0, pod_entries: 0, ..wanted };
    Handle::<PodTarget, Out>::new(argument).write(&answer)
}

/// `access_op`: the domain is the second half-word of `struct xen_mem_access_op`, which has 32 bytes.
pub fn access_op(cx: &mut Context<'_>, argument: u64) -> Result<(), Errno> {
    let wanted = Handle::<[u16; 16], In>::new(argument).read()?;
    let [_, domid, ..] = wanted;
    if DomId(domid) == cx.domain.id {
        return Err(Errno::EPERM);
    }
    domain::find(DomId(domid), &mut cx.held).ok_or(Errno::ESRCH)?;
    Err(Errno::EINVAL)
}

/// `get_vnumainfo`.
pub fn vnuma_info(cx: &mut Context<'_>, op: Allowed<Op>, argument: u64) -> Result<(), Errno> {
    let wanted = Handle::<VnumaTopologyInfo, In>::new(argument).read()?;
    if wanted.pad != 0 {
        return Err(Errno::EINVAL);
    }
    cx.target(&op, wanted.domid)?;
    Err(Errno::EOPNOTSUPP)
}

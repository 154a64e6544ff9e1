//! The physical CPUs that a vCPU may (hard) and had better (soft) run on.

use logic::sched::CpuMask;
use xen_abi::{
    domctl::{self as abi, Domctl},
    errno::Errno,
};

use super::{Reply, put};
use crate::{
    cpu::{Context, Target},
    cpu_loop,
    hypercall::bitmap,
};

/// `XEN_DOMCTL_setvcpuaffinity`; what is in force then goes back into the caller's bitmaps.
pub(super) fn set(
    cx: &mut Context<'_>,
    target: &Target,
    arg: &abi::VcpuAffinity,
    raw: &mut Domctl,
) -> Result<Reply, Errno> {
    check(arg)?;
    let vcpu = target.vcpu(arg.vcpu).ok_or(Errno::EINVAL)?;
    let online = target.pool.cpus();
    let (mut hard, mut soft) = (vcpu.seat.hard_affinity(), vcpu.seat.soft_affinity());
    if arg.flags & abi::XEN_VCPUAFFINITY_HARD != 0 {
        let wanted = bitmap::read(&arg.cpumap_hard)?;
        if wanted.and(online) == CpuMask(0) {
            return Err(Errno::EINVAL);
        }
        hard = wanted;
    }
    if arg.flags & abi::XEN_VCPUAFFINITY_SOFT != 0 {
        soft = bitmap::read(&arg.cpumap_soft)?;
    }
    if arg.flags & abi::XEN_VCPUAFFINITY_FORCE != 0 {
        vcpu.seat.unpin();
    }
    vcpu.seat.set_affinity(hard, soft);
    cpu_loop::resettle(vcpu, &mut cx.held);
    if arg.flags & abi::XEN_VCPUAFFINITY_HARD != 0 {
        bitmap::write(&arg.cpumap_hard, hard.and(online))?;
    }
    if arg.flags & abi::XEN_VCPUAFFINITY_SOFT != 0 {
        bitmap::write(&arg.cpumap_soft, soft.and(hard).and(online))?;
    }
    put(raw, arg)
}

/// `XEN_DOMCTL_getvcpuaffinity`: as it was set, of the CPUs that there are.
pub(super) fn get(target: &Target, arg: &abi::VcpuAffinity, raw: &mut Domctl) -> Result<Reply, Errno> {
    check(arg)?;
    let vcpu = target.vcpu(arg.vcpu).ok_or(Errno::EINVAL)?;
    let there = machine::mailbox::online();
    if arg.flags & abi::XEN_VCPUAFFINITY_HARD != 0 {
        bitmap::write(&arg.cpumap_hard, vcpu.seat.hard_affinity().and(there))?;
    }
    if arg.flags & abi::XEN_VCPUAFFINITY_SOFT != 0 {
        bitmap::write(&arg.cpumap_soft, vcpu.seat.soft_affinity().and(there))?;
    }
    put(raw, arg)
}

/// `XEN_DOMCTL_setnodeaffinity`: there is one node, and it has to be among those that are named.
pub(super) fn set_nodes(arg: &abi::NodeAffinity) -> Result<Reply, Errno> {
    if bitmap::read(&arg.nodemap)?.has(0) { Ok(Reply::Nothing) } else { Err(Errno::EINVAL) }
}

/// `XEN_DOMCTL_getnodeaffinity`: the one node.
pub(super) fn nodes(arg: &abi::NodeAffinity, raw: &mut Domctl) -> Result<Reply, Errno> {
    bitmap::write(&arg.nodemap, CpuMask(1))?;
    put(raw, arg)
}

/// At least one of the two must be meant, and what is meant be somewhere.
fn check(arg: &abi::VcpuAffinity) -> Result<(), Errno> {
    let known = abi::XEN_VCPUAFFINITY_HARD | abi::XEN_VCPUAFFINITY_SOFT | abi::XEN_VCPUAFFINITY_FORCE;
    let named = arg.flags & (abi::XEN_VCPUAFFINITY_HARD | abi::XEN_VCPUAFFINITY_SOFT) != 0;
    let nowhere = |flag: u32, map: &abi::Bitmap| arg.flags & flag != 0 && map.bitmap == 0;
    if arg.flags & !known != 0
        || !named
        || nowhere(abi::XEN_VCPUAFFINITY_HARD, &arg.cpumap_hard)
        || nowhere(abi::XEN_VCPUAFFINITY_SOFT, &arg.cpumap_soft)
    {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

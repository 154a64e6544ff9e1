//! A domain's vCPUs as the toolstack sees them.

use alloc::sync::Arc;

use logic::{
    guest::{In, Out},
    lock::Held,
};
use machine::mailbox;
use xen_abi::{
    arch_x86::VcpuGuestContext,
    domctl::{self as abi, Domctl},
    errno::Errno,
    ids::VcpuId,
};
use zerocopy::FromZeros;

use super::{Reply, put};
use crate::{
    cpu::{Context, Target},
    cpu_loop,
    domain::context,
    guest::Handle,
    vcpu::{Vcpu, VcpuFlags},
};

/// `XEN_DOMCTL_max_vcpus`: makes the vCPUs that the domain was created for.
pub(super) fn max_vcpus(cx: &mut Context<'_>, target: &Target, arg: &abi::MaxVcpus) -> Result<Reply, Errno> {
    if target.id == cx.domain.id || arg.max != target.max_vcpus() {
        return Err(Errno::EINVAL);
    }
    target.allocate_vcpus(&mut cx.held)?;
    Ok(Reply::Nothing)
}

/// `XEN_DOMCTL_setvcpucontext`.
pub(super) fn set_context(cx: &mut Context<'_>, target: &Target, arg: &abi::VcpuContext) -> Result<Reply, Errno> {
    let vcpu = target.vcpu(arg.vcpu).ok_or(Errno::EINVAL)?;
    // A PVH domain's goes by `sethvmcontext`.
    if target.id == cx.domain.id || target.pvh().is_some() {
        return Err(Errno::EINVAL);
    }
    let wanted = Handle::<VcpuGuestContext, In>::new(arg.ctxt);
    if wanted.is_null() {
        // To take a vCPU out of use: one that was never in use is. Others stay until they get another context.
        let in_use = vcpu.flags().contains(VcpuFlags::INITIALISED);
        return if in_use { Err(Errno::EOPNOTSUPP) } else { Ok(Reply::Nothing) };
    }
    let wanted = wanted.read_boxed()?;
    match while_stopped(vcpu, &mut cx.held, |held| context::set(target, vcpu, &wanted, held)) {
        Some(Ok(true)) => Ok(Reply::Nothing),
        Some(Ok(false)) | None => Ok(Reply::Again),
        Some(Err(errno)) => Err(errno),
    }
}

/// Looks before the caller of [`while_stopped`] is made to come back.
const PATIENCE: u32 = 1000;

/// Does something while no CPU can run the vCPU. None: the one that ran it has not let go of it yet.
fn while_stopped<T>(vcpu: &Arc<Vcpu>, held: &mut Held<'_, 0>, act: impl FnOnce(&mut Held<'_, 0>) -> T) -> Option<T> {
    while_these_stopped(core::slice::from_ref(vcpu), held, act)
}

/// The same of all vCPUs of a domain.
pub(super) fn while_all_stopped<T>(
    target: &Target,
    held: &mut Held<'_, 0>,
    act: impl FnOnce(&mut Held<'_, 0>) -> T,
) -> Option<T> {
    while_these_stopped(target.vcpus(), held, act)
}

fn while_these_stopped<T>(
    vcpus: &[Arc<Vcpu>],
    held: &mut Held<'_, 0>,
    act: impl FnOnce(&mut Held<'_, 0>) -> T,
) -> Option<T> {
    vcpus.iter().for_each(|vcpu| cpu_loop::pause(vcpu));
    let mut patience = PATIENCE;
    let mut all = true;
    for vcpu in vcpus {
        while !cpu_loop::is_parked(vcpu, held) && patience > 0 {
            // SPIN: for a limited time; the CPU that runs it has been kicked.
            mailbox::poll();
            patience -= 1;
        }
        all = all && cpu_loop::is_parked(vcpu, held);
    }
    let result = all.then(|| act(held));
    vcpus.iter().for_each(|vcpu| cpu_loop::unpause(vcpu, held));
    result
}

/// `XEN_DOMCTL_getvcpucontext`.
pub(super) fn get_context(cx: &mut Context<'_>, target: &Target, arg: &abi::VcpuContext) -> Result<Reply, Errno> {
    let vcpu = target.vcpu(arg.vcpu).ok_or(Errno::EINVAL)?;
    if target.id == cx.domain.id {
        return Err(Errno::EINVAL);
    }
    let Some(context) = while_stopped(vcpu, &mut cx.held, |held| context::get(target, vcpu, held)) else {
        return Ok(Reply::Again);
    };
    Handle::<VcpuGuestContext, Out>::new(arg.ctxt).write(&*context?)?;
    Ok(Reply::Nothing)
}

/// `XEN_DOMCTL_sendtrigger`. No domain here has buttons for power and sleep: EINVAL, as Xen says of PV domains.
pub(super) fn send_trigger(cx: &mut Context<'_>, target: &Target, arg: &abi::SendTrigger) -> Result<Reply, Errno> {
    if arg.vcpu.0 >= target.max_vcpus() {
        return Err(Errno::ESRCH);
    }
    let vcpu = target.vcpu(arg.vcpu).ok_or(Errno::ESRCH)?;
    match arg.trigger {
        abi::XEN_DOMCTL_SENDTRIGGER_NMI => {
            if !vcpu.seat.ready.set_nmi() {
                cpu_loop::nudge(vcpu, &mut cx.held);
            }
            Ok(Reply::Nothing)
        }
        abi::XEN_DOMCTL_SENDTRIGGER_POWER | abi::XEN_DOMCTL_SENDTRIGGER_SLEEP => Err(Errno::EINVAL),
        _ => Err(Errno::ENOSYS),
    }
}

/// `XEN_DOMCTL_getvcpuinfo`.
pub(super) fn info(target: &Target, id: VcpuId, raw: &mut Domctl) -> Result<Reply, Errno> {
    if id.0 >= target.max_vcpus() {
        return Err(Errno::EINVAL);
    }
    let vcpu = target.vcpu(id).ok_or(Errno::ESRCH)?;
    let flags = vcpu.flags();
    let mut info = abi::GetVcpuInfo::new_zeroed();
    info.vcpu = id;
    info.online = u8::from(!flags.contains(VcpuFlags::DOWN));
    info.blocked = u8::from(flags.intersects(VcpuFlags::BLOCKED | VcpuFlags::POLLING));
    info.running = u8::from(flags.contains(VcpuFlags::RUNNING));
    info.cpu_time = vcpu.cpu_time_ns();
    info.cpu = vcpu.home();
    put(raw, &info)
}

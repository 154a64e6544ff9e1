//! `HYPERVISOR_domctl`: domain control for the toolstack.
//!
//! Decode, permit, find the target, carry out; what an operation has to say goes back into the caller's structure.
//! One file per group of operations.

mod affinity;
mod create;
mod destroy;
mod frames;
mod hvm_context;
mod info;
mod permission;
mod policy;
mod settings;
mod vcpu;

use logic::{
    access::{self, Allowed, DomctlOp},
    control,
    guest::InOut,
    hypercall::Outcome,
};
use xen_abi::{
    domctl::{self as abi, Domctl},
    errno::Errno,
    ids::VcpuId,
};
use zerocopy::{FromBytes, IntoBytes};

pub use info::describe;

use crate::{cpu::Context, domain, guest::Handle};

/// What an operation leaves behind when it succeeds.
enum Reply {
    /// Nothing to tell.
    Nothing,
    /// The structure changed and goes back to the caller.
    CopyBack,
    /// Not finished: the same call again.
    Again,
    /// It was refused, and the structure says why.
    Refused(Errno),
}

/// The hypercall: rdi points to a `struct xen_domctl`.
pub fn domctl(cx: &mut Context<'_>) -> Outcome {
    crate::memory::feed_heap(&mut cx.held);
    let (mut raw, answer) = match Handle::<Domctl, InOut>::new(cx.args()[0]).read() {
        Ok(read) => read,
        Err(errno) => return Outcome::Fail(errno),
    };
    let reply = decode(cx, &raw).and_then(|op| carry_out(cx, &op, &mut raw));
    match reply {
        Ok(Reply::Nothing) => Outcome::OK,
        Ok(Reply::CopyBack) => answer.write(&raw).into(),
        Ok(Reply::Again) => Outcome::Again,
        Ok(Reply::Refused(errno)) => match answer.write(&raw) {
            Ok(()) => Outcome::Fail(errno),
            Err(fault) => Outcome::Fail(fault),
        },
        Err(errno) => Outcome::Fail(errno),
    }
}

/// As in Xen a domain that is not there is found out before the caller's rights are.
fn decode(cx: &mut Context<'_>, raw: &Domctl) -> Result<Allowed<DomctlOp>, Errno> {
    let asked = control::domctl(raw)?;
    // The two operations whose domain number need not be that of an existing domain.
    let names_one = raw.cmd != abi::XEN_DOMCTL_CREATEDOMAIN && raw.cmd != abi::XEN_DOMCTL_GETDOMAININFO;
    if names_one && domain::find(raw.domain, &mut cx.held).is_none() {
        return Err(Errno::ESRCH);
    }
    access::permit(cx.domain.as_caller(), asked)
}

fn carry_out(cx: &mut Context<'_>, op: &Allowed<DomctlOp>, raw: &mut Domctl) -> Result<Reply, Errno> {
    match op.op() {
        DomctlOp::CreateDomain => return create::create(cx, raw.domain, &argument(raw)?, raw),
        DomctlOp::GetDomainInfo => return info::get(cx, raw.domain, raw),
        _ => {}
    }
    let target = cx.target(op, raw.domain)?;
    match op.op() {
        DomctlOp::CreateDomain | DomctlOp::GetDomainInfo => Err(Errno::EINVAL),
        DomctlOp::DestroyDomain => destroy::destroy(cx, &target),
        DomctlOp::PauseDomain => destroy::pause(cx, &target),
        DomctlOp::UnpauseDomain => destroy::unpause(cx, &target),
        DomctlOp::MaxMem => settings::max_mem(cx, &target, &argument(raw)?),
        DomctlOp::SetDomainHandle => settings::set_handle(&target, &argument(raw)?),
        DomctlOp::SetNodeAffinity => affinity::set_nodes(&argument(raw)?),
        DomctlOp::GetNodeAffinity => affinity::nodes(&argument(raw)?, raw),
        DomctlOp::IrqPermission => permission::interrupt(cx, &target, &argument(raw)?),
        DomctlOp::IomemPermission => permission::memory(cx, &target, &argument(raw)?),
        DomctlOp::IoportPermission => permission::ports(cx, &target, &argument(raw)?),
        DomctlOp::HypercallInit => settings::hypercall_init(cx, &target, &argument(raw)?),
        DomctlOp::GetHvmContext => hvm_context::get(cx, &target, &argument(raw)?, raw),
        DomctlOp::SetHvmContext => hvm_context::set(cx, &target, &argument(raw)?),
        DomctlOp::SetAddressSize => settings::set_address_size(&argument(raw)?),
        DomctlOp::GetAddressSize => settings::get_address_size(raw),
        DomctlOp::SetTscInfo => settings::set_tsc_info(cx, &target, &argument(raw)?),
        DomctlOp::SetTimeOffset => settings::set_time_offset(cx, &target, &argument(raw)?),
        DomctlOp::GetTscInfo => settings::get_tsc_info(&target, raw),
        DomctlOp::SchedulerOp => settings::scheduler_op(&target, &argument(raw)?, raw, &mut cx.held),
        DomctlOp::MaxVcpus => vcpu::max_vcpus(cx, &target, &argument(raw)?),
        DomctlOp::SetVcpuContext => vcpu::set_context(cx, &target, &argument(raw)?),
        DomctlOp::GetVcpuContext => vcpu::get_context(cx, &target, &argument(raw)?),
        DomctlOp::GetPageFrameInfo3 => frames::types(cx, &target, &argument(raw)?),
        DomctlOp::GetVcpuInfo => vcpu::info(&target, VcpuId(argument(raw)?), raw),
        DomctlOp::SendTrigger => vcpu::send_trigger(cx, &target, &argument(raw)?),
        DomctlOp::GetCpuPolicy => policy::get(&target, &argument(raw)?, raw),
        DomctlOp::SetCpuPolicy => policy::set(cx, &target, &argument(raw)?, raw),
        DomctlOp::GetPagingMempoolSize => settings::get_paging_pool(&target, raw),
        DomctlOp::SetPagingMempoolSize => settings::set_paging_pool(cx, &target, &argument(raw)?),
        DomctlOp::SetVcpuAffinity => affinity::set(cx, &target, &argument(raw)?, raw),
        DomctlOp::GetVcpuAffinity => affinity::get(&target, &argument(raw)?, raw),
    }
}

/// The typed argument of an operation.
fn argument<T: FromBytes>(raw: &Domctl) -> Result<T, Errno> {
    control::payload(&raw.u)
}

/// Puts an operation's result at the start of the payload.
fn put<T: IntoBytes + zerocopy::Immutable>(raw: &mut Domctl, value: &T) -> Result<Reply, Errno> {
    value.write_to_prefix(&mut raw.u).map_err(|_| Errno::EINVAL)?;
    Ok(Reply::CopyBack)
}

//! `HYPERVISOR_domctl`: domain control for the toolstack.
//!
//! Decode, permit, find the target, carry out; what an operation has to say goes back into the caller's structure.
//! One file per group of operations.

mod affinity;
mod create;
mod destroy;
mod info;
mod settings;
mod vcpu;

use alloc::sync::Arc;

use logic::{
    access::{self, Allowed},
    control::domctl::{Call, Command, decode},
    hypercall::Outcome,
};
use xen_abi::{domctl::Domctl, errno::Errno, ids::DomId};
use zerocopy::IntoBytes;

pub use info::describe;

use crate::{
    cpu::Context,
    domain::{self, Domain},
    guest,
};

/// What an operation leaves behind when it succeeds.
enum Reply {
    /// Nothing to tell.
    Nothing,
    /// The structure changed and goes back to the caller.
    CopyBack,
    /// Not finished: the same call again.
    Again,
}

/// The hypercall: rdi points to a `struct xen_domctl`.
pub fn domctl(cx: &mut Context<'_>) -> Outcome {
    crate::memory::feed_heap(&mut cx.held);
    let va = cx.args[0];
    let mut raw = match guest::read::<Domctl>(va) {
        Ok(raw) => raw,
        Err(errno) => return Outcome::Fail(errno),
    };
    let reply = decode(&raw)
        .and_then(|call| access::permit(cx.domain.as_caller(), call))
        .and_then(|call| carry_out(cx, call, &mut raw));
    match reply {
        Ok(Reply::Nothing) => Outcome::OK,
        Ok(Reply::CopyBack) => guest::write(va, &raw).into(),
        Ok(Reply::Again) => Outcome::Again,
        Err(errno) => Outcome::Fail(errno),
    }
}

fn carry_out(cx: &mut Context<'_>, call: Allowed<Call>, raw: &mut Domctl) -> Result<Reply, Errno> {
    let Call { domain, command } = call.into_op();
    // The two operations whose domain number is not that of an existing domain.
    match command {
        Command::CreateDomain(ref config) => return create::create(cx, domain, config, raw),
        Command::GetDomainInfo => return info::get(cx, domain, raw),
        _ => {}
    }
    let target = find(cx, domain)?;
    match command {
        Command::CreateDomain(_) | Command::GetDomainInfo => Err(Errno::EINVAL),
        Command::DestroyDomain => destroy::destroy(cx, &target),
        Command::PauseDomain => destroy::pause(cx, &target),
        Command::UnpauseDomain => destroy::unpause(cx, &target),
        Command::ResumeDomain => Err(Errno::EOPNOTSUPP),
        Command::MaxMem(arg) => settings::max_mem(cx, &target, &arg),
        Command::SetDomainHandle(arg) => settings::set_handle(&target, &arg),
        Command::SetNodeAffinity(_) => Ok(Reply::Nothing),
        Command::HypercallInit(arg) => settings::hypercall_init(cx, &target, &arg),
        Command::SetAddressSize(arg) => settings::set_address_size(&arg),
        Command::GetAddressSize => settings::get_address_size(raw),
        Command::SetTscInfo(arg) => settings::set_tsc_info(&arg),
        Command::GetTscInfo => settings::get_tsc_info(raw),
        Command::SchedulerOp(arg) => settings::scheduler_op(&target, &arg, raw),
        Command::MaxVcpus(arg) => vcpu::max_vcpus(cx, &target, &arg),
        Command::SetVcpuContext(arg) => vcpu::set_context(cx, &target, &arg),
        Command::GetVcpuContext(arg) => vcpu::get_context(cx, &target, &arg),
        Command::GetVcpuInfo(id) => vcpu::info(&target, id, raw),
        Command::SetVcpuAffinity(arg) => affinity::set(&target, &arg, raw),
        Command::GetVcpuAffinity(arg) => affinity::get(&target, &arg, raw),
    }
}

/// The domain of a number that is not a stand-in.
fn find(cx: &mut Context<'_>, id: DomId) -> Result<Arc<Domain>, Errno> {
    domain::find(id, &mut cx.held).ok_or(Errno::ESRCH)
}

/// Puts an operation's result at the start of the payload.
fn put<T: IntoBytes + zerocopy::Immutable>(raw: &mut Domctl, value: &T) -> Result<Reply, Errno> {
    value.write_to_prefix(&mut raw.u).map_err(|_| Errno::EINVAL)?;
    Ok(Reply::CopyBack)
}

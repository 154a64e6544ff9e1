//! `HYPERVISOR_sysctl`: host control for the toolstack.
//!
//! Decode, permit, carry out; what an operation has to say goes back into the caller's structure.

mod console;
mod domains;
mod host;
mod policy;
mod pools;
mod trace;

use logic::{
    access::{self, Allowed, SysctlOp},
    control::{self, payload},
    guest::InOut,
    hypercall::Outcome,
};
use xen_abi::{errno::Errno, sysctl::Sysctl};
use zerocopy::{Immutable, IntoBytes};

use crate::{cpu::Context, guest::Handle};

/// The hypercall: rdi points to a `struct xen_sysctl`.
pub fn sysctl(cx: &mut Context<'_>) -> Outcome {
    let (mut raw, answer) = match Handle::<Sysctl, InOut>::new(cx.args()[0]).read() {
        Ok(read) => read,
        Err(errno) => return Outcome::Fail(errno),
    };
    let reply = control::sysctl(&raw)
        .and_then(|asked| access::permit(cx.domain.as_caller(), asked))
        .and_then(|op| carry_out(cx, op, &mut raw));
    match reply {
        Ok(Reply::Told) => answer.write(&raw).into(),
        Ok(Reply::Refused(errno)) => Outcome::Fail(answer.write(&raw).err().unwrap_or(errno)),
        Err(Errno::ERESTART) => Outcome::Again,
        Err(errno) => Outcome::Fail(errno),
    }
}

/// What an operation leaves behind: the structure goes back to the caller.
enum Reply {
    /// It is carried out.
    Told,
    /// It fails, and the structure says something all the same.
    Refused(Errno),
}

fn carry_out(cx: &mut Context<'_>, op: Allowed<SysctlOp>, raw: &mut Sysctl) -> Result<Reply, Errno> {
    let done = match op.op() {
        SysctlOp::GetCpuPolicy => return policy::policy(&payload(&raw.u)?, raw),
        SysctlOp::GetCpuFeatureset => return policy::features(&payload(&raw.u)?, raw),
        // The others do all or nothing.
        SysctlOp::ReadConsole => console::read(cx, &payload(&raw.u)?, raw),
        SysctlOp::DebugKeys => console::keys(cx, &payload(&raw.u)?),
        SysctlOp::Tbuf => trace::buffers(cx, &payload(&raw.u)?, raw),
        SysctlOp::PhysInfo => host::physical_info(cx, raw),
        SysctlOp::SchedId => host::scheduler(cx, raw),
        SysctlOp::SchedulerOp => host::scheduler_op(cx, &payload(&raw.u)?, raw),
        SysctlOp::CpupoolOp => pools::operation(cx, &payload(&raw.u)?, raw),
        SysctlOp::NumaInfo => host::nodes(cx, &payload(&raw.u)?, raw),
        SysctlOp::CpuTopoInfo => host::topology(&payload(&raw.u)?, raw),
        SysctlOp::PciTopoInfo => host::devices(cx, &payload(&raw.u)?, raw),
        SysctlOp::GetCpuInfo => host::idle_times(&payload(&raw.u)?, raw),
        SysctlOp::AvailHeap => host::free_memory(cx, &payload(&raw.u)?, raw),
        SysctlOp::GetDomainInfoList => domains::list(cx, &payload(&raw.u)?, raw),
    };
    done.map(|()| Reply::Told)
}

/// Puts an operation's result at the start of the payload.
fn put<T: IntoBytes + Immutable>(raw: &mut Sysctl, value: &T) -> Result<(), Errno> {
    value.write_to_prefix(&mut raw.u).map_err(|_| Errno::EINVAL)
}

//! `HYPERVISOR_sysctl`: host control for the toolstack.
//!
//! Decode, permit, carry out; what an operation has to say goes back into the caller's structure.

mod console;
mod domains;
mod host;

use logic::{
    access::{self, Allowed},
    control::sysctl::{Call, decode},
    hypercall::Outcome,
};
use xen_abi::{errno::Errno, sysctl::Sysctl};
use zerocopy::{Immutable, IntoBytes};

use crate::{cpu::Context, guest};

/// The hypercall: rdi points to a `struct xen_sysctl`.
pub fn sysctl(cx: &mut Context<'_>) -> Outcome {
    let va = cx.args[0];
    let mut raw = match guest::read::<Sysctl>(va) {
        Ok(raw) => raw,
        Err(errno) => return Outcome::Fail(errno),
    };
    decode(&raw)
        .and_then(|call| access::permit(cx.domain.as_caller(), call))
        .and_then(|call| carry_out(cx, call, &mut raw))
        .and_then(|()| guest::write(va, &raw))
        .into()
}

fn carry_out(cx: &mut Context<'_>, call: Allowed<Call>, raw: &mut Sysctl) -> Result<(), Errno> {
    match call.into_op() {
        Call::ReadConsole(arg) => console::read(cx, &arg, raw),
        Call::DebugKeys(_) => Err(Errno::EOPNOTSUPP),
        Call::PhysInfo => host::physical_info(cx, raw),
        Call::SchedId => host::scheduler(raw),
        Call::CpuTopoInfo(arg) => host::topology(&arg, raw),
        Call::GetDomainInfoList(arg) => domains::list(cx, &arg, raw),
    }
}

/// Puts an operation's result at the start of the payload.
fn put<T: IntoBytes + Immutable>(raw: &mut Sysctl, value: &T) -> Result<(), Errno> {
    value.write_to_prefix(&mut raw.u).map_err(|_| Errno::EINVAL)
}

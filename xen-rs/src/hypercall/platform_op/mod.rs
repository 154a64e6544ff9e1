//! `HYPERVISOR_platform_op`: the machine as the control domain manages it (public header `platform.h`).

mod cpu;
mod firmware;
mod power;
mod time;

use logic::{
    access::{Allowed, PlatformOp as Op},
    control::payload,
    guest::InOut,
    hypercall::Outcome,
};
use xen_abi::{
    errno::Errno,
    platform::{PlatformOp, XENPF_INTERFACE_VERSION},
};
use zerocopy::{Immutable, IntoBytes};

use crate::{cpu::Context, guest::Handle};

/// What an operation leaves behind when it succeeds.
enum Reply {
    /// Nothing to tell.
    Nothing,
    /// The structure changed and goes back to the caller.
    CopyBack,
}

/// The hypercall: rdi points to a `struct xen_platform_op`.
pub fn platform_op(cx: &mut Context<'_>) -> Outcome {
    let (mut raw, answer) = match Handle::<PlatformOp, InOut>::new(cx.args()[0]).read() {
        Ok(read) => read,
        Err(errno) => return Outcome::Fail(errno),
    };
    if raw.interface_version != XENPF_INTERFACE_VERSION {
        return Outcome::Fail(Errno::EACCES);
    }
    let reply = cx.permit::<Op>(raw.cmd).and_then(|op| carry_out(cx, &op, &mut raw));
    match reply {
        Ok(Reply::Nothing) => Outcome::OK,
        Ok(Reply::CopyBack) => answer.write(&raw).into(),
        Err(errno) => Outcome::Fail(errno),
    }
}

fn carry_out(cx: &mut Context<'_>, op: &Allowed<Op>, raw: &mut PlatformOp) -> Result<Reply, Errno> {
    match op.op() {
        Op::SetTime32 => time::set_32(cx, &payload(&raw.u)?),
        Op::SetTime64 => time::set_64(cx, &payload(&raw.u)?),
        Op::FirmwareInfo => firmware::info(cx.args()[0], &payload(&raw.u)?),
        Op::EnterAcpiSleep => power::sleep(&payload(&raw.u)?),
        Op::GetCpuinfo => cpu::info(payload(&raw.u)?, raw),
        Op::GetCpuVersion => cpu::version(payload(&raw.u)?, raw),
        Op::CpuOnline => cpu::bring_up(&payload(&raw.u)?),
        Op::CpuOffline => cpu::take_down(&payload(&raw.u)?),
        Op::CoreParking => cpu::park(payload(&raw.u)?, raw),
    }
}

/// Puts an operation's result at the start of the payload.
fn put<T: IntoBytes + Immutable>(raw: &mut PlatformOp, value: &T) -> Result<Reply, Errno> {
    value.write_to_prefix(&mut raw.u).map_err(|_| Errno::EINVAL)?;
    Ok(Reply::CopyBack)
}

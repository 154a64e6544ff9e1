//! `HYPERVISOR_physdev_op`: I/O privilege of a vCPU, and the machine's interrupts for those who own devices (public
//! header `physdev.h`).

use logic::{access::PhysdevOp, hypercall::Outcome, num};
use xen_abi::{
    errno::Errno,
    physdev::{SetIobitmap, SetIopl},
};

use crate::{cpu::Context, guest, trap::state::IoBitmap};

const PORTS: u32 = 0x1_0000;

/// The hypercall: rdi is the command, rsi points to its argument.
pub fn physdev_op(cx: &mut Context<'_>) -> Outcome {
    let [command, argument, ..] = cx.args();
    match cx.permit(num::uint(command)).map(|op| op.op()) {
        Ok(PhysdevOp::SetIopl) => guest::read(argument).and_then(|wanted| set_iopl(cx, &wanted)).into(),
        Ok(PhysdevOp::SetIobitmap) => guest::read(argument).and_then(|wanted| set_iobitmap(cx, &wanted)).into(),
        Err(errno) => Outcome::Fail(errno),
    }
}

fn set_iopl(cx: &mut Context<'_>, wanted: &SetIopl) -> Result<(), Errno> {
    if wanted.iopl > 3 {
        return Err(Errno::EINVAL);
    }
    cx.state.pv.iopl = u64::from(wanted.iopl) << 12;
    Ok(())
}

fn set_iobitmap(cx: &mut Context<'_>, wanted: &SetIobitmap) -> Result<(), Errno> {
    if wanted.nr_ports > PORTS {
        return Err(Errno::EINVAL);
    }
    cx.state.pv.io_bitmap = IoBitmap { va: wanted.bitmap, ports: wanted.nr_ports };
    Ok(())
}

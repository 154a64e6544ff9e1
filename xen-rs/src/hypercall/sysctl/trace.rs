//! `XEN_SYSCTL_tbuf_op`: the trace buffers.

use xen_abi::{
    errno::Errno,
    sysctl::{
        Sysctl, TbufOp, XEN_SYSCTL_TBUFOP_DISABLE, XEN_SYSCTL_TBUFOP_ENABLE, XEN_SYSCTL_TBUFOP_GET_INFO,
        XEN_SYSCTL_TBUFOP_SET_CPU_MASK, XEN_SYSCTL_TBUFOP_SET_EVT_MASK, XEN_SYSCTL_TBUFOP_SET_SIZE,
    },
};

use super::put;
use crate::{cpu::Context, hypercall::bitmap, trace};

/// Carries an operation out.
pub(super) fn buffers(cx: &mut Context<'_>, arg: &TbufOp, raw: &mut Sysctl) -> Result<(), Errno> {
    match arg.cmd {
        XEN_SYSCTL_TBUFOP_GET_INFO => {
            let (evt_mask, table, size) = trace::info();
            return put(raw, &TbufOp { evt_mask, buffer_mfn: table.0, size, ..*arg });
        }
        XEN_SYSCTL_TBUFOP_SET_CPU_MASK => trace::set_cpus(bitmap::read(&arg.cpu_mask)?.0),
        XEN_SYSCTL_TBUFOP_SET_EVT_MASK => trace::set_events(arg.evt_mask),
        XEN_SYSCTL_TBUFOP_SET_SIZE => trace::set_size(arg.size, &mut cx.held)?,
        XEN_SYSCTL_TBUFOP_ENABLE => trace::enable()?,
        XEN_SYSCTL_TBUFOP_DISABLE => trace::disable(),
        _ => return Err(Errno::EINVAL),
    }
    Ok(())
}

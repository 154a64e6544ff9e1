//! `XEN_SYSCTL_cpupool_op`: pools of CPUs.

use logic::sched::CpuMask;
use xen_abi::{
    domctl::XEN_SCHEDULER_CREDIT2,
    errno::Errno,
    sysctl::{self as abi, CpupoolOp, Sysctl},
};

use super::put;
use crate::{cpu::Context, hypercall::bitmap};

/// Carries an operation out.
pub(super) fn operation(_cx: &mut Context<'_>, arg: &CpupoolOp, raw: &mut Sysctl) -> Result<(), Errno> {
    match arg.op {
        abi::XEN_SYSCTL_CPUPOOL_OP_INFO => {
            if arg.cpupool_id != 0 {
                return Err(Errno::ENOENT);
            }
            bitmap::write(&arg.cpumap, machine::mailbox::online())?;
            put(raw, &CpupoolOp { sched_id: XEN_SCHEDULER_CREDIT2, n_dom: 1, ..*arg })
        }
        abi::XEN_SYSCTL_CPUPOOL_OP_FREEINFO => bitmap::write(&arg.cpumap, CpuMask::default()),
        _ => Err(Errno::ENOSYS),
    }
}

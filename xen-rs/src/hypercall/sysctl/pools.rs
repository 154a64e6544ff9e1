//! `XEN_SYSCTL_cpupool_op`: pools of CPUs, each with a scheduler of its own.

use logic::sched::Scheduler;
use xen_abi::{
    errno::Errno,
    ids::DomId,
    sysctl::{self as abi, CpupoolOp, Sysctl},
};

use super::put;
use crate::{cpu::Context, cpu_loop::pools, domain, hypercall::bitmap};

/// Carries an operation out.
pub(super) fn operation(cx: &mut Context<'_>, arg: &CpupoolOp, raw: &mut Sysctl) -> Result<(), Errno> {
    let named = |number: u32| (number != abi::XEN_SYSCTL_CPUPOOL_PAR_ANY).then_some(number);
    let held = &mut cx.held;
    match arg.op {
        abi::XEN_SYSCTL_CPUPOOL_OP_CREATE => {
            let id = pools::create(named(arg.cpupool_id), Scheduler::of_number(arg.sched_id), held)?;
            put(raw, &CpupoolOp { cpupool_id: id, ..*arg })
        }
        abi::XEN_SYSCTL_CPUPOOL_OP_DESTROY => pools::destroy(arg.cpupool_id, held),
        abi::XEN_SYSCTL_CPUPOOL_OP_INFO => {
            let info = pools::next_from(arg.cpupool_id, held).ok_or(Errno::ENOENT)?;
            bitmap::write(&arg.cpumap, info.pool.cpus)?;
            let (cpupool_id, sched_id) = (info.pool.id, info.pool.scheduler.number());
            put(raw, &CpupoolOp { cpupool_id, sched_id, n_dom: info.domains, ..*arg })
        }
        abi::XEN_SYSCTL_CPUPOOL_OP_ADDCPU => pools::add_cpu(arg.cpupool_id, named(arg.cpu), held),
        abi::XEN_SYSCTL_CPUPOOL_OP_RMCPU => pools::remove_cpu(arg.cpupool_id, named(arg.cpu), held),
        abi::XEN_SYSCTL_CPUPOOL_OP_MOVEDOMAIN => {
            let id = u16::try_from(arg.domid).map_err(|_| Errno::ESRCH)?;
            let domain = domain::find(DomId(id), held).ok_or(Errno::ESRCH)?;
            if domain.id == cx.domain.id {
                return Err(Errno::EPERM);
            }
            pools::move_domain(&domain, arg.cpupool_id, held)
        }
        abi::XEN_SYSCTL_CPUPOOL_OP_FREEINFO => bitmap::write(&arg.cpumap, pools::free_cpus(held)),
        _ => Err(Errno::ENOSYS),
    }
}

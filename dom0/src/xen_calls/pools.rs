//! Pools of CPUs and what their schedulers give to domains.

use guest_pv::call::{domctl, sysctl};
use toolstack::calls::{PoolChange, PoolInfo, Schedule, Share};
use toolstack::cpus::CpuSet;
use xen_abi::domctl::XEN_SCHEDULER_CREDIT;
use xen_abi::errno::Errno;
use xen_abi::ids::DomId;
use xen_abi::sysctl::{
    XEN_SYSCTL_CPUPOOL_OP_ADDCPU, XEN_SYSCTL_CPUPOOL_OP_CREATE, XEN_SYSCTL_CPUPOOL_OP_DESTROY,
    XEN_SYSCTL_CPUPOOL_OP_FREEINFO, XEN_SYSCTL_CPUPOOL_OP_INFO, XEN_SYSCTL_CPUPOOL_OP_MOVEDOMAIN,
    XEN_SYSCTL_CPUPOOL_OP_RMCPU, XEN_SYSCTL_CPUPOOL_PAR_ANY, XEN_SYSCTL_SCHEDOP_GETINFO, XEN_SYSCTL_SCHEDOP_PUTINFO,
};

/// How often a CPU is asked to leave: Xen says `EAGAIN` while somebody is on his way off it.
const PATIENCE: u32 = 1000;

pub fn share(dom: DomId, scheduler: u32) -> Result<Share, Errno> {
    domctl::share(dom, scheduler).map(|(weight, cap)| Share { weight, cap })
}

pub fn set_share(dom: DomId, scheduler: u32, share: Share) -> Result<(), Errno> {
    domctl::set_share(dom, scheduler, share.weight, share.cap)
}

pub fn schedule(pool: u32, scheduler: u32) -> Result<Schedule, Errno> {
    let words = sysctl::schedule(pool, scheduler, XEN_SYSCTL_SCHEDOP_GETINFO, [0; 3])?;
    Ok(match scheduler {
        XEN_SCHEDULER_CREDIT => {
            Schedule { time_slice_ms: words[0], rate_limit_us: words[1], migration_delay_us: words[2] }
        }
        _ => Schedule { time_slice_ms: 0, rate_limit_us: words[0], migration_delay_us: 0 },
    })
}

pub fn set_schedule(pool: u32, scheduler: u32, schedule: Schedule) -> Result<(), Errno> {
    let words = match scheduler {
        XEN_SCHEDULER_CREDIT => [schedule.time_slice_ms, schedule.rate_limit_us, schedule.migration_delay_us],
        _ => [schedule.rate_limit_us, 0, 0],
    };
    sysctl::schedule(pool, scheduler, XEN_SYSCTL_SCHEDOP_PUTINFO, words).map(drop)
}

pub fn info(from: u32) -> Result<PoolInfo, Errno> {
    let mut cpus = CpuSet::default();
    let pool = sysctl::cpupool(XEN_SYSCTL_CPUPOOL_OP_INFO, from, 0, 0, &mut cpus.0)?;
    Ok(PoolInfo { id: pool.cpupool_id, scheduler: pool.sched_id, domains: pool.n_dom, cpus })
}

pub fn free_cpus() -> Result<CpuSet, Errno> {
    let mut cpus = CpuSet::default();
    sysctl::cpupool(XEN_SYSCTL_CPUPOOL_OP_FREEINFO, 0, 0, 0, &mut cpus.0)?;
    Ok(cpus)
}

pub fn change(change: PoolChange) -> Result<u32, Errno> {
    let (op, pool, argument) = match change {
        PoolChange::Create(scheduler) => (XEN_SYSCTL_CPUPOOL_OP_CREATE, XEN_SYSCTL_CPUPOOL_PAR_ANY, scheduler),
        PoolChange::Destroy(pool) => (XEN_SYSCTL_CPUPOOL_OP_DESTROY, pool, 0),
        PoolChange::Add(pool, cpu) => (XEN_SYSCTL_CPUPOOL_OP_ADDCPU, pool, cpu),
        PoolChange::Remove(pool, cpu) => (XEN_SYSCTL_CPUPOOL_OP_RMCPU, pool, cpu),
        PoolChange::Move(pool, dom) => (XEN_SYSCTL_CPUPOOL_OP_MOVEDOMAIN, pool, dom.0.into()),
    };
    for _ in 0..PATIENCE {
        match sysctl::cpupool(op, pool, argument, argument, &mut []) {
            Err(Errno::EAGAIN) => {}
            result => return result.map(|pool| pool.cpupool_id),
        }
    }
    Err(Errno::EAGAIN)
}

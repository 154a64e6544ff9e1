//! What there is to know about the host: CPUs, memory, scheduler.

use logic::sched::{Scheduler, Settings, pools::FIRST};
use xen_abi::{
    errno::Errno,
    sysctl::{self as abi, CpuTopo, CpuTopoInfo, MemInfo, NumaInfo, PhysInfo, SchedId, Sysctl},
};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::put;
use crate::{cpu::Context, cpu_loop::pools, guest, memory, time};

/// `XEN_SYSCTL_physinfo`. `hw_cap` is in the order of Xen's feature words.
pub(super) fn physical_info(cx: &mut Context<'_>, raw: &mut Sysctl) -> Result<(), Errno> {
    let frames = memory::census(&mut cx.held);
    let cpus = crate::topology::online();
    let mut info = PhysInfo::new_zeroed();
    info.threads_per_core = 1;
    info.cores_per_socket = cpus;
    info.nr_cpus = cpus;
    info.max_cpu_id = cpus.saturating_sub(1);
    info.nr_nodes = 1;
    info.cpu_khz = time::tsc_khz();
    info.capabilities = abi::XEN_SYSCTL_PHYSCAP_PV | abi::XEN_SYSCTL_PHYSCAP_GNTTAB_V1;
    if machine::container::vendor().is_some() {
        info.capabilities |= abi::XEN_SYSCTL_PHYSCAP_HVM | abi::XEN_SYSCTL_PHYSCAP_HAP;
    }
    info.total_pages = frames.total;
    info.free_pages = frames.free;
    info.outstanding_pages = frames.claimed;
    info.scrub_pages = frames.dirty;
    info.max_mfn = frames.highest.0;
    info.hw_cap = crate::topology::feature_words();
    put(raw, &info)
}

/// `XEN_SYSCTL_sched_id`: the first pool's.
pub(super) fn scheduler(cx: &mut Context<'_>, raw: &mut Sysctl) -> Result<(), Errno> {
    let (scheduler, _) = pools::settings(FIRST, &mut cx.held)?;
    put(raw, &SchedId { sched_id: scheduler.number() })
}

/// `XEN_SYSCTL_scheduler_op`: what can be set of a pool's scheduler.
pub(super) fn scheduler_op(cx: &mut Context<'_>, arg: &abi::SchedulerOp, raw: &mut Sysctl) -> Result<(), Errno> {
    if !matches!(arg.cmd, abi::XEN_SYSCTL_SCHEDOP_PUTINFO | abi::XEN_SYSCTL_SCHEDOP_GETINFO) {
        return Err(Errno::EINVAL);
    }
    let (scheduler, is) = pools::settings(arg.cpupool_id, &mut cx.held)?;
    if arg.sched_id != scheduler.number() {
        return Err(Errno::EINVAL);
    }
    let puts = arg.cmd == abi::XEN_SYSCTL_SCHEDOP_PUTINFO;
    let mut reply = *arg;
    match scheduler {
        Scheduler::Credit2 => {
            let (wanted, _) = abi::Credit2Schedule::read_from_prefix(arg.u.as_bytes()).map_err(|_| Errno::EINVAL)?;
            if puts {
                let wanted = Settings { rate_limit_us: wanted.ratelimit_us, ..is };
                return pools::set_settings(arg.cpupool_id, wanted, &mut cx.held);
            }
            let info = abi::Credit2Schedule { ratelimit_us: is.rate_limit_us };
            info.write_to_prefix(reply.u.as_mut_bytes()).map_err(|_| Errno::EINVAL)?;
        }
        Scheduler::Credit => {
            let (wanted, _) = abi::CreditSchedule::read_from_prefix(arg.u.as_bytes()).map_err(|_| Errno::EINVAL)?;
            if puts {
                // Nothing is known of how warm a cache is.
                if wanted.vcpu_migr_delay_us != 0 {
                    return Err(Errno::EINVAL);
                }
                let wanted = Settings { time_slice_ms: wanted.tslice_ms, rate_limit_us: wanted.ratelimit_us };
                pools::set_settings(arg.cpupool_id, wanted, &mut cx.held)?;
            }
            // As set, and told after setting, too.
            let (_, is) = pools::settings(arg.cpupool_id, &mut cx.held)?;
            let info = abi::CreditSchedule {
                tslice_ms: is.time_slice_ms,
                ratelimit_us: is.rate_limit_us,
                vcpu_migr_delay_us: 0,
            };
            info.write_to_prefix(reply.u.as_mut_bytes()).map_err(|_| Errno::EINVAL)?;
        }
        // It has nothing to set.
        Scheduler::Null => {}
    }
    put(raw, &reply)
}

/// `XEN_SYSCTL_cputopoinfo`: all CPUs as cores of one socket of one node.
pub(super) fn topology(arg: &CpuTopoInfo, raw: &mut Sysctl) -> Result<(), Errno> {
    let cpus = crate::topology::online();
    let mut reply = *arg;
    if arg.cputopo != 0 {
        for core in 0..cpus.min(arg.num_cpus) {
            let entry = CpuTopo { core, socket: 0, node: 0 };
            guest::write(guest::element::<CpuTopo>(arg.cputopo, core.into())?, &entry)?;
        }
    }
    reply.num_cpus = cpus;
    put(raw, &reply)
}

/// `XEN_SYSCTL_numainfo`: one node, with all memory.
pub(super) fn nodes(cx: &mut Context<'_>, arg: &NumaInfo, raw: &mut Sysctl) -> Result<(), Errno> {
    const PAGE: u64 = 4096;
    /// Of a node to itself (ACPI, SLIT).
    const LOCAL: u32 = 10;
    let asks = arg.meminfo != 0 || arg.distance != 0;
    let nodes = if asks { arg.num_nodes.min(1) } else { 1 };
    if nodes > 0 && arg.meminfo != 0 {
        let frames = memory::census(&mut cx.held);
        let info = MemInfo { memsize: frames.highest.0.saturating_add(1) * PAGE, memfree: frames.free * PAGE };
        guest::write(arg.meminfo, &info)?;
    }
    if nodes > 0 && arg.distance != 0 {
        guest::write(arg.distance, &LOCAL)?;
    }
    put(raw, &NumaInfo { num_nodes: nodes, ..*arg })
}

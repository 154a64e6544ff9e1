//! What there is to know about the host: CPUs, memory, scheduler.

use logic::{
    guest::{In, Out},
    sched::{Scheduler, Settings, pools::FIRST},
};
use xen_abi::{
    errno::Errno,
    physdev::PciDevice,
    sysctl::{
        self as abi, AvailHeap, CpuInfo, CpuTopo, CpuTopoInfo, GetCpuInfo, MemInfo, NumaInfo, PciTopoInfo, PhysInfo,
        SchedId, Sysctl,
    },
};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::put;
use crate::{
    cpu::Context,
    cpu_loop::{self, pools},
    guest::{Handle, Series},
    irq, memory, time,
};

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
        for (core, told) in (0..cpus.min(arg.num_cpus)).zip(Series::<CpuTopo, Out>::new(arg.cputopo)) {
            told.write(&CpuTopo { core, socket: 0, node: 0 })?;
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
    let (sizes, distances) = (Handle::<MemInfo, Out>::new(arg.meminfo), Handle::<u32, Out>::new(arg.distance));
    let asks = !sizes.is_null() || !distances.is_null();
    let nodes = if asks { arg.num_nodes.min(1) } else { 1 };
    if nodes > 0 && !sizes.is_null() {
        let frames = memory::census(&mut cx.held);
        let info = MemInfo { memsize: frames.highest.0.saturating_add(1) * PAGE, memfree: frames.free * PAGE };
        sizes.write(&info)?;
    }
    if nodes > 0 && !distances.is_null() {
        distances.write(&LOCAL)?;
    }
    put(raw, &NumaInfo { num_nodes: nodes, ..*arg })
}

/// `XEN_SYSCTL_pcitopoinfo`: no firmware tells of a node, so all there is to say of a device is whether it is known.
pub(super) fn devices(cx: &mut Context<'_>, arg: &PciTopoInfo, raw: &mut Sysctl) -> Result<(), Errno> {
    /// Devices of one call; the caller comes again with the rest, as when Xen had something better to do.
    const AT_ONCE: u32 = 64;
    if arg.devs == 0 || arg.nodes == 0 {
        return Err(Errno::EINVAL);
    }
    let count = arg.num_devs.min(AT_ONCE);
    let named = Series::<PciDevice, In>::new(arg.devs).zip(Series::<u32, Out>::new(arg.nodes));
    for (at, (device, told)) in (0..count).zip(named) {
        // Looking one up takes as long as the list of them is.
        if at % 8 == 7 {
            cpu_loop::breathe(&mut cx.held);
        }
        let known = irq::knows_device(irq::Device::of(&device.read()?), &mut cx.held);
        let node = if known { abi::XEN_INVALID_NODE_ID } else { abi::XEN_INVALID_DEV };
        told.write(&node)?;
    }
    put(raw, &PciTopoInfo { num_devs: count, ..*arg })
}

/// `XEN_SYSCTL_getcpuinfo`: for how long each CPU has been idle.
pub(super) fn idle_times(arg: &GetCpuInfo, raw: &mut Sysctl) -> Result<(), Errno> {
    let cpus = crate::topology::online().min(arg.max_cpus);
    for (cpu, told) in (0..cpus).zip(Series::<CpuInfo, Out>::new(arg.info)) {
        told.write(&CpuInfo { idletime: cpu_loop::idle_time(cpu) })?;
    }
    put(raw, &GetCpuInfo { nr_cpus: cpus, ..*arg })
}

/// `XEN_SYSCTL_availheap`: free memory whose addresses take so many bits.
pub(super) fn free_memory(cx: &mut Context<'_>, arg: &AvailHeap, raw: &mut Sysctl) -> Result<(), Errno> {
    const PAGE_BITS: u32 = 12;
    const MAX_BITS: u32 = 52;
    let frame_bits = |bits: u32| bits.clamp(PAGE_BITS + 1, MAX_BITS) - PAGE_BITS;
    let least = frame_bits(arg.min_bitwidth);
    let most = if arg.max_bitwidth == 0 { MAX_BITS - PAGE_BITS } else { frame_bits(arg.max_bitwidth) };
    // Any number below 0 would do as well, but Xen knows of one.
    let frames = match arg.node {
        -1 | 0 => memory::free_of(least as usize..=most as usize, &mut cx.held),
        _ => 0,
    };
    put(raw, &AvailHeap { avail_bytes: frames << PAGE_BITS, ..*arg })
}

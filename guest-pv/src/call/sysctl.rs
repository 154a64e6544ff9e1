//! `sysctl`: the machine and all domains (public `sysctl.h`). For the control domain.
//!
//! Unsafe: a hypercall is told addresses of structures, which in turn hold some.

use super::{check, raw};
use alloc::vec;
use alloc::vec::Vec;
use xen_abi::domctl::{Bitmap, GetDomainInfo, XEN_SCHEDULER_CREDIT2};
use xen_abi::errno::Errno;
use xen_abi::hypercall::HYPERVISOR_SYSCTL;
use xen_abi::ids::DomId;
use xen_abi::physdev::PciDevice;
use xen_abi::sysctl::{
    AvailHeap, CpuFeatureset, CpuInfo, CpuTopo, CpuTopoInfo, CpupoolOp, Credit2Schedule, DebugKeys, GetCpuInfo,
    GetDomainInfoList, MemInfo, NumaInfo, PciTopoInfo, PhysInfo, ReadConsole, SchedId, SchedulerOp, Sysctl,
    XEN_SYSCTL_AVAILHEAP, XEN_SYSCTL_CPUPOOL_OP, XEN_SYSCTL_CPUTOPOINFO, XEN_SYSCTL_DEBUG_KEYS,
    XEN_SYSCTL_GET_CPU_FEATURESET, XEN_SYSCTL_GETCPUINFO, XEN_SYSCTL_GETDOMAININFOLIST, XEN_SYSCTL_INTERFACE_VERSION,
    XEN_SYSCTL_NUMAINFO, XEN_SYSCTL_PCITOPOINFO, XEN_SYSCTL_PHYSINFO, XEN_SYSCTL_READCONSOLE, XEN_SYSCTL_SCHED_ID,
    XEN_SYSCTL_SCHEDOP_GETINFO, XEN_SYSCTL_SCHEDOP_PUTINFO, XEN_SYSCTL_SCHEDULER_OP,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Runs an operation with its payload, which is replaced by the answer.
///
/// # Safety
/// Pointers in the payload are valid for what the operation does with them.
///
/// # Errors
/// Those of the hypercall.
pub unsafe fn payload<T>(cmd: u32, payload: &mut T) -> Result<(), Errno>
where
    T: FromBytes + IntoBytes + Immutable + KnownLayout,
{
    let mut op = Sysctl { cmd, interface_version: XEN_SYSCTL_INTERFACE_VERSION, ..Default::default() };
    payload.write_to_prefix(&mut op.u).map_err(|_| Errno::EINVAL)?;
    // SAFETY: by the contract above; the struct outlives the call.
    let result = check(unsafe { raw(HYPERVISOR_SYSCTL.into(), [(&raw mut op) as u64]) });
    let (answer, _) = T::read_from_prefix(&op.u).map_err(|_| Errno::EINVAL)?;
    *payload = answer;
    result.map(drop)
}

/// The machine: CPUs, memory, capabilities.
///
/// # Errors
/// Those of the hypercall.
pub fn physinfo() -> Result<PhysInfo, Errno> {
    let mut info = PhysInfo::default();
    // SAFETY: no pointers.
    unsafe { payload(XEN_SYSCTL_PHYSINFO, &mut info) }?;
    Ok(info)
}

/// Where each CPU sits.
///
/// # Errors
/// Those of the hypercall.
pub fn cpu_topology() -> Result<Vec<CpuTopo>, Errno> {
    let mut arg = CpuTopoInfo::default();
    // SAFETY: a null pointer asks for the number only.
    unsafe { payload(XEN_SYSCTL_CPUTOPOINFO, &mut arg) }?;
    let mut cpus = vec![CpuTopo::default(); arg.num_cpus as usize];
    arg.cputopo = cpus.as_mut_ptr() as u64;
    // SAFETY: the hypervisor writes at most `num_cpus` entries.
    unsafe { payload(XEN_SYSCTL_CPUTOPOINFO, &mut arg) }?;
    cpus.truncate(arg.num_cpus as usize);
    Ok(cpus)
}

/// The memory of each node, and how far it is from each of them.
///
/// # Errors
/// Those of the hypercall.
pub fn numa() -> Result<Vec<(MemInfo, Vec<u32>)>, Errno> {
    let mut arg = NumaInfo::default();
    // SAFETY: null pointers ask for the number only.
    unsafe { payload(XEN_SYSCTL_NUMAINFO, &mut arg) }?;
    let nodes = arg.num_nodes as usize;
    let (mut memory, mut distances) = (vec![MemInfo::default(); nodes], vec![0_u32; nodes * nodes]);
    arg.meminfo = memory.as_mut_ptr() as u64;
    arg.distance = distances.as_mut_ptr() as u64;
    // SAFETY: the hypervisor writes at most `num_nodes` entries, and as many distances of each.
    unsafe { payload(XEN_SYSCTL_NUMAINFO, &mut arg) }?;
    let rows = distances.chunks(nodes.max(1)).map(<[u32]>::to_vec);
    Ok(memory.into_iter().zip(rows).take(arg.num_nodes as usize).collect())
}

/// The node of each of these PCI devices (`XEN_INVALID_NODE_ID`, `XEN_INVALID_DEV`).
///
/// # Errors
/// Those of the hypercall.
pub fn pci_topology(devices: &[PciDevice]) -> Result<Vec<u32>, Errno> {
    let mut nodes = vec![0; devices.len()];
    let mut done = 0;
    while let Some((devs, to)) = devices.get(done..).zip(nodes.get_mut(done..))
        && !devs.is_empty()
    {
        let num_devs = u32::try_from(devs.len()).map_err(|_| Errno::EINVAL)?;
        let mut arg =
            PciTopoInfo { num_devs, devs: devs.as_ptr() as u64, nodes: to.as_mut_ptr() as u64, ..Default::default() };
        // SAFETY: the hypervisor reads and writes at most `num_devs` entries.
        unsafe { payload(XEN_SYSCTL_PCITOPOINFO, &mut arg) }?;
        if arg.num_devs == 0 {
            return Err(Errno::EINVAL);
        }
        done += arg.num_devs as usize;
    }
    Ok(nodes)
}

/// For how long each CPU has been idle, nanoseconds; of `max` CPUs at most.
///
/// # Errors
/// Those of the hypercall.
pub fn idle_times(max: u32) -> Result<Vec<u64>, Errno> {
    let mut times = vec![CpuInfo::default(); max as usize];
    let mut arg = GetCpuInfo { max_cpus: max, info: times.as_mut_ptr() as u64, ..Default::default() };
    // SAFETY: the hypervisor writes at most `max_cpus` entries.
    unsafe { payload(XEN_SYSCTL_GETCPUINFO, &mut arg) }?;
    Ok(times.iter().take(arg.nr_cpus as usize).map(|info| info.idletime).collect())
}

/// Bytes of free memory whose addresses take so many bits (0: no matter), on a node (-1: on any).
///
/// # Errors
/// Those of the hypercall.
pub fn free_memory(min_bits: u32, max_bits: u32, node: i32) -> Result<u64, Errno> {
    let mut arg = AvailHeap { min_bitwidth: min_bits, max_bitwidth: max_bits, node, ..Default::default() };
    // SAFETY: no pointers.
    unsafe { payload(XEN_SYSCTL_AVAILHEAP, &mut arg) }?;
    Ok(arg.avail_bytes)
}

/// All domains from number `first` on, at most `max`.
///
/// # Errors
/// Those of the hypercall.
pub fn domain_list(first: DomId, max: u32) -> Result<Vec<GetDomainInfo>, Errno> {
    let mut list = vec![GetDomainInfo::default(); max as usize];
    let mut arg = GetDomainInfoList {
        first_domain: first,
        max_domains: max,
        buffer: list.as_mut_ptr() as u64,
        ..Default::default()
    };
    // SAFETY: the hypervisor writes at most `max_domains` entries.
    unsafe { payload(XEN_SYSCTL_GETDOMAININFOLIST, &mut arg) }?;
    list.truncate(arg.num_domains as usize);
    Ok(list)
}

/// The number of the scheduler (`XEN_SCHEDULER_*`).
///
/// # Errors
/// Those of the hypercall.
pub fn sched_id() -> Result<u32, Errno> {
    let mut arg = SchedId::default();
    // SAFETY: no pointers.
    unsafe { payload(XEN_SYSCTL_SCHED_ID, &mut arg) }?;
    Ok(arg.sched_id)
}

fn credit2(cmd: u32, ratelimit_us: u32) -> Result<u32, Errno> {
    let mut arg = SchedulerOp { sched_id: XEN_SCHEDULER_CREDIT2, cmd, ..Default::default() };
    Credit2Schedule { ratelimit_us }.write_to_prefix(arg.u.as_mut_bytes()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: no pointers.
    unsafe { payload(XEN_SYSCTL_SCHEDULER_OP, &mut arg) }?;
    let (info, _) = Credit2Schedule::read_from_prefix(arg.u.as_bytes()).map_err(|_| Errno::EINVAL)?;
    Ok(info.ratelimit_us)
}

/// Microseconds for which a vCPU keeps its CPU; 0: no limit.
///
/// # Errors
/// Those of the hypercall.
pub fn credit2_rate_limit() -> Result<u32, Errno> {
    credit2(XEN_SYSCTL_SCHEDOP_GETINFO, 0)
}

/// Sets the microseconds for which a vCPU keeps its CPU; 0: no limit.
///
/// # Errors
/// Those of the hypercall.
pub fn set_credit2_rate_limit(microseconds: u32) -> Result<(), Errno> {
    credit2(XEN_SYSCTL_SCHEDOP_PUTINFO, microseconds).map(drop)
}

/// What can be set of a pool's scheduler (`XEN_SYSCTL_SCHEDOP_*`), word by word.
///
/// # Errors
/// Those of the hypercall.
pub fn schedule(pool: u32, scheduler: u32, cmd: u32, words: [u32; 3]) -> Result<[u32; 3], Errno> {
    let mut arg = SchedulerOp { cpupool_id: pool, sched_id: scheduler, cmd, ..Default::default() };
    words.write_to_prefix(arg.u.as_mut_bytes()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: no pointers.
    unsafe { payload(XEN_SYSCTL_SCHEDULER_OP, &mut arg) }?;
    <[u32; 3]>::read_from_prefix(arg.u.as_bytes()).map(|(words, _)| words).map_err(|_| Errno::EINVAL)
}

/// An operation on a pool of CPUs (`XEN_SYSCTL_CPUPOOL_OP_*`). `argument` is a scheduler, or a domain; `cpus` is filled with a
/// set of CPUs where there is one to tell.
///
/// # Errors
/// Those of the hypercall.
pub fn cpupool(op: u32, pool: u32, argument: u32, cpu: u32, cpus: &mut [u64]) -> Result<CpupoolOp, Errno> {
    let nr_bits = u32::try_from(cpus.len() * 64).map_err(|_| Errno::EINVAL)?;
    let cpumap = Bitmap { bitmap: cpus.as_mut_ptr() as u64, nr_bits, ..Default::default() };
    let mut arg =
        CpupoolOp { op, cpupool_id: pool, sched_id: argument, domid: argument, cpu, cpumap, ..Default::default() };
    // SAFETY: the hypervisor writes at most as many bits as there are.
    unsafe { payload(XEN_SYSCTL_CPUPOOL_OP, &mut arg) }?;
    Ok(arg)
}

/// Reads the hypervisor's log from `*index` on and moves the index; returns the number of bytes.
///
/// # Errors
/// Those of the hypercall.
pub fn read_console(index: &mut u32, buffer: &mut [u8]) -> Result<usize, Errno> {
    let count = u32::try_from(buffer.len()).map_err(|_| Errno::EINVAL)?;
    let mut arg =
        ReadConsole { incremental: 1, index: *index, buffer: buffer.as_mut_ptr() as u64, count, ..Default::default() };
    // SAFETY: the hypervisor writes at most `count` bytes.
    unsafe { payload(XEN_SYSCTL_READCONSOLE, &mut arg) }?;
    *index = arg.index;
    Ok(arg.count as usize)
}

/// Empties the hypervisor's log.
///
/// # Errors
/// Those of the hypercall.
pub fn clear_console() -> Result<(), Errno> {
    let mut byte = 0u8;
    let mut arg = ReadConsole { clear: 1, buffer: (&raw mut byte) as u64, count: 1, ..Default::default() };
    // SAFETY: the hypervisor writes at most one byte.
    unsafe { payload(XEN_SYSCTL_READCONSOLE, &mut arg) }
}

/// Presses the hypervisor's debug keys.
///
/// # Errors
/// Those of the hypercall.
pub fn debug_keys(keys: &[u8]) -> Result<(), Errno> {
    let nr_keys = u32::try_from(keys.len()).map_err(|_| Errno::EINVAL)?;
    let mut arg = DebugKeys { keys: keys.as_ptr() as u64, nr_keys, _pad: 0 };
    // SAFETY: the hypervisor only reads the keys.
    unsafe { payload(XEN_SYSCTL_DEBUG_KEYS, &mut arg) }
}

/// Reads a CPU feature set (`XEN_SYSCTL_CPU_FEATURESET_*`); returns its length in words.
///
/// # Errors
/// Those of the hypercall.
pub fn cpu_featureset(index: u32, words: &mut [u32]) -> Result<usize, Errno> {
    let nr_features = u32::try_from(words.len()).map_err(|_| Errno::EINVAL)?;
    let mut arg = CpuFeatureset { index, nr_features, features: words.as_mut_ptr() as u64 };
    // SAFETY: the hypervisor writes at most `nr_features` words.
    unsafe { payload(XEN_SYSCTL_GET_CPU_FEATURESET, &mut arg) }?;
    Ok(arg.nr_features as usize)
}

//! Pools of CPUs, and domains in them that always want to run.
//!
//! Unsafe: the hypervisor is told where a set of CPUs is to be written.

use crate::domain::Tiny;
use guest_pv::call::{domctl, sysctl};
use guest_pv::time;
use xen_abi::Errno;
use xen_abi::domctl::*;
use xen_abi::ids::VcpuId;
use xen_abi::sysctl::*;
use zerocopy::FromZeros;

/// Any pool, any CPU.
pub const ANY: u32 = XEN_SYSCTL_CPUPOOL_PAR_ANY;
/// In nanoseconds.
pub const MILLISECOND: u64 = 1_000_000;

/// What an operation answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// Its number.
    pub id: u32,
    /// `XEN_SCHEDULER_*`
    pub sched: u32,
    /// How many are in it.
    pub domains: u32,
    /// Its CPUs.
    pub cpus: u64,
}

/// `XEN_SYSCTL_CPUPOOL_OP_*` on a pool.
///
/// # Errors
/// Those of the hypercall.
pub fn operation(op: u32, id: u32, change: impl FnOnce(&mut CpupoolOp)) -> Result<Pool, Errno> {
    let mut bits = 0u64;
    let cpumap = Bitmap { bitmap: (&raw mut bits) as u64, nr_bits: 64, ..Default::default() };
    let mut arg = CpupoolOp { op, cpupool_id: id, cpumap, ..CpupoolOp::new_zeroed() };
    change(&mut arg);
    // SAFETY: the map is as long as it says.
    unsafe { sysctl::payload(XEN_SYSCTL_CPUPOOL_OP, &mut arg) }?;
    // SAFETY: a variable of this function, written behind the compiler's back.
    let cpus = unsafe { core::ptr::read_volatile(&raw const bits) };
    Ok(Pool { id: arg.cpupool_id, sched: arg.sched_id, domains: arg.n_dom, cpus })
}

/// A new pool; its number.
///
/// # Errors
/// Those of the hypercall.
pub fn create(id: u32, sched: u32) -> Result<u32, Errno> {
    operation(XEN_SYSCTL_CPUPOOL_OP_CREATE, id, |arg| arg.sched_id = sched).map(|pool| pool.id)
}

/// Takes a pool away.
///
/// # Errors
/// Those of the hypercall.
pub fn destroy(id: u32) -> Result<(), Errno> {
    operation(XEN_SYSCTL_CPUPOOL_OP_DESTROY, id, |_| {}).map(drop)
}

/// What there is to say of a pool, or of the next one.
///
/// # Errors
/// Those of the hypercall.
pub fn info(id: u32) -> Result<Pool, Errno> {
    operation(XEN_SYSCTL_CPUPOOL_OP_INFO, id, |_| {})
}

/// Gives a CPU to a pool.
///
/// # Errors
/// Those of the hypercall.
pub fn add(id: u32, cpu: u32) -> Result<(), Errno> {
    operation(XEN_SYSCTL_CPUPOOL_OP_ADDCPU, id, |arg| arg.cpu = cpu).map(drop)
}

/// Where somebody is still on his way off that CPU, Xen wants to be asked again.
///
/// # Errors
/// Those of the hypercall.
pub fn remove(id: u32, cpu: u32) -> Result<(), Errno> {
    loop {
        match operation(XEN_SYSCTL_CPUPOOL_OP_RMCPU, id, |arg| arg.cpu = cpu) {
            Err(Errno::EAGAIN) => time::sleep(MILLISECOND),
            result => return result.map(drop),
        }
    }
}

/// Moves a domain.
///
/// # Errors
/// Those of the hypercall.
pub fn migrate(domain: u32, id: u32) -> Result<(), Errno> {
    operation(XEN_SYSCTL_CPUPOOL_OP_MOVEDOMAIN, id, |arg| arg.domid = domain).map(drop)
}

/// CPUs outside.
pub fn free() -> u64 {
    operation(XEN_SYSCTL_CPUPOOL_OP_FREEINFO, 0, |_| {}).map_or(u64::MAX, |pool| pool.cpus)
}

/// Whether something comes true that takes milliseconds. On a busy machine a CPU may stand still for seconds.
pub fn comes_true(holds: impl Fn() -> bool) -> bool {
    let end = time::now() + 30_000 * MILLISECOND;
    loop {
        time::sleep(MILLISECOND);
        if holds() {
            return true;
        }
        if time::now() > end {
            return false;
        }
    }
}

/// A domain that always wants to run.
pub fn hog() -> Tiny {
    Tiny::new(crate::code!("2:", "pause", "jmp 2b"))
}

fn used(hog: &Tiny) -> u64 {
    domctl::get_domain_info(hog.id).map_or(0, |info| info.cpu_time)
}

/// Whether a domain's vCPU gets time.
pub fn goes_on(hog: &Tiny) -> bool {
    let before = used(hog);
    comes_true(|| used(hog) > before + MILLISECOND)
}

/// Whether it gets none for a fifth of a second.
pub fn rests(hog: &Tiny) -> bool {
    let before = used(hog);
    time::sleep(200 * MILLISECOND);
    used(hog) == before
}

/// The CPU that its vCPU is on.
pub fn cpu_of(hog: &Tiny) -> u32 {
    domctl::get_vcpu_info(hog.id, VcpuId(0)).map_or(u32::MAX, |info| info.cpu)
}

/// Its pool.
pub fn pool_of(hog: &Tiny) -> u32 {
    domctl::get_domain_info(hog.id).map_or(u32::MAX, |info| info.cpupool)
}

/// The hard affinity as it is, of the first eight CPUs.
pub fn affinity(hog: &Tiny) -> u8 {
    let (mut hard, mut soft) = ([0], [0]);
    let get = XEN_DOMCTL_GETVCPUAFFINITY;
    let got = domctl::affinity(get, hog.id, VcpuId(0), XEN_VCPUAFFINITY_HARD, &mut hard, &mut soft);
    got.map_or(0, |()| hard[0])
}

/// Ties its vCPU to some CPUs.
///
/// # Errors
/// Those of the hypercall.
pub fn tie(hog: &Tiny, cpus: u8) -> Result<(), Errno> {
    let set = XEN_DOMCTL_SETVCPUAFFINITY;
    domctl::affinity(set, hog.id, VcpuId(0), XEN_VCPUAFFINITY_HARD, &mut [cpus], &mut [0])
}

/// Lets it run.
///
/// # Panics
/// When the hypervisor refuses a step.
pub fn start(hog: &Tiny) {
    domctl::set_vcpu_context(hog.id, VcpuId(0), &hog.context()).expect("a state");
    domctl::unpause_domain(hog.id).expect("it runs");
}

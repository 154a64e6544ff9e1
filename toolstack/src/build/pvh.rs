//! The builder's steps for a PVH domain. Its frames are numbered by its own memory, so nothing has to be looked up: what
//! is written to the domain is named by guest frame.

use domain_image::pvh::{self, Kernel, Plan, Special};
use domain_image::{PAGE_SHIFT, pages_for};
use xen_abi::errno::Errno;
use xen_abi::hvm::{
    HVM_PARAM_CONSOLE_EVTCHN, HVM_PARAM_CONSOLE_PFN, HVM_PARAM_IDENT_PT, HVM_PARAM_STORE_EVTCHN, HVM_PARAM_STORE_PFN,
    HVM_PARAM_TIMER_MODE, HVMPTM_NO_DELAY_FOR_MISSED_TICKS,
};
use xen_abi::ids::{DomId, Mfn};

use super::error::{BuildError, Doing};
use super::memory::{Memory, populate};
use super::{Built, Request, SERVICE_DOMAIN, cpuid, domain};
use crate::calls::{Fill, Kind, PhysInfo, XenCalls};

/// The first frame above the hole below 4 GiB.
const HIGH: u64 = 1 << (32 - PAGE_SHIFT);

pub fn build(xen: &mut dyn XenCalls, request: &Request<'_>, kernel: &Kernel<'_>) -> Result<Built, BuildError> {
    let config = request.config;
    let plan_request = pvh::Request {
        pages: config.memory_kib / 4,
        ramdisk_len: request.ramdisk.len() as u64,
        cmdline: config.cmdline.as_bytes(),
        max_vcpus: config.max_vcpus,
        flags: 0,
    };
    // All that can be known beforehand is checked before anything exists.
    let plan = Plan::new(kernel, &plan_request)?;
    let host = xen.phys_info().doing("ask for the machine's memory")?;
    if host.capabilities & PhysInfo::HVM == 0 {
        return Err(BuildError::NoContainers);
    }
    let nested_paging = host.capabilities & PhysInfo::HAP != 0;
    let dom = domain::create(xen, request, &host, Kind::Pvh { nested_paging })?;
    let built = fill(xen, dom, request, kernel, &plan);
    domain::or_destroy(xen, dom, built)
}

fn fill(
    xen: &mut dyn XenCalls,
    dom: DomId,
    request: &Request<'_>,
    kernel: &Kernel<'_>,
    plan: &Plan,
) -> Result<Built, BuildError> {
    let config = request.config;
    let set = |xen: &mut dyn XenCalls, index, value| {
        xen.set_hvm_param(dom, index, value).doing("set a parameter of the domain")
    };
    domain::settle(xen, dom, request)?;
    set(xen, HVM_PARAM_TIMER_MODE, HVMPTM_NO_DELAY_FOR_MISSED_TICKS.into())?;
    xen.set_tsc_mode(dom, config.tsc_mode.number()).doing("set the TSC mode")?;
    let tables = config.tables_kib.unwrap_or(tables_kib(config.max_memory_kib, config.max_vcpus));
    // Whole MiB, as libxl rounds.
    xen.set_paging_pool(dom, tables.next_multiple_of(1024) * 1024).doing("set its memory for tables")?;
    let policy = xen.cpu_policy(dom).doing("ask for the domain's CPU policy")?;
    xen.set_cpu_policy(dom, &cpuid::without_threads(policy)).doing("set the domain's CPU policy")?;
    let store_port = xen.alloc_unbound(dom, SERVICE_DOMAIN).doing("allocate the xenstore event channel")?;
    let console_port = xen.alloc_unbound(dom, SERVICE_DOMAIN).doing("allocate the console event channel")?;

    let mut memory = Memory::populate(xen, dom, plan.low_pages)?;
    domain::load_kernel(&mut memory, request)?;
    if let Some((at, _)) = plan.ramdisk {
        domain::load_ramdisk(&mut memory, at, request.ramdisk)?;
    }
    memory.write(plan.start_info, Fill::Bytes(&plan.start_info_bytes))?;

    let xen = memory.xen();
    populate(xen, dom, HIGH, plan.high_pages)?;
    let tables = plan.tables_at >> PAGE_SHIFT;
    populate(xen, dom, tables, pages_for(plan.tables.len() as u64))?;
    fill_frames(xen, dom, tables, &plan.tables)?;
    let special = (pvh::SPECIAL_END >> PAGE_SHIFT) - pvh::SPECIAL_PAGES;
    populate(xen, dom, special, pvh::SPECIAL_PAGES)?;
    let (store, console, map) = (Special::Store.pfn(), Special::Console.pfn(), Special::IdentityMap.pfn());
    for page in [store, console] {
        xen.write_frames(dom, &[Mfn(page.0)], 0, Fill::Zeros(4096)).doing("write to the domain's memory")?;
    }
    fill_frames(xen, dom, map.0, &Plan::identity_map())?;
    let built = Built { dom, store_frame: Mfn(store.0), store_port, console_frame: Mfn(console.0), console_port };
    domain::seed_grants(xen, &built)?;

    for (index, value) in [
        (HVM_PARAM_STORE_PFN, store.0),
        (HVM_PARAM_STORE_EVTCHN, store_port.0.into()),
        (HVM_PARAM_CONSOLE_PFN, console.0),
        (HVM_PARAM_CONSOLE_EVTCHN, console_port.0.into()),
        (HVM_PARAM_IDENT_PT, map.0 << PAGE_SHIFT),
    ] {
        set(xen, index, value)?;
    }
    xen.set_memory_map(dom, &plan.memory_map).doing("set the domain's memory map")?;
    set_vcpus(xen, dom, request, kernel, plan)?;
    Ok(built)
}

/// The state of its vCPUs: the first one's registers, and the memory types of all.
fn set_vcpus(
    xen: &mut dyn XenCalls,
    dom: DomId,
    request: &Request<'_>,
    kernel: &Kernel<'_>,
    plan: &Plan,
) -> Result<(), BuildError> {
    let unreadable = |_| BuildError::Call { what: "understand the state of its vCPUs", errno: Errno::EINVAL };
    let saved = xen.hvm_context(dom).doing("ask for the state of its vCPUs")?;
    let vcpus = u16::try_from(request.config.max_vcpus).unwrap_or(u16::MAX);
    let states = pvh::vcpu_states(&saved, vcpus, kernel.entry, plan.start_info).map_err(unreadable)?;
    xen.set_hvm_context(dom, &states).doing("set the state of its vCPUs")
}

/// KiB for the hypervisor's tables: libxl's rule, a page for each MiB and as much for the tables of a second mapping,
/// and a MiB for each vCPU.
const fn tables_kib(max_memory_kib: u64, vcpus: u32) -> u64 {
    4 * (256 * vcpus as u64 + 2 * (max_memory_kib / 1024))
}

/// Writes to frames of the domain from `first` on.
fn fill_frames(xen: &mut dyn XenCalls, dom: DomId, first: u64, bytes: &[u8]) -> Result<(), BuildError> {
    let len = bytes.len().next_multiple_of(4096);
    let frames: alloc::vec::Vec<_> = (first..first + pages_for(len as u64)).map(Mfn).collect();
    let what = "write to the domain's memory";
    xen.write_frames(dom, &frames, 0, Fill::Bytes(bytes)).doing(what)?;
    xen.write_frames(dom, &frames, bytes.len(), Fill::Zeros(len - bytes.len())).doing(what)
}

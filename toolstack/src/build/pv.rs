//! The builder's steps for a PV domain.

use domain_image::start_of_day::{Console, StartInputs};
use domain_image::{Kernel, PAGE_SHIFT, Plan, Role};
use xen_abi::arch_x86::{SharedInfo, VcpuInfo, XEN_LEGACY_MAX_VCPUS};
use xen_abi::errno::Errno;
use xen_abi::grant_table::{GNTTAB_RESERVED_CONSOLE, GNTTAB_RESERVED_XENSTORE, GTF_PERMIT_ACCESS, GrantEntryV1};
use xen_abi::ids::{DomId, Mfn, Pfn, Port, VcpuId};
use zerocopy::{FromZeros, IntoBytes};

use super::error::{BuildError, Doing};
use super::memory::{Memory, shortage};
use crate::calls::{Affinity, DomainInfo, Fill, NewDomain, PhysInfo, Pinned, Share, XenCalls};
use crate::config::{DomainConfig, Uuid};

/// What libxl adds to a domain's maximum (LIBXL_MAXMEM_CONSTANT), KiB.
pub const MAXMEM_SLACK_KIB: u64 = 1024;
/// The domain that runs this: consoles and xenstore are served from here.
const SERVICE_DOMAIN: DomId = DomId(0);

/// A domain to build.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// What was asked for.
    pub config: &'a DomainConfig,
    /// Its handle.
    pub uuid: Uuid,
    /// Its kernel.
    pub kernel: &'a Kernel<'a>,
    /// Its ramdisk, possibly empty.
    pub ramdisk: &'a [u8],
    /// Its pool of CPUs.
    pub pool: u32,
}

/// What was built: the domain, paused, and where its rings are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Built {
    /// Its number.
    pub dom: DomId,
    /// The xenstore ring.
    pub store_frame: Mfn,
    /// Its event channel.
    pub store_port: Port,
    /// The console ring.
    pub console_frame: Mfn,
    /// Its event channel.
    pub console_port: Port,
}

/// Builds a domain. It stays paused.
///
/// # Errors
/// What went wrong; the domain is gone again then.
pub fn build(xen: &mut dyn XenCalls, request: &Request<'_>) -> Result<Built, BuildError> {
    let pages = request.config.memory_kib / 4;
    let plan_request = domain_image::Request { pages, ramdisk_len: request.ramdisk.len() as u64, role: Role::DomU };
    // All that can be known beforehand is checked before anything exists.
    let plan = Plan::new(request.kernel, &plan_request)?;
    let host = xen.phys_info().doing("ask for the machine's memory")?;
    if host.free_pages.saturating_sub(host.outstanding_pages) < pages {
        return Err(shortage(xen, pages));
    }
    let dom = xen.create_domain(&new_domain(request, &host)).doing("create the domain")?;
    match fill(xen, dom, request, &plan) {
        Ok(built) => Ok(built),
        Err(error) => {
            destroy(xen, dom);
            Err(error)
        }
    }
}

/// Destroys a domain, however many calls that takes. A domain that is gone already is no error.
pub fn destroy(xen: &mut dyn XenCalls, dom: DomId) {
    while xen.destroy_domain(dom) == Err(Errno::EAGAIN) {}
}

fn new_domain(request: &Request<'_>, host: &PhysInfo) -> NewDomain {
    let config = request.config;
    let newest = if host.capabilities & PhysInfo::GNTTAB_V2 != 0 { 2 } else { 1 };
    let frames = |limit: Option<u32>| limit.map_or(-1, |n| i32::try_from(n).unwrap_or(i32::MAX));
    NewDomain {
        uuid: request.uuid,
        max_vcpus: config.max_vcpus,
        max_evtchn_port: config.max_event_channels,
        max_grant_frames: frames(config.max_grant_frames),
        max_maptrack_frames: frames(config.max_maptrack_frames),
        max_grant_version: config.max_grant_version.unwrap_or(newest),
        pool: request.pool,
    }
}

fn fill(xen: &mut dyn XenCalls, dom: DomId, request: &Request<'_>, plan: &Plan) -> Result<Built, BuildError> {
    let config = request.config;
    xen.set_max_vcpus(dom, config.max_vcpus).doing("set the number of vCPUs")?;
    for vcpu in (0..config.max_vcpus).map(VcpuId) {
        let affinity =
            Affinity { hard: config.cpus.of(vcpu.0), soft: config.cpus_soft.of(vcpu.0), pinned: Pinned::Kept };
        if affinity.hard.is_some() || affinity.soft.is_some() {
            xen.set_vcpu_affinity(dom, vcpu, &affinity).doing("let its vCPUs run only on the CPUs it names")?;
        }
    }
    if config.cpu_weight.is_some() || config.cap.is_some() {
        let scheduler = xen.pool_info(request.pool).doing("ask for its pool of CPUs")?.scheduler;
        let default = xen.share(dom, scheduler).doing("ask for the domain's scheduling parameters")?;
        let share =
            Share { weight: config.cpu_weight.unwrap_or(default.weight), cap: config.cap.unwrap_or(default.cap) };
        xen.set_share(dom, scheduler, share).doing("set the domain's scheduling parameters")?;
    }
    xen.set_max_mem(dom, config.memory_kib + MAXMEM_SLACK_KIB).doing("set the domain's memory limit")?;
    xen.set_memory_map(dom, config.max_memory_kib * 1024).doing("set the domain's memory map")?;
    xen.set_tsc_mode(dom, config.tsc_mode.number()).doing("set the TSC mode")?;
    let store_port = xen.alloc_unbound(dom, SERVICE_DOMAIN).doing("allocate the xenstore event channel")?;
    let console_port = xen.alloc_unbound(dom, SERVICE_DOMAIN).doing("allocate the console event channel")?;
    xen.set_address_size(dom, 64).doing("set the address size")?;
    let info = xen.domain_info(dom).doing("ask about the domain")?;

    let mut memory = Memory::populate(xen, dom, plan.pages)?;
    load(&mut memory, request, plan)?;
    // A plan for a domU has both pages.
    let (store, console) = (plan.store.unwrap_or(Pfn(0)), plan.console.unwrap_or(Pfn(0)));
    let built =
        Built { dom, store_frame: memory.mfn(store), store_port, console_frame: memory.mfn(console), console_port };
    for page in [store, console, plan.start_info, plan.stack] {
        memory.write(page.0 << PAGE_SHIFT, Fill::Zeros(4096))?;
    }
    let start_info = plan.start_info(&StartInputs {
        shared_info: info.shared_info_frame.0 << PAGE_SHIFT,
        flags: 0,
        store_mfn: built.store_frame,
        store_port,
        console: Console::DomU { mfn: built.console_frame, port: console_port },
        cmdline: config.cmdline.as_bytes(),
    })?;
    memory.write(plan.start_info.0 << PAGE_SHIFT, Fill::Bytes(start_info.as_bytes()))?;
    write_tables(&mut memory, plan)?;

    let root = memory.mfn(plan.root());
    let hypercall_page = plan.hypercall_page.map(|pfn| memory.mfn(pfn));
    let xen = memory.xen();
    if let Some(frame) = hypercall_page {
        xen.fill_hypercall_page(dom, frame).doing("fill the hypercall page")?;
    }
    write_shared_info(xen, &info)?;
    seed_grants(xen, &built)?;
    xen.pin_root(dom, root).doing("pin the domain's page tables")?;
    xen.set_vcpu_context(dom, VcpuId(0), &plan.vcpu_context(root)).doing("set the first vCPU's state")?;
    Ok(built)
}

/// Kernel and ramdisk.
fn load(memory: &mut Memory<'_>, request: &Request<'_>, plan: &Plan) -> Result<(), BuildError> {
    for segment in &request.kernel.segments {
        memory.write(segment.start, Fill::Bytes(segment.data))?;
        let loaded = segment.data.len() as u64;
        let rest = usize::try_from(segment.size - loaded).unwrap_or(usize::MAX);
        memory.write(segment.start + loaded, Fill::Zeros(rest))?;
    }
    if let Some(ramdisk) = plan.ramdisk {
        memory.write(ramdisk.span.first.0 << PAGE_SHIFT, Fill::Bytes(request.ramdisk))?;
        let tail = usize::try_from((ramdisk.span.pages << PAGE_SHIFT) - ramdisk.len).unwrap_or(0);
        memory.write((ramdisk.span.first.0 << PAGE_SHIFT) + ramdisk.len, Fill::Zeros(tail))?;
    }
    Ok(())
}

/// The p2m list and the page tables.
fn write_tables(memory: &mut Memory<'_>, plan: &Plan) -> Result<(), BuildError> {
    let list = plan.p2m.list;
    memory.write_pages(list.first, list.pages, |index, p2m, page| plan.fill_p2m(index, |pfn| p2m.mfn(pfn), page))?;
    for area in [Some(plan.main), plan.p2m.own].into_iter().flatten() {
        let span = area.tables();
        let mut tables = plan.tables().filter(|table| span.contains(table.pfn));
        memory.write_pages(span.first, span.pages, |_, p2m, page| {
            if let Some(table) = tables.next() {
                plan.fill_table(&table, |pfn| p2m.mfn(pfn), page);
            }
        })?;
    }
    Ok(())
}

/// A clean shared page, with events masked on every vCPU: the kernel has no callback yet.
fn write_shared_info(xen: &mut dyn XenCalls, info: &DomainInfo) -> Result<(), BuildError> {
    let mut page = SharedInfo::new_zeroed();
    page.vcpu_info = [VcpuInfo { evtchn_upcall_mask: 1, ..VcpuInfo::new_zeroed() }; XEN_LEGACY_MAX_VCPUS];
    let frames = [info.shared_info_frame];
    let what = "write the shared page";
    xen.write_frames(info.id, &frames, 0, Fill::Bytes(page.as_bytes())).doing(what)?;
    let len = size_of::<SharedInfo>();
    xen.write_frames(info.id, &frames, len, Fill::Zeros(4096 - len)).doing(what)
}

/// The reserved grants by which the services map their rings.
fn seed_grants(xen: &mut dyn XenCalls, built: &Built) -> Result<(), BuildError> {
    let frame = xen.grant_table_frame(built.dom).doing("set up the grant table")?;
    for (index, ring) in [(GNTTAB_RESERVED_CONSOLE, built.console_frame), (GNTTAB_RESERVED_XENSTORE, built.store_frame)]
    {
        let mut entry = GrantEntryV1::new_zeroed();
        entry.flags = GTF_PERMIT_ACCESS;
        entry.domid = SERVICE_DOMAIN;
        let too_high = BuildError::Call { what: "grant a frame above 16 TiB", errno: Errno::ERANGE };
        entry.frame = u32::try_from(ring.0).map_err(|_| too_high)?;
        let offset = size_of::<GrantEntryV1>() * usize::try_from(index).unwrap_or(0);
        xen.write_frames(built.dom, &[frame], offset, Fill::Bytes(entry.as_bytes())).doing("seed the grant table")?;
    }
    Ok(())
}

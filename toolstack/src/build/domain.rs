//! What the builders of all kinds of domains do alike.

use xen_abi::errno::Errno;
use xen_abi::grant_table::{GNTTAB_RESERVED_CONSOLE, GNTTAB_RESERVED_XENSTORE, GTF_PERMIT_ACCESS, GrantEntryV1};
use xen_abi::ids::{DomId, Mfn, VcpuId};
use zerocopy::{FromZeros, IntoBytes};

use super::error::{BuildError, Doing};
use super::memory::{Memory, shortage};
use super::{Built, MAXMEM_SLACK_KIB, Request, SERVICE_DOMAIN};
use crate::calls::{Affinity, Fill, Kind, NewDomain, PhysInfo, Pinned, Share, XenCalls};

/// Creates an empty domain, if there is memory for one of `pages`.
pub fn create(xen: &mut dyn XenCalls, request: &Request<'_>, host: &PhysInfo, kind: Kind) -> Result<DomId, BuildError> {
    let pages = request.config.memory_kib / 4;
    if host.free_pages.saturating_sub(host.outstanding_pages) < pages {
        return Err(shortage(xen, pages));
    }
    xen.create_domain(&new_domain(request, host, kind)).doing("create the domain")
}

/// The domain, or nothing at all: what could not be built to the end is destroyed.
pub fn or_destroy<T>(xen: &mut dyn XenCalls, dom: DomId, built: Result<T, BuildError>) -> Result<T, BuildError> {
    if built.is_err() {
        destroy(xen, dom);
    }
    built
}

/// Destroys a domain, however many calls that takes. A domain that is gone already is no error.
pub fn destroy(xen: &mut dyn XenCalls, dom: DomId) {
    while xen.destroy_domain(dom) == Err(Errno::EAGAIN) {}
}

fn new_domain(request: &Request<'_>, host: &PhysInfo, kind: Kind) -> NewDomain {
    let config = request.config;
    let newest = if host.capabilities & PhysInfo::GNTTAB_V2 != 0 { 2 } else { 1 };
    let frames = |limit: Option<u32>| limit.map_or(-1, |n| i32::try_from(n).unwrap_or(i32::MAX));
    NewDomain {
        uuid: request.uuid,
        kind,
        max_vcpus: config.max_vcpus,
        max_evtchn_port: config.max_event_channels,
        max_grant_frames: frames(config.max_grant_frames),
        max_maptrack_frames: frames(config.max_maptrack_frames),
        max_grant_version: config.max_grant_version.unwrap_or(newest),
        pool: request.pool,
    }
}

/// vCPUs, where they run, and how much memory there may be.
pub fn settle(xen: &mut dyn XenCalls, dom: DomId, request: &Request<'_>) -> Result<(), BuildError> {
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
    if config.time_offset != 0 {
        xen.set_time_offset(dom, config.time_offset).doing("set its wall clock")?;
    }
    xen.set_max_mem(dom, config.memory_kib + MAXMEM_SLACK_KIB).doing("set the domain's memory limit")
}

/// The kernel.
pub fn load_kernel(memory: &mut Memory<'_>, request: &Request<'_>) -> Result<(), BuildError> {
    for segment in request.kernel.segments() {
        memory.write(segment.start, Fill::Bytes(segment.data))?;
        let loaded = segment.data.len() as u64;
        let rest = usize::try_from(segment.size - loaded).unwrap_or(usize::MAX);
        memory.write(segment.start + loaded, Fill::Zeros(rest))?;
    }
    Ok(())
}

/// The ramdisk, and zeros to the end of its last page.
pub fn load_ramdisk(memory: &mut Memory<'_>, at: u64, ramdisk: &[u8]) -> Result<(), BuildError> {
    memory.write(at, Fill::Bytes(ramdisk))?;
    let tail = ramdisk.len().next_multiple_of(4096) - ramdisk.len();
    memory.write(at + ramdisk.len() as u64, Fill::Zeros(tail))
}

/// Seeds the reserved grants by which the services map their rings.
pub fn seed_grants(xen: &mut dyn XenCalls, built: &Built) -> Result<(), BuildError> {
    const _: () = assert!(GNTTAB_RESERVED_CONSOLE == 0 && GNTTAB_RESERVED_XENSTORE == 1);
    let entries = [service_grant(built.console_frame)?, service_grant(built.store_frame)?];
    xen.write_grant_table(built.dom, entries.as_bytes()).doing("seed the grant table")
}

/// The entry of a grant by which a service maps a ring.
fn service_grant(ring: Mfn) -> Result<GrantEntryV1, BuildError> {
    let mut entry = GrantEntryV1::new_zeroed();
    entry.flags = GTF_PERMIT_ACCESS;
    entry.domid = SERVICE_DOMAIN;
    let too_high = BuildError::Call { what: "grant a frame above 16 TiB", errno: Errno::ERANGE };
    entry.frame = u32::try_from(ring.0).map_err(|_| too_high)?;
    Ok(entry)
}

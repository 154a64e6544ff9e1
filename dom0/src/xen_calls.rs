//! The toolstack's hypercalls, over the guest runtime. They keep no state, so [`impl_xen_calls!`] gives them to any type.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use guest_pv::alloc;
use guest_pv::call::{domctl, event_channel, memory, mmu, sched, sysctl, version};
use guest_pv::mem::{Access, Mapping};
use toolstack::calls::{Affinity, Clear, DomainInfo, Fill, Kind, NewDomain, PhysInfo, Pinned, VcpuInfo, VersionInfo};
use toolstack::config::Uuid;
use toolstack::cpus::CpuSet;
use xen_abi::arch_x86::{ArchDomainConfig, VcpuGuestContext, XEN_X86_EMU_LAPIC};
use xen_abi::domctl::{
    CreateDomain, GetDomainInfo, TscInfo, XEN_DOMCTL_CDF_HAP, XEN_DOMCTL_CDF_HVM, XEN_DOMCTL_GETVCPUAFFINITY,
    XEN_DOMCTL_SETVCPUAFFINITY, XEN_VCPUAFFINITY_FORCE, XEN_VCPUAFFINITY_HARD, XEN_VCPUAFFINITY_SOFT,
};
use xen_abi::errno::Errno;
use xen_abi::ids::{DomId, Mfn, Pfn, Port, VcpuId};
use xen_abi::memory::{XENMEM_RESOURCE_GRANT_TABLE, XENMEM_RESOURCE_GRANT_TABLE_ID_SHARED};
use xen_abi::physdev::PciDevice;
use zerocopy::IntoBytes;

/// Pages mapped at a time while a domain's memory is written: 8 MiB.
const WINDOW: usize = 2048;
const PAGE: usize = 4096;

pub mod containers;
pub mod pools;

pub fn create_domain(new: &NewDomain) -> Result<DomId, Errno> {
    let (flags, emulation_flags) = match new.kind {
        Kind::Pv => (0, 0),
        Kind::Pvh { nested_paging } => {
            let flags = XEN_DOMCTL_CDF_HVM | if nested_paging { XEN_DOMCTL_CDF_HAP } else { 0 };
            (flags, XEN_X86_EMU_LAPIC)
        }
    };
    let config = CreateDomain {
        handle: new.uuid.0,
        flags,
        arch: ArchDomainConfig { emulation_flags, ..Default::default() },
        max_vcpus: new.max_vcpus,
        max_evtchn_port: new.max_evtchn_port,
        max_grant_frames: new.max_grant_frames,
        max_maptrack_frames: new.max_maptrack_frames,
        grant_opts: new.max_grant_version,
        cpupool_id: new.pool,
        ..Default::default()
    };
    domctl::create_domain(DomId(0), &config)
}

pub fn destroy_domain(dom: DomId) -> Result<(), Errno> {
    domctl::destroy_domain(dom).map_err(|errno| if errno == Errno::ERESTART { Errno::EAGAIN } else { errno })
}

fn domain_info(info: &GetDomainInfo) -> DomainInfo {
    DomainInfo {
        id: info.domain,
        flags: info.flags,
        tot_pages: info.tot_pages,
        max_pages: info.max_pages,
        outstanding_pages: info.outstanding_pages,
        shared_info_frame: Mfn(info.shared_info_frame),
        cpu_time: info.cpu_time,
        online_vcpus: info.nr_online_vcpus,
        max_vcpu_id: info.max_vcpu_id,
        uuid: Uuid(info.handle),
        cpupool: info.cpupool,
    }
}

pub fn domain_list(first: DomId, max: usize) -> Result<Vec<DomainInfo>, Errno> {
    let max = u32::try_from(max).map_err(|_| Errno::EINVAL)?;
    Ok(sysctl::domain_list(first, max)?.iter().map(domain_info).collect())
}

pub fn vcpu_info(dom: DomId, vcpu: VcpuId) -> Result<VcpuInfo, Errno> {
    let info = domctl::get_vcpu_info(dom, vcpu)?;
    Ok(VcpuInfo {
        online: info.online != 0,
        blocked: info.blocked != 0,
        running: info.running != 0,
        cpu_time: info.cpu_time,
        cpu: info.cpu,
    })
}

pub fn node_affinity(dom: DomId) -> Result<CpuSet, Errno> {
    let mut nodes = CpuSet::default();
    domctl::node_affinity(dom, nodes.0.as_mut_bytes())?;
    Ok(nodes)
}

pub fn device_nodes() -> Result<Vec<(PciDevice, u32)>, Errno> {
    let addresses = dom0_hal::pci::enumerate().into_iter().map(|device| device.address());
    let devices: Vec<PciDevice> = addresses.map(|at| PciDevice { seg: 0, bus: at.bus, devfn: at.devfn }).collect();
    let nodes = sysctl::pci_topology(&devices)?;
    Ok(devices.into_iter().zip(nodes).collect())
}

pub fn vcpu_affinity(dom: DomId, vcpu: VcpuId) -> Result<(CpuSet, CpuSet), Errno> {
    let (mut hard, mut soft) = (CpuSet::default(), CpuSet::default());
    let flags = XEN_VCPUAFFINITY_HARD | XEN_VCPUAFFINITY_SOFT;
    let (hard_bytes, soft_bytes) = (hard.0.as_mut_bytes(), soft.0.as_mut_bytes());
    domctl::affinity(XEN_DOMCTL_GETVCPUAFFINITY, dom, vcpu, flags, hard_bytes, soft_bytes)?;
    Ok((hard, soft))
}

pub fn set_vcpu_affinity(dom: DomId, vcpu: VcpuId, affinity: &Affinity) -> Result<(), Errno> {
    let given = |set: Option<CpuSet>, flag| if set.is_some() { flag } else { 0 };
    let flags = given(affinity.hard, XEN_VCPUAFFINITY_HARD)
        | given(affinity.soft, XEN_VCPUAFFINITY_SOFT)
        | if affinity.pinned == Pinned::Lifted { XEN_VCPUAFFINITY_FORCE } else { 0 };
    let (mut hard, mut soft) = (affinity.hard.unwrap_or_default(), affinity.soft.unwrap_or_default());
    let (hard, soft) = (hard.0.as_mut_bytes(), soft.0.as_mut_bytes());
    domctl::affinity(XEN_DOMCTL_SETVCPUAFFINITY, dom, vcpu, flags, hard, soft)
}

pub fn set_tsc_mode(dom: DomId, mode: u32) -> Result<(), Errno> {
    domctl::set_tsc_info(dom, TscInfo { tsc_mode: mode, ..Default::default() })
}

pub fn set_time_offset(dom: DomId, seconds: i64) -> Result<(), Errno> {
    domctl::set_time_offset(dom, seconds)
}

pub fn populate(dom: DomId, order: u32, pfns: &[Pfn], mfns: &mut [Mfn]) -> Result<usize, Errno> {
    let mut frames: Vec<u64> = pfns.iter().map(|pfn| pfn.0).collect();
    let done = memory::populate_physmap(dom, &mut frames, order, 0)?;
    for (mfn, frame) in mfns.iter_mut().zip(frames).take(done) {
        *mfn = Mfn(frame);
    }
    Ok(done)
}

pub fn write_frames(dom: DomId, frames: &[Mfn], offset: usize, fill: Fill<'_>) -> Result<(), Errno> {
    let end = offset.checked_add(fill.len()).filter(|end| *end <= frames.len() * PAGE).ok_or(Errno::EINVAL)?;
    let mut at = offset;
    while at < end {
        let first = at / PAGE;
        let pages = ((end - 1) / PAGE + 1 - first).min(WINDOW);
        let run: Vec<u64> = frames.iter().skip(first).take(pages).map(|mfn| mfn.0).collect();
        let stop = end.min((first + pages) * PAGE);
        let window = Mapping::foreign(dom, &run, Access::ReadWrite).map_err(|error| error.errno)?;
        let (from, len) = (at - first * PAGE, stop - at);
        match fill {
            Fill::Zeros(_) => window.zero(from, len),
            Fill::Bytes(bytes) => {
                let part = bytes.get(at - offset..stop - offset).ok_or(Errno::EINVAL)?;
                window.write(from, part);
            }
        }
        at = stop;
    }
    Ok(())
}

pub fn read_frames(dom: DomId, frames: &[Mfn], content: &mut Vec<u8>) -> Result<(), Errno> {
    let frames: Vec<u64> = frames.iter().map(|mfn| mfn.0).collect();
    let window = Mapping::foreign(dom, &frames, Access::ReadOnly).map_err(|error| error.errno)?;
    let at = content.len();
    content.resize(at + frames.len() * PAGE, 0);
    window.read(0, content.get_mut(at..).unwrap_or_default());
    Ok(())
}

pub fn vcpu_context(dom: DomId, vcpu: VcpuId) -> Result<Box<VcpuGuestContext>, Errno> {
    let mut context = Box::new(VcpuGuestContext::default());
    domctl::get_vcpu_context(dom, vcpu, &mut context)?;
    Ok(context)
}

pub fn write_grant_table(dom: DomId, bytes: &[u8]) -> Result<(), Errno> {
    let shared = (XENMEM_RESOURCE_GRANT_TABLE, XENMEM_RESOURCE_GRANT_TABLE_ID_SHARED);
    let table = Mapping::resource(dom, shared, 1, Access::ReadWrite).map_err(|error| error.errno)?;
    table.write(0, bytes);
    Ok(())
}

pub fn phys_info() -> Result<PhysInfo, Errno> {
    let info = sysctl::physinfo()?;
    Ok(PhysInfo {
        threads_per_core: info.threads_per_core,
        cores_per_socket: info.cores_per_socket,
        nr_cpus: info.nr_cpus,
        max_cpu_id: info.max_cpu_id,
        nr_nodes: info.nr_nodes,
        cpu_khz: info.cpu_khz,
        capabilities: info.capabilities,
        total_pages: info.total_pages,
        free_pages: info.free_pages,
        scrub_pages: info.scrub_pages,
        outstanding_pages: info.outstanding_pages,
        hw_cap: info.hw_cap,
    })
}

pub fn version_info() -> Result<VersionInfo, Errno> {
    let (major, minor) = version::version()?;
    let compile = version::compile_info()?;
    let page_size = u32::try_from(PAGE).unwrap_or(0);
    let build_id = version::build_id().unwrap_or_default();
    Ok(VersionInfo {
        major: major.into(),
        minor: minor.into(),
        extra: version::extraversion()?,
        capabilities: version::capabilities()?,
        changeset: version::changeset()?,
        commandline: version::command_line()?,
        page_size,
        virt_start: version::virt_start()?,
        compiler: version::text(&compile.compiler),
        compile_by: version::text(&compile.compile_by),
        compile_domain: version::text(&compile.compile_domain),
        compile_date: version::text(&compile.compile_date),
        build_id: build_id.iter().map(|byte| alloc::format!("{byte:02x}")).collect(),
    })
}

pub fn read_console(clear: Clear) -> Result<Vec<u8>, Errno> {
    const CHUNK: usize = 16 << 10;
    let (mut text, mut index) = (Vec::new(), 0);
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = sysctl::read_console(&mut index, &mut chunk)?;
        text.extend_from_slice(chunk.get(..count).unwrap_or_default());
        if count < CHUNK {
            break;
        }
    }
    if clear == Clear::Yes {
        sysctl::clear_console()?;
    }
    Ok(text)
}

pub fn pin_root(dom: DomId, frame: Mfn) -> Result<(), Errno> {
    mmu::pin_l4(dom, frame)
}

pub fn alloc_unbound(dom: DomId, remote: DomId) -> Result<Port, Errno> {
    event_channel::alloc_unbound(dom, remote)
}

pub fn remote_shutdown(dom: DomId, reason: u32) -> Result<(), Errno> {
    sched::remote_shutdown(dom, reason)
}

pub fn set_vcpu_context(dom: DomId, vcpu: VcpuId, context: &VcpuGuestContext) -> Result<(), Errno> {
    domctl::set_vcpu_context(dom, vcpu, context)
}

/// Implements [`toolstack::calls::XenCalls`] for a type.
#[macro_export]
macro_rules! impl_xen_calls {
    ($ty:ty) => {
        #[rustfmt::skip]
        const _: () = {
            use $crate::xen_calls as calls;
            use guest_pv::alloc::boxed::Box;
            use guest_pv::alloc::vec::Vec;
            use guest_pv::call::{domctl, hvm, memory, sysctl};
            use toolstack::calls::{Affinity, Clear, CpuPolicy, DomainInfo, Fill, NewDomain, PhysInfo, PoolChange, PoolInfo, Schedule, Share, VcpuInfo, VersionInfo, XenCalls};
            use toolstack::cpus::CpuSet;
            use xen_abi::arch_x86::VcpuGuestContext;
            use xen_abi::errno::Errno;
            use xen_abi::ids::{DomId, Mfn, Pfn, Port, VcpuId};
            use xen_abi::memory::E820Entry;
            use xen_abi::sysctl::{CpuTopo, MemInfo};

            impl XenCalls for $ty {
                fn create_domain(&mut self, new: &NewDomain) -> Result<DomId, Errno> { $crate::fuse::burn()?; calls::create_domain(new) }
                fn destroy_domain(&mut self, dom: DomId) -> Result<(), Errno> { calls::destroy_domain(dom) }
                fn pause_domain(&mut self, dom: DomId) -> Result<(), Errno> { domctl::pause_domain(dom) }
                fn unpause_domain(&mut self, dom: DomId) -> Result<(), Errno> { domctl::unpause_domain(dom) }
                fn remote_shutdown(&mut self, dom: DomId, reason: u32) -> Result<(), Errno> { calls::remote_shutdown(dom, reason) }
                fn domain_list(&mut self, first: DomId, max: usize) -> Result<Vec<DomainInfo>, Errno> { calls::domain_list(first, max) }
                fn vcpu_info(&mut self, dom: DomId, vcpu: VcpuId) -> Result<VcpuInfo, Errno> { calls::vcpu_info(dom, vcpu) }
                fn vcpu_affinity(&mut self, dom: DomId, vcpu: VcpuId) -> Result<(CpuSet, CpuSet), Errno> { calls::vcpu_affinity(dom, vcpu) }
                fn set_vcpu_affinity(&mut self, dom: DomId, vcpu: VcpuId, affinity: &Affinity) -> Result<(), Errno> {
                    calls::set_vcpu_affinity(dom, vcpu, affinity)
                }
                fn send_trigger(&mut self, dom: DomId, trigger: u32, vcpu: VcpuId) -> Result<(), Errno> {
                    domctl::send_trigger(dom, trigger, vcpu)
                }
                fn set_max_vcpus(&mut self, dom: DomId, count: u32) -> Result<(), Errno> { $crate::fuse::burn()?; domctl::max_vcpus(dom, count) }
                fn set_max_mem(&mut self, dom: DomId, kib: u64) -> Result<(), Errno> { $crate::fuse::burn()?; domctl::max_mem(dom, kib) }
                fn share(&mut self, dom: DomId, scheduler: u32) -> Result<Share, Errno> { calls::pools::share(dom, scheduler) }
                fn set_share(&mut self, dom: DomId, scheduler: u32, share: Share) -> Result<(), Errno> {
                    calls::pools::set_share(dom, scheduler, share)
                }
                fn schedule(&mut self, pool: u32, scheduler: u32) -> Result<Schedule, Errno> { calls::pools::schedule(pool, scheduler) }
                fn set_schedule(&mut self, pool: u32, scheduler: u32, schedule: Schedule) -> Result<(), Errno> {
                    calls::pools::set_schedule(pool, scheduler, schedule)
                }
                fn pool_info(&mut self, from: u32) -> Result<PoolInfo, Errno> { calls::pools::info(from) }
                fn free_cpus(&mut self) -> Result<CpuSet, Errno> { calls::pools::free_cpus() }
                fn change_pool(&mut self, change: PoolChange) -> Result<u32, Errno> { calls::pools::change(change) }
                fn set_tsc_mode(&mut self, dom: DomId, mode: u32) -> Result<(), Errno> { $crate::fuse::burn()?; calls::set_tsc_mode(dom, mode) }
                fn set_time_offset(&mut self, dom: DomId, seconds: i64) -> Result<(), Errno> { $crate::fuse::burn()?; calls::set_time_offset(dom, seconds) }
                fn set_address_size(&mut self, dom: DomId, bits: u32) -> Result<(), Errno> { $crate::fuse::burn()?; domctl::set_address_size(dom, bits) }
                fn set_memory_map(&mut self, dom: DomId, map: &[E820Entry]) -> Result<(), Errno> { $crate::fuse::burn()?; memory::set_memory_map(dom, map) }
                fn set_paging_pool(&mut self, dom: DomId, bytes: u64) -> Result<(), Errno> { $crate::fuse::burn()?; domctl::set_paging_mempool_size(dom, bytes) }
                fn set_hvm_param(&mut self, dom: DomId, index: u32, value: u64) -> Result<(), Errno> { $crate::fuse::burn()?; hvm::set_param(dom, index, value) }
                fn hvm_context(&mut self, dom: DomId) -> Result<Vec<u8>, Errno> { $crate::fuse::burn()?; calls::containers::context(dom) }
                fn set_hvm_context(&mut self, dom: DomId, records: &[u8]) -> Result<(), Errno> { $crate::fuse::burn()?; domctl::set_hvm_context(dom, records) }
                fn cpu_policy(&mut self, dom: DomId) -> Result<CpuPolicy, Errno> { $crate::fuse::burn()?; calls::containers::cpu_policy(dom) }
                fn set_cpu_policy(&mut self, dom: DomId, policy: &CpuPolicy) -> Result<(), Errno> {
                    $crate::fuse::burn()?;
                    domctl::set_cpu_policy(dom, &policy.leaves, &policy.msrs)
                }
                fn write_grant_table(&mut self, dom: DomId, bytes: &[u8]) -> Result<(), Errno> { $crate::fuse::burn()?; calls::write_grant_table(dom, bytes) }
                fn fill_hypercall_page(&mut self, dom: DomId, frame: Mfn) -> Result<(), Errno> { $crate::fuse::burn()?; domctl::hypercall_init(dom, frame.0) }
                fn set_vcpu_context(&mut self, dom: DomId, vcpu: VcpuId, context: &VcpuGuestContext) -> Result<(), Errno> {
                    $crate::fuse::burn()?;
                    calls::set_vcpu_context(dom, vcpu, context)
                }
                fn populate(&mut self, dom: DomId, order: u32, pfns: &[Pfn], mfns: &mut [Mfn]) -> Result<usize, Errno> {
                    $crate::fuse::burn()?;
                    calls::populate(dom, order, pfns, mfns)
                }
                fn write_frames(&mut self, dom: DomId, frames: &[Mfn], offset: usize, fill: Fill<'_>) -> Result<(), Errno> {
                    $crate::fuse::burn()?;
                    calls::write_frames(dom, frames, offset, fill)
                }
                fn highest_frame(&mut self, dom: DomId) -> Result<u64, Errno> { memory::maximum_gpfn(dom) }
                fn frame_types(&mut self, dom: DomId, frames: &mut [u64]) -> Result<(), Errno> {
                    domctl::frame_types(dom, frames)
                }
                fn frame_limit(&mut self) -> Result<u64, Errno> { Ok(guest_pv::mem::machine_end()) }
                fn pfn_of(&mut self, frame: Mfn) -> Option<Pfn> { guest_pv::mem::others_m2p(frame) }
                fn read_frames(&mut self, dom: DomId, frames: &[Mfn], content: &mut Vec<u8>) -> Result<(), Errno> {
                    calls::read_frames(dom, frames, content)
                }
                fn vcpu_context(&mut self, dom: DomId, vcpu: VcpuId) -> Result<Box<VcpuGuestContext>, Errno> {
                    calls::vcpu_context(dom, vcpu)
                }
                fn pin_root(&mut self, dom: DomId, frame: Mfn) -> Result<(), Errno> { $crate::fuse::burn()?; calls::pin_root(dom, frame) }
                fn alloc_unbound(&mut self, dom: DomId, remote: DomId) -> Result<Port, Errno> { $crate::fuse::burn()?; calls::alloc_unbound(dom, remote) }
                fn phys_info(&mut self) -> Result<PhysInfo, Errno> { calls::phys_info() }
                fn version(&mut self) -> Result<VersionInfo, Errno> { calls::version_info() }
                fn cpu_topology(&mut self) -> Result<Vec<CpuTopo>, Errno> { sysctl::cpu_topology() }
                fn numa(&mut self) -> Result<Vec<(MemInfo, Vec<u32>)>, Errno> { sysctl::numa() }
                fn node_affinity(&mut self, dom: DomId) -> Result<CpuSet, Errno> { calls::node_affinity(dom) }
                fn device_nodes(&mut self) -> Result<Vec<(xen_abi::physdev::PciDevice, u32)>, Errno> { calls::device_nodes() }
                fn scheduler(&mut self) -> Result<u32, Errno> { sysctl::sched_id() }
                fn read_console(&mut self, clear: Clear) -> Result<Vec<u8>, Errno> { calls::read_console(clear) }
                fn debug_keys(&mut self, keys: &str) -> Result<(), Errno> { sysctl::debug_keys(keys.as_bytes()) }
            }
        };
    };
}

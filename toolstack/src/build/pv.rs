//! The builder's steps for a PV domain.

use domain_image::start_of_day::{Console, StartInputs};
use domain_image::{Kernel, PAGE_SHIFT, Plan, Role};
use xen_abi::arch_x86::{SharedInfo, VcpuInfo, XEN_LEGACY_MAX_VCPUS};
use xen_abi::ids::{DomId, Pfn, VcpuId};
use xen_abi::memory::{E820Entry, e820};
use zerocopy::{FromZeros, IntoBytes};

use super::error::{BuildError, Doing};
use super::memory::Memory;
use super::{Built, Request, SERVICE_DOMAIN, domain};
use crate::calls::{DomainInfo, Fill, Kind, XenCalls};

pub fn build(xen: &mut dyn XenCalls, request: &Request<'_>, kernel: &Kernel<'_>) -> Result<Built, BuildError> {
    let pages = request.config.memory_kib / 4;
    let plan_request = domain_image::Request { pages, ramdisk_len: request.ramdisk.len() as u64, role: Role::DomU };
    // All that can be known beforehand is checked before anything exists.
    let plan = Plan::new(kernel, &plan_request)?;
    let host = xen.phys_info().doing("ask for the machine's memory")?;
    let dom = domain::create(xen, request, &host, Kind::Pv)?;
    let built = fill(xen, dom, request, &plan);
    domain::or_destroy(xen, dom, built)
}

fn fill(xen: &mut dyn XenCalls, dom: DomId, request: &Request<'_>, plan: &Plan) -> Result<Built, BuildError> {
    let config = request.config;
    domain::settle(xen, dom, request)?;
    let map = [E820Entry { addr: 0, size: config.max_memory_kib * 1024, type_: e820::RAM }];
    xen.set_memory_map(dom, &map).doing("set the domain's memory map")?;
    xen.set_tsc_mode(dom, config.tsc_mode.number()).doing("set the TSC mode")?;
    let store_port = xen.alloc_unbound(dom, SERVICE_DOMAIN).doing("allocate the xenstore event channel")?;
    let console_port = xen.alloc_unbound(dom, SERVICE_DOMAIN).doing("allocate the console event channel")?;
    xen.set_address_size(dom, 64).doing("set the address size")?;
    let info = xen.domain_info(dom).doing("ask about the domain")?;

    let mut memory = Memory::populate(xen, dom, plan.pages)?;
    domain::load_kernel(&mut memory, request)?;
    if let Some(ramdisk) = plan.ramdisk {
        domain::load_ramdisk(&mut memory, ramdisk.span.first.0 << PAGE_SHIFT, request.ramdisk)?;
    }
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
    domain::seed_grants(xen, &built)?;
    xen.pin_root(dom, root).doing("pin the domain's page tables")?;
    xen.set_vcpu_context(dom, VcpuId(0), &plan.vcpu_context(root)).doing("set the first vCPU's state")?;
    Ok(built)
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
    let mut bytes = page.as_bytes().to_vec();
    bytes.resize(4096, 0);
    xen.write_frames(info.id, &[info.shared_info_frame], 0, Fill::Bytes(&bytes)).doing("write the shared page")
}

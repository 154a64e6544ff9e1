//! dom0 in a hardware container (`dom0=pvh`).
//!
//! There is no IOMMU support, and a device knows nothing of nested page tables: it would read and write other memory than
//! its driver means. So this dom0 has serial lines and no other devices. Its memory and ACPI tables are those of a PVH guest
//! of the same size, and what it does for guests it does with memory. (Xen 4.17 starts no such dom0 at all without an IOMMU.)

use alloc::sync::Arc;

use domain_image::{
    PAGE_SHIFT, PAGE_SIZE, pages_for,
    pvh::{self, Kernel, Plan},
};
use log::info;
use logic::{
    boot::command_line::Options,
    hvm::p2m::{Access, Use},
    lock::Held,
};
use machine::{boot_info::Module, container};
use xen_abi::{
    domctl::{XEN_DOMCTL_CDF_HAP, XEN_DOMCTL_CDF_HVM},
    errno::Errno,
    ids::Gfn,
    memory::E820Entry,
    start::{SIF_INITDOMAIN, SIF_PRIVILEGED},
};

use super::{BuildError, Image, blueprint, maximum, pages_wanted, pin_vcpus};
use crate::{
    domain::{Domain, dom0_devices},
    hvm::{PvhDomain, context},
    memory,
};

/// Memory is given in blocks of at most 2^this: what one entry maps.
const LARGEST_ORDER: u8 = 9;

/// Builds it, paused.
pub fn build(
    modules: &[Module],
    image: &Image,
    options: &Options,
    held: &mut Held<'_, 0>,
) -> Result<Arc<Domain>, BuildError> {
    info!("*** Building a PVH Dom0 ***");
    if container::vendor().is_none() {
        return Err(BuildError::NoContainers);
    }
    let module = modules.first().ok_or(BuildError::NoKernel)?;
    let kernel = Kernel::parse(image.bytes(module))?;
    let ramdisk = modules.get(1).map_or(&[][..], Module::bytes);

    let flags = XEN_DOMCTL_CDF_HVM | XEN_DOMCTL_CDF_HAP;
    let blueprint = blueprint(options, flags);
    let free = memory::census(held).free;
    let pool = paging_pages(pages_wanted(options, free), blueprint.max_vcpus);
    let pages = pages_wanted(options, free.saturating_sub(pool));
    let plan = Plan::new(
        &kernel,
        &pvh::Request {
            pages,
            ramdisk_len: ramdisk.len() as u64,
            cmdline: module.command_line.as_bytes(),
            max_vcpus: blueprint.max_vcpus,
            flags: SIF_PRIVILEGED | SIF_INITDOMAIN,
        },
    )?;
    let tables = pages_for(plan.tables.len() as u64);
    if pages + tables + pool > free {
        return Err(BuildError::Memory { wanted: pages + tables + pool, free });
    }

    let domain = Domain::new(&blueprint, held).map_err(|e| BuildError::Step("the domain", e))?;
    domain.allocate_vcpus(held).map_err(|e| BuildError::Step("its vCPUs", e))?;
    if options.dom0_pinned {
        pin_vcpus(&domain);
    }
    dom0_devices::give_lines(&domain).map_err(|e| BuildError::Step("its devices", e))?;
    domain.memory.set_maximum(maximum(options, pages, free).saturating_add(tables), held);
    let pvh = domain.pvh().ok_or(BuildError::NoContainers)?;
    pvh.physmap.set_pool(pool, held).map_err(|e| BuildError::Step("memory for its tables", e))?;

    let mut builder = Builder { domain: &domain, pvh, held: held.again() };
    builder.populate(0, plan.low_pages)?;
    builder.populate(1 << (32 - PAGE_SHIFT), plan.high_pages)?;
    builder.populate(plan.tables_at >> PAGE_SHIFT, tables)?;
    for segment in &kernel.segments {
        builder.write(segment.start, segment.data)?;
    }
    if let Some((at, _)) = plan.ramdisk {
        builder.write(at, ramdisk)?;
    }
    builder.write(plan.start_info, &plan.start_info_bytes)?;
    builder.write(plan.tables_at, &plan.tables)?;
    domain.memory.set_map(plan.memory_map.clone());
    start_first_vcpu(&domain, &kernel, &plan, held)?;
    report(&kernel, &plan);
    info!("Dom0 has maximum {} VCPUs", domain.max_vcpus());
    Ok(domain)
}

/// Frames for its tables: libxl's rule, which Xen has for dom0 too: a page for each MiB, as much for tables of a second mapping,
/// and a MiB for each vCPU.
fn paging_pages(pages: u64, vcpus: u32) -> u64 {
    let mib = pages >> (20 - PAGE_SHIFT);
    (256 * u64::from(vcpus) + 2 * mib).next_multiple_of(256)
}

struct Builder<'a> {
    domain: &'a Arc<Domain>,
    pvh: &'a PvhDomain,
    held: Held<'a, 0>,
}

impl Builder<'_> {
    /// Gives it memory from a frame number on, in blocks as large as there are.
    fn populate(&mut self, first: u64, pages: u64) -> Result<(), BuildError> {
        let wrong = |errno| BuildError::Step("memory", errno);
        let (mut gfn, end) = (first, first + pages);
        let mut largest = LARGEST_ORDER;
        while gfn < end {
            let mut order = largest;
            while !gfn.is_multiple_of(1 << order) || 1 << order > end - gfn {
                order -= 1;
            }
            let zone = self.pvh.physmap.place(self.domain, Gfn(gfn), order, &mut self.held);
            match self.domain.memory.populate(self.domain, order, zone, &mut self.held) {
                Ok(mfn) => {
                    let how = (Access::ALL, Use::Ram);
                    self.pvh
                        .physmap
                        .enter(self.domain, (Gfn(gfn), mfn, order), self.domain.id, how, &mut self.held)
                        .map_err(wrong)?;
                    gfn += 1 << order;
                }
                Err(Errno::ERESTART) => {}
                Err(_) if order > 0 => largest = order - 1,
                Err(errno) => return Err(wrong(errno)),
            }
        }
        Ok(())
    }

    /// Writes bytes from a guest-physical address on. What is behind them is zero.
    fn write(&mut self, start: u64, bytes: &[u8]) -> Result<(), BuildError> {
        let wrong = |errno| BuildError::Step("a page of its own", errno);
        let (mut at, mut rest) = (start, bytes);
        while !rest.is_empty() {
            #[allow(clippy::cast_possible_truncation, reason = "below a page")]
            let offset = (at & (PAGE_SIZE - 1)) as usize;
            let (now, later) = rest.split_at(rest.len().min(0x1000 - offset));
            let found = self.pvh.physmap.find(Gfn(at >> PAGE_SHIFT), &mut self.held).ok_or(wrong(Errno::EINVAL))?;
            self.domain.memory.write_page(self.domain, found.mfn, offset, now, &mut self.held).map_err(wrong)?;
            at += now.len() as u64;
            rest = later;
        }
        Ok(())
    }
}

/// As its toolstack starts a guest: by the records of its vCPUs' states.
fn start_first_vcpu(
    domain: &Arc<Domain>,
    kernel: &Kernel<'_>,
    plan: &Plan,
    held: &mut Held<'_, 0>,
) -> Result<(), BuildError> {
    let wrong = |errno| BuildError::Step("the first vCPU", errno);
    let saved = context::save(domain, held).map_err(wrong)?;
    let vcpus = u16::try_from(domain.max_vcpus()).unwrap_or(u16::MAX);
    let states = pvh::vcpu_states(&saved, vcpus, kernel.entry, plan.start_info).map_err(|_| wrong(Errno::EINVAL))?;
    context::load(domain, &states, held).map_err(wrong)
}

fn report(kernel: &Kernel<'_>, plan: &Plan) {
    for segment in &kernel.segments {
        info!("ELF: phdr: paddr={:#x} memsz={:#x}", segment.start, segment.size);
    }
    info!("PHYSICAL MEMORY ARRANGEMENT:");
    if let Some((start, len)) = plan.ramdisk {
        info!(" Init. ramdisk: {start:016x}->{:016x}", start + len);
    }
    info!(" Start info:    {:016x}->{:016x}", plan.start_info, plan.start_info + plan.start_info_bytes.len() as u64);
    for entry in &plan.memory_map {
        let E820Entry { addr, size, type_ } = *entry;
        info!(" Dom0 map:      {addr:016x}->{:016x} type {type_}", addr + size);
    }
    info!(" ENTRY ADDRESS: {:016x}", kernel.entry);
}

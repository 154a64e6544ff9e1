//! Builds the control domain from the boot modules: the first is its kernel, the second its ramdisk.
//!
//! What goes where is planned by the crate `domain-image`, as for every other domain; here the plan is carried out with
//! the domain's own frames.

mod pvh;

use alloc::{sync::Arc, vec::Vec};
use core::{fmt, sync::atomic::Ordering};

use domain_image::{
    Format, ImageError, Kernel, LayoutError, PAGE_SHIFT, PAGE_SIZE, Payload, Plan, Request, Role,
    start_of_day::{Console, StartInputs},
};
use log::info;
use logic::{
    access::Privilege,
    boot::command_line::Options,
    frames::Zone,
    grant::Version,
    lock::Held,
    page::{Fail, Kind, Writable},
};
use machine::{
    boot_info::Module,
    mem::{
        boot_frames::BootFrames,
        frame_table::frames,
        heap::{self, Lent},
        pv_pte,
    },
};
use xen_abi::{
    errno::Errno,
    features::XENFEAT_PAE_PGDIR_ABOVE_4GB,
    ids::{DomId, Mfn, Pfn, Port, VcpuId},
    start::{SIF_INITDOMAIN, SIF_PRIVILEGED},
    vm_assist::VMASST_TYPE_PAE_EXTENDED_CR3,
};
use zerocopy::IntoBytes;

use super::{Blueprint, Domain, context, dom0_devices};
use crate::memory::{self, Mm, mmu};

/// Memory that stays with the hypervisor when `dom0_mem=` does not say: a sixteenth, at most this.
const RESERVE_LIMIT: u64 = 128 << 20;
/// Frames are taken in blocks of at most 2^this.
const LARGEST_ORDER: u8 = 12;
/// What a decoder gets for its dictionary: enough for what builds of Linux use (64 MiB), or half of that and so on.
const DICTIONARY: u64 = 72 << 20;
/// Largest unpacked kernel.
const KERNEL_LIMIT: u64 = 512 << 20;

/// Why there is no control domain.
#[derive(Debug)]
pub enum BuildError {
    /// No module.
    NoKernel,
    /// The first module is no kernel that can run here.
    Image(ImageError),
    /// The kernel or ramdisk does not fit.
    Layout(LayoutError),
    /// The machine has less memory than was asked for.
    Memory {
        /// Pages wanted.
        wanted: u64,
        /// Pages there are.
        free: u64,
    },
    /// `dom0=pvh` on a machine without hardware containers.
    NoContainers,
    /// A step that the plan cannot foresee.
    Step(&'static str, Errno),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoKernel => f.write_str("dom0 kernel not specified. Check bootloader configuration"),
            Self::Image(error) => write!(f, "the dom0 kernel (first module): {error}"),
            Self::Layout(error) => write!(f, "laying out dom0: {error}"),
            Self::Memory { wanted, free } => {
                write!(f, "dom0_mem: {wanted} pages wanted, {free} pages free")
            }
            Self::NoContainers => f.write_str("dom0=pvh: HVM requested but not available"),
            Self::Step(what, errno) => write!(f, "building dom0: {what}: {errno:?}"),
        }
    }
}

impl From<ImageError> for BuildError {
    fn from(error: ImageError) -> Self {
        Self::Image(error)
    }
}

impl From<LayoutError> for BuildError {
    fn from(error: LayoutError) -> Self {
        Self::Layout(error)
    }
}

/// The kernel's ELF: the first module itself, or what was packed in it.
pub struct Image {
    /// Where it was unpacked; `None`: it was not packed.
    room: Option<Module>,
    /// Bytes of it.
    length: usize,
    /// Memory that is free again.
    spare: Option<Module>,
}

/// Unpacks the kernel, while all free memory is in one piece still.
pub fn unpack(modules: &[Module], frames: &mut BootFrames) -> Result<Image, BuildError> {
    let module = modules.first().ok_or(BuildError::NoKernel)?;
    let payload = Payload::find(module.bytes())?;
    if payload.format == Format::Elf {
        return Ok(Image { room: None, length: payload.data.len(), spare: None });
    }
    let length = payload.unpacked_len.unwrap_or(frames.free_bytes() / 2);
    if length > KERNEL_LIMIT {
        return Err(ImageError::TooLarge { size: length, limit: KERNEL_LIMIT }.into());
    }
    let no_room = ImageError::OutOfMemory(length);
    let mut room = frames.scratch(length).ok_or(no_room)?;
    // Decoders have dictionaries, which are too large for the heap as it is.
    let lent = match payload.format {
        Format::Elf | Format::Gzip | Format::Lz4 => None,
        Format::Xz | Format::Lzma | Format::Zstd | Format::Bzip2 => {
            (0..5).find_map(|halves| frames.scratch(DICTIONARY >> halves)).and_then(|memory| heap::lend(memory).ok())
        }
    };
    let unpacked = payload.unpack_into(room.bytes_mut());
    let spare = lent.and_then(Lent::take_back);
    Ok(Image { room: Some(room), length: unpacked?, spare })
}

impl Image {
    fn bytes<'a>(&'a self, module: &'a Module) -> &'a [u8] {
        let all = self.room.as_ref().map_or_else(|| module.bytes(), Module::bytes);
        all.get(..self.length).unwrap_or(all)
    }

    /// The memory it took.
    pub fn into_memory(self) -> impl Iterator<Item = Module> {
        self.room.into_iter().chain(self.spare)
    }
}

/// Builds it, paused. The modules and the image are not needed afterwards.
pub fn build(
    modules: &[Module],
    image: &Image,
    options: &Options,
    held: &mut Held<'_, 0>,
) -> Result<Arc<Domain>, BuildError> {
    if options.dom0_pvh {
        return pvh::build(modules, image, options, held);
    }
    info!("*** Building a PV Dom0 ***");
    let module = modules.first().ok_or(BuildError::NoKernel)?;
    let kernel = Kernel::parse(image.bytes(module))?;
    with_kernel(&kernel, module, modules.get(1), options, held)
}

fn with_kernel(
    kernel: &Kernel<'_>,
    module: &Module,
    ramdisk: Option<&Module>,
    options: &Options,
    held: &mut Held<'_, 0>,
) -> Result<Arc<Domain>, BuildError> {
    report_kernel(kernel);
    let free = memory::census(held).free;
    let pages = pages_wanted(options, free);
    if pages > free {
        return Err(BuildError::Memory { wanted: pages, free });
    }
    let ramdisk_bytes = ramdisk.map_or(&[][..], Module::bytes);
    let request = Request { pages, ramdisk_len: ramdisk_bytes.len() as u64, role: Role::Dom0 };
    let plan = Plan::new(kernel, &request)?;

    let blueprint = blueprint(options, 0);
    let domain = Domain::new(&blueprint, held).map_err(|e| BuildError::Step("the domain", e))?;
    domain.allocate_vcpus(held).map_err(|e| BuildError::Step("its vCPUs", e))?;
    if options.dom0_pinned {
        pin_vcpus(&domain);
    }
    domain.memory.set_maximum(maximum(options, pages, free), held);
    dom0_devices::give(&domain, held).map_err(|e| BuildError::Step("its devices", e))?;

    let own = OwnMemory::populate(&domain, pages, held)?;
    let mut builder = Builder { domain: &domain, own: &own, deferred: Vec::new(), held: held.again() };
    builder.load_kernel(kernel)?;
    builder.fill_tables(&plan)?;
    builder.fill_p2m(&plan)?;
    if let Some(place) = plan.ramdisk {
        builder.write(place.span.first.0 << PAGE_SHIFT, ramdisk_bytes)?;
    }
    let inputs = StartInputs {
        shared_info: domain.shared_info_frame().0 << PAGE_SHIFT,
        flags: SIF_PRIVILEGED | SIF_INITDOMAIN,
        store_mfn: Mfn(0),
        store_port: Port(0),
        console: Console::Dom0 { info_off: 0, info_size: 0 },
        cmdline: module.command_line.as_bytes(),
    };
    let start_info = plan.start_info(&inputs)?;
    builder.write(plan.start_info.0 << PAGE_SHIFT, start_info.as_bytes())?;
    if let Some(page) = plan.hypercall_page {
        let frame = own.mfn(page);
        domain
            .memory
            .write_hypercall_page(&domain, frame, &mut builder.held)
            .map_err(|e| BuildError::Step("the hypercall page", e))?;
    }
    builder.pin(own.mfn(plan.root()))?;
    builder.set_context(&plan)?;
    if kernel.notes.supported_features & 1 << XENFEAT_PAE_PGDIR_ABOVE_4GB != 0 {
        domain.vm_assist.store(1 << VMASST_TYPE_PAE_EXTENDED_CR3, Ordering::Relaxed);
    }
    report_plan(&plan, &own, start_info.cmd_line.iter().take_while(|b| **b != 0).count());
    info!("Dom0 has maximum {} VCPUs", domain.max_vcpus());
    Ok(domain)
}

/// What dom0 is created as.
fn blueprint(options: &Options, create_flags: u32) -> Blueprint {
    let vcpus = options.dom0_vcpus;
    let cpus = machine::mailbox::online().0.count_ones();
    Blueprint {
        id: DomId(0),
        privilege: Privilege::Control,
        create_flags,
        handle: [0; 16],
        pool: logic::sched::pools::FIRST,
        max_vcpus: cpus.clamp(vcpus.0, vcpus.1).min(Blueprint::MAX_VCPUS),
        max_event_port: u32::MAX,
        max_grant_frames: Blueprint::DEFAULT_GRANT_FRAMES,
        grant_version: Version::Two,
        max_maptrack_frames: Blueprint::DEFAULT_MAPTRACK_FRAMES,
    }
}

/// How many pages `dom0_mem=` gives it; without it all but a sixteenth (at most 128 MiB).
fn pages_wanted(options: &Options, free: u64) -> u64 {
    let bytes = free << PAGE_SHIFT;
    let memory = &options.dom0_memory;
    let rest = bytes - (bytes / 16).min(RESERVE_LIMIT);
    let mut wanted = memory.size.map_or(rest, |size| size.bytes_of(bytes));
    if let Some(min) = memory.min {
        wanted = wanted.max(min.bytes_of(bytes));
    }
    if let Some(max) = memory.max {
        wanted = wanted.min(max.bytes_of(bytes));
    }
    // More than there is means all there is.
    wanted.min(rest) >> PAGE_SHIFT
}

/// How many pages it may grow to: `dom0_mem=max:` says, and else nobody (Xen's `UINT_MAX`).
fn maximum(options: &Options, pages: u64, free: u64) -> u64 {
    let limit = options.dom0_memory.max.map(|max| max.bytes_of(free << PAGE_SHIFT) >> PAGE_SHIFT);
    limit.map_or(u64::from(u32::MAX), |limit| limit.max(pages))
}

/// The domain's frames: runs of pfns that are runs of mfns too.
struct OwnMemory {
    /// First pfn and mfn of each run, in the order of pfns.
    runs: Vec<(Pfn, Mfn)>,
}

impl OwnMemory {
    /// Takes the frames, in blocks as large as there are.
    fn populate(domain: &Arc<Domain>, pages: u64, held: &mut Held<'_, 0>) -> Result<Self, BuildError> {
        let mut own = Self { runs: Vec::new() };
        let mut pfn = 0;
        let mut order = LARGEST_ORDER;
        while pfn < pages {
            while 1 << order > pages - pfn {
                order -= 1;
            }
            match domain.memory.populate(domain, order, Zone::Any, held) {
                Ok(mfn) => {
                    own.runs.push((Pfn(pfn), mfn));
                    for i in 0..1 << order {
                        if let Some(frame) = frames().ram(Mfn(mfn.0 + i)) {
                            pv_pte::set_m2p(frame, pfn + i);
                        }
                    }
                    pfn += 1 << order;
                }
                Err(Errno::ERESTART) => {}
                Err(_) if order > 0 => order -= 1,
                Err(errno) => return Err(BuildError::Step("memory", errno)),
            }
        }
        Ok(own)
    }

    /// The frame of a pfn (which the domain has).
    fn mfn(&self, pfn: Pfn) -> Mfn {
        let after = self.runs.partition_point(|(first, _)| *first <= pfn);
        match after.checked_sub(1).and_then(|at| self.runs.get(at)) {
            Some((first, mfn)) => Mfn(mfn.0 + (pfn.0 - first.0)),
            None => Mfn(u64::MAX),
        }
    }
}

struct Builder<'a> {
    domain: &'a Arc<Domain>,
    own: &'a OwnMemory,
    deferred: Vec<logic::page::Deferred>,
    held: Held<'a, 0>,
}

impl Builder<'_> {
    fn mm(&mut self) -> Mm<'_> {
        mmu(self.held.again(), self.domain, &mut self.deferred)
    }

    /// Writes into one page.
    fn write_page(&mut self, pfn: Pfn, offset: usize, bytes: &[u8]) -> Result<(), BuildError> {
        let mfn = self.own.mfn(pfn);
        let owner = self.domain.id;
        let mut mm = self.mm();
        let page =
            mm.get_ref::<Writable>(mfn, owner).map_err(|_| BuildError::Step("a page of its own", Errno::EINVAL))?;
        pv_pte::write_bytes(&page, offset, bytes);
        mm.put_ref(page);
        Ok(())
    }

    /// Writes bytes from a guest-physical address on.
    fn write(&mut self, start: u64, bytes: &[u8]) -> Result<(), BuildError> {
        let mut at = start;
        let mut rest = bytes;
        while !rest.is_empty() {
            #[allow(clippy::cast_possible_truncation, reason = "below a page")]
            let offset = (at & (PAGE_SIZE - 1)) as usize;
            let (now, later) = rest.split_at(rest.len().min(0x1000 - offset));
            self.write_page(Pfn(at >> PAGE_SHIFT), offset, now)?;
            at += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    /// The frames are zero already, so what a segment has beyond its bytes is there.
    fn load_kernel(&mut self, kernel: &Kernel<'_>) -> Result<(), BuildError> {
        kernel.segments.iter().try_for_each(|segment| self.write(segment.start, segment.data))
    }

    fn fill_tables(&mut self, plan: &Plan) -> Result<(), BuildError> {
        let own = self.own;
        let mut entries = [0; 512];
        for table in plan.tables() {
            plan.fill_table(&table, |pfn| own.mfn(pfn), &mut entries);
            self.write_page(table.pfn, 0, entries.as_bytes())?;
        }
        Ok(())
    }

    fn fill_p2m(&mut self, plan: &Plan) -> Result<(), BuildError> {
        let own = self.own;
        let mut page = [0; 512];
        for index in 0..plan.p2m.list.pages {
            plan.fill_p2m(index, |pfn| own.mfn(pfn), &mut page);
            self.write_page(Pfn(plan.p2m.list.first.0 + index), 0, page.as_bytes())?;
        }
        Ok(())
    }

    /// Pins the root; large trees take several slices.
    fn pin(&mut self, root: Mfn) -> Result<(), BuildError> {
        let owner = self.domain.id;
        loop {
            match self.mm().pin(root, Kind::L4, owner) {
                Ok(()) => return Ok(()),
                Err(Fail::Again) => {}
                Err(Fail::Refused(errno)) => return Err(BuildError::Step("pinning its page tables", errno)),
            }
        }
    }

    fn set_context(&mut self, plan: &Plan) -> Result<(), BuildError> {
        let wrong = |errno| BuildError::Step("the first vCPU", errno);
        let vcpu = self.domain.vcpu(VcpuId(0)).ok_or(wrong(Errno::ENOENT))?;
        let wanted = plan.vcpu_context(self.own.mfn(plan.root()));
        loop {
            if context::set(self.domain, vcpu, &wanted, &mut self.held).map_err(wrong)? {
                return Ok(());
            }
        }
    }
}

fn report_kernel(kernel: &Kernel<'_>) {
    let notes = &kernel.notes;
    for segment in &kernel.segments {
        info!("ELF: phdr: paddr={:#x} memsz={:#x}", segment.start, segment.size);
    }
    info!("ELF: memory: {:#x} -> {:#x}", kernel.start, kernel.end);
    for (name, value) in [
        ("GUEST_OS", notes.guest_os),
        ("GUEST_VERSION", notes.guest_version),
        ("XEN_VERSION", notes.xen_version),
        ("PAE_MODE", notes.pae_mode),
        ("LOADER", notes.loader),
    ] {
        if !value.is_empty() {
            info!("ELF: note: {name} = \"{value}\"");
        }
    }
    info!("ELF: virt_base = {:#x}, virt_entry = {:#x}", kernel.virt_base, kernel.entry);
    if let Some(virt) = notes.init_p2m {
        info!("ELF: p2m_base = {virt:#x}");
    }
    info!(" Xen  kernel: 64-bit, lsb");
    info!(" Dom0 kernel: 64-bit, PAE, lsb, paddr {:#x} -> {:#x}", kernel.start, kernel.end);
}

fn report_plan(plan: &Plan, own: &OwnMemory, command_line: usize) {
    let span = |name: &str, start: u64, pages: u64| {
        info!(" {name} {start:016x}->{:016x}", start.wrapping_add(pages << PAGE_SHIFT));
    };
    info!("PHYSICAL MEMORY ARRANGEMENT:");
    if let Some((_, first)) = own.runs.first() {
        info!(" Dom0 alloc.:   {:016x} ({} pages in {} runs)", first.0 << PAGE_SHIFT, plan.pages, own.runs.len());
    }
    if let Some(ramdisk) = plan.ramdisk {
        let start = own.mfn(ramdisk.span.first).0 << PAGE_SHIFT;
        span("Init. ramdisk:", start, ramdisk.span.pages);
    }
    info!("VIRTUAL MEMORY ARRANGEMENT:");
    span("Loaded kernel:", plan.virt(plan.kernel.first), plan.kernel.pages);
    span("Phys-Mach map:", plan.p2m.virt, plan.p2m.list.pages);
    span("Start info:   ", plan.virt(plan.start_info), 1);
    span("Page tables:  ", plan.virt(plan.root()), plan.main.tables().pages);
    span("Boot stack:   ", plan.virt(plan.stack), 1);
    span("TOTAL:        ", plan.virt_base, plan.main.pages);
    info!(" ENTRY ADDRESS: {:016x}", plan.entry);
    info!(" Command line:  {command_line} bytes");
}

/// `dom0_vcpus_pin`: each vCPU on the CPU of its number.
fn pin_vcpus(domain: &Domain) {
    let online = machine::mailbox::online();
    for vcpu in domain.vcpus() {
        let cpu = vcpu.id.0 % online.0.count_ones().max(1);
        let mask = logic::sched::CpuMask::one(cpu);
        vcpu.seat.set_affinity(mask, mask);
    }
    info!("Dom0 VCPUs are pinned to CPUs");
}

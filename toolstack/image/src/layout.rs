//! The start-of-day region of a PV domain: which pseudo-physical frame holds what (`xen.h`, "Start-of-day memory layout").
//!
//! Packed by page from pfn 0 = VIRT_BASE: what lies below the kernel, the kernel, the ramdisk (unless MOD_START_PFN lets
//! it be unmapped), the p2m list (unless INIT_P2M gives it an address of its own), `start_info`, the xenstore and
//! console pages (not for dom0), page tables, one stack page, padding of at least 512 KiB up to a 4 MiB boundary. All of
//! that is mapped. After it, not mapped there: the p2m list with its own tables, and the ramdisk.

use xen_abi::arch_x86::HYPERVISOR_VIRT_END;
use xen_abi::ids::Pfn;

use crate::error::LayoutError;
use crate::kernel::Kernel;
use crate::page_tables::Area;
use crate::{PAGE_SHIFT, PAGE_SIZE, pages_for};

/// A run of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first.
    pub first: Pfn,
    /// How many.
    pub pages: u64,
}

impl Span {
    /// The frame after the last.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.first.0 + self.pages
    }

    /// Whether `pfn` is one of them.
    #[must_use]
    pub const fn contains(&self, pfn: Pfn) -> bool {
        self.first.0 <= pfn.0 && pfn.0 < self.end()
    }
}

/// Who the region is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The initial domain: no xenstore or console page.
    Dom0,
    /// Any other domain.
    DomU,
}

/// What is asked for besides the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Frames of the domain at start: pfns 0 to this.
    pub pages: u64,
    /// Bytes of the ramdisk; 0 for none.
    pub ramdisk_len: u64,
    /// For whom.
    pub role: Role,
}

/// The ramdisk's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ramdisk {
    /// Its frames.
    pub span: Span,
    /// Its bytes.
    pub len: u64,
    /// Whether it lies in the mapped region.
    pub mapped: bool,
}

/// The p2m list's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct P2m {
    /// Frames of the list.
    pub list: Span,
    /// Virtual address of the list.
    pub virt: u64,
    /// The page tables that map it at INIT_P2M; None where it lies in the region.
    pub own: Option<Area>,
}

/// Where everything lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Frames of the domain.
    pub pages: u64,
    /// Virtual address of pfn 0.
    pub virt_base: u64,
    /// Virtual address of the first instruction.
    pub entry: u64,
    /// The kernel's frames.
    pub kernel: Span,
    /// The ramdisk, if any.
    pub ramdisk: Option<Ramdisk>,
    /// The list from pfn to mfn.
    pub p2m: P2m,
    /// The page of `start_info`.
    pub start_info: Pfn,
    /// The xenstore ring (domU).
    pub store: Option<Pfn>,
    /// The console ring (domU).
    pub console: Option<Pfn>,
    /// The mapped region, and the place of its tables.
    pub main: Area,
    /// The initial stack.
    pub stack: Pfn,
    /// The page to fill with hypercall stubs, where the kernel has one.
    pub hypercall_page: Option<Pfn>,
    /// Frames that the plan uses: what the domain must have at least.
    pub needed: u64,
}

/// Start-of-day regions end on such a boundary.
const REGION_ALIGN: u64 = 4 << 20;
/// And have at least this much mapped room after the stack.
const REGION_PAD: u64 = 512 << 10;
/// A bound that no real domain reaches (1 PiB) and that keeps all sums below far from overflow.
const MAX_PAGES: u64 = 1 << 38;

impl Plan {
    /// Lays `kernel` out.
    ///
    /// # Errors
    /// Too little memory, or a region that cannot be mapped.
    pub fn new(kernel: &Kernel<'_>, request: &Request) -> Result<Self, LayoutError> {
        if request.pages > MAX_PAGES {
            return Err(LayoutError::TooLarge("the domain"));
        }
        if pages_for(request.ramdisk_len) > MAX_PAGES {
            return Err(LayoutError::TooLarge("the ramdisk"));
        }
        let virt_base = kernel.virt_base;
        let first = kernel.start >> PAGE_SHIFT;
        let kernel_span = Span { first: Pfn(first), pages: pages_for(kernel.end) - first };
        let mut next = Allocator { next: kernel_span.end() };
        if next.next > MAX_PAGES {
            return Err(LayoutError::TooSmall { need: next.next, have: request.pages });
        }

        let map_ramdisk = !kernel.notes.mod_start_pfn;
        let ramdisk_pages = pages_for(request.ramdisk_len);
        let place_ramdisk = |next: &mut Allocator| {
            let span = next.take(ramdisk_pages);
            (ramdisk_pages > 0).then_some(Ramdisk { span, len: request.ramdisk_len, mapped: map_ramdisk })
        };
        let list_pages = pages_for(request.pages * 8).max(1);
        let separate_p2m = kernel.notes.init_p2m.filter(|virt| separate(virt_base, *virt, list_pages));

        let mut ramdisk = None;
        if map_ramdisk {
            ramdisk = place_ramdisk(&mut next);
        }
        let list_in_region = separate_p2m.is_none().then(|| next.take(list_pages));
        let start_info = next.take(1).first;
        let (store, console) = match request.role {
            Role::Dom0 => (None, None),
            Role::DomU => (Some(next.take(1).first), Some(next.take(1).first)),
        };
        let main = main_area(virt_base, next.next)?;
        next.next = main.tables().end();
        let stack = next.take(1).first;
        next.next = main.first.0 + main.pages;

        let p2m = match (list_in_region, separate_p2m) {
            (None, Some(virt)) => {
                let list = next.take(list_pages);
                let own = Area::new(virt, list.first, list_pages, Pfn(next.next), 3);
                next.take(own.tables().pages);
                P2m { list, virt, own: Some(own) }
            }
            (list, _) => {
                // Always there when INIT_P2M is not used.
                let list = list.unwrap_or(Span { first: start_info, pages: 0 });
                P2m { list, virt: virt_base + (list.first.0 << PAGE_SHIFT), own: None }
            }
        };
        if !map_ramdisk {
            ramdisk = place_ramdisk(&mut next);
        }
        if next.next > request.pages {
            return Err(LayoutError::TooSmall { need: next.next, have: request.pages });
        }
        Ok(Self {
            pages: request.pages,
            virt_base,
            entry: kernel.entry,
            kernel: kernel_span,
            ramdisk,
            p2m,
            start_info,
            store,
            console,
            main,
            stack,
            hypercall_page: kernel.notes.hypercall_page.map(|va| Pfn((va - virt_base) >> PAGE_SHIFT)),
            needed: next.next,
        })
    }

    /// The virtual address of a frame of the mapped region.
    #[must_use]
    pub const fn virt(&self, pfn: Pfn) -> u64 {
        self.virt_base.wrapping_add(pfn.0 << PAGE_SHIFT)
    }

    /// The root of the page tables.
    #[must_use]
    pub const fn root(&self) -> Pfn {
        self.main.tables().first
    }

    /// Whether a frame is a page table, which must not be mapped writable.
    #[must_use]
    pub fn is_page_table(&self, pfn: Pfn) -> bool {
        self.main.tables().contains(pfn) || self.p2m.own.is_some_and(|own| own.tables().contains(pfn))
    }

    /// The 512 words of page `index` of the p2m list; entries past the domain's end are all ones.
    pub fn fill_p2m<F: FnMut(Pfn) -> xen_abi::ids::Mfn>(&self, index: u64, mut mfn: F, page: &mut [u64; 512]) {
        for (pfn, word) in (index * 512..).zip(page.iter_mut()) {
            *word = if pfn < self.pages { mfn(Pfn(pfn)).0 } else { u64::MAX };
        }
    }
}

struct Allocator {
    next: u64,
}

impl Allocator {
    const fn take(&mut self, pages: u64) -> Span {
        let span = Span { first: Pfn(self.next), pages };
        self.next += pages;
        span
    }
}

/// The mapped region, given where its tables start. The tables map themselves, so their number is a fixed point.
fn main_area(virt_base: u64, tables_at: u64) -> Result<Area, LayoutError> {
    let mut tables = 0;
    loop {
        // The stack page comes after the tables.
        let bytes = ((tables_at + tables + 1) << PAGE_SHIFT) + REGION_PAD;
        let wrong = LayoutError::AddressSpace { start: virt_base, end: virt_base.wrapping_add(bytes - 1) };
        let last = virt_base.checked_add(bytes - 1).ok_or(wrong)?;
        // In terms of the last byte, since the region may end where the address space does.
        let last = last | (REGION_ALIGN - 1);
        if !guest_range(virt_base, last) {
            return Err(wrong);
        }
        let pages = ((last - virt_base) >> PAGE_SHIFT) + 1;
        let area = Area::new(virt_base, Pfn(0), pages, Pfn(tables_at), 4);
        if area.tables().pages == tables {
            return Ok(area);
        }
        tables = area.tables().pages;
    }
}

/// Whether a PV guest may map `start..=last`: canonical, and outside of the hypervisor's hole.
fn guest_range(start: u64, last: u64) -> bool {
    const LOWER_END: u64 = 1 << 47;
    start <= last && (last < LOWER_END || start >= HYPERVISOR_VIRT_END)
}

/// Whether the p2m list can have tables of its own at INIT_P2M: a page boundary, the guest's part of the address
/// space, and no L4 entry in common with the region. Else the list goes into the region, which every kernel accepts,
/// since `start_info` says where it is.
fn separate(virt_base: u64, virt: u64, list_pages: u64) -> bool {
    const L4_SHIFT: u32 = 39;
    let Some(last) = virt.checked_add(list_pages * PAGE_SIZE - 1) else {
        return false;
    };
    // A region of more than 512 GiB from its base cannot be: the kernel is smaller, and the caller's plan is checked.
    let base_slot = virt_base >> L4_SHIFT;
    virt.is_multiple_of(PAGE_SIZE)
        && guest_range(virt, last)
        && (last >> L4_SHIFT < base_slot || virt >> L4_SHIFT > base_slot + 1)
}

//! PVH domains: kernels with a PHYS32_ENTRY note, and what lies where when they start (Xen's `docs/misc/pvh.pandoc`,
//! public `arch-x86/hvm/start_info.h`).
//!
//! Guest-physical memory as libxl 4.17 lays it out: RAM from 0 to at most [`LOW_END`], there the ACPI tables, the local
//! APIC's page, the special pages just below [`SPECIAL_END`], and what RAM is left from 4 GiB on. Kernel, start info and
//! ramdisk lie in this order from the kernel's own address on: the first page tables of a 32-bit Linux reach 2 MiB beyond the
//! kernel, and by them it reads the start info. (libxenguest puts it behind the ramdisk, which must be small then.)

mod acpi;
mod context;
mod kernel;
mod start_info;

use alloc::vec::Vec;

use xen_abi::ids::Pfn;
use xen_abi::memory::{E820Entry, e820};

pub use self::acpi::{Tables, apic_id};
pub use self::context::{BadContext, vcpu_states};
pub use self::kernel::Kernel;

use crate::error::LayoutError;
use crate::{PAGE_SHIFT, PAGE_SIZE, pages_for};

/// Where RAM below 4 GiB ends at the latest, and the ACPI tables begin (libacpi's ACPI_INFO_PHYSICAL_ADDRESS).
pub const LOW_END: u64 = 0xfc00_0000;
/// The local APIC's page (SDM vol. 3A, 11.4.1).
pub const LAPIC_BASE: u64 = 0xfee0_0000;
/// The special pages end here (libxenguest's X86_HVM_END_SPECIAL_REGION).
pub const SPECIAL_END: u64 = 0xff00_0000;
/// How many there are.
pub const SPECIAL_PAGES: u64 = 8;
const FOUR_GIB: u64 = 1 << 32;

/// Which special page is what, in libxenguest's order. Those that only a device model or a monitor uses are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// The xenstore ring.
    Store = 4,
    /// One page directory that maps 4 GiB as they are: VT-x without unrestricted guests runs unpaged code on it.
    IdentityMap = 6,
    /// The console ring.
    Console = 7,
}

impl Special {
    /// Its frame.
    #[must_use]
    pub const fn pfn(self) -> Pfn {
        Pfn((SPECIAL_END >> PAGE_SHIFT) - SPECIAL_PAGES + self as u64)
    }
}

/// A domain to lay out.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Pages of RAM.
    pub pages: u64,
    /// Bytes of the ramdisk; 0 for none.
    pub ramdisk_len: u64,
    /// The command line.
    pub cmdline: &'a [u8],
    /// vCPUs it can have.
    pub max_vcpus: u32,
    /// `SIF_*`.
    pub flags: u32,
}

/// What lies where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Pages of RAM from 0 on.
    pub low_pages: u64,
    /// Pages of RAM from 4 GiB on.
    pub high_pages: u64,
    /// The ramdisk: address and bytes.
    pub ramdisk: Option<(u64, u64)>,
    /// Address of the start info.
    pub start_info: u64,
    /// Its bytes, with all it points to.
    pub start_info_bytes: Vec<u8>,
    /// Address of the ACPI tables.
    pub tables_at: u64,
    /// Their bytes.
    pub tables: Vec<u8>,
    /// What the kernel is told about its memory.
    pub memory_map: Vec<E820Entry>,
}

impl Plan {
    /// Lays a domain out.
    ///
    /// # Errors
    /// It is too small, or something does not fit below 4 GiB.
    pub fn new(kernel: &Kernel<'_>, request: &Request<'_>) -> Result<Self, LayoutError> {
        let low_pages = request.pages.min(LOW_END >> PAGE_SHIFT);
        let high_pages = request.pages - low_pages;
        let tables = Tables::new(LOW_END, request.max_vcpus);
        let memory_map = memory_map(low_pages, high_pages, tables.bytes.len() as u64);

        let start_info = pages_for(kernel.end) << PAGE_SHIFT;
        let too_large = LayoutError::TooLarge("the ramdisk");
        let ramdisk_at = start_info
            .checked_add(start_info::len(request, &memory_map))
            .and_then(|end| end.checked_next_multiple_of(PAGE_SIZE))
            .ok_or(too_large)?;
        let ramdisk = (request.ramdisk_len > 0).then_some((ramdisk_at, request.ramdisk_len));
        let start_info_bytes = start_info::bytes(&start_info::Contents {
            at: start_info,
            ramdisk,
            rsdp: tables.rsdp,
            request,
            map: &memory_map,
        });
        let need = pages_for(ramdisk_at.checked_add(request.ramdisk_len).ok_or(too_large)?);
        if need > low_pages {
            let have = low_pages;
            let has_more = high_pages > 0;
            return Err(if has_more {
                LayoutError::NoRoomBelow4GiB { need, have }
            } else {
                LayoutError::TooSmall { need, have }
            });
        }
        let (tables_at, tables) = (LOW_END, tables.bytes);
        Ok(Self { low_pages, high_pages, ramdisk, start_info, start_info_bytes, tables_at, tables, memory_map })
    }

    /// The content of the page [`Special::IdentityMap`]: entries of 4 MiB (SDM vol. 3A, 4.3).
    #[must_use]
    pub fn identity_map() -> Vec<u8> {
        /// Present, writable, for user mode, accessed, dirty, large.
        const FLAGS: u32 = 0xe7;
        (0..1024u32).flat_map(|entry| (entry << 22 | FLAGS).to_le_bytes()).collect()
    }
}

fn memory_map(low_pages: u64, high_pages: u64, tables_len: u64) -> Vec<E820Entry> {
    let entry = |addr, pages: u64, type_| E820Entry { addr, size: pages << PAGE_SHIFT, type_ };
    let mut map = alloc::vec![
        entry(0, low_pages, e820::RAM),
        entry(LOW_END, pages_for(tables_len), e820::ACPI),
        entry(LAPIC_BASE, 1, e820::RESERVED),
        entry(SPECIAL_END - (SPECIAL_PAGES << PAGE_SHIFT), SPECIAL_PAGES, e820::RESERVED),
    ];
    if high_pages > 0 {
        map.push(entry(FOUR_GIB, high_pages, e820::RAM));
    }
    map
}

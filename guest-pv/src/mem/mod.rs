//! The guest's memory: pseudo-physical frames, the direct map, page tables, and windows onto other memory.
//!
//! All pseudo-physical memory is mapped linearly at [`DIRECT_MAP`]; [`init`] extends the mapping that the domain
//! builder made. Other machine frames (shared info, grants, other domains' memory, devices) get a [`window`].
//!
//! Unsafe: addresses of the direct map become pointers.

pub mod balloon;
pub mod contiguous;
pub mod frames;
pub mod shared;
pub mod table;
pub mod window;

use crate::boot::Boot;
use crate::call;
use crate::pvh;
use crate::traps;
use core::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use xen_abi::arch_x86::MACH2PHYS_VIRT_START;
use xen_abi::ids::{Mfn, Pfn};

pub use frames::Frame;
pub use shared::SharedBytes;
pub use window::{Access, MapError, Mapping};

/// Where pseudo-physical address 0 is mapped. Must agree with `guest.ld`.
pub const DIRECT_MAP: u64 = 0xffff_8800_0000_0000;
/// Bytes of a page.
pub const PAGE_SIZE: u64 = 4096;
/// [`PAGE_SIZE`] for slices.
pub const PAGE_BYTES: usize = 4096;
/// The entry of the frame list for a frame without memory.
const INVALID: u64 = u64::MAX;

/// The frame list that the builder left for us (`start_info.mfn_list`), indexed by pseudo-physical frame.
static P2M: AtomicPtr<AtomicU64> = AtomicPtr::new(core::ptr::null_mut());
static P2M_LEN: AtomicUsize = AtomicUsize::new(0);
static MAX_MFN: AtomicU64 = AtomicU64::new(0);

fn p2m_entry(pfn: Pfn) -> Option<&'static AtomicU64> {
    let base = P2M.load(Ordering::Relaxed);
    if base.is_null() || pfn.0 >= P2M_LEN.load(Ordering::Relaxed) as u64 {
        return None;
    }
    // SAFETY: the list has `P2M_LEN` entries, stays mapped for good and is only accessed through here.
    Some(unsafe { &*base.add(pfn.0 as usize) })
}

/// The machine frame behind a pseudo-physical frame.
pub fn p2m(pfn: Pfn) -> Option<Mfn> {
    if pvh::is_active() {
        return (pfn.0 < nr_frames()).then_some(Mfn(pfn.0));
    }
    match p2m_entry(pfn)?.load(Ordering::Relaxed) {
        INVALID => None,
        mfn => Some(Mfn(mfn)),
    }
}

/// The pseudo-physical frame that a machine frame backs, when it is this domain's.
pub fn m2p(mfn: Mfn) -> Option<Pfn> {
    if pvh::is_active() {
        return (mfn.0 < pvh::MAPPED).then_some(Pfn(mfn.0));
    }
    if mfn.0 >= MAX_MFN.load(Ordering::Relaxed) {
        return None;
    }
    // The table is not mapped where the machine has no memory.
    let pfn = Pfn(traps::peek(MACH2PHYS_VIRT_START + mfn.0 * 8)?);
    (p2m(pfn) == Some(mfn)).then_some(pfn)
}

/// The pseudo-physical frame of whatever other domain that a machine frame backs, as that domain says.
pub fn others_m2p(mfn: Mfn) -> Option<Pfn> {
    /// Addresses have 52 bits. More has `INVALID_M2P_ENTRY`, `SHARED_M2P_ENTRY`, and what Xen fills the table with.
    const END: u64 = 1 << 40;
    if mfn.0 >= MAX_MFN.load(Ordering::Relaxed) {
        return None;
    }
    let pfn = traps::peek(MACH2PHYS_VIRT_START + mfn.0 * 8).filter(|pfn| *pfn < END).map(Pfn)?;
    (p2m(pfn) != Some(mfn)).then_some(pfn)
}

/// The machine frame after the last that there is.
pub fn machine_end() -> u64 {
    MAX_MFN.load(Ordering::Relaxed)
}

/// Where a pseudo-physical frame is mapped.
pub const fn address(pfn: Pfn) -> u64 {
    DIRECT_MAP + pfn.0 * PAGE_SIZE
}

/// Pseudo-physical frames in the frame list, ballooned ones included.
pub fn nr_frames() -> u64 {
    P2M_LEN.load(Ordering::Relaxed) as u64
}

unsafe extern "C" {
    static __image_start: u8;
}

/// A page of the direct map that the hypervisor or another domain uses too.
pub(crate) fn shared_page(pfn: Pfn) -> &'static SharedBytes {
    // SAFETY: the callers name pages that are mapped for good and not in the allocator.
    let bytes = unsafe { SharedBytes::new(address(pfn) as *mut u8, PAGE_BYTES) };
    alloc::boxed::Box::leak(alloc::boxed::Box::new(bytes))
}

/// Takes over the memory: finds out what is free and maps all of it.
pub(crate) fn init(boot: &Boot) {
    P2M.store(boot.mfn_list as *mut AtomicU64, Ordering::Relaxed);
    P2M_LEN.store(boot.nr_pages as usize, Ordering::Relaxed);
    MAX_MFN.store(call::memory::maximum_ram_page().unwrap_or(0), Ordering::Relaxed);
    crate::console::init(boot);
    if pvh::is_active() {
        table::init_pvh();
        // Nothing before it is given out: the image, and what the builder put behind it.
        let first = pvh::first_free();
        frames::init(boot.nr_pages, first, |pfn| pfn > first);
        return;
    }
    table::init(boot.pt_base);

    // The region the builder set up: image, frame list, special pages, page tables, and the boot stack as its last.
    let first = ((&raw const __image_start) as u64 - DIRECT_MAP) / PAGE_SIZE;
    let last = (boot.pt_base - DIRECT_MAP) / PAGE_SIZE + boot.nr_pt_frames;
    let module = boot.mod_pfn..boot.mod_pfn + boot.mod_len.div_ceil(PAGE_SIZE);
    let in_module = |pfn: u64| boot.mod_len > 0 && module.contains(&pfn);
    let special = [m2p(boot.store_mfn), m2p(boot.console_mfn)];
    frames::init(boot.nr_pages, last + 1, |pfn| {
        !(first..=last).contains(&pfn)
            && !in_module(pfn)
            && !special.contains(&Some(Pfn(pfn)))
            && p2m(Pfn(pfn)).is_some()
    });
    table::map_all(boot.nr_pages);
}

/// The boot module (ramdisk), empty when there is none. The memory is never reused.
pub fn boot_module() -> &'static [u8] {
    let boot: &Boot = crate::boot();
    if boot.mod_len == 0 {
        return &[];
    }
    // SAFETY: `init` keeps these frames out of the allocator, they are mapped, and nothing writes to them.
    unsafe { core::slice::from_raw_parts(address(Pfn(boot.mod_pfn)) as *const u8, boot.mod_len as usize) }
}
